"""Popularity: everyone is shown what has been bought most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from recbench.baselines.base import ALL, Rows, item_counts
from recbench.baselines.shared import Parts, SharedBaseline
from recbench.data.dataset import Histories


@final
class Popularity(SharedBaseline):
    """Score = the item's number of training events."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Nothing to set."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def fit(self, train: Histories, n_items: int) -> None:
        self._counts_V = item_counts(train, n_items)

    def parts(self, histories: Histories, rows: Rows = ALL) -> Parts:
        del histories, rows  # the same for all
        none = np.zeros(0, np.int64)
        return Parts(self._counts_V, none, none, np.zeros(0))

    def state(self) -> dict[str, np.ndarray]:
        return {"counts": self._counts_V}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._counts_V = state["counts"]
