"""BSARec: self-attention beside a filter that keeps the low frequencies of a history and rescales the high ones.

Source: Shin et al., "An Attentive Inductive Bias for Sequential Recommendation beyond the Self-Attention", AAAI 2024, arXiv
2312.10325. A layer mixes the two, alpha x filter + (1 - alpha) x attention; the filter is LFC[x] + beta HFC[x], the low and high
part of the row's spectrum; then a feed-forward. As in the authors' code: beta is the square of a learned number a channel that
starts at N(0, 1); c counts frequencies as they print it, of which c // 2 + 1 of the real transform are low; filter and
attention have each their own dropout, residual and LayerNorm before they are mixed; attention is causal; full softmax.
Positions are counted from the newest event (the code pads on the left).
Not as in the original: padding is 0 at every layer, where theirs carries a position vector into the filter.
The transform has N = ``max_length`` places, always: ``filters.py`` says how no padding is computed all the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast, final

import torch
from torch import Tensor, nn

from recbench.backbones.filters import filtered, lags
from recbench.backbones.postnorm import EPS, Attention, FeedForward
from recbench.backbones.windows import WindowBackbone
from recbench.data.batching import Rows
from recbench.kernels.dropout import Dropout
from recbench.limits import above, at_least, below_one, goes_into, shares


@final
class BSARec(WindowBackbone):
    """Attention with a frequency bias."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Sizes, the filter, and dropout."""

        width: int = 64
        """D, also of the item vectors."""
        n_layers: int = 2
        """Blocks of filter, attention and feed-forward."""
        n_heads: int = 2
        """Attention heads; divides ``width``."""
        inner: int = 256
        """Width of the feed-forward."""
        max_length: int = 50
        """Newest events of a history that are seen; also N, the length of the Fourier transform."""
        alpha: float = 0.7
        """Share of the filter; the rest is attention's."""
        c: int = 3
        """The c // 2 + 1 lowest frequencies of the real transform, the constant included, pass unscaled."""
        dropout: float = 0.5
        """On the input, after filter, attention and feed-forward."""
        attention_dropout: float = 0.5
        """On the attention weights."""
        initial_sd: float = 0.02
        """Standard deviation of initial weights; biases start at 0, the square root of beta at N(0, 1)."""

        def __post_init__(self) -> None:
            at_least(1, self, "width", "n_layers", "n_heads", "inner", "max_length", "c")
            goes_into(self, "n_heads", "width")
            above(0, self, "initial_sd")
            shares(self, "alpha")
            below_one(self, "dropout", "attention_dropout")

    def __init__(self, config: Config, n_items: int) -> None:
        super().__init__(config, n_items, (Block(config) for _ in range(config.n_layers)))


class Rescale(nn.Module):
    """LN(x + dropout(LFC[x] + beta HFC[x]))."""

    lags: Tensor

    def __init__(self, config: BSARec.Config) -> None:
        super().__init__()
        self.kept = config.c // 2 + 1
        self.register_buffer("lags", lags(config.max_length), persistent=False)
        self.sqrt_beta = nn.Parameter(torch.randn(config.width))
        self.dropout = Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width, eps=EPS)

    def forward(self, x_ND: Tensor, rows: Rows, at_Q: Tensor | None) -> Tensor:
        """States of all tokens, or of those in ``at_Q`` alone."""
        low_ND = filtered(x_ND, rows, low_pass(self.lags, self.kept, x_ND.dtype))
        if at_Q is not None:
            x_ND, low_ND = x_ND.index_select(0, at_Q), low_ND.index_select(0, at_Q)
        rescaled_ND = low_ND + self.sqrt_beta.square() * (x_ND - low_ND)
        return cast("Tensor", self.norm(x_ND + self.dropout(rescaled_ND)))


class Block(nn.Module):
    """Filter and attention side by side, then a feed-forward."""

    def __init__(self, config: BSARec.Config) -> None:
        super().__init__()
        self.alpha = config.alpha
        self.filter = Rescale(config)
        self.attention = Attention(
            config.width,
            config.n_heads,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            both_ways=False,
        )
        self.feed_forward = FeedForward(config.width, config.inner, config.dropout)

    def forward(self, x_ND: Tensor, rows: Rows, at_Q: Tensor | None) -> Tensor:
        """States of all tokens, or of those in ``at_Q`` alone."""
        mixed_ND = torch.lerp(self.attention(x_ND, rows, at_Q), self.filter(x_ND, rows, at_Q), self.alpha)
        return cast("Tensor", self.feed_forward(mixed_ND))


def low_pass(lag_NN: Tensor, kept: int, dtype: torch.dtype) -> Tensor:
    """The projection on the ``kept`` lowest frequencies of the real transform of N places, (N, N)."""
    N = len(lag_NN)
    low_NN = torch.full((N, N), 1 / N, dtype=dtype, device=lag_NN.device)
    for k in range(1, min(kept, N // 2 + 1)):
        pairs = 1 if 2 * k == N else 2  # a frequency and its mirror image, which the highest of an even N is itself
        low_NN += pairs / N * torch.cos((k * lag_NN % N).to(dtype) * (2 * math.pi / N))
    return low_NN
