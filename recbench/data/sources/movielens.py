"""MovieLens: 100K (``u.data``), 1M and 10M (``ratings.dat``), 20M, 25M, 32M and latest (``ratings.csv``); zip or folder.

No file is in time order, and ratings were entered in batches: order inside a second is partly made up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar, final

from recbench.data.sources.base import Events, Progress, Source
from recbench.data.sources.delimited import Layout, first_row, read_delimited
from recbench.data.sources.places import File
from recbench.data.sources.reading import blocks, head_of
from recbench.data.sources.siblings import sibling

HEADER = ["userid", "movieid", "rating", "timestamp"]
PLACE = {"user": 0, "item": 1, "rating": 2, "timestamp": 3}
TABS = re.compile(rb"\d+\t\d+\t[1-5]\t\d{9,10}")
COLONS = re.compile(rb"\d+::\d+::[\d.]+::\d+")
MOVIES = ("movies.csv", "movies.dat", "u.item")


@final
class MovieLens(Source):
    """Ratings, with titles and genres from the file beside them."""

    files: ClassVar[tuple[str, ...]] = ("ratings.csv", "ratings.dat", "u.data")

    @classmethod
    def recognises(cls, path: File, head: bytes) -> bool:
        del path  # the content decides
        return _kind(head) is not None

    def read(self, progress: Progress) -> Events:
        kind = _kind(head_of(self.file))
        if kind == "csv":
            cells = first_row(head_of(self.file))[1]
            return read_delimited(
                self.file, Layout(separator=",", header=cells, n_columns=4, place=PLACE), progress, self.bad
            )
        layout = Layout(separator="\t", header=None, n_columns=4, place=PLACE, quotes=False)
        content = _tabs(blocks(self.file, progress)) if kind == "colons" else None
        return read_delimited(self.file, layout, progress, self.bad, content=content)

    def metadata(self) -> File | None:
        return next((found for name in MOVIES if (found := sibling(self.file, name))), None)


def _kind(head: bytes) -> str | None:
    first = head.partition(b"\n")[0].strip()
    if [cell.lower() for cell in first_row(head)[1]] == HEADER:
        return "csv"
    if TABS.fullmatch(first):
        return "tabs"
    return "colons" if COLONS.fullmatch(first) else None


def _tabs(source: Iterator[bytes]) -> Iterator[bytes]:
    """``::`` as a tab, also where it falls on the border of two blocks. No id of these files holds a colon."""
    rest = b""
    for block in source:
        text = rest + block
        rest = b":" if text.endswith(b":") and not text.endswith(b"::") else b""
        yield text[: len(text) - len(rest)].replace(b"::", b"\t")
    if rest:
        yield rest
