"""Bad rows: counted, shown with file and line, refused above a limit. None is dropped in silence."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from recbench.errors import Exit, RecbenchError

LIMIT, SHARE = 10, 0.01
"""How many rows may be left out where nothing was said, and which share of all rows."""
SHOWN = 3
FIRST_ROW = 2
"""The latest line on which the first row of a file stands: behind a header."""
KEPT = 20
"""Bad rows that are kept word for word; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """One row that holds no usable event."""

    file: str
    line: int
    what: str
    """Behind ``Line N of FILE``: what is wrong with it."""
    why: str
    """A sentence: what would be right."""
    fix: str = ""
    """What mends all such rows at once, where something does."""
    n_lines: int = 1
    """Lines that are lost with it: each counts as a bad row."""


@dataclass(slots=True)
class BadRows:
    """The bad rows of one preparation, and how many of them are bearable."""

    limit: int = LIMIT
    share: float | None = SHARE
    """Of all rows; None where the user gave a number."""
    n: int = 0
    first: list[BadRow] = field(default_factory=list)

    def add(self, row: BadRow) -> None:
        """Count one.

        Raises:
            RecbenchError: it is one too many.
        """
        self.n += row.n_lines
        if len(self.first) < KEPT:
            self.first.append(row)
        if self.n > self.limit:
            raise self._refusal(f"more than {self.limit:,} may be left out" if self.limit else "none may be left out")

    def check(self, n_rows: int) -> None:
        """Refuse a file of which too large a share is bad. ``n_rows``: good and bad ones.

        Raises:
            RecbenchError: so it is.
        """
        if self.share is not None and self.n > self.share * n_rows:
            raise self._refusal(f"{self.n:,} of {n_rows:,} rows, and at most {100 * self.share:g} % may be left out")

    def _refusal(self, limit: str) -> RecbenchError:
        first = self.first[0]
        if self.n == 1:
            return RecbenchError(
                f"Line {first.line:,} of {first.file} {first.what}.",
                why=first.why,
                fix=f"Mend or remove line {first.line:,} (sed -n {first.line}p shows it), or leave it out, counted in the "
                "card: --max-bad-rows 1",
                code=Exit.DATA,
            )
        listed = "; ".join(f"line {row.line:,} {row.what}" for row in self.first[:SHOWN])
        return RecbenchError(
            f"{first.file} has too many bad rows: {limit}.",
            why=f"{listed[:1].upper()}{listed[1:]}{self._more()}. {first.why}",
            fix=self._fix(),
            code=Exit.DATA,
        )

    def _fix(self) -> str:
        """What to do about them; where none of many first rows is good, to leave them out would leave nothing."""
        first, lines = self.first[0], [row.line for row in self.first]
        mend = first.fix if all(row.fix == first.fix for row in self.first) else ""
        if self.n > LIMIT and first.line <= FIRST_ROW and lines == [*range(first.line, first.line + len(lines))]:
            return (
                mend or "Mend the file, or say what it is (--source-format, --columns): none of its first rows is good."
            )
        return f"{mend or 'Mend them'}, or say how many may be left out, counted in the card: --max-bad-rows N or N%"

    def facts(self) -> dict[str, Any]:
        """For the card."""
        listed = [{"file": row.file, "line": row.line, "what": row.what} for row in self.first]
        return {"count": self.n, "limit": self.limit, "share": self.share, "first": listed}

    def notes(self) -> tuple[str, ...]:
        """Sentences for whoever reads the card; none where every row was good. Where a file lay is nobody's business."""
        if not self.n:
            return ()
        listed = "; ".join(f"{PurePath(row.file).name} line {row.line:,} {row.what}" for row in self.first[:SHOWN])
        return (f"{self.n:,} bad row{'s were' if self.n > 1 else ' was'} left out: {listed}{self._more()}.",)

    def _more(self) -> str:
        more = self.n - sum(row.n_lines for row in self.first[:SHOWN])
        return f"; and {more:,} more" if more else ""


def parse_limit(text: str | None) -> BadRows:
    """What ``--max-bad-rows`` asks for: a number, a share such as ``0.5%``, or nothing.

    Raises:
        RecbenchError: it is neither.
    """
    if text is None:
        return BadRows()
    number = re.fullmatch(r"(\d{1,12})|(\d{1,2}(?:\.\d+)?|100)%", text.strip())
    if number is None:
        raise RecbenchError(
            f"--max-bad-rows {text!r} cannot be read.",
            why="It is a number of rows, or a share of them in percent.",
            fix="--max-bad-rows 100 or --max-bad-rows 0.5%",
        )
    if number[1]:
        return BadRows(limit=int(number[1]), share=None)
    return BadRows(limit=1 << 62, share=float(number[2]) / 100)
