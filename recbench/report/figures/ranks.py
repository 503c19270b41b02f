"""The critical-difference diagram.

Source: Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006, section 3.2.
"""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING

from recbench.report.figures.shapes import Ranks
from recbench.report.figures.style import PALETTE, WIDTH, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE = 0.30
"""Inches a label."""


def critical_difference(ranks: Ranks) -> Figure:
    """An axis of mean ranks, best left; labels below; a thick bar joins what is not told apart."""
    from matplotlib.figure import Figure

    means, groups = ranks.mean_ranks, ranks.cliques
    levels = 1 + len(groups) + len(means)
    figure = Figure(figsize=(WIDTH, 1.15 + _LINE * levels))
    ax = figure.subplots()
    low, high = floor(min(means)), max(ceil(max(means)), floor(min(means)) + 1)
    margin = 0.02 * (high - low)
    for level, (first, last) in enumerate(groups):
        y = 0.9 + level
        ax.plot([means[first] - margin, means[last] + margin], [y, y], color=PALETTE["c2"], linewidth=4)
    for place, label in enumerate(ranks.labels):
        y = 1.4 + len(groups) + place
        _leader(ax, means[place], y, f"{short(label, 30)}  {means[place]:.2f}", (low, high))
    ax.plot([low, low + ranks.critical], [-1.2, -1.2], color=PALETTE["ink"], marker="|", linewidth=1.5)
    ax.text(low, -1.45, f"critical difference {ranks.critical:.2f}", va="bottom")
    ax.set_xlim(low - margin, max(high, low + ranks.critical) + margin)
    ax.set_ylim(levels + 0.9, -2.3)
    ax.xaxis.set_ticks_position("bottom")
    ax.spines["bottom"].set_position(("data", 0))
    ax.spines["left"].set_visible(False)
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.tick_params(axis="x", direction="in", pad=-14)
    ax.set_xticks(range(low, high + 1))
    return figure


def _leader(ax: Axes, x: float, y: float, text: str, span: tuple[int, int]) -> None:
    """From the axis down to the label, which stands on the side where there is room."""
    right = x < sum(span) / 2
    ax.plot([x, x], [0, y], color=PALETTE["muted"], linewidth=0.9)
    ax.plot([x], [0], "o", color=PALETTE["ink"], markersize=4, clip_on=False)
    gap = 0.015 * (span[1] - span[0])
    ax.text(x + (gap if right else -gap), y, text, va="bottom", ha="left" if right else "right")
