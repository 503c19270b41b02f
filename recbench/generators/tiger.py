"""TIGER: an encoder reads the codes of a history, a decoder spells the next item.

Source: Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023, arXiv 2305.05065, sections 3.2 and 4; layers
as T5's (Raffel et al., arXiv 1910.10683, section 2.1): a scale-only norm before each part, no biases, one table of relative
position biases a stack, ReLU feed-forwards. The authors published no code.
Not as in the paper: one output head a level instead of one vocabulary; tokens of users are a setting, off. Not as in T5: queries
are scaled by the root of their width, which T5 leaves to their initial weights; no dropout behind the decoder's last norm, so that
a head's thoughts are the states themselves.
The decoder's state at its start token is what heads think from; their thoughts are further tokens of the decoder behind it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.backbones.base import Encoded, Layout
from recbench.backbones.packing import (
    Asked,
    Attending,
    Places,
    Seen,
    Weigh,
    asked_layout,
    over_filled_buckets,
)
from recbench.data.batching import Batch, Rows
from recbench.generators.base import Generator, Recalled, Seats, Start
from recbench.generators.past import Branch, Past, Path, length
from recbench.kernels.dropout import Dropout, drop
from recbench.limits import above, at_least, below_one
from recbench.semantic_ids.table import BEGIN, END, SemanticIds

BUCKETS, FAR = 32, 128
"""Relative positions share so many biases; beyond FAR they share one."""
EPS = 1e-6
SEPARATOR = END
"""Token behind each item, where items are separated."""


class Read(NamedTuple):
    """What the decoder reads of a batch: keys and values of its start tokens and of the encoder's states, one pair a layer."""

    starts: list[tuple[Tensor, Tensor]]
    read: list[tuple[Tensor, Tensor]]


class Chains(NamedTuple):
    """What thoughts see: their start token and each other, the encoder's states; and where they stand. One a layer."""

    own_L: list[Seen]
    read_L: list[Seen]
    places: Places


@dataclass(slots=True)
class Memory:
    """What the decoder remembers of a batch; once somebody has thought, what each thought sees of it."""

    batch: Batch
    said: Read
    chains: Chains | None = None


