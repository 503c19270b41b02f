"""RecBole's atomic files: ``X.inter`` with a typed header, whole or in split form, and ``X.item`` beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import ClassVar, final

import pyarrow as pa

from recbench.data.sources.bad import BadRow
from recbench.data.sources.base import Events, Progress, Source
from recbench.data.sources.building import Builder
from recbench.data.sources.delimited import Layout, read_delimited
from recbench.data.sources.places import File, name_of
from recbench.data.sources.reading import head_of, lines, shown
from recbench.data.sources.siblings import sibling
from recbench.errors import Exit, RecbenchError

TYPED = re.compile(r"[^\t]+:(token|token_seq|float|float_seq)")
ROLES = {
    "user": ("user_id", "session_id", "user"),
    "item": ("item_id", "item", "business_id"),
    "rating": ("rating", "stars"),
    "timestamp": ("timestamp", "time", "date"),
}
PARTS = ("train", "valid", "test")
PART = re.compile(r"\.(train|valid|test)\.inter")


@final
class RecBole(Source):
    """Tabs, no quotes. In split form a row holds a prefix of its user's list, and the longest row holds all of it."""

    files: ClassVar[tuple[str, ...]] = ("*.train.inter", "*.inter")

    @classmethod
    def recognises(cls, path: File, head: bytes) -> bool:
        del path  # the content decides
        cells = header(head)
        return len(cells) >= 2 and all(TYPED.fullmatch(cell) for cell in cells)

    def read(self, progress: Progress) -> Events:
        cells = header(head_of(self.file))
        names = [cell.partition(":")[0].lower() for cell in cells]
        if {"user_id", "item_id_list", "item_id"} <= set(names):
            return self._prefixes(names, progress)
        place = {role: names.index(name) for role, known in ROLES.items() for name in known[:1] if name in names}
        for role, known in ROLES.items():
            found = [names.index(name) for name in known if name in names]
            place |= {role: found[0]} if found and role not in place else {}
        if missing := [role for role in ("user", "item") if role not in place]:
            raise RecbenchError(
                f"{self.file} has no column for the {' or the '.join(missing)}.",
                why=f"Its header reads: {', '.join(cells)[:200]}.",
                fix=f"--source-format table --columns user={cells[0]},item=...,timestamp=...",
                code=Exit.DATA,
            )
        layout = Layout(separator="\t", header=cells, n_columns=len(cells), place=place, quotes=False)
        return read_delimited(self.file, layout, progress, self.bad)

    def metadata(self) -> File | None:
        return sibling(self.file, f"{PART.sub('.inter', name_of(self.file)).partition('.inter')[0]}.item")

    def _prefixes(self, names: list[str], progress: Progress) -> Events:
        """The longest row of each user over all parts that are there."""
        at = tuple(names.index(name) for name in ("user_id", "item_id_list", "item_id"))
        longest: dict[str, list[str]] = {}
        for file in self._parts():
            for user, items in self._rows(file, at, len(names), progress):
                if len(items) > len(longest.get(user, ())):
                    longest[user] = items
        users = [user for user, items in longest.items() for _ in items]
        column = {
            "user": pa.array(users, pa.string()),
            "item": pa.array(chain.from_iterable(longest.values()), pa.string()),
        }
        builder = Builder(self.file, self.bad)
        builder.add(column, range(1, len(users) + 1))
        return builder.finish(("RecBole's split form: of each user the longest row is read, which holds the others.",))

    def _parts(self) -> list[File]:
        name = name_of(self.file)
        others = [sibling(self.file, PART.sub(f".{part}.inter", name)) for part in PARTS] if PART.search(name) else []
        return [file for file in others if file] or [self.file]

    def _rows(
        self, file: File, at: tuple[int, ...], n_columns: int, progress: Progress
    ) -> Iterator[tuple[str, list[str]]]:
        number = 0
        for batch in lines(file, progress):
            for line in batch:
                number += 1
                cells = line.decode("utf-8", "replace").rstrip("\r").split("\t")
                if number == 1 or not line.strip():
                    continue
                if len(cells) != n_columns or not cells[at[0]] or not cells[at[2]]:
                    what = f"is no row of {n_columns} columns: {shown(line)}"
                    why = "Every row needs a user, the items before, and the item."
                    self.bad.add(BadRow(file=str(file), line=number, what=what, why=why))
                    continue
                yield cells[at[0]], [*cells[at[1]].split(), cells[at[2]]]


def header(head: bytes) -> list[str]:
    """The cells of a typed header."""
    return head.decode("utf-8-sig", "replace").partition("\n")[0].rstrip("\r").split("\t")
