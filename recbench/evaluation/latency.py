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
ORDERED_ROUNDS = 9
LIST = 10


def latency(
    model: Recommender, queries: Queries, users: int, device: torch.device, *, steps: int | None = None
) -> float:
    """Median wall milliseconds a user, from ids to the best ten of all items, ``users`` at a time.

    Queries are drawn with a fixed seed, the same for every model; one batch before is not counted.

    Args:
        steps: reasoning steps to take; None: as configured.
    """
    random, rounds = np.random.default_rng(0), ROUNDS.get(users, FEW_ROUNDS)
    drawn = [random.choice(len(queries), min(users, len(queries)), replace=False) for _ in range(rounds + 1)]
    return statistics.median(_times(model, queries, drawn, device, steps)[1:])


def ordered_latency(model: Recommender, queries: Queries, users: int, device: torch.device, order: np.ndarray) -> float:
    """Mean wall milliseconds a user where neighbours in ``order`` are ranked together, ``users`` at a time.

    Evenly spaced parts of the order are measured; one batch before is not counted.
    """
    size = min(users, len(queries))
    firsts = np.linspace(0, len(queries) - size, ORDERED_ROUNDS).round().astype(int)
    parts = [order[first : first + size] for first in (firsts[0], *firsts)]
    return statistics.mean(_times(model, queries, parts, device, None)[1:])


def _times(
    model: Recommender, queries: Queries, parts: list[np.ndarray], device: torch.device, steps: int | None
) -> list[float]:
    """Milliseconds a user of ranking each of these parts of the queries."""
    if isinstance(model, nn.Module):
        model.eval()
    taken = []
    for chosen in parts:
        histories = queries.histories.only(chosen)
        began = perf_counter()
        order, batch = next(query_batches(histories, model.max_length, len(chosen), device, closed=model.closed))
        model.ranks(batch, Ask(seen_of(histories, order, device), LIST, steps=steps))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(1000 * (perf_counter() - began) / len(chosen))
    return taken
