"""What a comparison can see at all."""

from __future__ import annotations

import numpy as np

from recbench.stats.intervals import Spread, together
from recbench.stats.paired import Differences

_MOST = 10**12
"""More users than anybody has."""


def minimum_detectable(spread: Spread, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The true difference that one two-sided t test at ``alpha`` finds with probability ``power``, by the noncentral t.

    At 5 % and 80 % that is 2.80 standard errors over many users, 3.76 with 4 degrees of freedom, 5.65 with 2.
    """
    if not np.isfinite(spread.standard_error) or spread.df <= 0:
        return float("inf")
    return _errors(spread.df, alpha, power) * spread.standard_error


def users_needed(
    d: Differences, spread: Spread, difference: float, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Users at which a true difference of this size is found with probability ``power``, whole.

    What the standard error holds besides users (training runs) stays as it is, and so do its degrees of freedom: where that
    alone hides the difference, no number of users is enough and the answer is infinite, as it is for a difference of 0 and for
    one user.
    """
    if d.n == 1 or difference == 0:
        return float("inf")
    users = d.standard_error**2
    runs = max(0.0, spread.standard_error**2 - users)
    per_df = spread.standard_error**4 / spread.df - users**2 / (d.n - 1)
    runs_df = runs**2 / per_df if per_df > 0 else float("inf")

    def sees(n: int) -> bool:
        at_n = together([(d.sd**2 / n, n - 1), (runs, runs_df)])
        return minimum_detectable(at_n, alpha=alpha, power=power) <= abs(difference)

    if not sees(_MOST):
        return float("inf")
    low, high = 1, _MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if sees(middle) else (middle, high)
    return float(high)


def _errors(df: float, alpha: float, power: float) -> float:
    """The smallest visible difference in standard errors."""
    from scipy.special import nctdtrinc, stdtrit

    return float(nctdtrinc(df, 1 - power, stdtrit(df, 1 - alpha / 2)))
