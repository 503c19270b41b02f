"""Steam reviews (Kang and McAuley, 2018; Pathak et al., 2017): Python-dict lines, read without evaluating anything.

The user is ``username``, as in SASRec's preparation: not every review has a ``user_id``. Times are days; no ratings.
"""

from __future__ import annotations

from typing import ClassVar, final

from recbench.data.sources.json_events import Fields, JsonEvents
from recbench.data.sources.places import File
from recbench.data.sources.siblings import sibling


@final
class Steam(JsonEvents):
    """``steam_reviews.json(.gz)``; titles and tags from ``steam_games.json(.gz)`` beside it."""

    files: ClassVar[tuple[str, ...]] = ("steam_reviews.json*", "steam_new.json*")
    fields: ClassVar[Fields] = {
        "user": ("username",),
        "item": ("product_id",),
        "timestamp": ("date",),
    }

    @classmethod
    def marks(cls) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        return (b"username", b"product_id", b"hours"), ()

    def metadata(self) -> File | None:
        return sibling(self.file, "steam_games.json*")
