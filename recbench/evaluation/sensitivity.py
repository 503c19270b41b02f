"""What the order of equal times is worth: two baselines on the data as prepared, and with ties shuffled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recbench.baselines.shared import SharedBaseline, above_and_tied
from recbench.data import splitting
from recbench.data.card import Card
from recbench.data.dataset import PARTS, Dataset, Events, Histories, histories_of, queries_of
from recbench.data.describe import TIE_SENSITIVITY, markdown
from recbench.data.prepare import README
from recbench.data.ties import hashed
from recbench.evaluation.metrics import of_users, parse
from recbench.files import write_text
from recbench.registry import BACKBONES

BASELINES = ("popularity", "markov")
"""One that knows no order, one that knows nothing else."""
METRICS = ("hr@10", "ndcg@10")
SEEDS = 5
LARGEST = 1_000_000
"""Events up to which a preparation looks by itself: 1.4 seconds of CPU there. Beyond, ``recbench audit`` does it."""


def measure(dataset: Dataset, n_seeds: int = SEEDS) -> Card:
    """The dataset's card with its sensitivity to the order of ties."""
    found = sensitivity(dataset, range(n_seeds))
    return replace(dataset.card, audit={**dataset.card.audit, TIE_SENSITIVITY: found})


def keep(card: Card, folder: Path) -> None:
    """Write the card anew into its folder, for machines and for people.

    Raises:
        OSError: the folder cannot be written.
    """
    card.write(folder)
    write_text(folder / README, markdown(card))


def sensitivity(dataset: Dataset, seeds: Sequence[int] = range(SEEDS)) -> dict[str, Any]:
    """Test metrics of each baseline, all items, as prepared and under ``hash`` with each seed.

    The shuffle also touches training: what a model learns from the order inside a day counts as much as which item is
    the target. Empty where nothing is tied: for a source without times, or with no two events of a user at one time.

    Returns:
        ``{"seeds": [...], "popularity": {"as_prepared": {metric: value}, "shuffled": {metric: [a value a seed]}}, ...}``
    """
    if not (dataset.card.audit.get("users_with_tied_times") and dataset.card.audit["test_targets"]):
        return {}
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
        baseline: SharedBaseline = BACKBONES.load(name)()
        baseline.fit(train, dataset.n_items)
        above, tied = above_and_tied(baseline, queries)
        users = queries.histories.users
        found[name] = {
            metric: float(of_users(parse(metric), above, tied, users, together=queries.together).mean())
            for metric in METRICS
        }
    return found


def _training(events: Events) -> Histories:
    rows = events.part == PARTS.index("train")
    return histories_of(events.user[rows], events.histories.items[rows], None)
