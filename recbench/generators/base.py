"""The contract of a generator: a backbone whose tokens are the codes of items, and which spells an item code by code.

A head sees what it sees of any backbone: one asked token an item, states of width D, an answer. From the answer u the first code
is read off directly. Every later code is spelled by one more token, which is given the code before it and a projection of u (zero
at the start of training), and which sees the history up to the asked token and the earlier codes of its own spelling. The thoughts
of a head are not among what it sees: whatever a head has thought reaches the codes through u, the same way under every head.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.backbones.base import Backbone, Encoded
from recbench.data.batching import Batch
from recbench.generators.past import Path
from recbench.scoring.precision import product
from recbench.semantic_ids.table import SemanticIds, table_of
from recbench.semantic_ids.tree import PrefixTree

CODES, SIZES = "codes", "sizes"
"""Buffers that hold the table of ids, so that a file of weights spells the same items wherever it is read."""
Start = Literal["constant", "item"]
"""What the token is that an item's answer is read off: a learned vector, the same for all; or that and the item's code vectors."""


class Recalled(NamedTuple):
    """A batch's histories as spellings read them: every layer's, and where its asked tokens stand in them."""

    pasts: Sequence[Any]
    at_Q: Tensor


class Seats(NamedTuple):
    """Where R codes that are spelled at once stand. The same for each next code of the same spellings."""

    at_R: Tensor
    """The token of its answer, ascending."""
    layouts: Sequence[Any]
    """The same for attention: one a source of keys."""


@dataclass(slots=True)
class _Kept:
    """What the generator keeps while somebody works on a batch."""

    batch: Batch
    grad: bool
    x_ND: Tensor | None = None
    """What ``embed`` last made of it: a whole pass over anything else is not one over the histories."""
    memory: Any = None


class Generator(Backbone):
    """A backbone that spells. Subclasses are final, one a file, with a frozen ``Config`` dataclass inside.

    Args:
        table: the ids of all items.
        width: D.
    """

    spells: ClassVar[bool] = True
    codes: Tensor
    sizes: Tensor

    def __init__(self, table: SemanticIds, width: int) -> None:
        super().__init__()
        self.table = table
        self.tree = PrefixTree.of(table)
        self.register_buffer(CODES, torch.from_numpy(table.codes_VM.astype(np.int16)))
        self.register_buffer(SIZES, torch.tensor(table.level_sizes))
        self.register_buffer("tokens_VM", torch.from_numpy(table.tokens()), persistent=False)
        self.carried = nn.Linear(width, width, bias=False)
        """What of the answer the later codes are told."""
        nn.init.zeros_(self.carried.weight)
        self._kept: _Kept | None = None

    tokens_VM: Tensor
    """Tokens of each item; row 0 is padding."""

    # --- what a subclass says ---------------------------------------------------------------------------------------

    @abstractmethod
    def inputs(self, batch: Batch) -> Tensor:
        """``embed``."""

    @abstractmethod
    def run(
        self, x_ND: Tensor, batch: Batch, start: int, stop: int | None, at_Q: Tensor | None, *, remember: bool
    ) -> Encoded:
        """``encode``."""

    @abstractmethod
    def recalled(self, memory: Any, batch: Batch) -> Recalled:
        """What spellings read of the memory that a full pass over ``batch`` left."""

    @abstractmethod
    def seats(self, recalled: Recalled, at_R: Tensor) -> Seats:
        """Where the spellings of answers at tokens ``at_R`` stand; ascending, one may stand there often."""

    @abstractmethod
    def spell(
        self, recalled: Recalled, x_RLD: Tensor, seats: Seats, paths: Sequence[Path] | None
    ) -> tuple[Tensor, list[Path]]:
        """States (R, L, D) of L more codes each, and the paths with them. Each code sees those before it and itself.

        Args:
            paths: of the codes before them, one a layer; None: they are the first that are spelled.
        """

    @abstractmethod
    def code_vectors(self) -> Tensor:
        """The table of input vectors of all tokens, (tokens, D); row 0 is padding and zero."""

    @abstractmethod
    def reading(self, level: int) -> Tensor:
        """What reads codes of ``level`` off a state: logits are the products with its rows, (C, D)."""

    def facts(self) -> dict[str, Any]:
        """What a reader of ``run.json`` should know of it besides its settings."""
        return {}

    # --- what follows from it ---------------------------------------------------------------------------------------

    def embed(self, batch: Batch) -> Tensor:
        x_ND, kept = self.inputs(batch), self._kept
        if kept is not None and kept.batch is batch:
            kept.x_ND = x_ND
        return x_ND

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
        kept, whole = self._kept, start == 0 and stop in (None, self.n_layers)
        keep = whole and kept is not None and kept.x_ND is x_ND and kept.memory is None
        keep = keep and kept is not None and torch.is_grad_enabled() == kept.grad
        found = self.run(x_ND, batch, start, stop, at_Q, remember=remember or keep)
        if kept is not None and keep:
            kept.memory = found.memory
        return found

    @contextlib.contextmanager
    def about(self, batch: Batch) -> Iterator[None]:
        """While it lasts ``recall`` is about this batch; the first whole pass over what ``embed`` made of it, whoever makes it,
        is kept and read by all."""
        before, self._kept = self._kept, _Kept(batch, torch.is_grad_enabled())
        try:
            yield
        finally:
            self._kept = before

    def recall(self) -> Recalled:
        """The histories of the batch that ``about`` names.

        Raises:
            ValueError: nobody has named one.
        """
        kept = self._kept
        if kept is None:
            raise ValueError("spelling needs the batch whose histories it reads: name it by Score.step(.., batch)")
        if kept.memory is None:
            with torch.set_grad_enabled(kept.grad):
                self.encode(self.embed(kept.batch), kept.batch, at_Q=kept.batch.at_Q)
        return self.recalled(kept.memory, kept.batch)

    def next_token(self, u_RD: Tensor, code_R: Tensor, level: int, *, frozen: bool = False) -> Tensor:
        """The token that spells the code behind code ``code_R`` of ``level``, (R, D)."""
        table = self.code_vectors()
        vectors_RD = F.embedding(code_R + self._first[level], table.detach() if frozen else table)
        return vectors_RD + self.carried(u_RD)

    def read(self, h_RD: Tensor, level: int, *, frozen: bool = False) -> Tensor:
        """Logits of the codes of ``level``, (R, C), in float32 or better."""
        weight_CD = self.reading(level)
        return product(h_RD, (weight_CD.detach() if frozen else weight_CD).t())

    def item_vectors(self, items_N: Tensor | None = None) -> Tensor:
        """The sum of an item's code vectors, of all items unless some are named. It does not rank; heads that need a vector for
        an item take it."""
        tokens_NM = self.tokens_VM if items_N is None else self.tokens_VM[items_N]
        return F.embedding(tokens_NM, self.code_vectors()).sum(1)

    def _started(self, x_ND: Tensor, start: Start, items_Q: Tensor, at_Q: Tensor) -> Tensor:
        """Input vectors, where the tokens ``at_Q`` are what the answers of these items are read off."""
        return x_ND if start == "constant" else x_ND.index_add(0, at_Q, self.item_vectors(items_Q))

    @property
    def levels(self) -> int:
        """M."""
        return len(self.table)

    @property
    def width(self) -> int:
        return self.carried.in_features

    @property
    def n_items(self) -> int:
        return len(self.codes) - 1

    @property
    def _first(self) -> list[int]:
        """Token of code 0 of each level."""
        return [int(first) for first in self.table.offsets]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        moved = super()._apply(fn, recurse)  # type: ignore[no-untyped-call] # torch leaves it untyped
        self.tree = self.tree.to(self.codes.device)
        return moved


def table_in(tensors: dict[str, Tensor]) -> SemanticIds | None:
    """The table of ids that a file of weights holds; None if the model does not spell."""
    found = {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}
    if CODES not in found or SIZES not in found:
        return None
    return table_of(found[CODES].numpy()[1:], found[SIZES].tolist(), ())
