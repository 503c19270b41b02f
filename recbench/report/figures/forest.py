"""Differences with their intervals, one line a system, over the region of practical equivalence; and values that move."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING

from recbench.report.figures.shapes import Effect, Moved
from recbench.report.figures.style import PALETTE, WIDTH, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOOK = {
    "better": ("c1", "^", True),
    "worse": ("c2", "v", True),
    "equivalent": ("c7", "s", True),
    "not worse": ("c3", "D", True),
    "undecided": ("muted", "o", False),
}
"""Colour, marker, filled."""


def forest(effects: Sequence[Effect], metric: str, level: str = "95 %") -> Figure:
    """A row an effect, first on top; ``level`` is that of the intervals."""
    from matplotlib.figure import Figure

    several = len({effect.against for effect in effects}) > 1
    figure = Figure(figsize=(WIDTH, 1.35 + (0.42 if several else 0.34) * len(effects)))
    ax = figure.subplots()
    left, right = _reach(effects)
    for y, effect in enumerate(effects):
        name, marker, filled = _LOOK[effect.kind]
        color = PALETTE[name]
        ax.fill_betweenx([y - 0.5, y + 0.5], -effect.rope, effect.rope, color=PALETTE["band"], linewidth=0)
        low, high = max(effect.low, left), min(effect.high, right)
        ax.plot([low, high], [y, y], color=color, linewidth=2, solid_capstyle="butt")
        face = color if filled else PALETTE["paper"]
        ax.plot([effect.mean], [y], marker, color=color, markerfacecolor=face, markersize=7, markeredgewidth=1.5)
    ax.axvline(0, color=PALETTE["ink"], linewidth=0.9)
    against = f"\nagainst {short(effects[0].against)}" if not several else "\nagainst the system named"
    ax.set_xlabel(f"difference in {metric}, {level} CI{against}")
    rows = [short(e.label, 26) + (f"\nagainst {short(e.against, 18)}" if several else "") for e in effects]
    ax.set_yticks(range(len(effects)), rows)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_ylim(len(effects) - 0.5, -0.5)
    ax.set_xlim(left, right)
    ax.locator_params(axis="x", nbins=5)
    _legend(figure, effects)
    return figure


def moves(moved: Sequence[Moved], what: str) -> Figure:
    """A row a value, its range over draws as a line, 0 where it was."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(WIDTH, 0.8 + 0.34 * len(moved)))
    ax = figure.subplots()
    color = PALETTE["c1"]
    for y, row in enumerate(moved):
        ax.plot([row.low, row.high], [y, y], color=color, linewidth=2, solid_capstyle="butt")
        ax.plot([row.mean], [y], "o", color=color, markersize=6)
    ax.axvline(0, color=PALETTE["ink"], linewidth=0.9)
    ax.set_xlabel(what)
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    ax.set_yticks(range(len(moved)), [short(row.label, 26) for row in moved])
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_ylim(len(moved) - 0.5, -0.5)
    ax.locator_params(axis="x", nbins=5)
    return figure


def _reach(effects: Sequence[Effect]) -> tuple[float, float]:
    """The axis: 0, the bands and every finite end are inside."""
    ends = [v for e in effects for v in (e.mean, e.low, e.high, 1.5 * e.rope, -1.5 * e.rope) if isfinite(v)]
    low, high = min([*ends, -1e-6]), max([*ends, 1e-6])
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def _legend(figure: Figure, effects: Sequence[Effect]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Line2D | Patch] = []
    for kind, (name, marker, filled) in _LOOK.items():
        if any(effect.kind == kind for effect in effects):
            face = PALETTE[name] if filled else PALETTE["paper"]
            handles.append(Line2D([], [], color=PALETTE[name], marker=marker, markerfacecolor=face, label=kind))
    handles.append(Patch(facecolor=PALETTE["band"], edgecolor=PALETTE["rule"], label="practically equal"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=1.4, columnspacing=1.2)
