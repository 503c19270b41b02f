"""Amazon 2014 (McAuley et al.): review lines, JSON or Python-dict text; ratings with the user first."""

from __future__ import annotations

from typing import ClassVar, final

from recbench.data.sources.amazon import Ratings, described_beside
from recbench.data.sources.json_events import Fields, JsonEvents
from recbench.data.sources.places import File

FIELDS: Fields = {"user": ("reviewerID",), "item": ("asin",), "rating": ("overall",), "timestamp": ("unixReviewTime",)}


@final
class Reviews2014(JsonEvents):
    """``reviews_<Category>_5.json(.gz)``: times are whole days, items ascend."""

    family = "amazon"
    fields: ClassVar[Fields] = FIELDS

    def metadata(self) -> File | None:
        return described_beside(self.file)

    @classmethod
    def marks(cls) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        return (b"reviewerID", b"asin"), (b"verified",)


@final
class Ratings2014(Ratings):
    """``ratings_<Category>.csv``: user,item,rating,time."""

    order: ClassVar[tuple[str, str]] = ("user", "item")
