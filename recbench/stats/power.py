"""What a comparison can see at all."""

from __future__ import annotations

import numpy as np

from recbench.stats.intervals import Spread
from recbench.stats.paired import Differences


def minimum_detectable(standard_error: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The true difference that a two-sided test at ``alpha`` finds with probability ``power``.

    ``(z(1 - alpha/2) + z(power)) * standard_error``: 2.80 sd/sqrt(n) over users at 5 % and 80 %.
    """
    from scipy.special import ndtri

    return float(ndtri(1 - alpha / 2) + ndtri(power)) * standard_error


def users_needed(
    d: Differences, spread: Spread, difference: float, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Users at which a true difference of this size is found with probability ``power``, whole.

    What the standard error holds besides users (training runs) stays as it is: where that alone hides the difference,
    no number of users is enough and the answer is infinite, as it is for a difference of 0 and for one user.
    """
    if d.n == 1 or difference == 0:
        return float("inf")
    runs = max(0.0, spread.standard_error**2 - d.standard_error**2)
    allowed = (abs(difference) / minimum_detectable(1.0, alpha=alpha, power=power)) ** 2 - runs
    return float(max(2, np.ceil(d.sd**2 / allowed))) if allowed > 0 else float("inf")
