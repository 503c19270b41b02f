"""Popularity: everyone is shown what has been bought most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from recbench.baselines.base import ALL, Baseline, Rows, item_counts
from recbench.data.dataset import Histories


@final
class Popularity(Baseline):
    """Score = the item's number of training events."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Nothing to set."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def fit(self, train: Histories, n_items: int) -> None:
        self._counts_V = item_counts(train, n_items)

    def scores(self, histories: Histories, rows: Rows = ALL) -> np.ndarray:
        return np.tile(self._counts_V, (len(histories.starts[rows]), 1))

    def state(self) -> dict[str, np.ndarray]:
        return {"counts": self._counts_V}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._counts_V = state["counts"]
