"""Bars: a metric by slice of users, shares by depth, and what a dataset holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from recbench.report.figures.lines import framed
from recbench.report.figures.shapes import Bars, Bins, Histogram
from recbench.report.figures.style import PALETTE, WIDTH, Style, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def by_group(bars: Bars, styles: Mapping[str, Style], metric: str) -> Figure:
    """A row a group, in it a line from 0 to the value of each system, its marker at the end.

    Lines with markers rather than filled bars: they stay apart with many systems and without colour.
    """
    labels = [label for label in bars.values if styles[label].distinct] or list(bars.values)
    others = [label for label in bars.values if label not in labels]
    step = 0.8 / max(1, len(labels))
    figure = framed(0.7 + len(bars.groups) * max(0.45, 0.16 * len(labels)), list(bars.values), styles, lines=False)
    ax = figure.subplots()
    for place, label in enumerate(labels):
        style = styles[label]
        at = [(y - 0.4 + (place + 0.5) * step, v) for y, v in enumerate(bars.values[label]) if v is not None]
        ys, xs = [y for y, _ in at], [x for _, x in at]
        ax.hlines(ys, 0, xs, color=style.color, linewidth=1.6)
        ax.plot(xs, ys, style.marker or ".", color=style.color, markersize=5, linestyle="none")
    for label in others:
        at = [(y, v) for y, v in enumerate(bars.values[label]) if v is not None]
        ax.plot([x for _, x in at], [y for y, _ in at], "|", color=PALETTE["faint"], markersize=8)
    rows = [f"{short(g, 20)}\n{n:,} users".replace(",", " ") for g, n in zip(bars.groups, bars.sizes, strict=True)]
    ax.set_yticks(range(len(bars.groups)), rows)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_ylim(len(bars.groups) - 0.5, -0.5)
    for y in range(1, len(bars.groups)):
        ax.axhline(y - 0.5, color=PALETTE["rule"], linewidth=0.7)
    ax.set_xlim(left=0)
    ax.set_xlabel(metric)
    ax.locator_params(axis="x", nbins=5)
    return figure


def depths(histograms: Sequence[Histogram]) -> Figure:
    """A panel a system: how many thought how long."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(WIDTH, 0.6 + 1.25 * len(histograms)))
    panels = figure.subplots(len(histograms), sharex=True, squeeze=False)[:, 0]
    for ax, histogram in zip(panels, histograms, strict=True):
        ax.bar(histogram.at, histogram.shares, width=0.8, color=PALETTE["c1"])
        ax.set_title(short(histogram.label, 48))
        ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        ax.yaxis.set_major_locator(MaxNLocator(nbins=3))
        ax.grid(visible=False, axis="x")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[-1].set_xlabel("reasoning steps")
    figure.supylabel("share", fontsize=11)
    return figure


def holdings(histograms: Sequence[Bins]) -> Figure:
    """A panel a histogram, a bar a bin from top to bottom: names may be long."""
    from matplotlib.figure import Figure

    heights = [len(bins.names) for bins in histograms]
    figure = Figure(figsize=(WIDTH, 0.5 + 0.7 * len(histograms) + 0.21 * sum(heights)))
    panels = figure.subplots(len(histograms), height_ratios=heights, squeeze=False)[:, 0]
    for ax, bins in zip(panels, histograms, strict=True):
        ax.barh(range(len(bins.names)), bins.counts, height=0.75, color=PALETTE["c1"])
        ax.set_yticks(range(len(bins.names)), bins.names)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(len(bins.names) - 0.4, -0.6)
        ax.set_title(f"{bins.title}: {bins.counted} by {bins.rows}")
        ax.grid(visible=False, axis="y")
        ax.locator_params(axis="x", nbins=5)
    return figure