@final
class Tiger(Generator):
    """The encoder-decoder over semantic ids. Both stacks together are one: encoder layers, then the decoder as the last."""

    causal = False
    post_norm = False

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Sizes, dropout, and what the encoder reads besides codes."""

        width: int = 128
        """D."""
        encoder_layers: int = 4
        """Of the encoder."""
        decoder_layers: int = 4
        """Of the decoder."""
        n_heads: int = 6
        """Attention heads."""
        head_width: int = 64
        """Of a head; heads times this need not be ``width``."""
        inner: int = 1024
        """Width of the feed-forwards."""
        feed_forward: Literal["one", "two"] = "one"
        """Hidden layers of a feed-forward."""
        max_length: int = 20
        """Newest items of a history that are read."""
        dropout: float = 0.1
        """On inputs, after attention, in and after feed-forwards, and on attention weights."""
        initial_scale: float = 1.0
        """Standard deviation of initial token vectors; of weights it is this over the root of their inputs, as T5's."""
        start: Start = "constant"
        """What the decoder starts from: constant, the same vector for all; item: that and the sum of the newest item's code
        vectors, so that what is read off there has a residual path from the newest item."""
        separator: bool = False
        """A token behind each item."""
        user_tokens: int = 0
        """Users are hashed to so many tokens in front of the history; 0: none."""

        def __post_init__(self) -> None:
            at_least(
                1, self, "width", "encoder_layers", "decoder_layers", "n_heads", "head_width", "inner", "max_length"
            )
            at_least(0, self, "user_tokens")
            above(0, self, "initial_scale")
            below_one(self, "dropout")

    def __init__(self, config: Config, table: SemanticIds) -> None:
        super().__init__(table, config.width)
        c = self.config = config
        self.max_length = c.max_length
        self.n_layers = c.encoder_layers + 1
        self.tokens = nn.Embedding(table.n_tokens + c.user_tokens, c.width, padding_idx=0)
        self.dropout = Dropout(c.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(c) for _ in range(c.encoder_layers))
        self.encoder_bias = RelativeBias(c.n_heads, both_ways=True)
        self.encoded = nn.RMSNorm(c.width, eps=EPS)
        self.decoder = nn.ModuleList(DecoderLayer(c) for _ in range(c.decoder_layers))
        self.decoder_bias = RelativeBias(c.n_heads, both_ways=False)
        self.decoded = nn.RMSNorm(c.width, eps=EPS)
        self.heads = nn.ModuleList(nn.Linear(c.width, size, bias=False) for size in table.level_sizes)
        for part in self.modules():
            if isinstance(part, nn.Linear) and part is not self.carried:
                nn.init.normal_(part.weight, std=c.initial_scale * part.in_features**-0.5)
        nn.init.normal_(self.tokens.weight, std=c.initial_scale)
        for bias in (self.encoder_bias, self.decoder_bias):
            nn.init.normal_(bias.table.weight, std=c.initial_scale * c.width**-0.5)
        with torch.no_grad():
            self.tokens.weight[0] = 0

    # --- tokens -----------------------------------------------------------------------------------------------------

    @property
    def longest_row(self) -> int:
        return self.max_length * self._times + self._more

    @property
    def _times(self) -> int:
        """Tokens an item."""
        return self.levels + self.config.separator

    @property
    def _more(self) -> int:
        """Tokens of a row that are no item's: the decoder's start, and the user's in front."""
        return 1 + (self.config.user_tokens > 0)

    def layout(self, batch: Batch) -> Layout:
        rows = batch.rows.stretched(self._times, self._more)
        return Layout(rows, rows.last_B[batch.row_Q])

    def inputs(self, batch: Batch) -> Tensor:
        newest_B, start_B = batch.items_N[batch.rows.last_B], self.layout(batch).rows.last_B
        x_ND = self._started(self.tokens(self._codes(batch)), self.config.start, newest_B, start_B)
        return cast("Tensor", self.dropout(x_ND))

    def _codes(self, batch: Batch) -> Tensor:
        """Tokens of the rows: user, then items, then the decoder's start."""
        rows, more = self.layout(batch).rows, self._more
        tokens_N = torch.full((rows.n_tokens,), BEGIN, device=batch.items_N.device)
        first_N = torch.arange(len(batch.items_N), device=tokens_N.device) * self._times
        first_N = first_N + more * batch.rows.row_N + (more - 1)
        codes_NM = self.tokens_VM[batch.items_N]
        if self.config.separator:
            codes_NM = F.pad(codes_NM, (0, 1), value=SEPARATOR)
        tokens_N[(first_N[:, None] + torch.arange(self._times, device=tokens_N.device)).flatten()] = codes_NM.flatten()
        if self.config.user_tokens:
            users_B = torch.from_numpy(batch.users_B.astype("int64")).to(tokens_N.device)
            starts_B = rows.last_B + 1 - torch.from_numpy(rows.lengths).to(tokens_N.device)
            tokens_N[starts_B] = self.table.n_tokens + users_B % self.config.user_tokens
        return tokens_N

    def _read_rows(self, batch: Batch) -> Rows:
        """The rows of the encoder: without the decoder's start."""
        return batch.rows.stretched(self._times, self._more - 1)

    # --- the two stacks ---------------------------------------------------------------------------------------------

    def run(
        self, x_ND: Tensor, batch: Batch, start: int, stop: int | None, at_Q: Tensor | None, *, remember: bool
    ) -> Encoded:
        n_encoder = len(self.encoder)
        stop = self.n_layers if stop is None else stop
        row_Q = None if at_Q is None else batch.rows.row_N[at_Q]
        start_B = self.layout(batch).rows.last_B
        if start == stop and row_Q is None:
            return Encoded(x_ND, None)
        is_read_N = torch.ones(len(x_ND), dtype=torch.bool, device=x_ND.device)
        is_read_N[start_B] = False
        read_N = is_read_N.nonzero()[:, 0]
        x_RD, x_BD, rows = x_ND[read_N], x_ND[start_B], self._read_rows(batch)
        bias = self.encoder_bias.within(rows) if start < n_encoder else []
        for layer in self.encoder[start:stop]:
            x_RD = layer(x_RD, rows, bias)
        if start < n_encoder <= stop:
            x_RD = self.dropout(self.encoded(x_RD))
        memory = None
        if start <= n_encoder < stop:
            x_BD, said = self._begun(x_BD, x_RD, rows)
            memory = Memory(batch, said) if remember else None
        if row_Q is not None:
            return Encoded(x_BD[row_Q], memory)
        whole_ND = x_ND.new_empty(x_ND.shape).index_copy(0, read_N, x_RD).index_copy(0, start_B, x_BD)
        return Encoded(whole_ND, memory)

    def _begun(self, x_BD: Tensor, x_RD: Tensor, rows: Rows) -> tuple[Tensor, Read]:
        """The decoder at its start token, one a row, over the encoder's states."""
        said = Read([], [])
        layout = asked_layout(rows, rows.last_B, both_ways=True)
        for layer in self.decoder:
            decoder = cast("DecoderLayer", layer)
            key_value = decoder.across.key_value(x_RD)
            read = Seen(*key_value, layout, self.config.n_heads)
            x_BD, own = decoder.begin(x_BD, read)
            said.starts.append(own)
            said.read.append(key_value)
        return self.decoded(x_BD), said

    def extend(self, memory: Any, x_QD: Tensor, at_Q: Tensor, *, live_Q: Tensor | None = None) -> Tensor:
        if memory.chains is None:
            memory.chains = self._chains(memory, at_Q)
        own_L, read_L, places = memory.chains
        place_Q = places.take(live_Q)
        bias = self.decoder_bias.between(own_L[0].layout, place_Q, places.taken)
        for layer, own, read in zip(self.decoder, own_L, read_L, strict=True):
            x_QD = cast("DecoderLayer", layer)(x_QD, own, read, bias, live_Q)
        return cast("Tensor", self.decoded(x_QD))

    def _chains(self, memory: Memory, at_Q: Tensor) -> Chains:
        """What thoughts behind these tokens of the batch see, before the first of them."""
        rows, row_Q, heads = self._read_rows(memory.batch), memory.batch.rows.row_N[at_Q], self.config.n_heads
        starts = _ones(rows)
        own, read = asked_layout(starts, row_Q), asked_layout(rows, rows.last_B[row_Q], both_ways=True)
        return Chains(
            [Seen(k_BE, v_BE, own, heads) for k_BE, v_BE in memory.said.starts],
            [Seen(k_RE, v_RE, read, heads) for k_RE, v_RE in memory.said.read],
            Places(starts, row_Q),
        )

    # --- spelling ---------------------------------------------------------------------------------------------------

    def recalled(self, memory: Any, batch: Batch) -> Recalled:
        rows, heads = self._read_rows(batch), self.config.n_heads
        said, starts = cast("Read", memory.said), _ones(rows)
        pasts = [
            (Past(*own, starts, heads), Past(*read, rows, heads))
            for own, read in zip(said.starts, said.read, strict=True)
        ]
        return Recalled(pasts, batch.row_Q)

    def seats(self, recalled: Recalled, at_R: Tensor) -> Seats:
        own, read = (past.rows for past in recalled.pasts[0])
        return Seats(at_R, [asked_layout(own, at_R), asked_layout(read, read.last_B[at_R], both_ways=True)])

    def spell(
        self, recalled: Recalled, x_RLD: Tensor, seats: Seats, paths: Sequence[Path] | None
    ) -> tuple[Tensor, list[Path]]:
        own_layout, read_layout = seats.layouts
        L = x_RLD.shape[1]
        bias = self.decoder_bias.along(own_layout, L, length(paths) + L)
        x_QD = self.dropout(x_RLD.flatten(0, 1))
        longer: list[Path] = []
        for depth, (layer, (own, read)) in enumerate(zip(self.decoder, recalled.pasts, strict=True)):
            branch = Branch(own, own_layout, None if paths is None else paths[depth], L)
            x_QD = cast("DecoderLayer", layer)(x_QD, branch, Branch(read, read_layout, length=L), bias, None)
            longer.append(cast("Path", branch.path))
        return self.decoded(x_QD).view(x_RLD.shape), longer

    def code_vectors(self) -> Tensor:
        return self.tokens.weight[: self.table.n_tokens]

    def reading(self, level: int) -> Tensor:
        return cast("nn.Linear", self.heads[level]).weight


