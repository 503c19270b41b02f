"""The contract of a reasoning head: what happens between the last state and the ranking. It knows no backbone's class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from recbench.backbones.base import Backbone
from recbench.data.batching import Batch, TrainingRows
from recbench.data.knowledge import ItemKnowledge
from recbench.scoring.base import Score


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training, run by the one loop: from the best weights so far, with a fresh optimiser."""

    name: str
    """Also the name of the table with its own settings: ``[train.<name>]``."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Training settings of this stage that stand over ``[train]`` and below ``[train.<name>]``."""
    needs: str | None = None
    """A stage before it whose weights must have been kept; else there is nothing for it to go on from, and it is left out."""


class Reasoner(Protocol):
    """A whole recommender as a head may use it: the frozen copy of where its stage began."""

    backbone: Backbone
    head: ReasoningHead
    score: Score


@dataclass(slots=True)
class Context:
    """What a head may know of the training around it."""

    stage: str
    generator: torch.Generator
    """Every draw of a head comes from it; it follows from the epoch, so that a resumed run draws the same."""
    train: TrainingRows | None
    """The training part, read-only. ``begin`` may put a part of it here: then the stage trains on that alone."""
    reference: Reasoner | None = None
    """Frozen copy of the recommender as the stage began; None in the first stage."""
    epoch: int = 0
    step: int = 0
    """Of the stage, from 1; each epoch counts from where ``steps`` says, also where rows too long to share one leave it fewer."""
    epochs: int = 0
    steps: int = 0
    """Steps of one epoch."""
    negatives: torch.Generator | None = None
    """What a loss draws its negatives from, new each step: a head draws the same under every loss. None: ``generator``."""
    items: ItemKnowledge | None = None
    """What is known of the items besides their ids. None: nothing."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What a reader of ``run.json`` should know of this stage; ``begin`` fills it."""
    _notes: dict[str, list[Tensor]] = field(default_factory=dict)

    @property
    def opens_epoch(self) -> bool:
        """Is this step the first of an epoch? What costs too much to look at in each is looked at then."""
        return bool(self.steps) and self.step % self.steps == 1 % self.steps

    def note(self, name: str, value: Tensor) -> None:
        """A diagnostic of this step, a scalar; ``log.jsonl`` gets its mean over the steps that noted it. No gradient is kept."""
        self._notes.setdefault(name, []).append(value.detach())

    def noted(self) -> dict[str, float]:
        """The means of what was noted since the last call."""
        means = {name: torch.stack(values).double().mean().item() for name, values in self._notes.items()}
        self._notes.clear()
        return means


class ReasoningHead(nn.Module, ABC):
    """From a backbone's states to the vector that ranks. Subclasses are final, one a file, with a frozen ``Config`` inside.

    Args:
        config: of the head's own ``Config``.
        backbone: what the head will stand on; sizes are read off it, no hold of it is kept.

    Raises:
        ValueError: config and backbone do not fit.
    """

    Config: ClassVar[type]
    stages: ClassVar[tuple[Stage, ...]]
    scalable: bool = True
    """Does a number of steps given at test time mean anything? A head that was trained without any says no."""
    lasting: ClassVar[tuple[str, ...]] = ()
    """Settings that every stage must have alike: an earlier one has acted on them already."""
    may_skip: ClassVar[bool] = False
    """Can it take no step at all, and is it the plain backbone then?"""
    taken_Q: Tensor | None = None
    """Steps that each asked token of the last ``think`` took; None where all take the same."""

    def __init__(self, config: Any, backbone: Backbone) -> None:  # noqa: ARG002 for subclasses
        super().__init__()
        self.config = config

    @classmethod
    def plan(cls, config: Any) -> tuple[Stage, ...]:  # noqa: ARG003 for heads whose stages depend on it
        """The stages of training under a config."""
        return cls.stages

    @classmethod
    def begins_as(cls, config: Any) -> Mapping[str, tuple[str, ...]]:  # noqa: ARG003 for heads that do
        """Other heads whose finished runs have, for this one, gone through these stages: all they trained is a backbone."""
        return {}

    @property
    def rates(self) -> Mapping[str, float]:
        """How many times the learning rate some parameters take, by what their names begin with."""
        return {}

    @abstractmethod
    def think(self, backbone: Backbone, batch: Batch, steps: int | None = None) -> Tensor:
        """Thoughts at the asked tokens, first to last, as made at test time, (Q, K, D). Deterministic in eval mode.

        Args:
            steps: how many reasoning steps to take; None: as configured.
        """

    @abstractmethod
    def answer(self, z_QKD: Tensor) -> Tensor:
        """The vector that ranks items, (Q, D)."""

    @abstractmethod
    def losses(self, backbone: Backbone, batch: Batch, score: Score, context: Context) -> dict[str, Tensor]:
        """Named, weighted, scalar losses; their sum is minimised."""

    def own(self, batch: Batch, context: Context) -> Tensor | None:  # noqa: ARG002 for heads that hold some back
        """Asked tokens of a training batch whose targets this stage may learn from. None: all."""
        return None

    def given(self) -> frozenset[str]:
        """Names of its tensors that training leaves as a file has them (``Backbone.given``): a run does not store them."""
        return frozenset()

    def begin(self, backbone: Backbone, score: Score, context: Context) -> None:
        """Prepare ``context.stage``. Nothing to do unless a stage says so."""


def targets(batch: Batch) -> Tensor:
    """Items that follow the asked tokens, (Q,).

    Raises:
        ValueError: the batch has none; training needs them.
    """
    if batch.targets_Q is None:
        raise ValueError("training needs targets")
    return batch.targets_Q
