"""What a comparison holds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from recbench.errors import RecbenchError
from recbench.evaluation.metrics import Metric, Ties
from recbench.stats.intervals import Interval
from recbench.stats.paired import RESAMPLES, Differences

Candidates = Literal["all", "unseen"]
Correction = Literal["holm", "bonferroni", "bh"]


class Verdict(StrEnum):
    """What may be said of a difference."""

    BETTER = "better"
    WORSE = "worse"
    BETTER_BUT_SMALL = "better, but below the smallest effect of interest"
    WORSE_BUT_SMALL = "worse, but below the smallest effect of interest"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How runs are compared."""

    metrics: tuple[Metric, ...] = (Metric("ndcg", 10), Metric("hr", 10))
    """The first is the primary one: it carries the verdict."""
    baseline: str | None = None
    """Label of the system all others are held against; None: see ``systems.controls``."""
    correction: Correction = "holm"
    candidates: Candidates = "all"
    ties: Ties = "expected"
    alpha: float = 0.05
    power: float = 0.8
    """Of the smallest visible difference."""
    rope: float = 0.01
    """Half the region of practical equivalence, as a share of the control's mean: the smallest effect of interest."""
    resamples: int = RESAMPLES
    """Of the bootstrap."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        if not self.metrics:
            raise RecbenchError("No metric was asked for.", why="A comparison needs one.", fix="--metric ndcg@10")
        for name, value in (("alpha", self.alpha), ("power", self.power), ("rope", self.rope)):
            if not 0 < value < 1:
                raise ValueError(f"{name} is {value}; it lies between 0 and 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Runs that differ in nothing but their seed."""

    label: str
    """``sasrec``, ``sasrec+lares``; with the settings that differ where two systems would share it."""
    backbone: str
    head: str
    config_sha256: str
    loss: str
    inputs: dict[str, Any]
    """What it sees of a history."""
    seeds: tuple[int, ...]
    folders: tuple[str, ...]
    """Of the runs, in the order of ``seeds``."""
    deterministic: bool
    """Solved in closed form: one run is all there is, and its spread over seeds is 0."""
    tied: float
    """Share of users whose target ties with another candidate, mean over seeds."""
    n_parameters: int
    ms_per_user: float | None
    """Mean over seeds, where the runs say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A system's mean over users."""

    mean: float
    """Mean over seeds of the mean over users."""
    sd: float | None
    """Between seeds (n - 1); None with one run."""
    by_seed: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A system minus its baseline, on one metric."""

    against: str
    """Label of the baseline."""
    control_mean: float
    """The baseline's mean."""
    mean: float
    relative: float | None
    """``mean`` as a share of the baseline's mean; None where that is 0."""
    interval: Interval
    """95 % t interval: over users, and over training runs too where ``seeds_covered``."""
    inner_interval: Interval
    """The 90 % interval of the equivalence test."""
    bootstrap: Interval
    """95 % percentile bootstrap over users."""
    seeds_covered: bool
    """Whether the spread between training runs is in ``interval``: each side is deterministic or has two runs."""
    standard_error: float
    """Behind ``interval``."""
    df: float
    """Behind ``interval``."""
    t: float
    """Paired t over users."""
    p: float
    """Of ``t``, two-sided."""
    p_adjusted: float
    """``p`` corrected over the family: the contrasts of one table on one metric."""
    p_seeds: float
    """Of the difference over its ``standard_error``: equals ``p`` unless ``seeds_covered``."""
    p_seeds_adjusted: float
    d_z: float
    better: float
    """Share of users."""
    worse: float
    equal: float
    minimum_detectable: float
    """Smallest true difference this contrast finds with the power asked for."""
    rope: float
    """Smallest effect of interest, in units of the metric."""
    verdict: Verdict
    differences: Differences
    """The histogram of per-user differences: any other test over users follows from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One system on one metric."""

    system: System
    metric: Metric
    score: Score
    contrast: Contrast | None
    """None for the baseline itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The systems of one dataset."""

    dataset: str
    fingerprint: str
    protocol: dict[str, Any]
    n_users: int
    n_items: int | None
    systems: tuple[System, ...]
    rows: tuple[Row, ...]
    """By metric in the order of the settings, then by system in the order of ``systems``."""
    reference: str
    """Label of the baseline of systems that have no control of their own."""
    oracle: dict[str, float]
    """Best reachable score by metric, where the data was made with a known best ranking."""
    warnings: tuple[str, ...]
    """What a reader must know before believing the table."""

    def on(self, metric: Metric) -> tuple[Row, ...]:
        """The rows of one metric."""
        return tuple(row for row in self.rows if row.metric == metric)

    def family(self, metric: Metric) -> int:
        """Contrasts that were corrected together."""
        return sum(row.contrast is not None for row in self.on(metric))

    def row(self, label: str, metric: Metric) -> Row:
        """The row of the system ``label``."""
        return next(row for row in self.on(metric) if row.system.label == label)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One table a dataset. Scores are never averaged over datasets."""

    settings: Settings
    tables: tuple[Table, ...]
    warnings: tuple[str, ...] = ()
    """What concerns no single table."""
