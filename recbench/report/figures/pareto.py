"""Quality against what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from recbench.report.figures.lines import framed
from recbench.report.figures.shapes import Point
from recbench.report.figures.style import PALETTE, Style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDE = 20.0
"""Costs that differ by more than this factor stand on a logarithmic axis."""


def pareto(points: Sequence[Point], styles: Mapping[str, Style], axes: tuple[str, str]) -> Figure:
    """A marker a system; a step line through those that nothing beats."""
    figure = framed(2.9, [p.label for p in points], styles, lines=False)
    ax = figure.subplots()
    best = sorted((p for p in points if p.front), key=lambda p: p.cost)
    ax.step(
        [p.cost for p in best], [p.quality for p in best], where="post", color=PALETTE["ink"], linewidth=1, zorder=1
    )
    for point in sorted(points, key=lambda p: styles[p.label].distinct):
        style = styles[point.label]
        ax.plot(
            point.cost,
            point.quality,
            style.marker or ".",
            color=style.color,
            markerfacecolor=style.color if point.front else PALETTE["paper"],
            markersize=8 if style.distinct else 5,
            markeredgewidth=1.6,
        )
    costs = [p.cost for p in points]
    if min(costs) > 0 and max(costs) / min(costs) > _WIDE:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
    else:
        ax.locator_params(axis="x", nbins=6)
    ax.margins(0.08)
    ax.set_xlabel(axes[0])
    ax.set_ylabel(axes[1])
    return figure
