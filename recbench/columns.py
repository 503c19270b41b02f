"""Names of every Parquet column, once. Other tools read these files: a name changes only with a new schema version."""

from __future__ import annotations

USER = "user"
ITEM = "item"
RATING = "rating"
TIMESTAMP = "timestamp"
ORIGINAL_ORDER = "original_order"
"""Row of the event in the source, from 0, before any filter. The tie rule and exports need it."""
IS_TARGET = "is_target"
"""In valid and test: True where the event is to be predicted, False where it only feeds later histories (temporal split)."""

RAW_ID = "raw_id"
TITLE = "title"
BRAND = "brand"
CATEGORIES = "categories"
PRICE = "price"
TEXT = "text"
"""Features and description of an item, never of a review."""

SPLIT = "split"
TARGET = "target"
ABOVE = "above"
TIED = "tied"
ABOVE_UNSEEN = "above_unseen"
TIED_UNSEEN = "tied_unseen"
POSITION = "position"
SCORE = "score"
STEPS = "steps"
BEAM = "beam"

SYSTEM = "system"
DATASET = "dataset"
SEED = "seed"
RANK = "rank"

EVENTS = (USER, ITEM, RATING, TIMESTAMP, ORIGINAL_ORDER)
HELD_OUT_EVENTS = (*EVENTS, IS_TARGET)
ITEMS = (ITEM, RAW_ID, TITLE, BRAND, CATEGORIES, PRICE, TEXT)
USERS = (USER, RAW_ID, ORIGINAL_ORDER)
RANKS = (SPLIT, USER, TARGET, ABOVE, TIED, ABOVE_UNSEEN, TIED_UNSEEN)
TOP = (USER, POSITION, ITEM, SCORE)
RESULTS = (SYSTEM, DATASET, SEED, USER, TARGET, RANK)


def code(level: int) -> str:
    """Column of a semantic id's code, levels counted from 0: ``code_1`` is the first."""
    return f"code_{level + 1}"
