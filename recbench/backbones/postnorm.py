"""Parts of encoders whose sublayers end in the LayerNorm of their residual sum, as BERT's do."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.backbones.packing import Seen, asked_layout, bidirectional, causal, over_filled_buckets, softmax
from recbench.data.batching import Rows
from recbench.kernels.dropout import Dropout

EPS = 1e-12


class FeedForward(nn.Module):
    """LN(x + dropout(W2 gelu(W1 x))), token by token."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, width)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, x_ND: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        return cast("Tensor", self.norm(x_ND + self.dropout(self.outer(F.gelu(self.inner(x_ND))))))


class Attention(nn.Module):
    """LN(x + dropout(W_o attention(x))) over packed rows.

    Args:
        both_ways: each token sees its whole row; else itself and what stands before it.
    """

    def __init__(self, width: int, n_heads: int, *, dropout: float, attention_dropout: float, both_ways: bool) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.both_ways = both_ways
        self.dropout = Dropout(dropout)
        self.attention_dropout = Dropout(attention_dropout)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(
        self, x_ND: Tensor, rows: Rows, at_Q: Tensor | None = None, said: list[tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        """States of all tokens, (N, D), or of those in ``at_Q`` alone, (Q, D).

        Args:
            said: keys and values (N, D) are added to it, for thoughts to come.
        """
        if at_Q is None and said is None:
            return self._closed(x_ND, over_filled_buckets(self.query_key_value(x_ND), rows, self._over_rows))
        D = x_ND.shape[1]
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        k_ND, v_ND = F.linear(x_ND, weight[D:], bias[D:]).chunk(2, dim=1)
        if said is not None:
            said.append((k_ND, v_ND))
        if at_Q is not None:
            x_ND = x_ND.index_select(0, at_Q)
        q_QD = F.linear(x_ND, weight[:D], bias[:D])
        if at_Q is None:
            qkv_NE = torch.cat([q_QD, k_ND, v_ND], dim=1)
            return self._closed(x_ND, over_filled_buckets(qkv_NE, rows, self._over_rows))
        seen = self.seen(k_ND, v_ND, rows, at_Q)
        return self._closed(x_ND, seen.attend(self._scaled(q_QD), softmax(self._rate)))

    def seen(self, k_ND: Tensor, v_ND: Tensor, rows: Rows, at_Q: Tensor) -> Seen:
        """Keys and values as the asked tokens see them."""
        return Seen(k_ND, v_ND, asked_layout(rows, at_Q, both_ways=self.both_ways), self.n_heads)

    def think(self, x_QD: Tensor, seen: Seen, live_Q: Tensor | None) -> Tensor:
        """States of one latent token behind each asked token, which joins its chain's thoughts."""
        q_QD, key_QD, value_QD = self.query_key_value(x_QD).chunk(3, dim=1)
        return self._closed(x_QD, seen.attend(self._scaled(q_QD), softmax(self._rate), (key_QD, value_QD), live_Q))

    def _over_rows(self, qkv_BTE: Tensor, empty_BT: Tensor | None) -> Tensor:
        B, T, E = qkv_BTE.shape
        q, k, v = qkv_BTE.view(B, T, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = bidirectional(q, k, v, self._rate, empty_BT) if self.both_ways else causal(q, k, v, self._rate)
        return mixed.transpose(1, 2).reshape(B, T, E // 3)

    def _scaled(self, q_QD: Tensor) -> Tensor:
        return q_QD * (q_QD.shape[1] // self.n_heads) ** -0.5

    @property
    def _rate(self) -> float:
        return self.attention_dropout.p if self.training else 0.0

    def _closed(self, x_QD: Tensor, mixed_QD: Tensor) -> Tensor:
        return cast("Tensor", self.norm(x_QD + self.dropout(self.attended(mixed_QD))))
