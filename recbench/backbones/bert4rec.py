"""BERT4Rec: bidirectional self-attention over the history and a blank behind it, whose state ranks.

Source: Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer", CIKM 2019,
arXiv 1904.06690; details after the authors' code (FeiSun/BERT4Rec). As there: item vectors plus learned positions from the oldest
event; blocks of bidirectional multi-head attention and a GELU feed-forward, each with dropout, residual and LayerNorm; the
output layer's projection of the blank's state, with GELU and LayerNorm, before it meets the table of items.
How it trains is a setting. ``rows = prefix``: every training event once an epoch, behind a history closed by a blank: the
targets, the loss and the budget every other backbone has, and the rows that reasoning heads need. ``rows = cloze``: the
paper's objective; a share of each user's events is blanked and filled in, and once the newest alone, as the authors add to
their samples.
Not as in the original: the output layer's bias of each item is left out, as all backbones rank by one dot product; blanks are
drawn anew each epoch instead of ten times before training; one row of each kind a user instead of ten to one, from the
newest window alone instead of sliding ones; Adam without warm-up or decay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.backbones.base import Backbone, Encoded
from recbench.backbones.initial import initialise
from recbench.backbones.packing import Seen
from recbench.backbones.postnorm import EPS, Attention, FeedForward
from recbench.conditions import OnlyWith
from recbench.data.batching import BLANK, Batch, Rows
from recbench.kernels.dropout import Dropout
from recbench.limits import above, at_least, below_one, goes_into


@dataclass(slots=True)
class Memory:
    """Keys and values of a batch in every layer, and once somebody has thought, what each thought sees of them."""

    rows: Rows
    said_L: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    seen_L: list[Seen] | None = None


@final
class BERT4Rec(Backbone):
    """The bidirectional encoder. A thought sees its whole row and its chain's earlier thoughts; no item sees a thought."""

    causal = False
    closed = True
    post_norm = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Sizes, dropout, and the rows of training."""

        width: int = 64
        """D, also of the item vectors."""
        n_layers: int = 2
        """Attention blocks."""
        n_heads: int = 2
        """Attention heads; divides ``width``."""
        inner: int = 256
        """Width of the feed-forward."""
        max_length: int = 50
        """Newest events of a history that are seen; the blank comes on top."""
        dropout: float = 0.5
        """On the input, after attention and after the feed-forward."""
        attention_dropout: float = 0.5
        """On the attention weights."""
        initial_sd: float = 0.02
        """Standard deviation of all initial weights; biases start at 0."""
        projection: bool = True
        """States pass a linear layer, GELU and LayerNorm before they meet the item table (the paper's output layer)."""
        positions_from: Literal["oldest", "newest"] = "oldest"
        """The token that positions are counted from: the oldest event, as in the authors' code, or the blank at the end."""
        rows: Literal["prefix", "cloze"] = "prefix"
        """What training fills in: the blank behind every prefix, or blanks scattered over whole histories."""
        blanked: float = 0.2
        """Share of a history that cloze blanks, the paper's rho."""

        only_with: ClassVar[OnlyWith] = {"rows=cloze": "blanked"}

        def __post_init__(self) -> None:
            at_least(1, self, "width", "n_layers", "n_heads", "inner", "max_length")
            goes_into(self, "n_heads", "width")
            above(0, self, "initial_sd")
            below_one(self, "dropout", "attention_dropout")
            if not 0 < self.blanked <= 1:
                raise ValueError(f"blanked is {self.blanked:g}; a share that is filled in lies in (0, 1].")

    def __init__(self, config: Config, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.max_length = config.max_length
        self.n_layers = config.n_layers
        self.blanked = config.blanked if config.rows == "cloze" else 0.0
        D = config.width
        self.items = nn.Embedding(n_items + 1, D, padding_idx=0)
        self.blank = nn.Embedding(1, D)
        self.positions = nn.Embedding(self.longest_row, D)
        self.norm = nn.LayerNorm(D, eps=EPS)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.projection = nn.Linear(D, D) if config.projection else None
        self.projected = nn.LayerNorm(D, eps=EPS) if config.projection else None
        initialise(self, config.initial_sd)

    def embed(self, batch: Batch) -> Tensor:
        blank_N1 = (batch.items_N == BLANK)[:, None]
        x_ND = torch.where(blank_N1, self.blank.weight, self.items(batch.items_N))
        return cast(
            "Tensor", self.dropout(self.norm(x_ND + self.positions(batch.rows.counted_N(self.config.positions_from))))
        )

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
        layers = self.layers[start:stop]
        memory = Memory(batch.rows) if remember else None
        asked_Q = None if at_Q is None or len(at_Q) == batch.rows.n_tokens else at_Q
        for depth, layer in enumerate(layers):
            last = depth == len(layers) - 1
            x_ND = layer(x_ND, batch.rows, asked_Q if last else None, None if memory is None else memory.said_L)
        if asked_Q is not None and not len(layers):
            x_ND = x_ND[asked_Q]
        top = len(layers) > 0 and layers[-1] is self.layers[-1]
        return Encoded(self._answered(x_ND) if top else x_ND, memory)

    def extend(self, memory: Any, x_QD: Tensor, at_Q: Tensor, *, live_Q: Tensor | None = None) -> Tensor:
        blocks = [cast("Block", layer) for layer in self.layers]
        if memory.seen_L is None:
            memory.seen_L = [
                block.attention.seen(k_ND, v_ND, memory.rows, at_Q)
                for block, (k_ND, v_ND) in zip(blocks, memory.said_L, strict=True)
            ]
        for block, seen in zip(blocks, memory.seen_L, strict=True):
            x_QD = block.think(x_QD, seen, live_Q)
        return self._answered(x_QD)

    def item_vectors(self) -> Tensor:
        return self.items.weight

    def _answered(self, h_QD: Tensor) -> Tensor:
        if self.projection is None or self.projected is None:
            return h_QD
        return cast("Tensor", self.projected(F.gelu(self.projection(h_QD))))


class Block(nn.Module):
    """Bidirectional attention and feed-forward."""

    def __init__(self, config: BERT4Rec.Config) -> None:
        super().__init__()
        self.attention = Attention(
            config.width,
            config.n_heads,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            both_ways=True,
        )
        self.feed_forward = FeedForward(config.width, config.inner, config.dropout)

    def forward(
        self, x_ND: Tensor, rows: Rows, at_Q: Tensor | None, said: list[tuple[Tensor, Tensor]] | None
    ) -> Tensor:
        """States of all tokens, or of those in ``at_Q`` alone; keys and values go to ``said``."""
        return cast("Tensor", self.feed_forward(self.attention(x_ND, rows, at_Q, said)))

    def think(self, x_QD: Tensor, seen: Seen, live_Q: Tensor | None) -> Tensor:
        """States of one latent token behind each asked token."""
        return cast("Tensor", self.feed_forward(self.attention.think(x_QD, seen, live_Q)))
