"""One-sided claims about a mean difference: better, equivalent, not worse."""

from __future__ import annotations

import numpy as np

from recbench.stats.intervals import Spread


def superiority(mean: float, spread: Spread) -> float:
    """One-sided p against "the mean is 0 or less"."""
    return _above(mean, spread)


def non_inferiority(mean: float, spread: Spread, margin: float) -> float:
    """One-sided p against "worse by ``margin`` or more"."""
    return _above(mean + margin, spread)


def equivalence(mean: float, spread: Spread, margin: float) -> float:
    """p of two one-sided tests (TOST) against "off by ``margin`` or more": the greater of the two.

    Below ``alpha`` exactly where the ``1 - 2 alpha`` interval lies inside +-``margin``.

    Source: Schuirmann, J. Pharmacokinetics and Biopharmaceutics, 1987.
    """
    return max(_above(mean + margin, spread), _above(margin - mean, spread))


def _above(distance: float, spread: Spread) -> float:
    """P(T >= distance / standard error). Nothing known: 1/2 would be a guess, so it is 1; nothing varies: the limit."""
    from scipy.special import stdtr

    if not np.isfinite(spread.standard_error) or spread.df <= 0:
        return 1.0
    if spread.standard_error == 0:
        return 0.0 if distance > 0 else 1.0
    return float(stdtr(spread.df, -distance / spread.standard_error))
