"""What ranking one user costs when so many are ranked at once."""

from __future__ import annotations

import statistics
from time import perf_counter

import numpy as np
import torch
from torch import nn

from recbench.data.batching import query_batches
from recbench.data.dataset import Queries
from recbench.evaluation.evaluate import seen_of
from recbench.recommender import Ask, Recommender

ROUNDS = {1: 50}
"""Measured batches by size; fewer of larger ones."""
FEW_ROUNDS = 5
LIST = 10


def latency(
    model: Recommender, queries: Queries, users: int, device: torch.device, *, steps: int | None = None
) -> float:
    """Median wall milliseconds a user, from ids to the best ten of all items, ``users`` at a time.

    Queries are drawn with a fixed seed, the same for every model; one batch before is not counted.

    Args:
        steps: reasoning steps to take; None: as configured.
    """
    if isinstance(model, nn.Module):
        model.eval()
    rounds = ROUNDS.get(users, FEW_ROUNDS)
    random = np.random.default_rng(0)
    taken = []
    for _ in range(rounds + 1):
        chosen = random.choice(len(queries), min(users, len(queries)), replace=False)
        histories = queries.histories.only(chosen)
        began = perf_counter()
        order, batch = next(query_batches(histories, model.max_length, len(chosen), device, closed=model.closed))
        model.ranks(batch, Ask(seen_of(histories, order, device), LIST, steps=steps))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(1000 * (perf_counter() - began) / len(chosen))
    return statistics.median(taken[1:])
