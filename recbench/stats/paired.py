"""Two systems judged on the same users: the differences, how large they are, and whether they could be chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RESAMPLES = 9_999
"""With the observed draw counted, p moves in steps of 1/10,000."""
DECIMALS = 12
"""Differences are rounded to this before they are counted: 0.3 - 0.2 and 0.1 are one value."""


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """Per-user differences as a histogram. Most users agree, so thousands of users make few distinct values.

    Every test here, and every test to come, follows from these two columns: they are the evidence of a comparison.
    """

    values: FloatArray
    """The distinct differences, ascending, (M,)."""
    counts: IntArray | FloatArray
    """Users at each, (M,); no whole numbers after ``coarse``."""

    @classmethod
    def between(cls, ours: FloatArray, theirs: FloatArray) -> Differences:
        """``ours - theirs``, user by user.

        Raises:
            ValueError: no users, not as many on both sides, or a value that is not finite.
        """
        if ours.shape != theirs.shape or ours.ndim != 1 or len(ours) == 0:
            raise ValueError(f"Paired systems need the same users, at least one; got {ours.shape} and {theirs.shape}.")
        d = np.round(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64), DECIMALS)
        if not np.isfinite(d).all():
            raise ValueError(f"{int((~np.isfinite(d)).sum())} of {len(d)} differences are not finite.")
        values, counts = np.unique(d + 0.0, return_counts=True)  # + 0.0: -0 and 0 are one value
        return cls(values, counts.astype(np.int64))

    @property
    def n(self) -> int:
        """Users."""
        return round(float(self.counts.sum()))

    @property
    def mean(self) -> float:
        """Mean difference; the value itself where all users share it."""
        return float(self.values[0]) if len(self.values) == 1 else float(self.values @ self.counts / self.n)

    @property
    def sd(self) -> float:
        """Standard deviation over users (n - 1); NaN for one user, 0 where all share a value."""
        if self.n == 1:
            return float("nan")
        return float(np.sqrt(((self.values - self.mean) ** 2) @ self.counts / (self.n - 1)))

    @property
    def standard_error(self) -> float:
        """Of the mean, over users; infinite for one user: one user says nothing of others."""
        return float("inf") if self.n == 1 else self.sd / float(np.sqrt(self.n))

    @property
    def better(self) -> float:
        """Share of users with a positive difference."""
        return float(self.counts[self.values > 0].sum() / self.n)

    @property
    def worse(self) -> float:
        """Share of users with a negative difference."""
        return float(self.counts[self.values < 0].sum() / self.n)

    @property
    def equal(self) -> float:
        """Share of users on whom the systems agree."""
        return float(self.counts[self.values == 0].sum() / self.n)

    @property
    def d_z(self) -> float:
        """Effect size: mean over sd. 0 where nobody differs, infinite where all differ by the same."""
        return _ratio(self.mean, self.sd)


def coarse(d: Differences, bins: int = 400) -> Differences:
    """The same differences on an even grid, where they take more values than ``bins``; else unchanged.

    Each is shared between its two neighbours on the grid in such parts that the mean stays as it is; counts are then no
    whole numbers. The variance grows by at most a quarter of the squared step, 1 in 640,000 of the squared range.
    """
    if len(d.values) <= bins:
        return d
    grid = np.linspace(d.values[0], d.values[-1], bins + 1)
    place = (d.values - grid[0]) / (grid[1] - grid[0])
    left = np.minimum(place.astype(np.int64), bins - 1)
    part = place - left
    counts = np.bincount(left, d.counts * (1 - part), bins + 1) + np.bincount(left + 1, d.counts * part, bins + 1)
    return Differences(grid[counts > 0], counts[counts > 0])


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a test: its statistic, its degrees of freedom where it has any, and the two-sided p."""

    statistic: float
    p: float
    df: float | None = None


def t_test(mean: float, standard_error: float, df: float) -> Outcome:
    """Two-sided t of a mean with a known standard error.

    Nothing varies (standard error 0): p is 1 if the mean is 0 too, and 0 if it is not, the limit.
    Nothing is known (infinite standard error, no degrees of freedom): p is 1.
    """
    from scipy.special import stdtr

    if not np.isfinite(standard_error) or df <= 0:
        return Outcome(0.0, 1.0, df)
    t = _ratio(mean, standard_error)
    return Outcome(t, 1.0 if t == 0 else float(2 * stdtr(df, -abs(t))), df)


def paired_t(d: Differences) -> Outcome:
    """Two-sided paired t over users. Would the difference hold for other users of these very systems?"""
    return t_test(d.mean, d.standard_error, d.n - 1)


def randomisation(d: Differences, *, resamples: int = RESAMPLES, seed: int = 0) -> Outcome:
    """Sign-flip randomisation test of the mean, two-sided; its statistic is the mean difference.

    Under the null each user's difference could as well have had the other sign. Of c users with the same ``|d|`` the
    number that flips is binomial(c, 1/2), so the cost goes with the distinct values, not with the users. The observed
    signs are one of the draws: p is (count + 1)/(resamples + 1) and never 0.

    Source: Phipson & Smyth, "Permutation p-values should never be zero", 2010, arXiv 1603.05766.
    """
    rng = np.random.default_rng(seed)
    sizes, place = np.unique(np.abs(d.values), return_inverse=True)
    users = np.bincount(place, weights=d.counts).astype(np.int64)
    sums = np.zeros(resamples)
    alone = sizes[users == 1]
    for start in range(0, len(alone), _SIGNS_AT_ONCE):  # a size that one user has takes one fair sign
        some = alone[start : start + _SIGNS_AT_ONCE]
        sums += (2.0 * rng.integers(2, size=(resamples, len(some)), dtype=np.int8) - 1.0) @ some
    for size, count in zip(sizes, users, strict=True):
        if size > 0 and count > 1:
            sums += size * (2 * rng.binomial(count, 0.5, size=resamples) - count)
    slack = 1e-9 * float(sizes @ users)  # equal sums must count as equal, whatever the order they were added in
    extreme = int((np.abs(sums) >= abs(d.mean * d.n) - slack).sum())
    return Outcome(d.mean, (extreme + 1) / (resamples + 1))


_SIGNS_AT_ONCE = 256


def _ratio(mean: float, spread: float) -> float:
    if spread == 0:
        return 0.0 if mean == 0 else float(np.copysign(np.inf, mean))
    return mean / spread
