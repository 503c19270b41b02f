"""LRU: linear recurrent units, a bank of damped rotations that remember the history.

Source: Yue et al., "Linear Recurrent Units for Sequential Recommendation" (LRURec), WSDM 2024, arXiv 2310.02367: layers and
training at every position; the unit itself: Orvieto et al., "Resurrecting Recurrent Neural Networks for Long Sequences", ICML 2023,
arXiv 2303.06349: h_t = lambda h_{t-1} + gamma B x_t, lambda = exp(-exp(nu) + i exp(theta)) (eq. 7, section 3), initial ring
(lemma 3.2), gamma = sqrt(1 - |lambda|^2) at the start (3.4).
As in LRURec: twice as many complex channels as D, complex B and C with biases, no positions, input dropout and norm, residual
and norm behind the unit and behind a GELU feed-forward of 4 D.
Not as there: item scores have no bias, and the scan runs over packed rows (``kernels/scan.py``) instead of rows padded to a
power of 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.backbones.base import Backbone, Encoded
from recbench.backbones.initial import initialise
from recbench.backbones.recurrence import Chains
from recbench.data.batching import Batch
from recbench.kernels.dropout import Dropout
from recbench.kernels.scan import Shifts, scan, shifts
from recbench.limits import above, at_least, below_one


@final
class LRU(Backbone):
    """Linear recurrent layers; a thought is one more step of every layer."""

    causal = True
    post_norm = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Sizes, dropout, and where the decays start."""

        width: int = 64
        """D, also of the item vectors."""
        n_layers: int = 2
        """Blocks of a recurrent unit and a feed-forward."""
        channels: int = 128
        """Complex numbers of state a layer."""
        inner: int = 256
        """Width of the feed-forward."""
        max_length: int = 50
        """Newest events of a history that are seen."""
        dropout: float = 0.5
        """On the input, on the unit's output, inside and behind the feed-forward."""
        r_min: float = 0.8
        """Decays a step start between this ..."""
        r_max: float = 0.99
        """... and this."""
        initial_sd: float = 0.02
        """Standard deviation of initial item vectors and matrices; biases start at 0."""

        def __post_init__(self) -> None:
            at_least(1, self, "width", "n_layers", "channels", "inner", "max_length")
            above(0, self, "initial_sd")
            below_one(self, "dropout")
            if not 0 < self.r_min < self.r_max < 1:
                raise ValueError(f"r_min {self.r_min:g} and r_max {self.r_max:g}: 0 < r_min < r_max < 1.")

    def __init__(self, config: Config, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.max_length = config.max_length
        self.n_layers = config.n_layers
        self.items = nn.Embedding(n_items + 1, config.width, padding_idx=0)
        self.norm = nn.LayerNorm(config.width, eps=1e-12)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        initialise(self, config.initial_sd)

    def embed(self, batch: Batch) -> Tensor:
        return cast("Tensor", self.norm(self.dropout(self.items(batch.items_N))))

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
        memory = Chains([]) if remember else None
        some_Q = None if at_Q is None or len(at_Q) == batch.rows.n_tokens else at_Q
        of = shifts(batch.rows.position_N, int(batch.rows.lengths[-1])) if len(layers) else ()
        for depth, layer in enumerate(layers):
            x_ND, h_NC = layer(x_ND, of, some_Q if depth == len(layers) - 1 else None)
            if memory is not None:
                memory.tokens_LNC.append(h_NC)
        if some_Q is not None and not len(layers):
            x_ND = x_ND[some_Q]
        return Encoded(x_ND, memory)

    def extend(self, memory: Any, x_QD: Tensor, at_Q: Tensor, *, live_Q: Tensor | None = None) -> Tensor:
        now = []
        for layer, h_QC in zip(self.layers, memory.states(at_Q), strict=True):
            x_QD, h_QC = cast("Block", layer).step(x_QD, h_QC)  # noqa: PLW2901 the chain's next state
            now.append(h_QC)
        memory.move(now, live_Q)
        return x_QD

    def item_vectors(self) -> Tensor:
        return self.items.weight


class Block(nn.Module):
    """A linear recurrent unit, then a feed-forward; each with dropout, a residual and a LayerNorm behind their sum."""

    def __init__(self, config: LRU.Config) -> None:
        super().__init__()
        D, C = config.width, config.channels
        ring = torch.rand(C) * (config.r_max**2 - config.r_min**2) + config.r_min**2
        self.nu_log = nn.Parameter((-0.5 * ring.log()).log())
        self.theta_log = nn.Parameter((2 * math.pi * torch.rand(C)).clamp_min(1e-6).log())
        self.gamma_log = nn.Parameter((1 - ring).sqrt().log())
        self.into = nn.Linear(D, 2 * C)
        self.out = nn.Linear(2 * C, D)
        self.unit_norm = nn.LayerNorm(D, eps=1e-12)
        self.inner = nn.Linear(D, config.inner)
        self.outer = nn.Linear(config.inner, D)
        self.norm = nn.LayerNorm(D, eps=1e-12)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_ND: Tensor, of: Shifts, at_Q: Tensor | None) -> tuple[Tensor, Tensor]:
        """Output of all tokens, or of those in ``at_Q`` alone, (N, D); complex states of all, (N, C)."""
        h_NC = scan(self._input(x_ND), self._decay(), of)
        if at_Q is not None:
            return self._output(x_ND[at_Q], h_NC[at_Q]), h_NC
        return self._output(x_ND, h_NC), h_NC

    def step(self, x_QD: Tensor, h_QC: Tensor) -> tuple[Tensor, Tensor]:
        """Output and states after one more token, for all Q at once."""
        now_QC = self._decay() * h_QC + self._input(x_QD)
        return self._output(x_QD, now_QC), now_QC

    def _decay(self) -> Tensor:
        """lambda, (C,) complex, inside the unit circle whatever the parameters are."""
        return torch.polar((-self.nu_log.exp()).exp(), self.theta_log.exp())

    def _input(self, x_ND: Tensor) -> Tensor:
        """gamma B x: a product with a complex matrix is one with its real and its imaginary part side by side."""
        b_NC2 = self.into(x_ND).view(len(x_ND), -1, 2)
        exact = torch.promote_types(b_NC2.dtype, torch.float32)  # no complex number is made of bfloat16
        return torch.view_as_complex(b_NC2.to(exact)) * self.gamma_log.exp()

    def _output(self, x_ND: Tensor, h_NC: Tensor) -> Tensor:
        y_ND = self.out(
            torch.view_as_real(h_NC).flatten(1)
        )  # Re(C h); the sign of C's imaginary part is in the weights
        x_ND = self.unit_norm(x_ND + self.dropout(y_ND))
        inner_NE = self.dropout(F.gelu(self.inner(x_ND)))
        return cast("Tensor", self.norm(x_ND + self.dropout(self.outer(inner_NE))))
