"""The critical-difference diagram.

Source: Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import TYPE_CHECKING

from recbench.report.figures.shapes import Ranks
from recbench.report.figures.style import PALETTE, WIDTH, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE, _LETTER = 0.29, 0.092
"""Inches: height of a label, width of a letter."""


def critical_difference(ranks: Ranks) -> Figure:
    """An axis of mean ranks, best left; a thick bar joins what is not told apart.

    Labels stand left of the line that leads to them, the best on top, so that no line crosses a label.
    """
    from matplotlib.figure import Figure

    means, groups, names = ranks.mean_ranks, ranks.cliques, _names(ranks)
    levels = len(groups) + len(means)
    figure = Figure(figsize=(WIDTH, 1.0 + _LINE * levels))
    ax = figure.subplots()
    low, high = floor(min(means)), max(ceil(max(means)), floor(min(means)) + 1)
    left, right = _room(means, names, low, max(high, low + ranks.critical))
    half = 0.004 * (right - left)
    for level, (first, last) in enumerate(groups):
        y = 0.8 + level
        ax.plot([means[first] - 4 * half, means[last] + 4 * half], [y, y], color=PALETTE["c2"], linewidth=4)
    for place, (x, name) in enumerate(zip(means, names, strict=True)):
        y = 1.2 + len(groups) + place
        ax.plot([x, x], [0, y], color=PALETTE["muted"], linewidth=0.9)
        ax.plot([x], [0], "o", color=PALETTE["ink"], markersize=4, clip_on=False)
        ax.text(x - 3 * half, y, name, va="center", ha="right")
    ax.plot([low, low + ranks.critical], [-1.4, -1.4], color=PALETTE["ink"], marker="|", linewidth=1.5)
    ax.text(low, -1.65, f"critical difference {ranks.critical:.2f}", va="bottom")
    _axis(ax, (low, high), (left, right), levels)
    return figure


def _names(ranks: Ranks) -> list[str]:
    return [f"{short(label, 26)}  {mean:.2f}" for label, mean in zip(ranks.labels, ranks.mean_ranks, strict=True)]


def _room(means: Sequence[float], names: Sequence[str], low: float, high: float) -> tuple[float, float]:
    """Ends of the axis in ranks, with room for each label left of its line."""
    left = float(low)
    for _ in range(20):  # the wider the axis, the more ranks a label covers
        inch = (high - left) / (WIDTH - 0.3)
        left = min(low, *(x - inch * (_LETTER * len(name) + 0.15) for x, name in zip(means, names, strict=True)))
    return left - 0.01 * (high - left), high + 0.02 * (high - left)


def _axis(ax: Axes, span: tuple[int, int], ends: tuple[float, float], levels: int) -> None:
    """The axis at the top, from the best whole rank to the worst."""
    ax.set_xlim(*ends)
    ax.set_ylim(levels + 0.9, -2.4)
    ax.spines["bottom"].set_position(("data", 0))
    ax.spines["bottom"].set_bounds(*span)
    ax.spines["left"].set_visible(False)
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.tick_params(axis="x", direction="in", pad=-16)
    ax.set_xticks(range(span[0], span[1] + 1, max(1, (span[1] - span[0]) // 8)))
