"""The contract of a score: how answers meet items. Handed to heads, so that reasoning imports no training code."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Score(ABC):
    """Everything here works in chunks: no tensor of (rows, thoughts, items) is ever made."""

    name: str
    """The training loss as tables state it, for example ``softmax over all items``."""

    @abstractmethod
    def loss(self, u_ND: Tensor, target_N: Tensor, *, tau: float = 1.0, frozen: bool = False) -> Tensor:
        """Mean next-item loss of answers ``u_ND`` for item ids ``target_N``, a scalar.

        Args:
            tau: temperature; scores are divided by it.
            frozen: no gradient into the item table.
        """

    @abstractmethod
    def place(self, u_ND: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
        """How many items beat each target and how many equal it, (N,) each; no gradient. What cannot be compared beats it."""

    @abstractmethod
    def items(self) -> Tensor:
        """The item table without its padding row, (V - 1, D): row j is item j + 1."""