def _ones(rows: Rows) -> Rows:
    """The decoder's start tokens as rows: one each."""
    return rows.stretched(0, 1)


class RelativeBias(nn.Module):
    """A learned bias a head for how far apart two tokens stand; exact when near, in buckets of its logarithm when far (T5, 2.1)."""

    def __init__(self, n_heads: int, *, both_ways: bool) -> None:
        super().__init__()
        self.both_ways = both_ways
        self.table = nn.Embedding(BUCKETS, n_heads)

    def forward(self, ahead: Tensor) -> Tensor:
        """Biases of tokens that stand ``ahead`` of the one that looks (below 0: behind), (.., H)."""
        return cast("Tensor", self.table(self._bucket(ahead)))

    def within(self, rows: Rows) -> list[Tensor]:
        """Of each bucket's rectangle, (H, width, width)."""
        found = []
        for bucket in rows.buckets:
            place_T = torch.arange(bucket.width, device=rows.device)
            found.append(self(place_T - place_T[:, None]).permute(2, 0, 1))
        return found

    def between(self, layout: Sequence[Asked], place_Q: Tensor, others: Sequence[Tensor]) -> list[Tensor]:
        """Of tokens at places ``place_Q`` behind start tokens (place 0) and those at ``others``, (rows, H, P, 1 + others)."""
        behind_QC = torch.stack([torch.zeros_like(place_Q), *others], dim=1) - place_Q[:, None]
        bias_QE = self(behind_QC).flatten(1)
        found = []
        for asked in layout:
            shape = asked.bucket.rows, asked.width, behind_QC.shape[1], -1
            found.append(asked.spread(bias_QE).view(*shape).permute(0, 3, 1, 2))
        return found

    def along(self, layout: Sequence[Asked], L: int, N: int) -> list[Tensor]:
        """Of the last L of N codes behind start tokens, to those and to the start, (H, P x L, 1 + N)."""
        place_C = torch.arange(N + 1, device=self.table.weight.device)
        bias_HLC = self(place_C - place_C[-L:, None]).permute(2, 0, 1)
        return [bias_HLC.repeat(1, asked.width, 1) for asked in layout]

    def _bucket(self, ahead: Tensor) -> Tensor:
        half = BUCKETS // 2 if self.both_ways else BUCKETS
        distance = ahead.abs() if self.both_ways else (-ahead).clamp_min(0)
        exact = half // 2
        log = (distance.clamp_min(1) / exact).log() / math.log(FAR / exact) * (half - exact)
        far = (exact + log.long()).clamp_max(half - 1)
        bucket = torch.where(distance < exact, distance, far)
        return bucket + half * (ahead > 0) if self.both_ways else bucket


