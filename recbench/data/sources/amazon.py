"""Amazon reviews of 2014 and 2018: review lines, and ratings tables without a header."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, final

import numpy as np
import orjson

from recbench.data.sources.base import Events, Progress, Source
from recbench.data.sources.coding import Coder, joined
from recbench.data.sources.delimited import Layout, read_delimited
from recbench.data.sources.reading import head_of, lines, shown
from recbench.errors import Exit, RecbenchError

FIELDS = ("reviewerID", "asin", "overall", "unixReviewTime")
USER_ID = re.compile(r"A[A-Z0-9]{10,20}")
ITEM_ID = re.compile(r"[A-Z0-9]{10}")
CERTAIN = 0.9
"""Share of ids that must look like Amazon's before a column is believed to hold them: every file has a few odd ones."""


@final
class Reviews(Source):
    """``reviews_<Category>_5.json(.gz)`` of 2014 and ``<Category>_5.json(.gz)`` of 2018: one review a line."""

    family = "amazon"

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        del path  # the content decides
        return head.lstrip().startswith((b"{", b"[")) and all(
            re.search(rb"[\"']%b[\"']" % key, head) for key in (b"reviewerID", b"asin")
        )

    def read(self, progress: Progress) -> Events:
        path = _given(self.path)
        user, item = Coder(), Coder()
        ratings: list[np.ndarray] = []
        times: list[np.ndarray] = []
        n_lines = n_blank = 0
        for batch in lines(path, progress):
            rows = _rows(path, batch, n_lines)
            n_lines += len(batch)
            n_blank += len(batch) - len(rows)
            user.add([row[0] for row in rows])
            item.add([row[1] for row in rows])
            ratings.append(np.array([row[2] for row in rows], dtype=np.float32))
            times.append(np.array([row[3] for row in rows], dtype=np.int64))
        codes = user.codes()
        return Events(
            user=codes,
            item=item.codes(),
            rating=joined(ratings, np.float32),
            timestamp=joined(times, np.int64),
            order=np.arange(len(codes), dtype=np.int64),
            user_ids=user.ids(),
            item_ids=item.ids(),
            time_unit="s",
            notes=(f"{n_blank:,} blank lines in the source hold no event.",) if n_blank else (),
        )


def _rows(path: Path, batch: list[bytes], before: int) -> list[tuple[str, str, float, int]]:
    """(user, item, rating, time) of every line that is not blank. All at once; line by line only where that fails."""
    loads = orjson.loads
    try:
        parsed = [loads(line) for line in batch if line]
        rows = [(row["reviewerID"], row["asin"], row["overall"], row["unixReviewTime"]) for row in parsed]
        if {type(value) for row in rows for value in row[:2]} <= {str}:
            return rows
    except (ValueError, KeyError, TypeError):
        pass
    return [_row(path, before + place, line, batch) for place, line in enumerate(batch, start=1) if line.strip()]


def _row(path: Path, number: int, line: bytes, batch: list[bytes]) -> tuple[str, str, float, int]:
    row = parse_line(path, number, line, last=line is batch[-1])
    missing = [name for name in FIELDS if not isinstance(row.get(name), str | int | float) or row[name] == ""]
    if missing:
        raise RecbenchError(
            f"Line {number:,} of {path} has no {missing[0]}.",
            why=f"A review needs {', '.join(FIELDS)}; this line has {', '.join(map(str, row)) or 'nothing'}.",
            fix=f"Mend or remove line {number:,}, or read the file with another --source-format.",
            code=Exit.DATA,
        )
    try:
        return str(row["reviewerID"]), str(row["asin"]), float(row["overall"]), int(row["unixReviewTime"])
    except ValueError as error:
        raise RecbenchError(
            f"Line {number:,} of {path} has an overall or unixReviewTime that is no number.",
            why=str(error),
            fix=f"Mend or remove line {number:,}.",
            code=Exit.DATA,
        ) from error


