"""Generated histories of Beauty's size: 22,363 users, 12,101 items, a mean of 8.9 events, long tails."""

from __future__ import annotations

import numpy as np
import torch

from recbench.data.dataset import Histories, Queries
from recbench.recommender import ItemRecommender, build
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
    train = Histories(users, items, None, starts, stops - 2)
    return train, Queries("test", Histories(users, items, None, starts, stops - 1), items[stops - 1])


def system(head: str = "none", *, loss: str = "softmax", **settings: object) -> ItemRecommender:
    """SASRec with a head, default sizes, untrained; ``settings`` are the head's. A loss has its defaults."""
    torch.manual_seed(0)
    backbone_config, head_config = config_classes("sasrec", head)
    made_ = build("sasrec", backbone_config(), head, head_config and head_config(**settings), ITEMS, loss)
    if not isinstance(made_, ItemRecommender):
        raise TypeError("SASRec takes a head")
    return made_
