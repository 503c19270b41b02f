"""What a page is made of, before any HTML: sections of sentences, tables and figures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from recbench.report.figures.drawing import Drawing

Mark = Literal["", "best", "second"]


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table."""

    text: str
    sort: float | None = None
    """What the column is sorted by; None: the text."""
    mark: Mark = ""
    note: str = ""
    """What stands behind a short text, such as a verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table. The first cell of each row names the row."""

    name: str
    """Of its element: lower case, digits, dashes; each once a page."""
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    foot: tuple[tuple[Cell, ...], ...] = ()
    """Rows that stay below, however the table is sorted."""
    notes: tuple[str, ...] = ()
    texts: frozenset[int] = frozenset()
    """Columns of text, set to the left, besides the first."""
    interactive: bool = False
    """Sorted and filtered by the reader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A figure with its numbers."""

    drawing: Drawing
    numbers: Grid
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A verdict: its kind, its system and the sentence."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """What is opened on demand: terms and texts of a run or a system."""

    title: str
    terms: tuple[tuple[str, str], ...] = ()
    pre: str = ""
    """Text as it stands in a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A part of a section, in the order of its fields."""

    title: str = ""
    lead: tuple[str, ...] = ()
    verdicts: tuple[Judged, ...] = ()
    warnings: tuple[str, ...] = ()
    terms: tuple[tuple[str, str], ...] = ()
    grids: tuple[Grid, ...] = ()
    panels: tuple[Panel, ...] = ()
    folds: tuple[Fold, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section of the page; without blocks it is left out."""

    name: str
    title: str
    blocks: tuple[Block, ...] = ()
    lead: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The whole report."""

    title: str
    subtitle: str
    command: tuple[str, ...] = ()
    """What was typed, word by word, each fit for a shell."""
    sections: tuple[Section, ...]

    @property
    def drawings(self) -> tuple[Drawing, ...]:
        """Every figure, in order."""
        return tuple(p.drawing for s in self.sections for b in s.blocks for p in b.panels)


def slug(*parts: str) -> str:
    """Lower case letters, digits and dashes: fit for an id and a file name. Other letters are told apart by a hash."""
    text = "-".join(parts).lower()
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in text)
    lost = any(c.isalnum() and not c.isascii() for c in text)
    digest = [hashlib.sha256(text.encode()).hexdigest()[:8]] if lost else []
    return "-".join([*(part for part in kept.split("-") if part), *digest]) or "x"


def number(value: float | None, decimals: int = 4, mark: Mark = "") -> Cell:
    """A number with its decimals; an empty cell where there is none."""
    return Cell("") if value is None else Cell(f"{value:.{decimals}f}", sort=value, mark=mark)
