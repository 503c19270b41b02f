"""SASRec: causal self-attention over the history.

Source: Kang & McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, arXiv 1808.09781.
As in the paper: learned positions, causal multi-head attention (eq. 2 and 3), point-wise feed-forward (eq. 4), residuals with
dropout and LayerNorm (3.3), shared item embedding for input and scores (eq. 6).
Not as in the paper, but as in the strong re-implementations that the published reference values come from: each LayerNorm stands
behind its residual sum, the feed-forward is 4 D wide with GELU, embeddings are not scaled by sqrt(D), positions are counted
from the oldest event kept, and the loss is the full softmax over the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.backbones.base import Backbone, Encoded
from recbench.backbones.packing import Seen, asked_layout, causal, over_buckets
from recbench.data.batching import Batch, Rows
from recbench.kernels.dropout import Dropout


@dataclass(slots=True)
class Memory:
    """Keys and values of a batch in every layer, and once somebody has thought, what each thought sees of them."""

    rows: Rows
    keys_LND: list[Tensor]
    values_LND: list[Tensor]
    seen_L: list[Seen] | None = None


@final
class SASRec(Backbone):
    """The self-attentive sequential recommender."""

    causal = True
    post_norm = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Sizes and dropout."""

        width: int = 64
        """D, also of the item vectors."""
        n_layers: int = 2
        """Attention blocks."""
        n_heads: int = 2
        """Attention heads; divides ``width``."""
        inner: int = 256
        """Width of the feed-forward."""
        max_length: int = 50
        """Newest events of a history that are seen."""
        dropout: float = 0.5
        """On the input, after attention and after the feed-forward."""
        attention_dropout: float = 0.5
        """On the attention weights."""
        initial_sd: float = 0.02
        """Standard deviation of all initial weights; biases start at 0."""

        def __post_init__(self) -> None:
            if min(self.width, self.n_layers, self.n_heads, self.inner, self.max_length) < 1:
                raise ValueError("width, n_layers, n_heads, inner and max_length are at least 1.")
            if self.width % self.n_heads:
                raise ValueError(f"width {self.width} is not a multiple of n_heads {self.n_heads}.")
            if not (0 <= self.dropout < 1 and 0 <= self.attention_dropout < 1):
                raise ValueError("dropout and attention_dropout lie in [0, 1).")

    def __init__(self, config: Config, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.max_length = config.max_length
        self.n_layers = config.n_layers
        self.items = nn.Embedding(n_items + 1, config.width, padding_idx=0)
        self.positions = nn.Embedding(config.max_length, config.width)
        self.norm = nn.LayerNorm(config.width, eps=1e-12)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.apply(self._initialise)

    def embed(self, batch: Batch) -> Tensor:
        x_ND = self.items(batch.items_N) + self.positions(batch.rows.position_N)
        return cast("Tensor", self.dropout(self.norm(x_ND)))

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
        memory = Memory(batch.rows, [], []) if remember else None
        everywhere = at_Q is None or len(at_Q) == batch.rows.n_tokens
        for depth, layer in enumerate(layers):
            last = depth == len(layers) - 1
            x_ND = layer(x_ND, batch.rows, memory, at_Q if last and not everywhere else None)
        if not everywhere and not len(layers):
            x_ND = x_ND[at_Q]
        return Encoded(x_ND, memory)

    def extend(self, memory: Any, x_QD: Tensor, at_Q: Tensor, *, live_Q: Tensor | None = None) -> Tensor:
        if memory.seen_L is None:
            layout = asked_layout(memory.rows, at_Q)
            memory.seen_L = [
                Seen(k_ND, v_ND, layout, self.config.n_heads)
                for k_ND, v_ND in zip(memory.keys_LND, memory.values_LND, strict=True)
            ]
        for layer, seen in zip(self.layers, memory.seen_L, strict=True):
            x_QD = cast("Block", layer).think(x_QD, seen, live_Q)
        return x_QD

    def item_vectors(self) -> Tensor:
        return self.items.weight

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initial_sd)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx] = 0


class Block(nn.Module):
    """Attention and feed-forward, each with dropout, a residual and a LayerNorm behind their sum (eq. 2 to 4, section 3.3)."""

    def __init__(self, config: SASRec.Config) -> None:
        super().__init__()
        D = config.width
        self.n_heads = config.n_heads
        self.dropout = Dropout(config.dropout)
        self.attention_dropout = Dropout(config.attention_dropout)
        self.query_key_value = nn.Linear(D, 3 * D)
        self.attended = nn.Linear(D, D)
        self.attention_norm = nn.LayerNorm(D, eps=1e-12)
        self.inner = nn.Linear(D, config.inner)
        self.outer = nn.Linear(config.inner, D)
        self.norm = nn.LayerNorm(D, eps=1e-12)

    def forward(self, x_ND: Tensor, rows: Rows, memory: Memory | None, at_Q: Tensor | None) -> Tensor:
        """States of all tokens, or of those in ``at_Q`` alone; keys and values go to ``memory``."""
        qkv_NE = self.query_key_value(x_ND)
        if memory is not None or at_Q is not None:
            q_ND, k_ND, v_ND = qkv_NE.chunk(3, dim=1)
            if memory is not None:
                memory.keys_LND.append(k_ND)
                memory.values_LND.append(v_ND)
            if at_Q is not None:
                seen = Seen(k_ND, v_ND, asked_layout(rows, at_Q), self.n_heads)
                mixed_QD = seen.attend(q_ND[at_Q], self._attention_dropout)
                return self._feed_forward(x_ND[at_Q], mixed_QD)
        return self._feed_forward(x_ND, over_buckets(qkv_NE, rows, self._attend))

    def think(self, x_QD: Tensor, seen: Seen, live_Q: Tensor | None) -> Tensor:
        """States of one latent token behind each asked token, which joins its chain's thoughts."""
        q_QD, key_QD, value_QD = self.query_key_value(x_QD).chunk(3, dim=1)
        mixed_QD = seen.attend(q_QD, self._attention_dropout, (key_QD, value_QD), live_Q)
        return self._feed_forward(x_QD, mixed_QD)

    def _attend(self, qkv_BTE: Tensor) -> Tensor:
        B, T, E = qkv_BTE.shape
        q, k, v = qkv_BTE.view(B, T, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        return causal(q, k, v, self._attention_dropout).transpose(1, 2).reshape(B, T, E // 3)

    @property
    def _attention_dropout(self) -> float:
        return self.attention_dropout.p if self.training else 0.0

    def _feed_forward(self, x_QD: Tensor, mixed_QD: Tensor) -> Tensor:
        x_QD = self.attention_norm(x_QD + self.dropout(self.attended(mixed_QD)))
        return cast("Tensor", self.norm(x_QD + self.dropout(self.outer(F.gelu(self.inner(x_QD))))))
