"""The contract of a backbone: how a history becomes states. It knows nothing of reasoning.

Shapes. **N** tokens of a batch, packed: all rows one behind the other, nothing padded (``data.batching.Rows`` says where each
row begins). **B** rows, **Q** asked tokens, **D** width, **V** rows of the item table (row 0 is padding), **H** attention heads,
**T** width of a bucket of rows, **K** thoughts, **G** group, **M** tokens of a semantic ID, **C** codes of one of its levels.

Why packed: a batch of Beauty padded to 50 is 88 % padding, and batches of one length each would hand every contrastive or
group term negatives of one length only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from recbench.data.batching import Batch, Rows
from recbench.data.knowledge import ItemKnowledge

TimesSeen = Literal["none", "history", "history and target"]
"""Whose event times a state may depend on."""


class Layout(NamedTuple):
    """The tokens that ``embed`` makes of a batch."""

    rows: Rows
    at_Q: Tensor
    """Which of them stand for the asked tokens of the batch, ascending."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What ``encode`` gives: states, and the memory that ``extend`` needs."""

    h_QD: Tensor
    """States at the asked tokens, or at all N tokens where none were named."""
    memory: Any
    """The backbone's own: for attention, keys and values of every layer. None if it was not asked for."""


class Backbone(nn.Module, ABC):
    """A history encoder. Subclasses are final, one a file, with a frozen ``Config`` dataclass inside.

    Every dropout rate stands in an ``nn.Dropout``, so that a stage of training may set it.

    Every state depends on its own row only, and for a causal backbone on its own and earlier tokens only. No constant may depend
    on the batch. Positions of a causal backbone are counted from the oldest token kept; where a setting counts them from the
    newest, a state also depends on how many tokens follow in its row, on nothing of what they are.
    """

    Config: ClassVar[type]
    causal: ClassVar[bool]
    """May one pass train every position? If not, training makes one row of every prefix."""
    closed: ClassVar[bool] = False
    """Does every row end in a blank, which is what is asked for? (``data.batching.BLANK``; not for causal backbones.)"""
    blanked: float = 0.0
    """Above 0, training takes cloze rows in place of prefixes, with this share of their events blanked. Needs ``closed``."""
    max_length: int
    """Longest history seen; older events are cut."""
    n_layers: int
    post_norm: bool
    """Does each layer end in its norm?"""
    times_seen: TimesSeen = "none"
    """Whose times the states depend on, where a batch carries times. It may carry none: then they depend on items alone."""
    pretrained: ClassVar[bool] = False
    """Is it a model trained elsewhere, which what a head adds should not disturb before training says so?"""
    spells: ClassVar[bool] = False
    """Is an item spelled code by code? Then ``item_vectors`` do not rank, and the score must know where an answer stands."""

    def layout(self, batch: Batch) -> Layout:
        """The tokens of ``embed``: those of the batch, or a backbone's own where it makes several of an item.

        ``embed`` and ``encode`` speak of these N tokens; ``at_Q`` always names tokens of the batch.
        """
        return Layout(batch.rows, batch.at_Q)

    @abstractmethod
    def embed(self, batch: Batch) -> Tensor:
        """Input of the first layer, (N, D): item vectors, positions, input norm and input dropout."""

    @abstractmethod
    def encode(
        self,
        x_ND: Tensor,
        batch: Batch,
        *,
        start: int = 0,
        stop: int | None = None,
        at_Q: Tensor | None = None,
        remember: bool = False,
    ) -> Encoded:
        """Run layers ``start:stop`` and nothing else; ``start == stop`` is the identity.

        Args:
            at_Q: tokens whose top state will be read; the work of the others may be left out. None: all.
            remember: keep the memory that ``extend`` needs.
        """

    @abstractmethod
    def extend(self, memory: Any, x_QD: Tensor, at_Q: Tensor, *, live_Q: Tensor | None = None) -> Tensor:
        """States (Q, D) of one more latent token behind each token ``at_Q``, for all Q at once.

        Chain q sees its row's items up to ``at_Q[q]`` (the whole row where states have seen it) and its own earlier thoughts,
        nobody else's; memory remembers each call. A token may stand in ``at_Q`` twice: two independent chains.

        Args:
            x_QD: the latent tokens, fed as they are.
            at_Q: tokens of the batch, ascending, the same in every call on one memory.
            live_Q: False where the thought must never be seen again. None: all live.
        """

    @abstractmethod
    def item_vectors(self) -> Tensor:
        """The item table, (V, D); row 0 is padding and never scored. It ranks, unless the backbone ``spells``."""

    def prepare(self, items: ItemKnowledge | None) -> dict[str, Any]:  # noqa: ARG002 for backbones that read of items
        """Make ready for ``own_losses`` of a stage of training. What a reader of ``run.json`` should know of it.

        Raises:
            RecbenchError: what it wants to learn from is not there.
        """
        return {}

    def own_losses(
        self,
        batch: Batch,  # noqa: ARG002 for backbones that have some
        own_Q: Tensor | None,  # noqa: ARG002
        score: Any,  # noqa: ARG002
        generator: torch.Generator,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """Named, weighted, scalar losses that teach a backbone besides its head's, in the first stage of training.

        Args:
            own_Q: asked tokens whose targets it may learn from. None: all.
            score: the ``Score`` of the run, which no backbone may import.
            generator: every draw comes from it.
        """
        return {}

    def given(self) -> frozenset[str]:
        """Names of its tensors that training leaves as they were read from a file of their own: a run does not store them."""
        return frozenset()

    @property
    def longest_row(self) -> int:
        """Most tokens a row can have."""
        return self.max_length + self.closed

    @property
    def width(self) -> int:
        """D."""
        return self.item_vectors().shape[1]

    @property
    def n_items(self) -> int:
        """Items that can be ranked, V - 1."""
        return self.item_vectors().shape[0] - 1
