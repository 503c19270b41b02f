"""What the three Amazon releases share: how ids look, and the ratings tables without a header."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from recbench.data.sources.base import Events, Progress, Source
from recbench.data.sources.delimited import Layout, read_delimited
from recbench.data.sources.places import File, name_of
from recbench.data.sources.reading import head_of
from recbench.data.sources.siblings import sibling
from recbench.errors import Exit, RecbenchError

USER_ID = re.compile(r"A[A-Z0-9]{10,20}")
ITEM_ID = re.compile(r"[A-Z0-9]{10}")
CATEGORY = re.compile(
    r"(?:reviews_|ratings_)?(?P<category>\w+?)(?:_5)?(?:\.(?:train|valid|test))?\.(?:json|jsonl|csv)(?:\.gz|\.zst)?",
    re.ASCII,
)
"""File names of the three releases: ``reviews_Beauty_5.json.gz``, ``Gift_Cards.csv``, ``Books.train.csv.gz``."""
CERTAIN = 0.9
"""Share of ids that must look like Amazon's before a column is believed to hold them: every file has a few odd ones."""


def described_beside(file: File) -> File | None:
    """``meta_<Category>`` beside events of that category, where it is there."""
    found = CATEGORY.fullmatch(name_of(file))
    return sibling(file, f"meta_{found['category']}.json*") if found else None


class Ratings(Source):
    """Four columns without a header; only the ids tell user from item."""

    family = "amazon"
    order: ClassVar[tuple[str, str]]
    """Roles of the first two columns."""

    @classmethod
    def recognises(cls, path: File, head: bytes) -> bool:
        del path  # the content decides
        return id_order(head) == cls.order

    def metadata(self) -> File | None:
        return described_beside(self.file)

    def read(self, progress: Progress) -> Events:
        if id_order(head_of(self.file)) != self.order:
            raise self._unlike()
        place = {self.order[0]: 0, self.order[1]: 1, "rating": 2, "timestamp": 3}
        layout = Layout(separator=",", header=None, n_columns=4, place=place)
        notes = (
            ("The item stands first in this file: read as item,user,rating,time.",) if self.order[0] == "item" else ()
        )
        events = read_delimited(self.file, layout, progress, self.bad, notes=notes)
        if _share(USER_ID, events.user_ids) < CERTAIN or _share(ITEM_ID, events.item_ids) < CERTAIN:
            raise self._unlike()
        return events

    def _unlike(self) -> RecbenchError:
        return RecbenchError(
            f"{self.file} does not look like Amazon ratings with the {self.order[0]} first.",
            why="Without a header only the ids tell user from item: Amazon users start with A and have 11 to 21 "
            "characters, items have 10; here they do not fit.",
            fix="Say which column is which: --source-format table --columns user=1,item=2,rating=3,timestamp=4",
            code=Exit.DATA,
        )


def id_order(head: bytes) -> tuple[str, str] | None:
    """Roles of the first two columns; None where the lines are not Amazon ratings at all."""
    text = head.decode("utf-8-sig", errors="replace")
    rows = [line.split(",") for line in text.splitlines()[:500] if line.strip()]
    rows = rows[:-1] if len(rows) > 1 else rows  # the last one may be cut where the head ends
    fits = [len(row) == 4 for row in rows]
    if not rows or sum(fits) < CERTAIN * len(rows) or _is_header(rows[0]):
        return None
    first, second = ([row[place].strip('" ') for row in rows if len(row) == 4] for place in (0, 1))
    if _share(USER_ID, first) >= CERTAIN and _share(ITEM_ID, second) >= CERTAIN:
        return "user", "item"
    if _share(ITEM_ID, first) >= CERTAIN and _share(USER_ID, second) >= CERTAIN:
        return "item", "user"
    return None


def _is_header(row: list[str]) -> bool:
    """Does the first line name its columns? Then the file is a table."""
    try:
        float(row[-1].strip('" '))
    except ValueError:
        return True
    return False


def _share(pattern: re.Pattern[str], ids: Iterable[str]) -> float:
    fits = [pattern.fullmatch(raw) is not None for raw in ids]
    return sum(fits) / max(len(fits), 1)
