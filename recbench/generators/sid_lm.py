"""sid-lm: a decoder-only language model over the codes of items, from scratch.

Layout ``<s> c1 .. cM <s> c1 .. cM .. <s>``: the state at the ``<s>`` behind item t is what heads think from and what the first code
of item t + 1 is read off. One pass serves every item of a row; codes after the first are spelled beside the row, each seeing what
it would see if it stood in it.
Layers are SASRec's pre-norm blocks (Kang & McAuley, arXiv 1808.09781, section 3) with rotary positions (Su et al., arXiv
2104.09864), over code tokens; input vectors and output are one table, and the softmax of a code runs over its level alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, final

import torch
from torch import Tensor

from recbench.backbones.base import Encoded, Layout
from recbench.backbones.packing import asked_layout
from recbench.backbones.sasrec import Block, SASRec
from recbench.data.batching import Batch
from recbench.generators.base import Generator, Recalled, Seats, Start
from recbench.generators.past import Branch, Past, Path, length
from recbench.semantic_ids.table import BEGIN, SemanticIds


@dataclass(frozen=True, slots=True)
class Memory:
    """What the layers remember of the codes of a batch."""

    inner: Any
    batch: Batch


@final
class SidLM(Generator):
    """The causal language model over semantic ids."""

    causal = True
    post_norm = False

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Sizes, dropout, positions."""

        width: int = 64
        """D, also of the code vectors."""
        n_layers: int = 2
        """Attention blocks."""
        n_heads: int = 2
        """Attention heads; divides ``width``."""
        inner: int = 256
        """Width of the feed-forward."""
        max_length: int = 20
        """Newest items of a history that are seen; each takes one token a code, and one between."""
        dropout: float = 0.2
        """On the input, after attention and after the feed-forward."""
        attention_dropout: float = 0.1
        """On the attention weights."""
        initial_sd: float = 0.02
        """Standard deviation of all initial weights; biases start at 0."""
        positions: Literal["rotary", "learned"] = "rotary"
        """Queries and keys turned by their position, in every layer; or a vector a position, added to the input."""
        start: Start = "constant"
        """What ``<s>`` is: constant, the same vector behind all items; item: that and the sum of the item's code vectors, so
        that what is read off there has a residual path from the newest item."""
        feed_forward: Literal["gelu", "swiglu"] = "gelu"
        """swiglu: silu of one projection times another, without biases."""

        def __post_init__(self) -> None:
            self.layers(self.max_length)

        def layers(self, longest: int) -> SASRec.Config:
            """SASRec's settings for layers over rows of at most ``longest`` tokens."""
            return SASRec.Config(
                width=self.width,
                n_layers=self.n_layers,
                n_heads=self.n_heads,
                inner=self.inner,
                max_length=longest,
                dropout=self.dropout,
                attention_dropout=self.attention_dropout,
                initial_sd=self.initial_sd,
                norm="pre",
                positions=self.positions,
                feed_forward=self.feed_forward,
            )

    def __init__(self, config: Config, table: SemanticIds) -> None:
        super().__init__(table, config.width)
        self.config = config
        self.max_length = config.max_length
        self.n_layers = config.n_layers
        self.over_codes = SASRec(config.layers(self.longest_row + self.levels), table.n_tokens - 1)

    @property
    def longest_row(self) -> int:
        return self.max_length * (self.levels + 1) + 1

    def layout(self, batch: Batch) -> Layout:
        return Layout(batch.rows.stretched(self.levels + 1, 1), self._behind(batch, batch.at_Q))

    def inputs(self, batch: Batch) -> Tensor:
        tokens = self._codes(batch)
        behind_N = self._behind(batch, torch.arange(len(batch.items_N), device=batch.items_N.device))
        x_ND = self._started(self.over_codes.items(tokens.items_N), self.config.start, batch.items_N, behind_N)
        return self.over_codes.enter(x_ND, tokens.rows)

    def run(
        self, x_ND: Tensor, batch: Batch, start: int, stop: int | None, at_Q: Tensor | None, *, remember: bool
    ) -> Encoded:
        at = None if at_Q is None else self._behind(batch, at_Q)
        found = self.over_codes.encode(x_ND, self._codes(batch), start=start, stop=stop, at_Q=at, remember=remember)
        return Encoded(found.h_QD, Memory(found.memory, batch)) if remember else found

    def extend(self, memory: Any, x_QD: Tensor, at_Q: Tensor, *, live_Q: Tensor | None = None) -> Tensor:
        return self.over_codes.extend(memory.inner, x_QD, self._behind(memory.batch, at_Q), live_Q=live_Q)

    def recalled(self, memory: Any, batch: Batch) -> Recalled:
        rows, at_Q = self.layout(batch)
        said = zip(memory.inner.keys_LND, memory.inner.values_LND, strict=True)
        return Recalled([Past(k_ND, v_ND, rows, self.config.n_heads) for k_ND, v_ND in said], at_Q)

    def seats(self, recalled: Recalled, at_R: Tensor) -> Seats:
        return Seats(at_R, asked_layout(recalled.pasts[0].rows, at_R))

    def spell(
        self, recalled: Recalled, x_RLD: Tensor, seats: Seats, paths: Sequence[Path] | None
    ) -> tuple[Tensor, list[Path]]:
        L, before = x_RLD.shape[1], length(paths)
        steps_L = torch.arange(before + 1, before + L + 1, device=x_RLD.device)
        place_Q = (recalled.pasts[0].rows.position_N[seats.at_R][:, None] + steps_L).flatten()
        positions, x_QD = self.over_codes.positions, x_RLD.flatten(0, 1)
        x_QD = self.over_codes.dropout(x_QD if positions is None else x_QD + positions(place_Q))
        longer: list[Path] = []
        for depth, (layer, past) in enumerate(zip(self.over_codes.layers, recalled.pasts, strict=True)):
            branch = Branch(past, seats.layouts, None if paths is None else paths[depth], L)
            x_QD = cast("Block", layer).think(x_QD, place_Q, branch, None)
            longer.append(cast("Path", branch.path))
        return x_QD.view(x_RLD.shape), longer

    def code_vectors(self) -> Tensor:
        return self.over_codes.items.weight

    def reading(self, level: int) -> Tensor:
        first = self._first[level]
        return self.over_codes.items.weight[first : first + self.table.level_sizes[level]]

    def _behind(self, batch: Batch, at_Q: Tensor) -> Tensor:
        """The ``<s>`` behind each of these items of the batch."""
        return (at_Q + 1) * (self.levels + 1) + batch.rows.row_N[at_Q]

    def _codes(self, batch: Batch) -> Batch:
        """The batch as rows of code tokens."""
        rows, at_Q = self.layout(batch)
        tokens_N = torch.full((rows.n_tokens,), BEGIN, device=batch.items_N.device)
        M = self.levels
        first_N = torch.arange(len(batch.items_N), device=tokens_N.device) * (M + 1) + batch.rows.row_N + 1
        places = first_N[:, None] + torch.arange(M, device=tokens_N.device)
        tokens_N[places.flatten()] = self.tokens_VM[batch.items_N].flatten()
        return Batch(tokens_N, rows, at_Q, None, batch.users_B)
