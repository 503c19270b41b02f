"""What losses with negatives share: the generator and the targets of the step they are in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recbench.data.batching import Batch
from recbench.scoring.items import ItemScore


@dataclass(frozen=True, slots=True)
class Step:
    """One step of training as a loss sees it."""

    generator: torch.Generator
    pool_Q: Tensor
    """The step's targets."""


class DrawingScore(ItemScore):
    """A score whose loss draws: it can be called within ``step`` alone, so that a resumed run draws the same."""

    def __init__(self, table: Callable[[], Tensor], chunk_rows: int | None = None, config: Any = None) -> None:
        super().__init__(table, chunk_rows, config)
        self._step: Step | None = None
        self._share_V: Tensor | None = None

    def begin(self, counts_V: Tensor) -> None:
        self._share_V = counts_V.to(self._table().dtype) / counts_V.sum()

    @contextlib.contextmanager
    def step(
        self,
        generator: torch.Generator,
        pool_Q: Tensor | None,
        batch: Batch | None = None,  # noqa: ARG002 item ids need no history
    ) -> Iterator[None]:
        if pool_Q is None:
            raise ValueError("training needs targets")
        self._step = Step(generator, pool_Q)
        try:
            yield
        finally:
            self._step = None

    @property
    def _now(self) -> Step:
        if self._step is None:
            raise ValueError("a loss with negatives draws them: call it within step(generator, targets)")
        return self._step

    @property
    def _n_items(self) -> int:
        return len(self._table()) - 1

    def _shares(self) -> Tensor:
        """Each item's share of the training targets, (V,)."""
        if self._share_V is None:
            raise ValueError("log-Q needs to know how often each item is a target: call begin(counts) before training")
        return self._share_V
