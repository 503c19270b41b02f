"""p-values of a family, adjusted: each can be held against the level directly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down: the i-th smallest times m - i + 1, never below a smaller one. Holds the family-wise error."""
    order, m = np.argsort(p, kind="stable"), len(p)
    return _placed(order, np.maximum.accumulate(np.asarray(p, float)[order] * np.arange(m, 0, -1)))


def bonferroni(p: Sequence[float]) -> list[float]:
    """Each p times m. Holds the family-wise error; never sees more than Holm."""
    return _placed(np.arange(len(p)), np.asarray(p, float) * len(p))


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Step-up: the i-th smallest times m/i, never above a larger one. Holds the false discovery rate."""
    return _step_up(p, 1.0)


def benjamini_yekutieli(p: Sequence[float]) -> list[float]:
    """Benjamini-Hochberg times 1 + 1/2 + .. + 1/m: holds the false discovery rate however the tests depend."""
    return _step_up(p, float((1 / np.arange(1, len(p) + 1)).sum()))


CORRECTIONS: dict[str, Callable[[Sequence[float]], list[float]]] = {
    "holm": holm,
    "bonferroni": bonferroni,
    "bh": benjamini_hochberg,
    "by": benjamini_yekutieli,
}
NAMES = {"holm": "Holm", "bonferroni": "Bonferroni", "bh": "Benjamini-Hochberg", "by": "Benjamini-Yekutieli"}
"""As a caption names them."""


def _step_up(p: Sequence[float], factor: float) -> list[float]:
    order, m = np.argsort(p, kind="stable"), len(p)
    scaled = np.asarray(p, float)[order] * m / np.arange(1, m + 1) * factor
    return _placed(order, np.minimum.accumulate(scaled[::-1])[::-1])


def _placed(order: np.ndarray, sorted_p: np.ndarray) -> list[float]:
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(sorted_p, 1.0)
    return [float(value) for value in adjusted]
