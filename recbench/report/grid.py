"""Tables in plain text: rules, no boxes, numbers right-aligned, folded where the page is narrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from unicodedata import combining, east_asian_width

GAP = "  "
LEAST_WIDTH = 60
FIRST_SHARE = 0.35
"""Most of the page that names may take; longer ones are broken into lines."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of text."""

    head: str
    cells: tuple[str, ...]
    left: bool = False
    optional: str = ""
    """A group of columns that is left out whole where the table would be too wide, the last one first. Empty: it stays."""

    @property
    def width(self) -> int:
        """Of its widest text."""
        return max(places(line) for text in (self.head, *self.cells) for line in text.split("\n"))

    def line(self, cell: str) -> str:
        """A cell at the column's width."""
        blank = " " * (self.width - places(cell))
        return cell + blank if self.left else blank + cell


def places(text: str) -> int:
    """Columns of a terminal that a text takes: a Chinese letter two, an accent of its own none."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def aligned(cells: Sequence[str]) -> tuple[str, ...]:
    """Cells padded on the right to one width, so that numbers stand under each other whatever follows them."""
    width = max(map(len, cells), default=0)
    return tuple(cell.ljust(width) for cell in cells)


def lines(columns: Sequence[Column], width: int) -> list[str]:
    """The table. Too wide: optional columns go, then what is left over stands below, behind the first column again."""
    chosen = list(columns)
    while _width(chosen) > width and (groups := [column.optional for column in chosen if column.optional]):
        chosen = [column for column in chosen if column.optional != groups[-1]]
    first, *others = chosen
    first = _narrowed(first, int(width * FIRST_SHARE))
    found: list[str] = []
    while others:
        fits = 1
        while fits < len(others) and _width([first, *others[: fits + 1]]) <= width:
            fits += 1
        found += ([""] if found else []) + _block([first, *others[:fits]])
        others = others[fits:]
    return found


def wrapped(texts: Sequence[str], width: int) -> list[str]:
    """Lines of at most ``width``; what follows the first is indented, and a number keeps its percent sign."""
    whole = [text.replace(" %", "\0%") for text in texts]
    folded = [
        wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) for text in whole
    ]
    return [line.replace("\0", " ") for part in folded for line in part]


def _narrowed(column: Column, limit: int) -> Column:
    """The same with long cells broken into lines."""
    if column.width <= limit:
        return column
    return Column(
        column.head, tuple("\n".join(wrap(cell, limit, subsequent_indent="  ")) for cell in column.cells), column.left
    )


def _block(columns: Sequence[Column]) -> list[str]:
    body = zip(*(column.cells for column in columns), strict=True)
    found = [_line(columns, [column.head for column in columns]), " " + "-" * (_width(columns) - 1)]
    for first, *others in body:
        top, *below = first.split("\n")
        found += [_line(columns, [top, *others]), *[f"{GAP}{line}" for line in below]]
    return found


def _line(columns: Sequence[Column], cells: Sequence[str]) -> str:
    joined = GAP.join(column.line(cell) for column, cell in zip(columns, cells, strict=True))
    return f"{GAP}{joined}".rstrip()


def _width(columns: Sequence[Column]) -> int:
    return sum(len(GAP) + column.width for column in columns)
