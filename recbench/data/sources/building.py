"""From columns of raw text and numbers to events: ids coded, times in one unit, bad rows left out and counted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbench.data.sources.bad import BadRow, BadRows
from recbench.data.sources.base import Events
from recbench.data.sources.coding import Coder, Column, RawIds
from recbench.data.sources.places import File
from recbench.data.sources.times import RIGHT, Times

LONGEST_ID = 1_000
UNREADABLE = "an unreadable"
WHYS = {
    "bytes": "Text is read as UTF-8, and these bytes are something else.",
    "id": "An event needs a user and an item, each named by text without line breaks.",
    "rating": "A rating is a number, or empty.",
    "timestamp": f"An event without a time has no place in its user's sequence. {RIGHT}",
}
NEVER = (b"\0", b"\n", b"\r")
"""What no id holds: a file with an id a line, or a row, could not hold it."""
BLANKS = (b" ", b"\t", b"\r", b"\n", b"\v", b"\f", b"\x1c", b"\x1d", b"\x1e", b"\x1f")
Lines = range | np.ndarray
"""The line of each row of a batch, counted from 1."""


class Builder:
    """Takes batches of columns and gives events. One for each log: a file, or several behind one another."""

    def __init__(self, file: File, bad: BadRows) -> None:
        self._file = file
        self._bad = bad
        self._header: Mapping[str, str] = {}
        self._user, self._item, self._times = Coder(), Coder(), Times(file)
        self._ratings: Column | None = None
        self._lines: list[tuple[int, File, Lines]] = []
        self._rows = 0
        self._timed = False
        self.n_headers = 0
        """Header lines found further down."""

    def __len__(self) -> int:
        return self._rows

    def begin(self, file: File, header: Mapping[str, str]) -> None:
        """What is added from here on stands in ``file``. ``header``: role -> its name there, to find header lines further down."""
        self._file = file
        self._header = header

    def add(self, columns: Mapping[str, pa.Array], lines: Lines) -> None:
        """Take a batch of columns by role: ids and what a file gives as text; times and ratings may be numbers.

        Raises:
            RecbenchError: too many bad rows, or times in more than one unit.
        """
        wrong: dict[int, tuple[str, str]] = {}
        ids = {role: _Ids(columns[role]) for role in ("user", "item")}
        again = self._headers(ids)
        rating = _ratings(columns["rating"], wrong) if "rating" in columns else None
        times = None
        if "timestamp" in columns:
            self._timed = True
            times, unfit = self._times.read(_without(columns["timestamp"], again))
            wrong |= {at: (what, "timestamp") for at, what in unfit.items()}
        for role, column in ids.items():
            wrong |= {
                at: (f"has {what} {role}", "bytes" if what == UNREADABLE else "id") for at, what in column.wrong.items()
            }
        self._count(wrong, again, lines)
        good = None
        if wrong or len(again):
            good = np.ones(len(columns["user"]), dtype=bool)
            good[[*wrong, *again]] = False
            lines = np.asarray(lines)[good]
        self._user.add_encoded(*ids["user"].kept(good))
        self._item.add_encoded(*ids["item"].kept(good))
        if rating is not None:
            self._ratings = self._ratings or Column(np.float32)
            self._ratings.extend(rating if good is None else rating[good])
        if times is not None:
            self._times.keep(times if good is None else times[good])
        self._lines.append((self._rows, self._file, lines))
        self._rows += len(lines)

    def _headers(self, ids: Mapping[str, _Ids]) -> np.ndarray:
        """Rows that repeat the header: files put behind one another, header and all."""
        if not self._header:
            return np.empty(0, dtype=np.int64)
        users, items = (ids[role].rows_of(self._header[role]) for role in ("user", "item"))
        again = np.intersect1d(users, items)
        self.n_headers += len(again)
        return again

    def _count(self, wrong: dict[int, tuple[str, str]], again: np.ndarray, lines: Lines) -> None:
        for at in again.tolist():
            wrong.pop(at, None)
        for at in sorted(wrong):
            what, kind = wrong[at]
            file, fix = str(self._file), ""
            if kind == "bytes":
                fix = f"Convert it: iconv -f LATIN1 -t UTF-8 {shlex.quote(file)} > utf8.csv (or what it is in place of LATIN1)"
            self._bad.add(BadRow(file=file, line=int(lines[at]), what=what, why=WHYS[kind], fix=fix))

    def finish(self, notes: Sequence[str] = (), items: pd.DataFrame | None = None) -> Events:
        """All that was taken.

        Raises:
            RecbenchError: too many bad rows, or times in more than one unit.
        """
        timestamp, unit, unfit = self._times.settle() if self._timed else (None, None, {})
        for at in sorted(unfit):
            file, line = self._place(at)
            self._bad.add(BadRow(file=file, line=line, what=unfit[at], why="Such a time is no time of an event."))
        self._bad.check(self._rows + self._bad.n - len(unfit))
        good = None
        if unfit:
            good = np.ones(self._rows, dtype=bool)
            good[list(unfit)] = False
        user, user_ids = _recoded(self._user, good)
        item, item_ids = _recoded(self._item, good)
        headers = (f"{self.n_headers:,} repeated header lines in the source hold no event.",) if self.n_headers else ()
        return Events(
            user=user,
            item=item,
            rating=None if self._ratings is None else _good(self._ratings.values(), good),
            timestamp=None if timestamp is None else _good(timestamp, good),
            user_ids=user_ids,
            item_ids=item_ids,
            time_unit=unit,
            items=items,
            notes=(*notes, *headers, *self._bad.notes()),
        )

    def _place(self, row: int) -> tuple[str, int]:
        """File and line of a row."""
        begin, file, lines = next(held for held in reversed(self._lines) if held[0] <= row)
        return str(file), int(lines[row - begin])


class _Ids:
    """One batch of ids, each distinct one once."""

    def __init__(self, column: pa.Array) -> None:
        encoded = column.dictionary_encode(null_encoding="encode")
        self.distinct: pa.Array = encoded.dictionary
        self.indices: np.ndarray = encoded.indices.to_numpy()
        self.wrong: dict[int, str] = {}
        if _suspicious(self.distinct):
            for place, raw in enumerate(self.distinct.to_pylist()):
                if complaint := _complaint(raw):
                    self.wrong |= dict.fromkeys(np.flatnonzero(self.indices == place).tolist(), complaint)

    def rows_of(self, raw: str) -> np.ndarray:
        """Rows that hold exactly this text."""
        place = pc.index(self.distinct, raw).as_py()
        return np.flatnonzero(self.indices == place) if place >= 0 else np.empty(0, np.int64)

    def kept(self, good: np.ndarray | None) -> tuple[pa.Array, np.ndarray]:
        """Distinct ids in order of first appearance, and their places, of the good rows."""
        if good is None:
            return self.distinct, self.indices
        left, indices = np.unique(self.indices[good], return_inverse=True)
        return self.distinct.take(pa.array(left)), indices


def _suspicious(ids: pa.Array) -> bool:
    """Is any of them no id? All at once: most files have none."""
    lengths = pc.utf8_length(ids)
    if ids.null_count or (pc.max(lengths).as_py() or 0) > LONGEST_ID or pc.min(lengths).as_py() == 0:
        return True
    buffer = ids.buffers()[2]
    data = b"" if buffer is None else buffer.to_pybytes()
    if any(mark in data for mark in NEVER):
        return True
    blanks = not data.isascii() or any(blank in data for blank in BLANKS)
    return blanks and bool(pc.any(pc.utf8_is_space(ids)).as_py())


def _complaint(raw: str | None) -> str | None:
    if raw is None or not raw or raw.isspace():
        return "no"
    if "\0" in raw:
        return UNREADABLE
    if "\n" in raw or "\r" in raw:
        return "a many-line"
    return "an endless" if len(raw) > LONGEST_ID else None


def _without(column: pa.Array, rows: np.ndarray) -> pa.Array:
    """The column with some rows made empty."""
    if not len(rows):
        return column
    hidden = np.zeros(len(column), dtype=bool)
    hidden[rows] = True
    return pc.if_else(pa.array(hidden), pa.scalar(None, column.type), column)


def _ratings(column: pa.Array, wrong: dict[int, tuple[str, str]]) -> np.ndarray:
    """Ratings of a batch, NaN where there is none; what is no number goes to ``wrong``."""
    try:
        if pa.types.is_string(column.type):  # few different ones: each is read once
            encoded = column.dictionary_encode()
            column_values = encoded.dictionary.cast(pa.float32()).take(encoded.indices)
        else:
            column_values = column.cast(pa.float32())
        values = column_values.to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        texts = pc.utf8_trim_whitespace(column.cast(pa.string())).fill_null("").to_pandas()
        values = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float32)
        for at in np.flatnonzero(np.isnan(values) & (texts != "").to_numpy()).tolist():
            wrong[at] = (f"holds {texts.iloc[at][:40]!r} as its rating", "rating")
    for at in np.flatnonzero(np.isinf(values)).tolist():
        wrong[at] = ("has an endless rating", "rating")
    return values


def _recoded(coder: Coder, good: np.ndarray | None) -> tuple[np.ndarray, RawIds]:
    """Codes and ids of the good rows; None: all are. Ids that are gone leave no gap in the codes."""
    codes, ids = coder.codes(), coder.ids()
    if good is None:
        return codes, ids
    left, codes = np.unique(codes[good], return_inverse=True)
    return codes.astype(np.int32), ids.take(left)


def _good(values: np.ndarray, good: np.ndarray | None) -> np.ndarray:
    return values if good is None else values[good]