def parse_line(path: Path, number: int, line: bytes, *, last: bool = False) -> dict[str, Any]:
    """The record on one line: JSON first, Python-dict text second; nothing is ever evaluated.

    Args:
        last: no line follows in what was read, so the line may have been cut.

    Raises:
        RecbenchError: it is neither; names the line and the last good one.
    """
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as problem:
        try:
            record = ast.literal_eval(line.decode("utf-8").strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise _unreadable(path, number, line, str(problem), last) from None
    if not isinstance(record, dict):
        raise _unreadable(path, number, line, f"it holds a {type(record).__name__}, not one record", last)
    return record


def _unreadable(path: Path, number: int, line: bytes, problem: str, last: bool) -> RecbenchError:
    good = f"The last good line is {number - 1:,}." if number > 1 else "No line before it was good."
    text = line.strip()
    if text in (b"[", b"{") or text.startswith(b"[{"):
        problem = "one record a line is expected; this looks like one big JSON array or pretty-printed text"
        fix = f"Write one record a line, for example: jq -c '.[]?' {path.name} > lines.json"
    elif last and not text.endswith(b"}"):
        problem = f"the line ends in the middle of a record ({problem})"
        fix = "The file was probably cut: get it again."
    else:
        fix = f"Mend or remove line {number:,}; sed -n {number}p shows it."
    return RecbenchError(
        f"Line {number:,} of {path} is neither JSON nor Python-dict text: {shown(line)}",
        why=f"{problem[:1].upper()}{problem[1:]}. {good}",
        fix=fix,
        code=Exit.DATA,
    )


@final
class Ratings(Source):
    """``ratings_<Category>.csv`` of 2014 (user first), ``<Category>.csv`` of 2018 (item first): the ids tell."""

    family = "amazon"

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        del path  # the content decides
        return _item_first(head) is not None

    def read(self, progress: Progress) -> Events:
        path = _given(self.path)
        item_first = _item_first(head_of(path))
        if item_first is None:
            raise self._unlike(path)
        names = ("item", "user") if item_first else ("user", "item")
        layout = Layout(
            separator=",", header=False, n_columns=4, place={names[0]: 0, names[1]: 1, "rating": 2, "timestamp": 3}
        )
        note = "The item stands first in this file, as in Amazon 2018: read as item,user,rating,time."
        events = read_delimited(path, layout, progress, notes=(note,) if item_first else ())
        if _share(USER_ID, events.user_ids) < CERTAIN or _share(ITEM_ID, events.item_ids) < CERTAIN:
            raise self._unlike(path)
        return events

    def _unlike(self, path: Path) -> RecbenchError:
        return RecbenchError(
            f"{path} does not look like Amazon ratings.",
            why="Without a header only the ids tell user from item: Amazon users start with A and have 11 to 21 "
            "characters, items have 10; here neither order fits.",
            fix="Say which column is which: --source-format table --columns user=1,item=2,rating=3,timestamp=4",
            code=Exit.DATA,
        )


def _item_first(head: bytes) -> bool | None:
    """Does the item stand in the first column? None where the lines are not Amazon ratings at all."""
    text = head.decode("utf-8-sig", errors="replace")
    rows = [line.split(",") for line in text.splitlines()[:500]]
    rows = rows[:-1] if len(rows) > 1 else rows  # the last one may be cut where the head ends
    if not rows or any(len(row) != 4 or not row[3].strip().isdigit() for row in rows):
        return None
    first, second = ([row[place].strip('"') for row in rows] for place in (0, 1))
    if _share(USER_ID, first) >= CERTAIN and _share(ITEM_ID, second) >= CERTAIN:
        return False
    if _share(ITEM_ID, first) >= CERTAIN and _share(USER_ID, second) >= CERTAIN:
        return True
    return None


def _share(pattern: re.Pattern[str], ids: Iterable[str]) -> float:
    fits = [pattern.fullmatch(raw) is not None for raw in ids]
    return sum(fits) / max(len(fits), 1)


def _given(path: Path | None) -> Path:
    if path is None:
        raise ValueError("an Amazon source needs a path")
    return path
