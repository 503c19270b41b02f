"""Systems with the metrics of their users, and the rows that come of holding them against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recbench.comparison.contrast import Raw, Side, raw_contrast
from recbench.comparison.model import Row, Score, Settings, System
from recbench.comparison.systems import Group
from recbench.evaluation.by_user import Places
from recbench.evaluation.metrics import Metric
from recbench.stats.crossed import resampled_run_means, two_way_bootstrap
from recbench.stats.intervals import Interval
from recbench.stats.paired import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A system with its metrics by user and run."""

    system: System
    values: Mapping[Metric, FloatArray]
    """(users, runs)."""
    origins: tuple[str | None, ...]
    """``Run.origin`` of each."""

    def side(self, metric: Metric) -> Side:
        """What a contrast needs of it. A deterministic system has no spread between runs."""
        values = self.values[metric]
        seeds = () if self.system.deterministic else self.seeds(metric)
        return Side(self.system.label, values.mean(axis=1), seeds)

    def seeds(self, metric: Metric) -> tuple[float, ...]:
        """Mean over users of each run."""
        return tuple(float(mean) for mean in self.values[metric].mean(axis=0))

    def score(self, metric: Metric) -> Score:
        """Mean over users and runs, and the spread between runs."""
        means = self.seeds(metric)
        sd = float(np.std(means, ddof=1)) if len(means) > 1 else None
        return Score(mean=float(np.mean(means)), sd=sd, by_seed=means)

    def row(self, metric: Metric) -> Row:
        """Its row, without a contrast."""
        return Row(system=self.system, metric=metric, score=self.score(metric), contrast=None)


def scored(system: System, places: Sequence[Places], settings: Settings) -> Scored:
    """A system's metrics, each run's users in the same order."""
    values = {
        metric: np.stack([place.values(metric, settings.candidates, settings.ties) for place in places], axis=1)
        for metric in settings.metrics
    }
    return Scored(system, values, tuple(place.run.origin for place in places))


def raw_contrasts(
    metric: Metric, systems: Mapping[str, Scored], baselines: Mapping[str, Group], settings: Settings, *, two_way: bool
) -> dict[str, Raw]:
    """Every system against its baseline on one metric, uncorrected.

    Args:
        metric: which.
        systems: by label.
        baselines: of each label that has one.
        settings: of the comparison.
        two_way: also resample users and training runs together, where both sides have enough runs.
    """
    raw = {}
    for label, baseline in baselines.items():
        ours, theirs = systems[label], systems[baseline.label]
        pairs = _pairs(ours, theirs)
        both = _two_way(metric, ours, theirs, settings, pairs) if two_way else None
        raw[label] = raw_contrast(ours.side(metric), theirs.side(metric), settings, both, pairs)
    return raw


def _pairs(ours: Scored, theirs: Scored) -> list[int] | None:
    """For each of our runs the one of theirs that shares its training up to where one of them went on from the other, or both from
    a third; None unless that pairs all of them, and where nothing is random."""
    mine, other = ours.origins, theirs.origins
    one_each = len(set(mine)) == len(mine) == len(other) and None not in mine and set(mine) == set(other)
    if not one_each or ours.system.deterministic or theirs.system.deterministic:
        return None
    return [other.index(start) for start in mine]


def _two_way(
    metric: Metric, ours: Scored, theirs: Scored, settings: Settings, pairs: Sequence[int] | None
) -> Interval | None:
    """Other users and other runs; nothing where nothing is random, or where a side has a single random run."""
    pair = (ours.system, theirs.system)
    if any(len(s.seeds) == 1 and not s.deterministic for s in pair) or all(s.deterministic for s in pair):
        return None
    values = [s.values[metric] for s in (ours, theirs)]
    means = resampled_run_means(np.concatenate(values, axis=1), seed=settings.seed)
    ours_NS, theirs_NS = np.split(means, [values[0].shape[1]], axis=1)
    if pairs is not None:  # one draw of runs for both sides
        ours_NS, theirs_NS = ours_NS - theirs_NS[:, pairs], np.zeros((len(means), 1))
    return two_way_bootstrap(ours_NS, theirs_NS, 1 - settings.alpha, seed=settings.seed)