class Attention(nn.Module):
    """Multi-head attention without biases; who sees what is its callers' affair."""

    def __init__(self, config: Tiger.Config) -> None:
        super().__init__()
        inner = config.n_heads * config.head_width
        self.n_heads, self.scale = config.n_heads, config.head_width**-0.5
        self.query = nn.Linear(config.width, inner, bias=False)
        self.key = nn.Linear(config.width, inner, bias=False)
        self.value = nn.Linear(config.width, inner, bias=False)
        self.out = nn.Linear(inner, config.width, bias=False)
        self.weights_dropout = Dropout(config.dropout)

    def key_value(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """What others see of these tokens."""
        return self.key(x_ND), self.value(x_ND)

    def over_rows(self, x_ND: Tensor, rows: Rows, bias: Sequence[Tensor]) -> Tensor:
        """Attention of every token over its whole row."""
        left = list(bias)

        def mix(qkv_BTE: Tensor, empty_BT: Tensor | None) -> Tensor:
            B, T, _ = qkv_BTE.shape
            q, k, v = qkv_BTE.view(B, T, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
            scores = (q * self.scale) @ k.transpose(2, 3) + left.pop(0)
            if empty_BT is not None:
                scores = scores.masked_fill(empty_BT[:, None, None], -torch.inf)
            return (drop(scores.softmax(-1), self._rate) @ v).transpose(1, 2).flatten(2)

        qkv_NE = torch.cat([self.query(x_ND), *self.key_value(x_ND)], dim=1)
        return cast("Tensor", self.out(over_filled_buckets(qkv_NE, rows, mix)))

    def over(
        self,
        x_QD: Tensor,
        seen: Attending,
        bias: Sequence[Tensor] | None = None,
        own: tuple[Tensor, Tensor] | None = None,
        live_Q: Tensor | None = None,
    ) -> Tensor:
        """Attention over what is seen, and over the token itself where its key and value are given."""
        return cast("Tensor", self.out(seen.attend(self.query(x_QD) * self.scale, self._weigh(bias), own, live_Q)))

    def _weigh(self, bias: Sequence[Tensor] | None) -> Weigh:
        def weigh(place: int, scores_BHPC: Tensor, hidden_BPC: Tensor) -> Tensor:
            biased = scores_BHPC if bias is None else scores_BHPC + bias[place]
            return drop(biased.masked_fill(hidden_BPC, -torch.inf).softmax(-1), self._rate)

        return weigh

    @property
    def _rate(self) -> float:
        return self.weights_dropout.p if self.training else 0.0


class FeedForward(nn.Module):
    """W_o dropout(relu(W_i x)), with one or two hidden layers."""

    def __init__(self, config: Tiger.Config) -> None:
        super().__init__()
        self.inner = nn.Linear(config.width, config.inner, bias=False)
        two = config.feed_forward == "two"
        self.middle = nn.Linear(config.inner, config.inner, bias=False) if two else None
        self.outer = nn.Linear(config.inner, config.width, bias=False)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_ND: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        x_ND = self.dropout(self.inner(x_ND).relu())
        if self.middle is not None:
            x_ND = self.dropout(self.middle(x_ND).relu())
        return cast("Tensor", self.outer(x_ND))


class EncoderLayer(nn.Module):
    """Attention both ways and feed-forward, each behind its norm."""

    def __init__(self, config: Tiger.Config) -> None:
        super().__init__()
        self.attention, self.feed_forward = Attention(config), FeedForward(config)
        self.attention_norm, self.norm = (nn.RMSNorm(config.width, eps=EPS) for _ in range(2))
        self.dropout = Dropout(config.dropout)

    def forward(self, x_ND: Tensor, rows: Rows, bias: Sequence[Tensor]) -> Tensor:
        """States of all tokens, (N, D)."""
        x_ND = x_ND + self.dropout(self.attention.over_rows(self.attention_norm(x_ND), rows, bias))
        return cast("Tensor", x_ND + self.dropout(self.feed_forward(self.norm(x_ND))))


class DecoderLayer(nn.Module):
    """Attention over what the decoder has said, attention over what the encoder has read, feed-forward."""

    def __init__(self, config: Tiger.Config) -> None:
        super().__init__()
        self.within, self.across, self.feed_forward = Attention(config), Attention(config), FeedForward(config)
        self.within_norm, self.across_norm, self.norm = (nn.RMSNorm(config.width, eps=EPS) for _ in range(3))
        self.dropout = Dropout(config.dropout)

    def begin(self, x_BD: Tensor, read: Attending) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """States of the start tokens, which see themselves alone, and their keys and values."""
        own = self.within.key_value(self.within_norm(x_BD))
        x_BD = x_BD + self.dropout(self.within.out(own[1]))
        return self._rest(x_BD, read), own

    def forward(
        self, x_QD: Tensor, own: Attending, read: Attending, bias: Sequence[Tensor], live_Q: Tensor | None
    ) -> Tensor:
        """States of one more token behind each start."""
        normed_QD = self.within_norm(x_QD)
        mixed_QD = self.within.over(normed_QD, own, bias, self.within.key_value(normed_QD), live_Q)
        return self._rest(x_QD + self.dropout(mixed_QD), read)

    def _rest(self, x_QD: Tensor, read: Attending) -> Tensor:
        x_QD = x_QD + self.dropout(self.across.over(self.across_norm(x_QD), read))
        return cast("Tensor", x_QD + self.dropout(self.feed_forward(self.norm(x_QD))))
