"""One unit for a whole column of times: seconds, milliseconds or ISO text, by magnitude. A mixture is refused.

A time that is none, before 1970 or in the future makes its row a bad row; the column goes on without it.
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbench.data.sources.coding import Column
from recbench.data.sources.places import File
from recbench.errors import Exit, RecbenchError

MILLISECONDS_FROM = 1e11
"""As seconds this is the year 5138, as milliseconds March 1973: nobody's log is in between."""
TOO_FINE_FROM = 1e14
DAYS_AS_NUMBERS = (19_700_101, 21_001_231)
TOLERANCE = 86_400
"""Seconds that a time may lie ahead of this machine's clock: time zones, and clocks that go wrong."""
RIGHT = "A time is a number of seconds or milliseconds since 1970, or ISO text such as 2014-05-13T08:30:00Z."
Bad = dict[int, str]
"""Place of a bad row -> what is wrong with its time."""


class Times:
    """Collects a column of times batch by batch and settles its unit at the end."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._values = Column(np.int64)
        self._kinds: dict[str, str] = {}

    def read(self, column: pa.Array) -> tuple[np.ndarray, Bad]:
        """The times of one batch as numbers, and what is wrong with those that are none: text, numbers or timestamps.

        Raises:
            RecbenchError: dates and numbers stand in one column.
        """
        bad: Bad = {}
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            kind, values = "dates", _milliseconds(column)
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            kind, values, bad = self._text(column)
        elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            kind, values = "numbers", _numbers(column)
        else:
            raise self._error(f"times are of type {column.type}", RIGHT, "Write the column as numbers or ISO text.")
        if column.null_count:
            bad |= {int(at): "has no time" for at in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))}
        if kind == "numbers" and values.dtype.kind == "f":
            odd = np.flatnonzero(~np.isfinite(values)).tolist()
            bad |= {at: f"holds {column[at].as_py()!r} as its time" for at in odd if at not in bad}
            values = np.where(np.isfinite(values), values, 0)
        if len(bad) < len(column):
            good = next(at for at in range(len(column)) if at not in bad)
            self._kinds.setdefault(kind, f"{column[good].as_py()}")
        if len(self._kinds) > 1:
            self._mixture("; ".join(f"{kind}: {example}" for kind, example in self._kinds.items()))
        return values, bad

    def keep(self, values: np.ndarray) -> None:
        """Take the times of the good rows of a batch."""
        self._values.extend(values)

    def settle(self) -> tuple[np.ndarray, str, Bad]:
        """All times, (E,) int64, their unit ``s`` or ``ms``, and what is wrong with those out of bounds.

        Raises:
            RecbenchError: they are in more than one unit, or finer than milliseconds.
        """
        values = self._values.values()
        if "dates" in self._kinds:
            whole = not (values % 1000).any()
            values, unit = (values // 1000, "s") if whole else (values, "ms")
        else:
            values, unit = self._unit(values)
        return values, unit, _out_of_bounds(values, 1000 if unit == "ms" else 1)

    def _unit(self, values: np.ndarray) -> tuple[np.ndarray, str]:
        if not len(values) or max(-int(values.min()), int(values.max())) < MILLISECONDS_FROM:
            if _days_as_numbers(values):
                raise self._error(
                    "the times are dates written as numbers",
                    f"{values[0]:.0f} would be {values[0] / 86_400:.0f} days after the beginning of 1970. {RIGHT}",
                    "Write 20140513 as 2014-05-13.",
                )
            return _in_seconds(values)
        size = np.abs(values)
        if (size >= TOO_FINE_FROM).any():
            self._too_fine(values[size >= TOO_FINE_FROM][0])
        in_ms = size >= MILLISECONDS_FROM
        if not in_ms[size > 0].all():
            ms, s = values[in_ms][0], values[~in_ms & (size > 0)][0]
            self._mixture(f"{s:.0f} looks like seconds, {ms:.0f} like milliseconds")
        return values.astype(np.int64, copy=False), "ms"

    def _text(self, column: pa.Array) -> tuple[str, np.ndarray, Bad]:
        column = pc.utf8_trim_whitespace(column).fill_null("")
        for dtype in (pa.int64(), pa.float64()):
            try:
                return "numbers", column.cast(dtype).to_numpy(), {}
            except pa.ArrowInvalid:
                continue
        texts = column.to_pandas()
        numbers = pd.to_numeric(texts, errors="coerce")
        dates = pd.to_datetime(texts.where(numbers.isna()), format="ISO8601", utc=True, errors="coerce")
        bad = {
            int(at): f"holds {texts.iloc[at][:40]!r} as its time" if texts.iloc[at] else "has no time"
            for at in np.flatnonzero(numbers.isna() & dates.isna())
        }
        if numbers.notna().any() and dates.notna().any():
            self._mixture(f"{texts[numbers.notna()].iloc[0]} is a number, {texts[dates.notna()].iloc[0]} a date")
        if dates.notna().any():
            return "dates", dates.fillna(pd.Timestamp(0, tz="UTC")).dt.as_unit("ms").astype("int64").to_numpy(), bad
        return "numbers", numbers.fillna(0).to_numpy(dtype=np.float64), bad

    def _mixture(self, found: str) -> None:
        raise self._error("the times are in more than one unit", f"{found}.", "Write the whole column in one unit.")

    def _too_fine(self, value: float) -> None:
        raise self._error(
            "the times are finer than milliseconds",
            f"{value:.0f} would be microseconds or nanoseconds since 1970.",
            "Divide the column down to milliseconds.",
        )

    def _error(self, what: str, why: str, fix: str) -> RecbenchError:
        return RecbenchError(f"In {self._file} {what}.", why=why, fix=fix, code=Exit.DATA)


def _in_seconds(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Seconds as they are; parts of seconds as milliseconds."""
    if values.dtype.kind == "f" and (values % 1).any():
        return np.round(values * 1000).astype(np.int64), "ms"
    return values.astype(np.int64, copy=False), "s"


def _days_as_numbers(values: np.ndarray) -> bool:
    """Are all of them like 20140513? As seconds these would be two weeks of August 1970."""
    if not len(values) or values.min() < DAYS_AS_NUMBERS[0] or values.max() > DAYS_AS_NUMBERS[1]:
        return False
    month, day = values // 100 % 100, values % 100
    return bool(((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all())


def _out_of_bounds(values: np.ndarray, per_second: int) -> Bad:
    """Times that nobody's log can hold. Small numbers are fine: some sets count days or positions."""
    now = (time.time() + TOLERANCE) * per_second
    bad = {int(at): f"has the time {values[at]}, before 1970" for at in np.flatnonzero(values < 0)}
    return bad | {int(at): f"has the time {values[at]}, in the future" for at in np.flatnonzero(values > now)}


def _numbers(column: pa.Array) -> np.ndarray:
    column = column.fill_null(0)
    return column.cast(pa.float64() if pa.types.is_floating(column.type) else pa.int64()).to_numpy()


def _milliseconds(column: pa.Array) -> np.ndarray:
    return column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).fill_null(0).to_numpy()
