"""Amazon 2018 (Ni et al.): review lines, and ratings with the item first."""

from __future__ import annotations

from typing import ClassVar, final

from recbench.data.sources.amazon import Ratings, described_beside
from recbench.data.sources.amazon2014 import FIELDS
from recbench.data.sources.json_events import Fields, JsonEvents
from recbench.data.sources.places import File


@final
class Reviews2018(JsonEvents):
    """``<Category>_5.json(.gz)`` and ``<Category>.json(.gz)``: a user may review one item twice."""

    family = "amazon"
    fields: ClassVar[Fields] = FIELDS

    def metadata(self) -> File | None:
        return described_beside(self.file)

    @classmethod
    def marks(cls) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        return (b"reviewerID", b"asin", b"verified"), ()


@final
class Ratings2018(Ratings):
    """``<Category>.csv``: item,user,rating,time."""

    order: ClassVar[tuple[str, str]] = ("item", "user")
