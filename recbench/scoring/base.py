"""The contract of a score: how answers meet items. Handed to heads, so that reasoning imports no training code."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from recbench.data.batching import Batch

Divergence = Literal["code", "paper"]
"""Which divergence between K distributions: see ``Score.pooled``."""


class Score(ABC):
    """One training loss and, the same under every loss, what ranks items. Subclasses are final, with a frozen ``Config`` inside.

    Everything here works in chunks: no tensor of (rows, thoughts, items) is ever made. ``loss`` may look at some items only;
    ``place``, ``top``, ``log_prob`` and the divergence of ``pooled`` are always over the whole catalogue.
    """

    Config: ClassVar[type]

    @property
    @abstractmethod
    def name(self) -> str:
        """The training loss with all its parameters as tables state it: ``softmax over all items``. Equal names, equal losses."""

    def begin(self, counts_V: Tensor) -> None:  # noqa: B027 a loss that looks at all items needs no counts
        """Before a stage of training: how often each item is a target in an epoch, (V,); row 0 is padding."""

    def step(
        self,
        generator: torch.Generator,  # noqa: ARG002 for losses that draw
        pool_Q: Tensor | None,  # noqa: ARG002
        batch: Batch | None = None,  # noqa: ARG002 for scores that read histories
    ) -> contextlib.AbstractContextManager[None]:
        """One step: while it lasts, ``loss`` draws from ``generator``, the step's targets ``pool_Q`` are its in-batch items, and
        answers stand behind the histories of ``batch``."""
        return contextlib.nullcontext()

    def parts(self) -> dict[str, Tensor]:
        """What the losses of the step were made of, scalars by name; ``log.jsonl`` gets them as diagnostics."""
        return {}

    def at(self, asked_N: Tensor) -> Self:  # noqa: ARG002
        """The same score for answers that stand at these asked tokens of the step's batch, (N,) places in ``Batch.at_Q``.

        Without it answer n stands at asked token n. Whoever asks about some answers, or several at one token, says so; it matters
        where an item is spelled code by code, since each code is read off the history, too.
        """
        return self

    @abstractmethod
    def loss(self, u_ND: Tensor, target_N: Tensor, *, tau: float = 1.0, frozen: bool = False) -> Tensor:
        """Mean next-item loss of answers ``u_ND`` for item ids ``target_N``, a scalar.

        A loss with negatives draws anew in every call. A row's own target is never its negative; other items of the same user
        may be, as they are under the full softmax.

        Args:
            tau: temperature; scores are divided by it.
            frozen: no gradient into the item table.
        """

    def first_loss(self, u_ND: Tensor, target_N: Tensor, *, tau: float = 1.0) -> Tensor:
        """``loss`` over the first part of the items alone, all of it where an item has one part: what a thought on the way to the
        answer pays."""
        return self.loss(u_ND, target_N, tau=tau)

    @abstractmethod
    def pooled(
        self,
        z_NKD: Tensor,
        target_N: Tensor,
        *,
        mix_MK: Tensor,
        tau: float = 1.0,
        divergence: float = 0.0,
        form: Divergence = "code",
    ) -> tuple[Tensor, Tensor]:
        """Loss of M mixtures of K states, summed over M, and ``divergence`` times how far the states' distributions lie apart.

        Both are scalars, made together from one set of scores, so they can only be differentiated together, as parts of one sum.
        The loss of a mixture is ``loss`` of the mixed state; the divergence is between distributions over the whole catalogue, or
        over first codes where items are spelled.

        Args:
            z_NKD: states; p_k is the softmax of state k's scores over tau.
            mix_MK: weights of the states in each mixture; without gradient.
            divergence: its weight, negative to reward distance.
            form: ``code``: mean over ordered pairs i != j of KL(p_j || p_i), no gradient into p_i (K > 1);
                ``paper``: sum over i < j of KL(p_i || p_j). Nats, mean over N.
        """

    @abstractmethod
    def log_prob(self, u_ND: Tensor, items_NG: Tensor, *, tau: float = 1.0, frozen: bool = False) -> Tensor:
        """Log-probabilities of items under the answers, (N, G, M), M parts of an item that add up: 1 for item ids. With gradient.

        The softmax of the scores over the whole catalogue, also where the training loss is another: rewards and policies need a
        distribution over items. Where items are spelled, of each code over its level.

        Args:
            items_NG: item ids, G a row.
        """

    @abstractmethod
    def top(self, u_ND: Tensor, g: int) -> Tensor:
        """The best ``g`` items of each answer, ids (N, g), best first; no gradient."""

    @abstractmethod
    def draw(self, u_ND: Tensor, g: int, generator: torch.Generator) -> Tensor:
        """``g`` items of each answer, drawn independently from the softmax of its scores, ids (N, g); no gradient.

        One item may be drawn often. Where items are spelled, each code is drawn among those that lead to an item.
        """

    @abstractmethod
    def place(self, u_ND: Tensor, target_N: Tensor, *, within: int | None = None) -> tuple[Tensor, Tensor]:
        """How many items beat each target and how many equal it, (N,) each; no gradient. What cannot be compared beats it.

        Args:
            within: nobody looks further than this rank: a target beyond it may be given as the last. None: as far as there are.
        """

    @abstractmethod
    def items(self) -> Tensor:
        """The item table without its padding row, (V - 1, D): row j is item j + 1."""
