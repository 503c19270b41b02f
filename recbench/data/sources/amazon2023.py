"""Amazon 2023 (Hou et al., arXiv 2403.03952): raw reviews, ``rating_only`` tables and the official splits. Times in ms.

The item is ``parent_asin``, a product with its variants, never ``asin``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, final

from recbench.data.sources.amazon import described_beside
from recbench.data.sources.base import Events, Progress, Source
from recbench.data.sources.building import Builder
from recbench.data.sources.delimited import Layout, add_delimited, first_row, read_delimited
from recbench.data.sources.json_events import Fields, JsonEvents
from recbench.data.sources.places import File, name_of
from recbench.data.sources.reading import head_of
from recbench.data.sources.siblings import sibling
from recbench.errors import Exit, RecbenchError

COLUMNS = ["user_id", "parent_asin", "rating", "timestamp"]
PLACE = {"user": 0, "item": 1, "rating": 2, "timestamp": 3}
PARTS = ("train", "valid", "test")
PART = re.compile(r"\.(train|valid|test)\.csv(\.gz)?$")


@final
class Reviews2023(JsonEvents):
    """``<Category>.jsonl(.gz)`` of ``raw/review_categories``."""

    family = "amazon"
    fields: ClassVar[Fields] = {
        "user": ("user_id",),
        "item": ("parent_asin",),
        "rating": ("rating",),
        "timestamp": ("timestamp", "sortTimestamp"),  # the second one in early copies
    }

    def metadata(self) -> File | None:
        return described_beside(self.file)

    @classmethod
    def marks(cls) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        return (b"user_id", b"parent_asin"), ()


@final
class Ratings2023(Source):
    """``rating_only/<Category>.csv(.gz)``, 0-core or 5-core."""

    family = "amazon"

    @classmethod
    def recognises(cls, path: File, head: bytes) -> bool:
        del path  # the content decides
        return _header(head) == COLUMNS

    def metadata(self) -> File | None:
        return described_beside(self.file)

    def read(self, progress: Progress) -> Events:
        return read_delimited(self.file, _layout(self.file, COLUMNS), progress, self.bad)


@final
class Split2023(Source):
    """``last_out_w_his`` or ``timestamp_w_his``: the three files of one category, read as one log.

    Any of the three stands for all. The events are the rows; the history that each row repeats is made of them and is
    read over.
    """

    family = "amazon"
    files: ClassVar[tuple[str, ...]] = ("*.train.csv.gz", "*.train.csv")

    @classmethod
    def recognises(cls, path: File, head: bytes) -> bool:
        return _header(head) == [*COLUMNS, "history"] or (
            _header(head) == COLUMNS and PART.search(name_of(path)) is not None
        )

    def metadata(self) -> File | None:
        return described_beside(self.file)

    def beside(self) -> dict[str, Path]:
        parts = {part: file for part, file in self._parts().items() if isinstance(file, Path) and file != self.file}
        return parts | super().beside()

    def read(self, progress: Progress) -> Events:
        builder = Builder(self.file, self.bad)
        sizes: list[str] = []
        notes: list[str] = []
        for part, file in self._parts().items():
            before = len(builder)
            notes += add_delimited(builder, file, _layout(file, _header_of(file)), progress, self.bad)
            sizes.append(f"{len(builder) - before:,} {part}")
        return builder.finish((f"An official split read as one log: {', '.join(sizes)} rows.", *notes))

    def _parts(self) -> dict[str, File]:
        """The three files, in order of time.

        Raises:
            RecbenchError: one of them is not there.
        """
        name = name_of(self.file)
        found = PART.search(name)
        if found is None:
            raise self._lacks("its name says which part it is", f"X{'.train.csv.gz'}")
        parts: dict[str, File] = {}
        for part in PARTS:
            wanted = f"{name[: found.start()]}.{part}.csv"
            other = sibling(self.file, f"{wanted}.gz") or sibling(self.file, wanted)
            if other is None:
                raise self._lacks(f"{wanted}.gz is not beside it", f"{wanted}.gz")
            parts[part] = other
        return parts

    def _lacks(self, what: str, name: str) -> RecbenchError:
        return RecbenchError(
            f"{self.file} is one part of an official split, and {what}.",
            why="A split is three files of one category, train, valid and test; its log is all of them.",
            fix=f"Put {name} into the same folder, or prepare the category's rating_only file.",
            code=Exit.DATA,
        )


def _header(head: bytes) -> list[str]:
    return [cell.lower() for cell in first_row(head)[1]]


def _header_of(file: File) -> list[str]:
    return _header(head_of(file))


def _layout(file: File, columns: list[str]) -> Layout:
    """Of a file with these columns.

    Raises:
        RecbenchError: it does not begin with them, or they are not those of Amazon 2023.
    """
    if columns[: len(COLUMNS)] != COLUMNS or _header_of(file) != columns:
        raise RecbenchError(
            f"{file} does not begin with the header of Amazon 2023.",
            why=f"Expected {','.join(COLUMNS)}; its first line reads: {', '.join(_header_of(file))[:200]}.",
            fix="Name another --source-format, or --source-format table --columns user=...,item=...",
            code=Exit.DATA,
        )
    return Layout(separator=",", header=columns, n_columns=len(columns), place=PLACE)
