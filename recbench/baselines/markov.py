"""First-order Markov chain: what followed the last item in training, then what is popular."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from scipy import sparse

from recbench.baselines.base import ALL, Rows, events, item_counts, pack, unpack
from recbench.baselines.shared import Parts, SharedBaseline
from recbench.data.dataset import Histories


@final
class Markov(SharedBaseline):
    """Score = times the item followed the query's last item + weight x the item's share of all training events."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """How much popularity counts."""

        popularity_weight: float = 0.001
        """Weight of an item's share of all training events. Below 1 it only orders equal transition counts; 0: none."""

        def __post_init__(self) -> None:
            if not (math.isfinite(self.popularity_weight) and self.popularity_weight >= 0):
                raise ValueError(f"popularity_weight is {self.popularity_weight}; it must be finite and not below 0")

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def fit(self, train: Histories, n_items: int) -> None:
        items, row = events(train)
        adjacent = row[:-1] == row[1:]
        before, after = items[:-1][adjacent] - 1, items[1:][adjacent] - 1
        self._followed_VV = sparse.csr_array((np.ones(len(before)), (before, after)), shape=(n_items, n_items))
        self._followed_VV.sum_duplicates()
        self._share_V = item_counts(train, n_items) / max(len(items), 1)

    def parts(self, histories: Histories, rows: Rows = ALL) -> Parts:
        starts, stops = histories.starts[rows], histories.stops[rows]
        asked = np.flatnonzero(stops > starts)
        followed = self._followed_VV[histories.items[stops[asked] - 1] - 1]
        row = np.repeat(asked, np.diff(followed.indptr))
        # In float64: in float32 the popularity term vanishes beside a count of 1.
        return Parts(self.config.popularity_weight * self._share_V, row, followed.indices, followed.data)

    def state(self) -> dict[str, np.ndarray]:
        return {"share": self._share_V} | pack(self._followed_VV, "followed")

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._share_V = state["share"]
        self._followed_VV = unpack(state, "followed")
