"""Curves: quality by epoch of training, or by the number of reasoning steps at test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from recbench.report.figures.shapes import Line
from recbench.report.figures.style import PALETTE, WIDTH, Style, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EVERY_POINT = 12
"""Lines of at most so many points show each of them."""


def curves(
    lines: Sequence[Line], styles: Mapping[str, Style], axes: tuple[str, str], *, whole_x: bool = True
) -> Figure:
    """All lines in one frame; the faint ones lie below.

    Args:
        lines: runs of one system share its style, and are named once.
        styles: by label.
        axes: names of x and y.
        whole_x: x counts something.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(WIDTH, 3.5))
    ax = figure.subplots()
    for line in sorted(lines, key=lambda line: styles[line.label].distinct):
        _draw(ax, line, styles[line.label])
    ax.set_xlabel(axes[0])
    ax.set_ylabel(axes[1])
    if whole_x:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    legend(figure, [line.label for line in lines], styles)
    return figure


def legend(figure: Figure, labels: Sequence[str], styles: Mapping[str, Style], *, lines: bool = True) -> None:
    """Names of what can be told apart, above the frame; one entry for all the others."""
    from matplotlib.lines import Line2D

    distinct = [label for label in dict.fromkeys(labels) if styles[label].distinct]
    handles = [
        Line2D(
            [],
            [],
            color=styles[label].color,
            marker=styles[label].marker,
            linestyle=styles[label].dash if lines else "",
            label=short(label),
        )
        for label in distinct
    ]
    if len(distinct) < len(set(labels)):
        n = len(set(labels)) - len(distinct)
        name = f"{n} other{'' if n == 1 else 's'}, see the table"
        handles.append(
            Line2D(
                [],
                [],
                color=PALETTE["faint"],
                linestyle="-" if lines else "",
                marker="" if lines else ".",
                linewidth=1,
                label=name,
            )
        )
    longest = max((len(short(label)) for label in labels), default=0)
    columns = 1 if longest > 24 else 2 if longest > 11 else 3
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, handlelength=3 if lines else 1.2)


def _draw(ax: Axes, line: Line, style: Style) -> None:
    every = len(line.x) <= _EVERY_POINT and style.distinct
    ax.plot(
        line.x,
        line.y,
        color=style.color,
        linestyle=style.dash,
        linewidth=1.6 if style.distinct else 0.7,
        marker=style.marker if every else "",
        markersize=4,
    )
    if line.picked is not None and style.distinct:
        ax.plot(line.x[line.picked], line.y[line.picked], style.marker, color=style.color, markersize=8)
    for x in line.breaks:
        ax.axvline(x, color=style.color, linewidth=0.8, linestyle=":")
