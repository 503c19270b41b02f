"""A comparison as plain text for a terminal: rules, no boxes, numbers right-aligned."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap

from recbench.comparison import Comparison, Row, Settings, Table
from recbench.report import words

WIDTH = 100
"""Columns that a reader could do without are left out of a wider table."""
_GAP = "  "
_ORACLE = "oracle"
"""Short, so that the table stays narrow; the caption says what it is."""


@dataclass(frozen=True, slots=True)
class _Column:
    head: str
    cells: tuple[str, ...]
    left: bool = False
    optional: bool = False

    @property
    def width(self) -> int:
        return max(map(len, (self.head, *self.cells)))

    def line(self, cell: str) -> str:
        return cell.ljust(self.width) if self.left else cell.rjust(self.width)


def render(comparison: Comparison) -> str:
    """Each dataset's table, its caption, and one verdict a system. Warnings are left to the caller."""
    return "\n".join(_table(table, comparison.settings) for table in comparison.tables)


def _table(table: Table, settings: Settings) -> str:
    columns = _columns(table, settings)
    while _width(columns) > WIDTH and any(column.optional for column in columns):
        columns.remove(next(column for column in reversed(columns) if column.optional))
    heads = [column.head for column in columns]
    body = zip(*(column.cells for column in columns), strict=True)
    lines = [
        words.title(table),
        _line(columns, heads),
        " " + "-" * (_width(columns) - 1),
        *[_line(columns, list(cells)) for cells in body],
        *_wrapped([*words.caption(table, settings), *_notes(table, settings)]),
        "",
        *_wrapped(words.sentences(table, settings)),
        "",
    ]
    return "\n".join(lines)


def _columns(table: Table, settings: Settings) -> list[_Column]:
    primary, *others = settings.metrics
    rows = table.on(primary)
    extra = 1 if table.oracle else 0
    blank = ("",) * extra
    level = words.percent(1 - settings.alpha, 0).replace(" ", "")
    columns = [
        _Column("system", tuple(row.system.label for row in rows) + (_ORACLE,) * extra, left=True),
        _Column("seeds", tuple(words.seeds(row) for row in rows) + blank),
    ]
    columns += [_Column(m.label, _scores(table, table.on(m), str(m))) for m in (primary, *others)]
    if len({row.contrast.against for row in rows if row.contrast}) > 1:
        columns.append(
            _Column("against", tuple(row.contrast.against if row.contrast else "" for row in rows) + blank, left=True)
        )
    columns.append(
        _Column(f"d {primary.label} [{level} CI]", tuple(words.difference(row.contrast) for row in rows) + blank)
    )
    columns.append(_Column("p  ", tuple(words.p_value(row.contrast) for row in rows) + blank))
    times = [row.system.ms_per_user for row in rows]
    if any(time is not None for time in times):
        cells = tuple("" if time is None else f"{time:.2f}" for time in times)
        columns.append(_Column("ms/user", cells + blank, optional=True))
    return columns


def _scores(table: Table, rows: tuple[Row, ...], metric: str) -> tuple[str, ...]:
    """Means aligned at their decimals, whether or not a +- follows."""
    cells = [words.score(row) for row in rows]
    if table.oracle:
        cells.append(f"{table.oracle[metric]:.4f}" if metric in table.oracle else "")
    width = max(map(len, cells))
    return tuple(cell.ljust(width) for cell in cells)


def _line(columns: list[_Column], cells: list[str]) -> str:
    joined = _GAP.join(column.line(cell) for column, cell in zip(columns, cells, strict=True))
    return f"{_GAP}{joined}".rstrip()


def _width(columns: list[_Column]) -> int:
    return sum(len(_GAP) + column.width for column in columns)


def _notes(table: Table, settings: Settings) -> list[str]:
    others = [metric.label for metric in settings.metrics[1:]]
    oracle = [f"{_ORACLE}: the best reachable score, known because the data was generated."] if table.oracle else []
    return [*oracle, *([f"Tests on {', '.join(others)}: --format markdown, csv or json."] if others else [])]


def _wrapped(texts: list[str]) -> list[str]:
    """Lines of at most the width; a number keeps its percent sign."""
    whole = [text.replace(" %", "\0%") for text in texts]
    lines = [
        wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) for text in whole
    ]
    return [line.replace("\0", " ") for wrapped in lines for line in wrapped]
