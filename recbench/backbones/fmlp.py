"""FMLP-Rec: learnable filters over the frequencies of the history in place of attention.

Source: Zhou et al., "Filter-enhanced MLP is All You Need for Sequential Recommendation", WWW 2022, arXiv 2202.13556; details after
the authors' code (Woeee/FMLP-Rec). As there: item vectors plus learned positions, counted from the newest event (its rows are
padded on the left), LayerNorm and dropout; a filter layer multiplies the spectrum of all N places by a complex weight a
frequency and channel, with dropout, residual and LayerNorm; a feed-forward with GELU likewise; the state of the newest event
ranks by dot product with the item table; N(0, 0.02^2) weights, the complex ones too.
Not as in the original: padding is 0 at every layer, where theirs carries a position vector into the filter; the loss is the full
softmax instead of one sampled negative.
N is ``max_length``, always: ``filters.py`` says how no padding is computed all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, final

import torch
from torch import Tensor, nn

from recbench.backbones.filters import circulant, filtered, lags
from recbench.backbones.postnorm import EPS, FeedForward
from recbench.backbones.windows import WindowBackbone
from recbench.data.batching import Rows
from recbench.kernels.dropout import Dropout
from recbench.limits import above, at_least, below_one


@final
class FMLP(WindowBackbone):
    """The filter-enhanced MLP."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Sizes and dropout."""

        width: int = 64
        """D, also of the item vectors."""
        n_layers: int = 2
        """Blocks of a filter and a feed-forward."""
        inner: int = 256
        """Width of the feed-forward."""
        max_length: int = 50
        """Newest events of a history that are seen; also N, the length of the Fourier transform."""
        dropout: float = 0.5
        """On the input, after the filter and after the feed-forward."""
        initial_sd: float = 0.02
        """Standard deviation of all initial weights; biases start at 0."""

        def __post_init__(self) -> None:
            at_least(1, self, "width", "n_layers", "inner", "max_length")
            above(0, self, "initial_sd")
            below_one(self, "dropout")

    def __init__(self, config: Config, n_items: int) -> None:
        super().__init__(config, n_items, (Block(config) for _ in range(config.n_layers)))


class Block(nn.Module):
    """A filter and a feed-forward, each with dropout, a residual and a LayerNorm behind their sum."""

    lags: Tensor

    def __init__(self, config: FMLP.Config) -> None:
        super().__init__()
        N, D = config.max_length, config.width
        self.spectrum = nn.Parameter(torch.randn(N // 2 + 1, D, 2) * config.initial_sd)
        """The paper's W: real and imaginary part of the weight of each frequency and channel."""
        self.register_buffer("lags", lags(N), persistent=False)
        self.dropout = Dropout(config.dropout)
        self.norm = nn.LayerNorm(D, eps=EPS)
        self.feed_forward = FeedForward(D, config.inner, config.dropout)

    def forward(self, x_ND: Tensor, rows: Rows, at_Q: Tensor | None) -> Tensor:
        """States of all tokens, or of those in ``at_Q`` alone."""
        h_ND = torch.fft.irfft(torch.view_as_complex(self.spectrum), n=len(self.lags), dim=0)
        T = int(rows.lengths[-1])
        mixed_ND = filtered(x_ND, rows, circulant(h_ND, self.lags[:T, :T]))
        if at_Q is not None:
            x_ND, mixed_ND = x_ND.index_select(0, at_Q), mixed_ND.index_select(0, at_Q)
        return cast("Tensor", self.feed_forward(self.norm(x_ND + self.dropout(mixed_ND))))
