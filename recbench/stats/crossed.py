"""Users and training runs resampled together. They are crossed, not nested: every run ranks every user."""

from __future__ import annotations

import numpy as np

from recbench.stats.intervals import Interval
from recbench.stats.paired import FloatArray

RESAMPLES = 2_000
"""Of users x runs."""
_DRAWS_AT_ONCE = 1 << 22


def resampled_run_means(values_UR: FloatArray, resamples: int = RESAMPLES, seed: int = 0) -> FloatArray:
    """Mean of every run over users drawn with replacement, the same draw for all runs, ``(resamples, R)``.

    The order of the users does not matter, and users whom every run scores 0 cost nothing.

    Args:
        values_UR: metric of each user under each run.
    """
    rng = np.random.default_rng(seed)
    n = len(values_UR)
    rare_UR = values_UR[values_UR.any(axis=1)]
    rare_UR = rare_UR[np.lexsort(rare_UR.T)]
    means = np.zeros((resamples, values_UR.shape[1]))
    if not len(rare_UR):
        return means
    drawn = rng.binomial(n, len(rare_UR) / n, size=resamples)
    step = max(1, _DRAWS_AT_ONCE // len(rare_UR))
    for start in range(0, resamples, step):
        some = drawn[start : start + step]
        users = rng.integers(len(rare_UR), size=int(some.sum()), dtype=np.int32)
        cell = users + np.repeat(np.arange(len(some), dtype=np.int64) * len(rare_UR), some)
        weights = np.bincount(cell, minlength=len(some) * len(rare_UR)).reshape(len(some), -1)
        means[start : start + step] = weights.astype(np.float64) @ rare_UR / n
    return means


def two_way_bootstrap(
    ours_NS: FloatArray,
    theirs_NS: FloatArray,
    level: float = 0.95,
    *,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a difference over other users and other training runs.

    Each resample draws users once for both systems, and runs for each system on its own: seed 3 of one has nothing to
    do with seed 3 of the other. (Where runs are paired, give the differences within pairs, and zeros as one run.) With
    S runs the spread between drawn runs is too small by (S - 1)/S in variance; their deviation is scaled up by
    sqrt(S/(S - 1)). Under five runs so few can be drawn that the interval is coarse.

    Args:
        ours_NS: resampled means of each run, from ``resampled_run_means``. One run: a deterministic system.
        theirs_NS: the same of the other system, from the same draw of users.

    Source: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics, 2007.
    """
    rng = np.random.default_rng(seed)
    drawn = _over_runs(ours_NS, rng) - _over_runs(theirs_NS, rng)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def _over_runs(means_NS: FloatArray, rng: np.random.Generator) -> FloatArray:
    n, s = means_NS.shape
    equal = means_NS.mean(axis=1)
    if s == 1:
        return equal
    weights = rng.multinomial(s, np.full(s, 1 / s), size=n) / s
    return equal + np.sqrt(s / (s - 1)) * ((weights - 1 / s) * means_NS).sum(axis=1)
