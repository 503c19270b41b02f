"""Columns of text into events: CSV, TSV and other delimited files. Ids stay text to the letter."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from recbench.data.sources.bad import BadRow, BadRows
from recbench.data.sources.base import Events, Progress
from recbench.data.sources.building import Builder, Lines
from recbench.data.sources.places import File
from recbench.data.sources.reading import blocks, cut_line, n_breaks, shown, text_stream
from recbench.errors import Exit, RecbenchError

SEPARATORS = (",", "\t", ";", "|")
END = "\0end of file"
"""In every cell of one more row behind the last line. Where it does not come out, a quote was never closed; no id holds a NUL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things stand in a delimited file. ``place``: role (user, item, rating, timestamp) -> column from 0."""

    separator: str
    header: Sequence[str] | None
    """The cells of the first line, None where that is a row."""
    n_columns: int
    place: Mapping[str, int]
    quotes: bool = True
    """May a cell stand in quotes? Not in the formats of the research world."""


def first_row(head: bytes) -> tuple[str, list[str]]:
    """The separator of a delimited file and the cells of its first line, byte-order mark and quotes removed."""
    line = head.decode("utf-8-sig", errors="replace").partition("\n")[0].rstrip("\r")
    separator = max(SEPARATORS, key=line.count)
    try:
        cells = next(csv.reader(io.StringIO(line), delimiter=separator), [])
    except csv.Error:  # a cell without end, a NUL
        cells = []
    return separator, [cell.strip() for cell in cells]


def read_delimited(
    file: File,
    layout: Layout,
    progress: Progress,
    bad: BadRows,
    *,
    notes: tuple[str, ...] = (),
    content: Iterator[bytes] | None = None,
) -> Events:
    """All rows as events. ``0205616461`` keeps its zero, ``5E10`` is no number.

    Args:
        content: in blocks, where it is not the file's own.

    Raises:
        RecbenchError: as :func:`add_delimited`.
    """
    builder = Builder(file, bad)
    return builder.finish((*notes, *add_delimited(builder, file, layout, progress, bad, content)))


def add_delimited(
    builder: Builder,
    file: File,
    layout: Layout,
    progress: Progress,
    bad: BadRows,
    content: Iterator[bytes] | None = None,
) -> tuple[str, ...]:
    """All rows behind what the builder holds; says what a reader of the card should know.

    Raises:
        RecbenchError: a damaged file, a last row that is cut, a quote that is not closed, or too many rows with other columns,
            an empty id, a rating or time that is none.
    """
    builder.begin(file, {role: layout.header[at] for role, at in layout.place.items()} if layout.header else {})
    ended = _Ended(blocks(file, progress) if content is None else content, layout)
    for columns, lines in _batches(file, layout, bad, ended):
        builder.add(columns, lines)
    inside = ended.n_inside
    return (f"{inside:,} line breaks in the source stand inside cells in quotes.",) if inside > 0 else ()


class _Ended:
    """The content with a row of ``END`` behind it, and what it shows once that is reached."""

    def __init__(self, content: Iterator[bytes], layout: Layout) -> None:
        self._content = content
        self._row = layout.separator.join([END] * layout.n_columns).encode()
        self.n_lines = 0
        self.whole = True
        """Does the last line end with a line break?"""
        self.n_inside = 0
        """Line breaks inside cells."""

    def __iter__(self) -> Iterator[bytes]:
        for block in self._content:
            if block:
                self.n_lines += n_breaks(block)
                self.whole = block.endswith((b"\n", b"\r"))
            yield block
        self.n_lines += not self.whole
        yield self._row if self.whole else b"\n" + self._row


def _batches(file: File, layout: Layout, bad: BadRows, ended: _Ended) -> Iterator[tuple[dict[str, pa.Array], Lines]]:
    """Columns by role, and the lines they stand on; rows that are no rows are left out here."""
    names = [f"column {place + 1}" for place in range(layout.n_columns)]
    wanted = {role: names[place] for role, place in layout.place.items()}
    skipped = _Skipped(file, layout, bad.limit)
    line, closed = 1 + (layout.header is not None), False
    try:
        for batch in _reader(layout, names, wanted, skipped, ended):
            n = batch.num_rows
            lines = skipped.lines(line, n)
            line = int(lines[-1]) + 1 if n else line
            columns = {role: batch.column(name) for role, name in wanted.items()}
            if n and columns["user"][n - 1].as_py() == END:
                closed, n, lines = True, n - 1, lines[:-1]
                skipped.check_last(line - 2, whole=ended.whole)
                ended.n_inside = ended.n_lines - (line - 2)
                columns = {role: column[:n] for role, column in columns.items()}
            skipped.count(bad, line)
            _check_breaks(file, columns, lines)
            yield _without_blank(columns, lines)
        skipped.count(bad, None)
    except pa.ArrowInvalid as error:
        skipped.count(bad, None)  # where they are too many, that is the reason
        raise _open_quote(file, line) if "straddling" in str(error) else _unreadable(file, layout, error) from error
    if not closed:
        raise _open_quote(file, skipped.open or line - 1)


def _reader(
    layout: Layout, names: list[str], wanted: Mapping[str, str], skipped: _Skipped, ended: _Ended
) -> Iterator[pa.RecordBatch]:
    yield from pa_csv.open_csv(
        text_stream(iter(ended)),
        read_options=pa_csv.ReadOptions(
            use_threads=False, column_names=names, skip_rows=int(layout.header is not None), block_size=1 << 22
        ),
        parse_options=pa_csv.ParseOptions(
            delimiter=layout.separator,
            quote_char='"' if layout.quotes else False,
            newlines_in_values=layout.quotes,
            ignore_empty_lines=False,
            invalid_row_handler=skipped,
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(wanted.values(), pa.string()), include_columns=list(wanted.values())
        ),
    )


class _Skipped:
    """Rows with another number of columns, as pyarrow comes to them."""

    def __init__(self, file: File, layout: Layout, limit: int) -> None:
        self._file = file
        self._layout = layout
        self._limit = limit
        self._rows: list[tuple[int, BadRow | None]] = []
        self._numbers: list[int] = []
        self._n_bad = 0
        self._short: tuple[int, bytes] = (0, b"")
        self.open: int | None = None
        """Of a row that holds the end of the file: its line."""

    def __call__(self, row: Any) -> str:
        number = int(row.number) if row.number is not None else 0
        text = row.text if isinstance(row.text, str) else bytes(row.text or b"").decode("utf-8", "replace")
        n, there = self._layout.n_columns, row.actual_columns
        self._numbers.append(number)
        if END in text:
            self.open = number
            return "skip"
        if not text.strip():
            self._rows.append((number, None))
            return "skip"
        n_lines = 1 + text.count("\n")
        over = f", over {n_lines:,} lines" if n_lines > 1 else ""
        what = f"has {there} column{'s' if there != 1 else ''} in place of {n}{over}: {shown(text.encode())}"
        why = f"Every row of this file needs {n} columns, separated by {_separator(self._layout)}."
        self._rows.append((number, BadRow(file=str(self._file), line=number, what=what, why=why, n_lines=n_lines)))
        self._n_bad += n_lines
        if there < n:
            self._short = number, text.encode()
        return "skip" if self._n_bad <= self._limit else "error"

    def check_last(self, number: int, *, whole: bool) -> None:
        """Refuse a file that ends in a row with too few columns, and without a line break: the rest of it is not there."""
        if not whole and self._short[0] == number:
            raise cut_line(self._file, *self._short)

    def count(self, bad: BadRows, before: int | None) -> None:
        """Tell of those that stand before a line."""
        while self._rows and (before is None or self._rows[0][0] < before):
            _, row = self._rows.pop(0)
            if row is not None:
                bad.add(row)

    def lines(self, begin: int, n: int) -> Lines:
        """The lines of the next ``n`` rows that were not skipped."""
        self._numbers = [number for number in self._numbers if number >= begin]
        if not self._numbers:
            return range(begin, begin + n)
        candidates = np.arange(begin, begin + n + len(self._numbers))
        return candidates[~np.isin(candidates, self._numbers)][:n]


def _without_blank(columns: dict[str, pa.Array], lines: Lines) -> tuple[dict[str, pa.Array], Lines]:
    """The columns without rows that hold nothing at all: blank lines."""
    if not (_lengths(columns["user"]) == 0).any():
        return columns, lines  # nearly every batch
    empty = [np.asarray(column.is_null()) | (_lengths(column) == 0) for column in columns.values()]
    blank = np.logical_and.reduce(empty)
    if not blank.any():
        return columns, lines
    kept = pa.array(~blank)
    return {role: column.filter(kept) for role, column in columns.items()}, np.asarray(lines)[~blank]


def _check_breaks(file: File, columns: Mapping[str, pa.Array], lines: Lines) -> None:
    """Refuse a cell of several lines where an id, a rating or a time is to stand."""
    for column in columns.values():
        held = column.buffers()[2]
        if held is not None and b"\n" in held.to_pybytes() and (at := pc.index(_broken(column), True).as_py()) >= 0:
            raise _open_quote(file, int(lines[at]))


def _broken(column: pa.Array) -> pa.Array:
    return pc.match_substring(column, "\n")


def _lengths(column: pa.Array) -> np.ndarray:
    return pc.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False)


def _separator(layout: Layout) -> str:
    return "tabs" if layout.separator == "\t" else repr(layout.separator)


def _open_quote(file: File, line: int) -> RecbenchError:
    return RecbenchError(
        f"A quote that opens on line {line:,} of {file} is not closed on it.",
        why="Everything up to the next quote, or to the end, would be one cell, and the events in it would be lost.",
        fix="Close it, or double it where it belongs to the text (sed -n "
        f"{line}p shows the line); if that line is the last one, the file was probably cut: get it again.",
        code=Exit.DATA,
    )


def _unreadable(file: File, layout: Layout, error: Exception) -> RecbenchError:
    return RecbenchError(
        f"{file} cannot be read as a table of {layout.n_columns} columns, separated by {_separator(layout)}.",
        why=shown(str(error).encode(), 200),
        fix="Mend that row, or say what the file is: --source-format ..., --columns user=...,item=...,timestamp=...",
        code=Exit.DATA,
    )
