"""Curves: quality by epoch of training, or by the number of reasoning steps at test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recbench.report.figures.shapes import Line
from recbench.report.figures.style import PALETTE, WIDTH, Style, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_EVERY_POINT = 12
"""Lines of at most so many points show each of them."""
_NAME = 0.22
"""Inches a line of names."""


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
    from matplotlib.ticker import MaxNLocator

    figure = framed(3.0, [line.label for line in lines], styles)
    ax = figure.subplots()
    for line in sorted(lines, key=lambda line: styles[line.label].distinct):
        _draw(ax, line, styles[line.label])
    ax.set_xlabel(axes[0])
    ax.set_ylabel(axes[1])
    if whole_x:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    return figure


def framed(height: float, labels: Sequence[str], styles: Mapping[str, Style], *, lines: bool = True) -> Figure:
    """A figure whose frame is about ``height`` inches tall, below the names of what can be told apart.

    Systems drawn faint share one entry. The figure grows with its names, so that these never squeeze the frame.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    distinct = [label for label in dict.fromkeys(labels) if styles[label].distinct]
    handles = [_handle(styles[label], short(label), lines=lines) for label in distinct]
    if (others := len(set(labels)) - len(distinct)) > 0:
        name = f"{others} other{'' if others == 1 else 's'}, see the table"
        line: dict[str, Any] = {"linestyle": "-", "linewidth": 1.0} if lines else {"linestyle": "", "marker": "."}
        handles.append(Line2D([], [], color=PALETTE["faint"], label=name, **line))
    longest = max((len(short(label)) for label in labels), default=0)
    columns = 1 if longest > 22 else 2 if longest > 10 else 3
    figure = Figure(figsize=(WIDTH, height + _NAME * -(-len(handles) // columns)))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, handlelength=3 if lines else 1.2)
    return figure


def _handle(style: Style, name: str, *, lines: bool) -> Line2D:
    from matplotlib.lines import Line2D

    dash: Any = style.dash if lines else ""
    return Line2D([], [], color=style.color, marker=style.marker, linestyle=dash, label=name)


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
