"""A running average of the weights, validated and kept in their place (Polyak & Juditsky, 1992)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

PREFIX = "average."


class Average:
    """Exponential moving average of a model's parameters.

    Args:
        decay: share of the old average that a step keeps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = dict(model.named_parameters())
        self._kept = {name: parameter.detach().clone() for name, parameter in self._live.items()}

    @torch.no_grad()
    def step(self) -> None:
        """After a step of the optimiser."""
        torch._foreach_lerp_(list(self._kept.values()), [p.detach() for p in self._live.values()], 1 - self.decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights while this lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {PREFIX + name: tensor for name, tensor in self._kept.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back what ``tensors`` gave."""
        for name, kept in self._kept.items():
            kept.copy_(tensors[PREFIX + name])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, live in self._live.items():
            live.data, self._kept[name] = self._kept[name], live.data
