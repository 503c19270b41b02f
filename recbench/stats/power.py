"""What a comparison can see at all."""

from __future__ import annotations


def minimum_detectable(standard_error: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The true difference that a two-sided test at ``alpha`` finds with probability ``power``.

    ``(z(1 - alpha/2) + z(power)) * standard_error``: 2.80 sd/sqrt(n) over users at 5 % and 80 %.
    """
    from scipy.special import ndtri

    return float(ndtri(1 - alpha / 2) + ndtri(power)) * standard_error
