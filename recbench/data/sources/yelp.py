"""Yelp Open Dataset: reviews, from the JSON lines or from the archive. Terms-gated: a local copy only.

People visit a place twice: repeated (user, business) pairs are events, and stay.
"""

from __future__ import annotations

from typing import ClassVar, final

from recbench.data.sources.json_events import Fields, JsonEvents
from recbench.data.sources.places import File
from recbench.data.sources.siblings import sibling

REVIEWS = ("yelp_academic_dataset_review.json*", "*review*.json*")
BUSINESSES = "*business.json*"


@final
class Yelp(JsonEvents):
    """``yelp_academic_dataset_review.json``: one review a line despite the name; dates are text."""

    files: ClassVar[tuple[str, ...]] = REVIEWS
    fields: ClassVar[Fields] = {
        "user": ("user_id",),
        "item": ("business_id",),
        "rating": ("stars",),
        "timestamp": ("date",),
    }

    @classmethod
    def marks(cls) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        return (b"review_id", b"user_id", b"business_id", b"stars"), ()

    def metadata(self) -> File | None:
        return sibling(self.file, BUSINESSES)
