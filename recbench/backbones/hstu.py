"""HSTU: pointwise attention gated by the token itself, with a bias for how far apart two events are in places and in time.

Source: Zhai et al., "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative Recommendations",
ICML 2024, arXiv 2402.17152, eq. 1 to 3; what the paper leaves open after its public code (meta-recsys/generative-recommenders).
As there: U, V, Q, K from one projection through SiLU; weights silu(Q K + bias) / n without softmax; the mix normalised, times U;
norms without gains; learned positions on an input scaled by sqrt(D); time in 128 steps of its logarithm.
Not as there: a LayerNorm closes the last layer and scores are plain products, where the public code ranks by cosine at
temperature 0.05 over sampled items; and the time of a query is that of its newest event, where the public code uses the time of the
event to be predicted (``query_time=target``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.backbones.base import Backbone, Encoded
from recbench.backbones.initial import initialise
from recbench.backbones.packing import Asked, Places, Seen, Weigh, asked_layout, rectangles, tokens
from recbench.conditions import OnlyWith
from recbench.data.batching import Batch, Rows
from recbench.kernels.dropout import Dropout, drop
from recbench.limits import above, at_least, below_one, goes_into

EPS = 1e-6
TIME_STEP = 0.301
"""Width of a time bucket on the scale of natural logarithms of seconds: each is 1.35 times as long as the one before."""


@dataclass(frozen=True, slots=True)
class Apart:
    """How far each query of a rectangle stands from what it may look at: indices into the bias tables."""

    places: Tensor
    """(P, C) or (rows, P, C), at least 0."""
    time: Tensor | None
    """(rows, P, C); None without times."""


@dataclass(slots=True)
class Clock:
    """When things happened, where the batch knows it."""

    event_N: Tensor
    query_N: Tensor
    """The time that a query behind each token has."""


@dataclass(slots=True)
class Memory:
    """Keys and values of a batch in every layer, and once somebody has thought, what each thought sees of them."""

    rows: Rows
    clock: Clock | None
    keys_LND: list[Tensor] = field(default_factory=list)
    values_LND: list[Tensor] = field(default_factory=list)
    seen_L: list[Seen] | None = None
    places: Places | None = None


@final
class HSTU(Backbone):
    """The hierarchical sequential transduction unit."""

    causal = True
    post_norm = False

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Sizes, biases and dropout."""

        width: int = 64
        """D, also of the item vectors."""
        n_layers: int = 2
        """Layers."""
        n_heads: int = 2
        """Attention heads; divides ``width``."""
        max_length: int = 50
        """Newest events of a history that are seen."""
        divisor: int | None = None
        """n, which attention weights are divided by, whatever the length of a row. Unset: max_length."""
        positions: bool = True
        """A learned vector a position on the input, besides the bias in attention."""
        positions_from: Literal["oldest", "newest"] = "oldest"
        """The event that positions on the input are counted from. Newest, as where rows are padded on the left: a query asks from
        the same place whatever its history's length; in training only the last one of a row does."""
        time_bias: bool = True
        """A bias in attention for the time between two events, where the dataset has times."""
        query_time: Literal["last", "target"] = "last"
        """Time of the query behind an event: that event's own, or that of the event to be predicted (as if the moment of the
        request were known). Where the latter is not known it is the former."""
        time_buckets: int = 128
        """Buckets of the logarithm of seconds."""
        dropout: float = 0.5
        """On the input and before the output projection of each layer."""
        attention_dropout: float = 0.0
        """On the attention weights."""
        initial_sd: float = 0.02
        """Standard deviation of initial item vectors, projections and biases."""

        only_with: ClassVar[OnlyWith] = {"time_bias": "time_buckets"}

        def __post_init__(self) -> None:
            at_least(1, self, "width", "n_layers", "n_heads", "max_length", "time_buckets", "divisor")
            goes_into(self, "n_heads", "width")
            above(0, self, "initial_sd")
            below_one(self, "dropout", "attention_dropout")
            if self.positions_from == "newest" and not self.positions:
                raise ValueError("positions_from is of positions on the input; without them there is nothing to count.")
            if self.query_time == "target" and not self.time_bias:
                raise ValueError("query_time is of the time bias; without it no time is looked at (time_bias).")

    def __init__(self, config: Config, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.max_length = config.max_length
        self.n_layers = config.n_layers
        if config.time_bias:
            self.times_seen = "history" if config.query_time == "last" else "history and target"
        self.items = nn.Embedding(n_items + 1, config.width, padding_idx=0)
        initialise(self.items, config.initial_sd)
        self.positions = nn.Embedding(config.max_length, config.width) if config.positions else None
        if self.positions is not None:
            nn.init.trunc_normal_(self.positions.weight, std=config.width**-0.5)
        self.dropout = Dropout(config.dropout)
        last = config.n_layers - 1
        self.layers = nn.ModuleList(Layer(config, last=depth == last) for depth in range(config.n_layers))

    def embed(self, batch: Batch) -> Tensor:
        x_ND = self.items(batch.items_N) * math.sqrt(self.config.width)
        if self.positions is not None:
            x_ND = x_ND + self.positions(batch.rows.counted_N(self.config.positions_from))
        return cast("Tensor", self.dropout(x_ND))

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
        layers, clock = self.layers[start:stop], self._clock(batch)
        memory = Memory(batch.rows, clock) if remember else None
        everywhere = at_Q is None or len(at_Q) == batch.rows.n_tokens
        whole = layers if everywhere else layers[:-1]
        apart = self._apart(batch.rows, clock) if len(whole) else []
        for layer in whole:
            x_ND = layer(x_ND, batch.rows, apart, memory)
        if at_Q is not None and not everywhere:
            if not len(layers):
                return Encoded(x_ND[at_Q], memory)
            layout = asked_layout(batch.rows, at_Q)
            apart = self._asked_apart(layout, batch.rows, clock, at_Q, batch.rows.position_N[at_Q], [])
            x_ND = cast("Layer", layers[-1]).only(x_ND, at_Q, layout, apart, memory)
        return Encoded(x_ND, memory)

    def extend(self, memory: Any, x_QD: Tensor, at_Q: Tensor, *, live_Q: Tensor | None = None) -> Tensor:
        if memory.seen_L is None:
            layout = asked_layout(memory.rows, at_Q)
            memory.seen_L = [
                Seen(k_ND, v_ND, layout, self.config.n_heads)
                for k_ND, v_ND in zip(memory.keys_LND, memory.values_LND, strict=True)
            ]
            memory.places = Places(memory.rows, at_Q)
        place_Q, layout = memory.places.take(live_Q), memory.seen_L[0].layout
        apart = self._asked_apart(layout, memory.rows, memory.clock, at_Q, place_Q, memory.places.taken)
        for layer, seen in zip(self.layers, memory.seen_L, strict=True):
            x_QD = cast("Layer", layer).think(x_QD, seen, apart, live_Q)
        return x_QD

    def item_vectors(self) -> Tensor:
        return self.items.weight

    def _clock(self, batch: Batch) -> Clock | None:
        if batch.times_N is None or not self.config.time_bias:
            return None
        target = self.config.query_time == "target" and batch.next_times_N is not None
        return Clock(batch.times_N, cast("Tensor", batch.next_times_N) if target else batch.times_N)

    def _apart(self, rows: Rows, clock: Clock | None) -> list[Apart]:
        """Between all tokens of each bucket."""
        places = [torch.arange(bucket.width, device=rows.device) for bucket in rows.buckets]
        places = [(own_T[:, None] - own_T).clamp_min(0) for own_T in places]
        if clock is None:
            return [Apart(places_TT, None) for places_TT in places]
        query, event = (rectangles(time_N[:, None], rows) for time_N in (clock.query_N, clock.event_N))
        return [
            Apart(places_TT, self._time_bucket(query_BT1 - event_BT1.transpose(1, 2)))
            for places_TT, query_BT1, event_BT1 in zip(places, query, event, strict=True)
        ]

    def _asked_apart(
        self, layout: list[Asked], rows: Rows, clock: Clock | None, at_Q: Tensor, place_Q: Tensor, taken: list[Tensor]
    ) -> list[Apart]:
        """Between queries at places ``place_Q`` behind asked tokens, and items and thoughts (at places ``taken``) before them.

        A thought has the time of the query it stands for: none passes while one thinks.
        """
        event = {}
        if clock is not None:
            rectangle = rectangles(clock.event_N[:, None], rows)
            event = {bucket.first: event_BT1 for bucket, event_BT1 in zip(rows.buckets, rectangle, strict=True)}
        found = []
        for asked in layout:
            cells = asked.bucket.rows, asked.width
            place_BP1 = asked.spread(place_Q[:, None]).view(*cells, 1)
            thoughts = [asked.spread(other_Q[:, None]).view(*cells, 1) for other_Q in taken]
            items_T = torch.arange(asked.bucket.width, device=rows.device).expand(*cells, -1)
            places_BPC = (place_BP1 - torch.cat([items_T, *thoughts], 2)).clamp(0, self.max_length - 1)
            time_BPC = None
            if clock is not None:
                query_BP1 = asked.spread(clock.query_N[at_Q][:, None]).view(*cells, 1)
                passed_BPC = query_BP1 - event[asked.bucket.first].transpose(1, 2)
                time_BPC = self._time_bucket(torch.cat([passed_BPC, *(torch.zeros_like(t) for t in thoughts)], 2))
            found.append(Apart(places_BPC, time_BPC))
        return found

    def _time_bucket(self, seconds: Tensor) -> Tensor:
        step = (seconds.abs().clamp_min(1).float().log() / TIME_STEP).long()
        return step.clamp_max(self.config.time_buckets)


class Layer(nn.Module):
    """Projection, pointwise attention, gate and residual (eq. 1 to 3)."""

    def __init__(self, config: HSTU.Config, *, last: bool) -> None:
        super().__init__()
        D = config.width
        self.n_heads = config.n_heads
        self.divisor = config.divisor or config.max_length
        self.uvqk = nn.Linear(D, 4 * D, bias=False)
        self.place_bias = nn.Parameter(torch.empty(config.max_length))
        self.time_bias = nn.Parameter(torch.empty(config.time_buckets + 1)) if config.time_bias else None
        self.dropout = Dropout(config.dropout)
        self.attention_dropout = Dropout(config.attention_dropout)
        self.out = nn.Linear(D, D)
        self.norm = nn.LayerNorm(D, eps=EPS) if last else None
        for weight in (self.uvqk.weight, self.place_bias, *(() if self.time_bias is None else (self.time_bias,))):
            nn.init.normal_(weight, std=config.initial_sd)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_ND: Tensor, rows: Rows, apart: Sequence[Apart], memory: Memory | None) -> Tensor:
        """States of all tokens; keys and values go to ``memory``."""
        u_ND, v_ND, q_ND, k_ND = self._projected(x_ND)
        if memory is not None:
            memory.keys_LND.append(k_ND)
            memory.values_LND.append(v_ND)
        mixed = [
            self._attend(rectangle, between)
            for rectangle, between in zip(rectangles(torch.cat([q_ND, k_ND, v_ND], 1), rows), apart, strict=True)
        ]
        return self._output(x_ND, u_ND, tokens(mixed, rows))

    def only(
        self, x_ND: Tensor, at_Q: Tensor, layout: list[Asked], apart: Sequence[Apart], memory: Memory | None
    ) -> Tensor:
        """States of the asked tokens alone; keys and values of all go to ``memory``."""
        u_ND, v_ND, q_ND, k_ND = self._projected(x_ND)
        if memory is not None:
            memory.keys_LND.append(k_ND)
            memory.values_LND.append(v_ND)
        mixed_QD = Seen(k_ND, v_ND, layout, self.n_heads).attend(q_ND[at_Q], self._weigh(apart))
        return self._output(x_ND[at_Q], u_ND[at_Q], mixed_QD)

    def think(self, x_QD: Tensor, seen: Seen, apart: Sequence[Apart], live_Q: Tensor | None) -> Tensor:
        """States of one latent token behind each asked token, which joins its chain's thoughts."""
        u_QD, v_QD, q_QD, k_QD = self._projected(x_QD)
        return self._output(x_QD, u_QD, seen.attend(q_QD, self._weigh(apart), (k_QD, v_QD), live_Q))

    def _projected(self, x_ND: Tensor) -> tuple[Tensor, ...]:
        """U, V, Q, K (eq. 1)."""
        return F.silu(self.uvqk(F.layer_norm(x_ND, x_ND.shape[1:], eps=EPS))).chunk(4, dim=1)

    def _attend(self, qkv_BTE: Tensor, apart: Apart) -> Tensor:
        """Eq. 2 over a rectangle of rows, (B, T, D)."""
        B, T, _ = qkv_BTE.shape
        q, k, v = qkv_BTE.view(B, T, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        later_TT = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)
        return (self._weights(q @ k.transpose(2, 3), later_TT, apart) @ v).transpose(1, 2).flatten(2)

    def _weigh(self, apart: Sequence[Apart]) -> Weigh:
        return lambda place, scores, hidden: self._weights(scores, hidden, apart[place])

    def _weights(self, scores_BHPC: Tensor, hidden: Tensor, apart: Apart) -> Tensor:
        """silu(scores + bias) / n, and 0 where not to look: no row of weights depends on how many there are."""
        bias = self.place_bias.index_select(0, apart.places.reshape(-1)).view(apart.places.shape)
        if self.time_bias is not None and apart.time is not None:
            bias = bias + self.time_bias.index_select(0, apart.time.reshape(-1)).view(apart.time.shape)
        weight = F.silu(scores_BHPC + bias[..., None, :, :]).masked_fill(hidden, 0) / self.divisor
        return drop(weight, self.attention_dropout.p) if self.training else weight

    def _output(self, x_ND: Tensor, u_ND: Tensor, mixed_ND: Tensor) -> Tensor:
        """Eq. 3 and the residual."""
        gated_ND = u_ND * F.layer_norm(mixed_ND, mixed_ND.shape[1:], eps=EPS)
        x_ND = x_ND + self.out(self.dropout(gated_ND))
        return x_ND if self.norm is None else self.norm(x_ND)
