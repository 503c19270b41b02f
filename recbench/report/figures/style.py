"""Colours, markers and dashes. Hues after Okabe and Ito (2008), darkened where white paper asks for it, and never alone:
each system has a marker and a dash of its own, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PALETTE = {
    "paper": "#fffffe",
    "ink": "#1b1f23",
    "muted": "#59626b",
    "rule": "#d7dce1",
    "band": "#e6edf3",
    "faint": "#a3abb3",
    "c1": "#0072b2",
    "c2": "#d05a00",
    "c3": "#00916b",
    "c4": "#bf6a9d",
    "c5": "#6f5a00",
    "c6": "#3c93c9",
    "c7": "#4a4f55",
    "c8": "#7d5134",
}
"""By the name of the page's CSS variable. Each value stands for one name only: inline figures are recoloured by it."""
DARK = {
    "paper": "#15191d",
    "ink": "#e9ecef",
    "muted": "#a7b0b8",
    "rule": "#373e45",
    "band": "#24303b",
    "faint": "#6b747d",
    "c1": "#58b4f0",
    "c2": "#ff9148",
    "c3": "#35d0a0",
    "c4": "#ea9fca",
    "c5": "#ffe680",
    "c6": "#a5dafc",
    "c7": "#cfd4d9",
    "c8": "#cda27c",
}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (6, 2)),
    (0, (1.5, 1.5)),
    (0, (6, 2, 1.5, 2)),
    (0, (10, 2)),
    (0, (3, 1)),
    (0, (4, 1, 1, 1)),
    (0, (8, 1.5, 1.5, 1.5, 1.5, 1.5)),
)
DISTINCT = len(_MARKERS)
"""So many systems can be told apart in one figure; the others are drawn faint, and named in the table."""
WIDTH = 5.3
"""Inches. Small enough that text stays readable where a phone shrinks the figure to its width."""
_LABEL = 30


@dataclass(frozen=True, slots=True)
class Style:
    """How a system is drawn, the same in every figure."""

    color: str
    marker: str
    dash: Any
    distinct: bool = True


FAINT = Style(PALETTE["faint"], "", "-", distinct=False)


def styles(labels: Sequence[str], first: Sequence[str] = ()) -> dict[str, Style]:
    """A style a label. Where there are more than can be told apart, ``first`` are those that get one of their own."""
    wanted = list(labels) if len(labels) <= DISTINCT else list(dict.fromkeys([*first, *labels]))[:DISTINCT]
    distinct = [label for label in labels if label in wanted]
    own = {
        label: Style(PALETTE[f"c{place + 1}"], _MARKERS[place], _DASHES[place]) for place, label in enumerate(distinct)
    }
    return {label: own.get(label, FAINT) for label in labels}


def short(label: str, width: int = _LABEL) -> str:
    """A label that fits a figure: its middle left out where it is too long. The table beside has all of it."""
    text = " ".join(label.split())
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}\N{HORIZONTAL ELLIPSIS}{text[-tail:]}"


def rc() -> dict[str, Any]:
    """matplotlib settings of all figures. Labels are other people's: none is read as mathematics."""
    ink, muted, rule = PALETTE["ink"], PALETTE["muted"], PALETTE["rule"]
    return {
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
        "text.parse_math": False,
        "axes.formatter.use_mathtext": False,
        "axes.unicode_minus": False,
        "font.family": "DejaVu Sans",
        "font.size": 11,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": muted,
        "axes.facecolor": "none",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "grid.color": rule,
        "grid.linewidth": 0.7,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "legend.frameon": False,
        "legend.fontsize": 10.5,
        "figure.facecolor": PALETTE["paper"],
        "figure.constrained_layout.use": True,
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "patch.linewidth": 0.8,
        "hatch.linewidth": 0.7,
    }
