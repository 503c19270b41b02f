"""One unit for a whole column of times: seconds, milliseconds or ISO text, by magnitude. A mixture is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbench.data.sources.coding import joined
from recbench.errors import Exit, RecbenchError

MILLISECONDS_FROM = 1e11
"""As seconds this is the year 5138, as milliseconds March 1973: nobody's log is in between."""
TOO_FINE_FROM = 1e14


class Times:
    """Collects a column of times batch by batch and settles its unit at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: list[np.ndarray] = []
        self._kinds: dict[str, str] = {}
        self._rows = 0

    def add(self, column: pa.Array) -> None:
        """Take one batch: text, integers, floats or timestamps."""
        if column.null_count:
            self._missing(int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0]))
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            kind, values = "dates", _milliseconds(column)
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            kind, values = self._text(column)
        else:
            kind, values = (
                "numbers",
                column.cast(pa.float64()).to_numpy() if pa.types.is_floating(column.type) else column.to_numpy(),
            )
        self._kinds.setdefault(kind, f"row {self._rows + 1:,}: {column[0].as_py()}" if len(column) else "")
        if len(self._kinds) > 1:
            self._mixture("; ".join(f"{kind} in {where}" for kind, where in self._kinds.items()))
        self._rows += len(column)
        self._parts.append(values)

    def settle(self) -> tuple[np.ndarray, str]:
        """All times, (E,) int64, and their unit ``s`` or ``ms``."""
        values = joined(self._parts, np.int64)
        if "dates" in self._kinds:
            return (values // 1000, "s") if not (values % 1000).any() else (values, "ms")
        if not np.isfinite(values).all():
            self._missing(int(np.flatnonzero(~np.isfinite(values))[0]))
        size = np.abs(values)
        if (size >= TOO_FINE_FROM).any():
            self._too_fine(values[size >= TOO_FINE_FROM][0])
        in_ms = size >= MILLISECONDS_FROM
        if in_ms.any() and not in_ms[size > 0].all():
            ms, s = int(np.flatnonzero(in_ms)[0]), int(np.flatnonzero(~in_ms & (size > 0))[0])
            self._mixture(
                f"row {s + 1:,}: {values[s]:.0f} looks like seconds, row {ms + 1:,}: {values[ms]:.0f} like milliseconds"
            )
        unit = "ms" if in_ms.any() else "s"
        if unit == "s" and values.dtype.kind == "f" and (values % 1).any():
            values, unit = np.round(values * 1000), "ms"
        return values.astype(np.int64), unit

    def _text(self, column: pa.Array) -> tuple[str, np.ndarray]:
        column = pc.utf8_trim_whitespace(column)
        for dtype in (pa.int64(), pa.float64()):
            try:
                return "numbers", column.cast(dtype).to_numpy()
            except pa.ArrowInvalid:
                continue
        texts = column.to_pandas()
        try:
            parsed = pd.to_datetime(texts, format="ISO8601", utc=True)
        except ValueError:
            self._no_time(texts)
            raise
        if parsed.isna().any():
            self._missing(int(np.flatnonzero(parsed.isna())[0]))
        return "dates", parsed.dt.as_unit("ms").astype("int64").to_numpy()

    def _no_time(self, texts: pd.Series[str]) -> None:
        numeric = pd.to_numeric(texts, errors="coerce").notna()
        dated = pd.to_datetime(texts.where(~numeric), format="ISO8601", utc=True, errors="coerce").notna()
        bad = np.flatnonzero(~(numeric | dated))
        if len(bad):
            if not texts.iloc[bad[0]]:
                self._missing(int(bad[0]))
            raise self._error(
                f"row {self._rows + bad[0] + 1:,} holds {texts.iloc[bad[0]]!r} as its time",
                "A time is a number of seconds or milliseconds since 1970, or ISO text such as 2014-05-13T08:30:00Z.",
                "Write that row's time so, or leave times out with --columns user=...,item=...",
            )
        number, date = int(np.flatnonzero(numeric)[0]), int(np.flatnonzero(dated)[0])
        self._mixture(
            f"row {self._rows + number + 1:,}: {texts.iloc[number]}, row {self._rows + date + 1:,}: {texts.iloc[date]}"
        )

    def _mixture(self, found: str) -> None:
        raise self._error("the times are in more than one unit", f"{found}.", "Write the whole column in one unit.")

    def _missing(self, place: int) -> None:
        raise self._error(
            f"row {self._rows + place + 1:,} has no time",
            "An event without a time has no place in its user's sequence.",
            "Fill it in or remove that row.",
        )

    def _too_fine(self, value: float) -> None:
        raise self._error(
            "the times are finer than milliseconds",
            f"{value:.0f} would be microseconds or nanoseconds since 1970.",
            "Divide the column down to milliseconds.",
        )

    def _error(self, what: str, why: str, fix: str) -> RecbenchError:
        return RecbenchError(f"In {self._path} {what}.", why=why, fix=fix, code=Exit.DATA)


def _milliseconds(column: pa.Array) -> np.ndarray:
    return column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).to_numpy()
