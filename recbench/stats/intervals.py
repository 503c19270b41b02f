"""How far a mean difference may be from the truth: over users, and over users and training runs together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recbench.stats.paired import RESAMPLES, Differences, FloatArray, IntArray, Outcome, coarse


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval of a mean difference."""

    low: float
    high: float
    level: float

    def excludes(self, value: float) -> bool:
        """Whether ``value`` lies outside."""
        return value < self.low or value > self.high

    def within(self, low: float, high: float) -> bool:
        """Whether all of it lies in ``[low, high]``."""
        return low <= self.low and self.high <= high


@dataclass(frozen=True, slots=True)
class Spread:
    """The standard error of a difference and the degrees of freedom behind it."""

    standard_error: float
    df: float


def over_users(d: Differences) -> Spread:
    """Other users, the same trained systems: sd/sqrt(n), n - 1."""
    return Spread(d.standard_error, d.n - 1)


def over_users_and_seeds(d: Differences, ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Other users and other training runs: ``var(d)/n + tau_A^2/S_A + tau_B^2/S_B``, with Welch-Satterthwaite df.

    Args:
        d: differences of users, each averaged over seeds first.
        ours: mean over users of each run of system A; empty for a deterministic system, whose tau is 0.
        theirs: the same of system B. Seed 3 of A has nothing to do with seed 3 of B: they are not paired. Where each run of A went
            on from a run of B they are: then ``ours`` holds the differences within the pairs, and ``theirs`` is empty.

    Raises:
        ValueError: one run only: its tau is unknown, not 0.
    """
    terms = [(d.standard_error**2, d.n - 1)]
    for means in (ours, theirs):
        if len(means) == 1:
            raise ValueError("One run says nothing of the spread between runs; pass none for a deterministic system.")
        if len(means) > 0:
            terms.append((float(np.var(means, ddof=1)) / len(means), len(means) - 1))
    return together(terms)


def together(terms: Sequence[tuple[float, float]]) -> Spread:
    """Independent parts of a variance, each with its degrees of freedom: Welch-Satterthwaite (those of the first if all are 0)."""
    variance = sum(part for part, _ in terms)
    if not np.isfinite(variance) or variance == 0:
        return Spread(float(np.sqrt(variance)), terms[0][1])
    return Spread(float(np.sqrt(variance)), variance**2 / sum(part**2 / df for part, df in terms if part > 0))


def t_interval(mean: float, spread: Spread, level: float = 0.95) -> Interval:
    """The t interval. Unbounded where nothing is known of the spread, a point where nothing varies."""
    from scipy.special import stdtrit

    if not np.isfinite(spread.standard_error) or spread.df <= 0:
        return Interval(-np.inf, np.inf, level)
    half = float(stdtrit(spread.df, (1 + level) / 2)) * spread.standard_error
    return Interval(mean - half, mean + half, level)


def bootstrap(d: Differences, level: float = 0.95, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The percentile bootstrap interval over users. A single user resamples to itself and gives a point."""
    return percentile(resampled_means(d, resamples, seed), level)


def percentile(means: FloatArray, level: float = 0.95) -> Interval:
    """The central share ``level`` of resampled means."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def bca(d: Differences, means: FloatArray, level: float = 0.95) -> Interval:
    """The bias-corrected and accelerated bootstrap interval over users: second-order right where d is skewed.

    Args:
        d: the differences.
        means: from ``resampled_means(d)``.
        level: of the interval.

    Source: Efron, "Better bootstrap confidence intervals", JASA, 1987; the acceleration is the jackknife's.
    """
    from scipy.special import ndtr, ndtri

    below = float((means < d.mean - _EQUAL).mean() + (means <= d.mean + _EQUAL).mean()) / 2
    if not d.sd > 0 or not 0 < below < 1:  # sd is NaN for one user
        return percentile(means, level)
    away = d.values - d.mean
    acceleration = float(away**3 @ d.counts) / (6 * float(away**2 @ d.counts) ** 1.5)
    bias = float(ndtri(below))
    z = bias + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.quantile(means, ndtr(bias + z / (1 - acceleration * z)))
    return Interval(float(low), float(high), level)


def bootstrap_test(d: Differences, means: FloatArray) -> Outcome:
    """Two-sided bootstrap test of the mean: how often a resample strays as far from the mean as 0 lies.

    The observed sample is one of the draws: p is (count + 1)/(resamples + 1) and never 0.

    Args:
        d: the differences.
        means: from ``resampled_means(d)``.
    """
    extreme = int((np.abs(means - d.mean) >= abs(d.mean) - _EQUAL).sum())
    return Outcome(d.mean, (extreme + 1) / (len(means) + 1))


def resampled_means(d: Differences, resamples: int = RESAMPLES, seed: int = 0) -> FloatArray:
    """Means of ``resamples`` samples of n users drawn with replacement, (resamples,).

    How often each distinct difference is drawn is multinomial. Where most users agree and the others differ in many
    ways (several seeds a system), drawing only those that differ from the majority is quicker and the same in law; where
    they are many as well, their differences are put on a grid first (``coarse``).
    """
    rng = np.random.default_rng(seed)
    many = (d.counts.sum() - d.counts.max()) > _BINS * _DRAWS_PER_BINOMIAL
    d = coarse(d, _BINS) if many else d
    common = int(np.argmax(d.counts))
    offsets, counts = np.delete(d.values - d.values[common], common), np.delete(d.counts, common)
    rare = round(float(counts.sum()))
    if rare == 0:
        return np.full(resamples, d.mean)
    if many or len(counts) * _DRAWS_PER_BINOMIAL <= rare:  # on the grid users are no whole numbers
        weights = rng.multinomial(d.n, np.append(counts, d.counts[common]) / d.n, size=resamples)
        sums = weights[:, :-1] @ offsets
    else:
        sums = _sums_of_draws(
            np.repeat(offsets, counts.astype(np.int64)), rng.binomial(d.n, rare / d.n, size=resamples), rng
        )
    return sums / d.n + d.values[common]


def _sums_of_draws(pool: FloatArray, drawn: IntArray, rng: np.random.Generator) -> FloatArray:
    """For each entry of ``drawn``, the sum of so many values of ``pool`` drawn with replacement."""
    sums = np.zeros(len(drawn))
    rows = max(1, _DRAWS_AT_ONCE // max(1, int(drawn.max())))
    for start in range(0, len(drawn), rows):
        some = np.flatnonzero(drawn[start : start + rows]) + start  # reduceat has no empty sum
        if len(some):
            firsts = np.concatenate([[0], np.cumsum(drawn[some])])
            values = pool[rng.integers(len(pool), size=firsts[-1], dtype=np.int32)]
            sums[some] = np.add.reduceat(values, firsts[:-1])
    return sums


_EQUAL = 1e-12
"""Means this near are one: sums in another order."""
_DRAWS_AT_ONCE = 1 << 18
"""Fits a core's second-level cache."""
_BINS = 400
_DRAWS_PER_BINOMIAL = 16
"""Users drawn one by one in the time of one binomial draw, measured."""
