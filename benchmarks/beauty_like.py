"""Generated histories of Beauty's size: 22,363 users, 12,101 items, a mean of 8.9 events, long tails."""

from __future__ import annotations

import numpy as np
import torch

from recbench.data.dataset import Histories, Queries
from recbench.recommender import GeneratorRecommender, ItemRecommender, build
from recbench.registry import BACKBONES
from recbench.semantic_ids.table import SemanticIds, suffixes, table_of
from recbench.settings import config_classes

USERS, ITEMS = 22_363, 12_101


def made(seed: int = 0) -> tuple[Histories, Queries]:
    """Training histories and test queries, leave-one-out."""
    random = np.random.default_rng(seed)
    lengths = 5 + np.minimum(random.geometric(1 / 4.9, USERS) - 1, 195)
    popularity = 1 / np.arange(1, ITEMS + 1) ** 0.8
    items = random.choice(ITEMS, int(lengths.sum()), p=popularity / popularity.sum()).astype(np.int32) + 1
    users, stops = np.arange(1, USERS + 1, dtype=np.int32), np.cumsum(lengths)
    starts = stops - lengths
    day = 86_400
    times = np.cumsum(random.geometric(1e-4, len(items)) // 10 * day)  # days apart, many of them the same
    train = Histories(users, items, times, starts, stops - 2)
    past = Histories(users, items, times, starts, stops - 1)
    return train, Queries("test", past, items[stops - 1], times[stops - 1])


def system(
    head: str = "none", backbone: str = "sasrec", *, loss: str = "softmax", **settings: object
) -> ItemRecommender:
    """A backbone with a head and a loss, default sizes, untrained; ``settings`` are the head's."""
    torch.manual_seed(0)
    backbone_config, head_config = config_classes(backbone, head)
    made_ = build(backbone, backbone_config(), head, head_config and head_config(**settings), ITEMS, loss)
    if not isinstance(made_, ItemRecommender):
        raise TypeError(f"{backbone} takes no head")
    return made_


def drawn_ids() -> SemanticIds:
    """Three drawn codes of 256 an item, and a suffix: nearly every item has a path of its own."""
    codes_NL = np.random.default_rng(1).integers(256, size=(ITEMS, 3))
    suffix_N = suffixes(codes_NL, 0, ITEMS)
    return table_of(np.column_stack([codes_NL, suffix_N]), (256, 256, 256, int(suffix_N.max()) + 1), ())


def spelling_system(backbone: str, table: SemanticIds, **sizes: object) -> GeneratorRecommender:
    """A backbone that spells items by these ids, without a head, untrained."""
    torch.manual_seed(0)
    backbone_config, head_config = config_classes(backbone, "none")
    made_ = build(
        backbone, backbone_config(**sizes), "none", head_config and head_config(), ITEMS, "spelling", None, table
    )
    if not isinstance(made_, GeneratorRecommender):
        raise TypeError(f"{backbone} does not spell")
    return made_


def some(queries: Queries, count: int) -> Queries:
    """The first queries."""
    h = queries.histories
    first = Histories(h.users[:count], h.items, h.times, h.starts[:count], h.stops[:count])
    times = None if queries.times is None else queries.times[:count]
    return Queries(queries.split, first, queries.targets[:count], times)


def neural_backbones() -> list[str]:
    """Names of the backbones that are trained by gradient."""
    return [name for name, entry in BACKBONES.entries().items() if entry.family == "neural"]
