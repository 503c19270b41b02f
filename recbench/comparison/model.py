"""What a comparison holds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from recbench.errors import RecbenchError
from recbench.evaluation.metrics import Metric, Ties
from recbench.stats.bayes import Posterior
from recbench.stats.intervals import Interval
from recbench.stats.paired import RESAMPLES, Differences
from recbench.stats.ranks import Friedman

Candidates = Literal["all", "unseen"]
Correction = Literal["holm", "bonferroni", "bh", "by"]
Test = Literal["t", "bootstrap", "randomisation", "wilcoxon", "sign", "mcnemar"]
Shown = Literal["t", "percentile", "bca", "two-way"]
Claim = Literal["difference", "superiority", "equivalence", "non-inferiority"]
TEST_NAMES: dict[Test, str] = {
    "t": "paired t",
    "bootstrap": "bootstrap",
    "randomisation": "sign-flip randomisation",
    "wilcoxon": "Wilcoxon signed-rank",
    "sign": "sign test",
    "mcnemar": "McNemar",
}
"""As a caption names them."""
CAUTIONS: dict[Test, str] = {
    "wilcoxon": "Wilcoxon leaves out the users on whom systems agree and weighs ranks, not gains: with equal means it may "
    "reject far more often than alpha.",
    "sign": "The sign test counts who is better and not by how much: with equal means it may reject far more often than "
    "alpha.",
}
"""Tests that answer another question than whether the means differ."""


class Verdict(StrEnum):
    """What may be said of a difference."""

    BETTER = "better"
    WORSE = "worse"
    BETTER_BUT_SMALL = "better, but below the smallest effect of interest"
    WORSE_BUT_SMALL = "worse, but below the smallest effect of interest"
    EQUIVALENT = "equivalent"
    NOT_WORSE = "not worse by more than the smallest effect of interest"
    UNDECIDED = "undecided"
    TOO_FEW = "too few users for a verdict"


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
    tests: tuple[Test, ...] = ("t",)
    """Over users. The first is the one that is corrected and decides; the others stand beside it."""
    interval: Shown = "t"
    """Which interval stands beside a difference. Verdicts rest on t whatever is shown."""
    claim: Claim = "difference"
    """What is to be shown: any difference, or one claim with its one-sided test and margin ``rope``."""
    wish: float | None = None
    """Difference one wants to be able to see, as a share of the control's mean; None: ``rope``."""
    slices: tuple[str, ...] = ()
    """``popularity``, ``length``, ``cold``, or ``FILE:COLUMN``: tables of parts of the queries."""

    def __post_init__(self) -> None:
        if not self.metrics:
            raise RecbenchError("No metric was asked for.", why="A comparison needs one.", fix="--metric ndcg@10")
        for name, value in (("alpha", self.alpha), ("power", self.power), ("rope", self.rope)):
            if not 0 < value < 1:
                raise ValueError(f"{name} is {value}; it lies between 0 and 1.")
        if not self.tests:
            raise RecbenchError("No test was asked for.", why="A comparison needs one.", fix="--test t")
        if self.claim != "difference" and self.tests[0] != "t":
            raise RecbenchError(
                f"--claim {self.claim} and --test {self.tests[0]} do not go together.",
                why="Claims of one side are tested by t over users, and over training runs where these are covered.",
                fix=f"--test t,{self.tests[0]}, or leave --claim out",
            )


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
    n_parameters: int | None
    """None where the source does not say: a result table, a TREC run."""
    ms_per_user: float | None
    """Mean over seeds, where the runs say."""
    training_seconds: float | None = None
    """All stages of training, those of the runs it went on from among them, without evaluation; mean over seeds that say."""
    peak_memory_mb: float | None = None
    """The most over seeds, MiB."""
    trials: int | None = None
    """Settings tried before this one was chosen; None where the run does not say."""
    source: str = "run"
    """What it was read from: ``run``, ``table``, ``trec`` or ``recbole``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A system's mean over users."""

    mean: float
    """Mean over seeds of the mean over users."""
    sd: float | None
    """Between seeds (n - 1); None with one run."""
    by_seed: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """One test over users, as it came out."""

    name: Test
    statistic: float
    p: float
    """Two-sided, uncorrected."""
    p_adjusted: float
    """Corrected over the same family as the contrast."""
    caution: str | None = None
    """What a reader must know before using this p; None for tests that hold their level here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """One-sided tests of three claims, each corrected over the family. Margin: ``rope``. Spread: as in ``interval``."""

    superiority: float
    """Adjusted p against "not better": the mean is above 0."""
    equivalence: float
    """Adjusted p of two one-sided tests: the mean lies inside +-``rope``."""
    non_inferiority: float
    """Adjusted p against "worse by ``rope`` or more"."""


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
    paired_runs: bool
    """Whether each run is held against the very run that it went on from, or that went on from the same weights."""
    standard_error: float
    """Behind ``interval``."""
    df: float
    """Behind ``interval``."""
    t: float
    """Statistic of the deciding test (``Settings.tests[0]``); t of the paired t over users by default."""
    p: float
    """Of the deciding test, two-sided."""
    p_adjusted: float
    """``p`` corrected over the family: the contrasts of one table on one metric."""
    p_seeds: float
    """Of t, the difference over its ``standard_error``: equals that of the paired t unless ``seeds_covered``."""
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
    tests: tuple[Tested, ...] = ()
    """Every test asked for, the deciding one first; ``t``, ``p`` and ``p_adjusted`` repeat the first."""
    bca: Interval | None = None
    """95 % bias-corrected and accelerated bootstrap over users."""
    two_way: Interval | None = None
    """95 % bootstrap over users x training runs, crossed; None where runs are not covered or nothing is random."""
    posterior: Posterior | None = None
    """Bayesian bootstrap over users: how probable worse, equal within ``rope``, and better are."""
    claims: Claims | None = None
    users_needed: float | None = None
    """Users at which the wished difference (``Settings.wish``) is seen with the power asked for; infinite where
    training noise alone hides it."""

    def shown(self, kind: Shown) -> Interval:
        """The interval of that kind; where there is none over users and runs, the percentile bootstrap over users."""
        if kind == "t":
            return self.interval
        return {"percentile": None, "bca": self.bca, "two-way": self.two_way}[kind] or self.bootstrap


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One system on one metric."""

    system: System
    metric: Metric
    score: Score
    contrast: Contrast | None
    """None for the baseline itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """All systems on some of the queries."""

    by: str
    """What was sliced: ``popularity``, ``length``, ``cold``, or a column's name."""
    name: str
    """Which part: ``cold``, ``head``, ``length 5-9``."""
    n_users: int
    rows: tuple[Row, ...]
    """As in ``Table.rows``. p corrected over all slices of ``by`` together. Few users: verdict ``TOO_FEW``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a system costs, and whether any other is at least as good and cheaper."""

    label: str
    n_parameters: int | None
    training_seconds: float | None
    ms_per_user: float | None
    peak_memory_mb: float | None
    trials: int | None
    on_front: dict[str, bool]
    """By cost (a field's name above) where it is known: True where no system with this cost known is better at no
    higher cost, or as good at a lower one. Quality: mean of the primary metric."""


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
    slices: tuple[Slice, ...] = ()
    costs: tuple[Cost, ...] = ()
    """In the order of ``systems``."""

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
class AgainstControl:
    """A system against the control, over datasets."""

    label: str
    z: float
    """Difference of mean ranks over its standard error; positive: the system ranks better than the control."""
    p: float
    p_adjusted: float
    """Holm over the systems."""
    posterior: Posterior
    """Bayesian signed-rank over the relative differences of the datasets; rope as in the settings, relative."""
    differences: tuple[float, ...]
    """Relative difference to the control by dataset, as a share of the control's mean; these are never averaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Across:
    """All systems that stand in every table, ranked over datasets, on one metric."""

    metric: Metric
    datasets: tuple[str, ...]
    labels: tuple[str, ...]
    """Best mean rank first."""
    ranks: tuple[tuple[float, ...], ...]
    """By dataset, then in the order of ``labels``; 1 is best, ties share their mean."""
    mean_ranks: tuple[float, ...]
    friedman: Friedman | None
    """None with two systems: there it would be a sign test."""
    critical_difference: float
    """Nemenyi: mean ranks further apart than this differ."""
    cliques: tuple[tuple[str, ...], ...]
    """Maximal runs of systems, by mean rank, that the Nemenyi test cannot tell apart: the bars of the diagram."""
    nemenyi: tuple[tuple[float, ...], ...]
    """p of each pair, in the order of ``labels``; already for the family of all pairs."""
    control: str
    against: tuple[AgainstControl, ...]
    """Every system but the control, in the order of ``labels``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One table a dataset. Scores are never averaged over datasets."""

    settings: Settings
    tables: tuple[Table, ...]
    warnings: tuple[str, ...] = ()
    """What concerns no single table."""
    across: tuple[Across, ...] = ()
    """By metric; empty where there is one dataset, or where ``across_refused`` says why not."""
    across_refused: str | None = None
    """Why several datasets were not tested together."""
