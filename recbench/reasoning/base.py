"""The contract of a reasoning head: what happens between the last state and the ranking. It knows no backbone's class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recbench.backbones.base import Backbone
from recbench.data.batching import Batch, TrainingRows
from recbench.scoring.base import Score


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training, run by the one loop: from the best weights so far, with a fresh optimiser."""

    name: str
    """Also the name of the table with its own settings: ``[train.<name>]``."""


@dataclass(slots=True)
class Context:
    """What a head may know of the training around it."""

    stage: str
    generator: torch.Generator
    """Every draw of a head comes from it; it is saved, so that a resumed run draws the same."""
    train: TrainingRows | None
    """The training part, read-only."""
    reference: Any = None
    """Frozen copy of the recommender as the stage began; None in the first stage."""
    epoch: int = 0
    step: int = 0
    epochs: int = 0
    steps: int = 0
    """Steps of one epoch."""


class ReasoningHead(nn.Module, ABC):
    """From a backbone's states to the vector that ranks. Subclasses are final, one a file, with a frozen ``Config`` inside."""

    Config: ClassVar[type]
    stages: ClassVar[tuple[Stage, ...]]

    @abstractmethod
    def think(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Thoughts at the asked tokens, first to last, as made at test time, (Q, K, D). Deterministic in eval mode."""

    @abstractmethod
    def answer(self, z_QKD: Tensor) -> Tensor:
        """The vector that ranks items, (Q, D)."""

    @abstractmethod
    def losses(self, backbone: Backbone, batch: Batch, score: Score, context: Context) -> dict[str, Tensor]:
        """Named, weighted, scalar losses; their sum is minimised."""

    def begin(self, backbone: Backbone, score: Score, context: Context) -> None:
        """Prepare ``context.stage``. Nothing to do unless a stage says so."""
