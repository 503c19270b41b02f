"""What the order of equal times is worth: two baselines on the data as prepared, and with ties shuffled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from recbench.data import splitting
from recbench.data.dataset import PARTS, Dataset, Events, Histories, histories_of, queries_of
from recbench.data.ties import hashed
from recbench.evaluation.evaluate import evaluate
from recbench.recommender import BaselineRecommender
from recbench.registry import BACKBONES

BASELINES = ("popularity", "markov")
"""One that knows no order, one that knows nothing else."""
METRICS = ("hr@10", "ndcg@10")
SEEDS = 5


def sensitivity(dataset: Dataset, seeds: Sequence[int] = range(SEEDS)) -> dict[str, Any]:
    """Test metrics of each baseline, all items, as prepared and under ``hash`` with each seed.

    The shuffle also touches training: what a model learns from the order inside a day counts as much as which item is
    the target. Empty for a source without times.

    Returns:
        ``{"seeds": [...], "popularity": {"as_prepared": {metric: value}, "shuffled": {metric: [a value a seed]}}, ...}``
    """
    events = dataset.events()
    times = events.histories.times
    if times is None:
        return {}
    found: dict[str, Any] = {"seeds": list(seeds)}
    as_prepared = _metrics(dataset, events)
    shuffled = [_metrics(dataset, _shuffled(dataset, events, times, seed)) for seed in seeds]
    for name in BASELINES:
        found[name] = {
            "as_prepared": as_prepared[name],
            "shuffled": {metric: [one[name][metric] for one in shuffled] for metric in METRICS},
        }
    return found


def _shuffled(dataset: Dataset, events: Events, times: np.ndarray, seed: int) -> Events:
    """The events with equal times in another order. Parts stay: they depend on times and places only."""
    item = events.histories.items[hashed(events.user, events.histories.items, times, seed)]
    is_target = events.is_target
    if dataset.together:  # which event of a set stands for an item depends on the order
        is_target = splitting.targets("all", events.user, item, events.part == splitting.TEST)[1]
    return Events(histories_of(events.user, item, times), events.user, events.part, is_target)


def _metrics(dataset: Dataset, events: Events) -> dict[str, dict[str, float]]:
    in_test = events.part == splitting.TEST
    queries = queries_of(events.histories, events.is_target & in_test, in_test, "test", together=dataset.together)
    train = _training(events)
    found = {}
    for name in BASELINES:
        baseline = BACKBONES.load(name)()
        baseline.fit(train, dataset.n_items)
        found[name] = evaluate(BaselineRecommender(baseline), queries, torch.device("cpu")).means(METRICS)
    return found


def _training(events: Events) -> Histories:
    rows = events.part == PARTS.index("train")
    return histories_of(events.user[rows], events.histories.items[rows], None)
