"""SASRec: causal self-attention over the history, and its modern forms.

Source: Kang & McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, arXiv 1808.09781.
As in the paper: learned positions, causal multi-head attention (eq. 2 and 3), point-wise feed-forward (eq. 4), residuals with
dropout and LayerNorm (3.3), shared item embedding for input and scores (eq. 6).
Not as in the paper, but as in the strong re-implementations that the published reference values come from: each LayerNorm stands
behind its residual sum, the feed-forward is 4 D wide with GELU, embeddings are not scaled by sqrt(D), positions are counted
from the oldest event kept, and the loss is the full softmax over the catalogue.
As settings: positions counted from the newest event, as in the authors' code, which pads on the left; LayerNorm before each
part, rotary positions (Su et al., arXiv 2104.09864, eq. 34), gated residuals (Borisyuk et al., LiGR, arXiv 2502.03417), SwiGLU
(Shazeer, arXiv 2002.05202, eq. 6). All but rotary make eSASRec (Tikhonovich et al., RecSys 2025, arXiv 2508.06450):
``--config esasrec``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.backbones.base import Backbone, Encoded
from recbench.backbones.initial import initialise
from recbench.backbones.packing import Attending, Places, Seen, asked_layout, causal, over_buckets, softmax
from recbench.data.batching import Batch, Rows
from recbench.kernels.dropout import Dropout
from recbench.limits import above, at_least, below_one, goes_into

ROTARY_BASE = 10_000.0


@dataclass(slots=True)
class Memory:
    """Keys and values of a batch in every layer, and once somebody has thought, what each thought sees of them."""

    rows: Rows
    keys_LND: list[Tensor]
    values_LND: list[Tensor]
    seen_L: list[Seen] | None = None
    places: Places | None = None


@final
class SASRec(Backbone):
    """The self-attentive sequential recommender."""

    causal = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Sizes, dropout, and the form of the layers."""

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
        """On the input, after attention and after the feed-forward; with swiglu inside it, too."""
        attention_dropout: float = 0.5
        """On the attention weights."""
        initial_sd: float = 0.02
        """Standard deviation of all initial weights; biases start at 0."""
        norm: Literal["post", "pre"] = "post"
        """LayerNorm behind each residual sum and on the input, or before each part."""
        final_norm: bool = True
        """Of pre-norm layers: a LayerNorm behind the last one."""
        positions: Literal["learned", "rotary"] = "learned"
        """A vector a position, added to the input; or queries and keys turned by their position, in every layer."""
        positions_from: Literal["oldest", "newest"] = "oldest"
        """The event that learned positions are counted from. Newest, as where rows are padded on the left: a query asks from the
        same place whatever its history's length; in training only the last one of a row does."""
        gate: bool = False
        """Each part's output times sigmoid of a projection of its input, before the residual sum."""
        feed_forward: Literal["gelu", "swiglu"] = "gelu"
        """swiglu: silu of one projection times another, without biases."""

        def __post_init__(self) -> None:
            at_least(1, self, "width", "n_layers", "n_heads", "inner", "max_length")
            goes_into(self, "n_heads", "width")
            above(0, self, "initial_sd")
            below_one(self, "dropout", "attention_dropout")
            if self.positions == "rotary" and self.width // self.n_heads % 2:
                raise ValueError(
                    f"rotary positions turn pairs of numbers, so the width of a head, here {self.width // self.n_heads}, "
                    "is even: change width or n_heads."
                )
            if self.positions == "rotary" and self.positions_from == "newest":
                raise ValueError("positions_from is of learned positions; rotary ones are relative (positions).")
            if self.norm == "post" and not self.final_norm:
                raise ValueError("final_norm is of pre-norm layers; post-norm layers end in a norm each (norm).")

    def __init__(self, config: Config, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.max_length = config.max_length
        self.n_layers = config.n_layers
        self.post_norm = config.norm == "post"
        self.items = nn.Embedding(n_items + 1, config.width, padding_idx=0)
        learned = config.positions == "learned"
        self.positions = nn.Embedding(config.max_length, config.width) if learned else None
        self.norm = nn.LayerNorm(config.width, eps=1e-12) if self.post_norm else None
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        if not self.post_norm and config.final_norm:
            cast("Block", self.layers[-1]).final_norm = nn.LayerNorm(config.width, eps=1e-12)
        initialise(self, config.initial_sd)

    def embed(self, batch: Batch) -> Tensor:
        return self.enter(self.items(batch.items_N), batch.rows)

    def enter(self, x_ND: Tensor, rows: Rows) -> Tensor:
        """What the first layer is given, of the vectors of all tokens: their places, norm and dropout."""
        if self.positions is not None:
            x_ND = x_ND + self.positions(rows.counted_N(self.config.positions_from))
        return cast("Tensor", self.dropout(x_ND if self.norm is None else self.norm(x_ND)))

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
            memory.places = Places(memory.rows, at_Q)
        place_Q = memory.places.take(live_Q)
        for layer, seen in zip(self.layers, memory.seen_L, strict=True):
            x_QD = cast("Block", layer).think(x_QD, place_Q, seen, live_Q)
        return x_QD

    def item_vectors(self) -> Tensor:
        return self.items.weight


class Block(nn.Module):
    """Attention and feed-forward, each with dropout, a residual and a LayerNorm (eq. 2 to 4, section 3.3)."""

    def __init__(self, config: SASRec.Config) -> None:
        super().__init__()
        D = config.width
        self.final_norm: nn.Module | None = None
        self.n_heads = config.n_heads
        self.pre = config.norm == "pre"
        self.rotary = config.positions == "rotary"
        self.dropout = Dropout(config.dropout)
        self.attention_dropout = Dropout(config.attention_dropout)
        self.query_key_value = nn.Linear(D, 3 * D)
        self.attended = nn.Linear(D, D)
        self.attention_norm = nn.LayerNorm(D, eps=1e-12)
        swiglu = config.feed_forward == "swiglu"
        self.inner = nn.Linear(D, config.inner, bias=not swiglu)
        self.outer = nn.Linear(config.inner, D, bias=not swiglu)
        self.norm = nn.LayerNorm(D, eps=1e-12)
        self.linear = nn.Linear(D, config.inner, bias=False) if swiglu else None
        self.attention_gate = nn.Linear(D, D) if config.gate else None
        self.gate = nn.Linear(D, D) if config.gate else None

    def forward(self, x_ND: Tensor, rows: Rows, memory: Memory | None, at_Q: Tensor | None) -> Tensor:
        """States of all tokens, or of those in ``at_Q`` alone; keys and values go to ``memory``."""
        qkv_NE = self._query_key_value(x_ND, rows.position_N)
        if memory is not None or at_Q is not None:
            q_ND, k_ND, v_ND = qkv_NE.chunk(3, dim=1)
            if memory is not None:
                memory.keys_LND.append(k_ND)
                memory.values_LND.append(v_ND)
            if at_Q is not None:
                seen = Seen(k_ND, v_ND, asked_layout(rows, at_Q), self.n_heads)
                mixed_QD = seen.attend(self._scaled(q_ND[at_Q]), softmax(self._attention_dropout))
                return self._feed_forward(x_ND[at_Q], mixed_QD)
        return self._feed_forward(x_ND, over_buckets(qkv_NE, rows, self._attend))

    def think(self, x_QD: Tensor, place_Q: Tensor, seen: Attending, live_Q: Tensor | None) -> Tensor:
        """States of one latent token behind each asked token, which joins its chain's thoughts."""
        q_QD, key_QD, value_QD = self._query_key_value(x_QD, place_Q).chunk(3, dim=1)
        mixed_QD = seen.attend(self._scaled(q_QD), softmax(self._attention_dropout), (key_QD, value_QD), live_Q)
        return self._feed_forward(x_QD, mixed_QD)

    def _query_key_value(self, x_ND: Tensor, position_N: Tensor) -> Tensor:
        qkv_NE: Tensor = self.query_key_value(self.attention_norm(x_ND) if self.pre else x_ND)
        if not self.rotary:
            return qkv_NE
        D = x_ND.shape[1]
        return torch.cat([turned(qkv_NE[:, : 2 * D], position_N, 2 * self.n_heads), qkv_NE[:, 2 * D :]], 1)

    def _scaled(self, q_QD: Tensor) -> Tensor:
        return q_QD * (q_QD.shape[1] // self.n_heads) ** -0.5

    def _attend(self, qkv_BTE: Tensor) -> Tensor:
        B, T, E = qkv_BTE.shape
        q, k, v = qkv_BTE.view(B, T, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        return causal(q, k, v, self._attention_dropout).transpose(1, 2).reshape(B, T, E // 3)

    @property
    def _attention_dropout(self) -> float:
        return self.attention_dropout.p if self.training else 0.0

    def _feed_forward(self, x_QD: Tensor, mixed_QD: Tensor) -> Tensor:
        x_QD = self._joined(x_QD, self.attended(mixed_QD), self.attention_gate, self.attention_norm)
        y_QD = self.norm(x_QD) if self.pre else x_QD
        x_QD = self._joined(x_QD, self.outer(self._inner(y_QD)), self.gate, self.norm)
        return x_QD if self.final_norm is None else self.final_norm(x_QD)

    def _inner(self, y_QD: Tensor) -> Tensor:
        if self.linear is None:
            return F.gelu(self.inner(y_QD))
        return cast("Tensor", self.dropout(F.silu(self.inner(y_QD)) * self.linear(y_QD)))

    def _joined(self, x_QD: Tensor, part_QD: Tensor, gate: nn.Module | None, norm: nn.Module) -> Tensor:
        """The residual sum of a part's input and output, behind its norm where that is the order."""
        part_QD = self.dropout(part_QD)
        if gate is not None:
            part_QD = gate(x_QD).sigmoid() * part_QD
        return x_QD + part_QD if self.pre else norm(x_QD + part_QD)


def turned(x_ND: Tensor, position_N: Tensor, n_heads: int) -> Tensor:
    """Each head's pairs (i, i + d / 2) of numbers turned by position times ROTARY_BASE^(-2 i / d), (N, D).

    Source: Su et al., "RoFormer", arXiv 2104.09864, eq. 34; pairs are halves apart, as in most code, instead of neighbours.
    """
    x_NHd = x_ND.view(len(x_ND), n_heads, -1)
    half = x_NHd.shape[2] // 2
    exact = torch.promote_types(x_ND.dtype, torch.float32)
    speed = ROTARY_BASE ** (-torch.arange(half, device=x_ND.device, dtype=exact) / half)
    angle = (position_N[:, None] * speed)[:, None]
    cos, sin = angle.cos().to(x_ND.dtype), angle.sin().to(x_ND.dtype)
    a, b = x_NHd[..., :half], x_NHd[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(1)
