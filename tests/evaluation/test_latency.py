"""Whom a measurement of latency ranks together."""

from __future__ import annotations

import numpy as np
import pytest

from recbench.data.batching import Batch
from recbench.evaluation.latency import ORDERED_ROUNDS, ordered_latency
from recbench.recommender import Ask, ItemRecommender
from tests.systems import CPU, queries, small_system


def test_neighbours_in_an_order_are_ranked_together_and_all_of_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = queries([[u % 20 + 1, 3, 4] for u in range(40)])
    order = np.random.default_rng(0).permutation(40)
    together: list[set[int]] = []
    rank = ItemRecommender.ranks

    def watched(self: ItemRecommender, batch: Batch, ask: Ask) -> object:
        together.append(set((batch.users_B - 1).tolist()))
        return rank(self, batch, ask)

    monkeypatch.setattr(ItemRecommender, "ranks", watched)
    assert ordered_latency(small_system(), asked, 8, CPU, order) > 0
    assert len(together) == 1 + ORDERED_ROUNDS
    assert together[0] == together[1] == set(order[:8].tolist())
    assert together[-1] == set(order[-8:].tolist())
    assert set().union(*together) == set(range(40))
    place = {user: at for at, user in enumerate(order.tolist())}
    assert all(max(map(place.__getitem__, part)) - min(map(place.__getitem__, part)) == 7 for part in together)
