"""Binary cross-entropy of the target against a few negatives of each row's own, plain and generalised.

Source: Petrov & Macdonald, "gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative Sampling", RecSys
2023, arXiv 2308.07192: gBCE, and its beta from the calibration t. Negatives are uniform over all items but the target. SASRec's own
code also leaves out the user's other items, and sums the two halves instead of averaging them: a factor of 2, which Adam undoes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.limits import at_least, shares
from recbench.scoring.drawing import DrawingScore
from recbench.scoring.kept import hand_back, keep
from recbench.scoring.negatives import own_draw
from recbench.scoring.precision import in_whole_precision

CHUNK_NUMBERS = {"cpu": 1 << 17, "cuda": 1 << 27}
"""Numbers of gathered item vectors held at once: on a CPU what stays near its core, four times as many take six times as long."""


class _Binary(torch.autograd.Function):
    """Mean over rows and their K + 1 items of -beta log sigma(s+) - sum log(1 - sigma(s-)), s = u e / tau."""

    @staticmethod
    def forward(
        ctx: Any, u_ND: Tensor, table_VD: Tensor, target_N: Tensor, negative_NK: Tensor, beta: float, tau: float
    ) -> Tensor:
        N, K = negative_NK.shape
        D = u_ND.shape[1]
        du_ND = torch.empty_like(u_ND)
        de_VD = torch.zeros_like(table_VD) if ctx.needs_input_grad[1] else None
        loss = u_ND.new_zeros((), dtype=torch.float64)
        chunk = max(1, CHUNK_NUMBERS.get(u_ND.device.type, CHUNK_NUMBERS["cuda"]) // (K * D))
        for first in range(0, N, chunk):
            here = slice(first, first + chunk)
            u, y, negative = u_ND[here], target_N[here], negative_NK[here]
            own, others = table_VD.index_select(0, y), table_VD.index_select(0, negative.flatten()).view(-1, K, D)
            s_C1 = (u * own).sum(1, keepdim=True) / tau
            s_CK = torch.bmm(u[:, None], others.transpose(1, 2))[:, 0] / tau
            loss -= (beta * F.logsigmoid(s_C1)[:, 0] + F.logsigmoid(-s_CK).sum(1)).double().sum()
            pull_C1, push_CK = -beta * torch.sigmoid(-s_C1), torch.sigmoid(s_CK)
            du_ND[here] = torch.addcmul(torch.bmm(push_CK[:, None], others)[:, 0], pull_C1, own)
            if de_VD is not None:
                de_VD.index_add_(0, y, pull_C1 * u)
                de_VD.index_add_(
                    0, negative.flatten(), torch.mul(push_CK[..., None], u[:, None], out=others).view(-1, D)
                )
        n_terms = N * (K + 1)
        keep(ctx, 1.0 / (tau * n_terms), du_ND if ctx.needs_input_grad[0] else None, de_VD)
        return (loss / n_terms).to(u_ND.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*hand_back(ctx, grads[0]), None, None, None, None)


class BinaryScore(DrawingScore):
    """A loss of the kind above."""

    @property
    def beta(self) -> float:
        """Exponent of the target's probability."""
        return 1.0

    @in_whole_precision
    def loss(self, u_ND: Tensor, target_N: Tensor, *, tau: float = 1.0, frozen: bool = False) -> Tensor:
        negative_NK = own_draw(target_N, self._n_items, self.config.negatives, self._now.generator)
        loss: Tensor = _Binary.apply(  # type: ignore[no-untyped-call] # torch leaves apply untyped
            u_ND, self._trained(frozen), target_N, negative_NK, self.beta, tau
        )
        return loss


@final
class BCE(BinaryScore):
    """Loss: binary cross-entropy, gBCE at t = 0."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """How many negatives."""

        negatives: int = 1
        """Of each target, uniform over the other items, with replacement."""

        def __post_init__(self) -> None:
            at_least(1, self, "negatives")

    @property
    def name(self) -> str:
        k = self.config.negatives
        return f"BCE, {k} uniform negative{'' if k == 1 else 's'}"


@final
class GBCE(BinaryScore):
    """Loss: generalised binary cross-entropy, which repairs the overconfidence that few negatives bring."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """How many negatives, and how far their small number is made up for."""

        negatives: int = 256
        """k, of each target, uniform over the other items, with replacement."""
        t: float = 0.75
        """Calibration: 0 plain BCE, 1 probabilities as if all items had been negatives."""

        def __post_init__(self) -> None:
            at_least(1, self, "negatives")
            shares(self, "t")

    def __init__(self, table: Callable[[], Tensor], chunk_rows: int | None = None, config: Any = None) -> None:
        super().__init__(table, chunk_rows, config)
        if self.config.negatives >= self._n_items:
            raise ValueError(
                f"negatives is {self.config.negatives}, but beside a target there are only {self._n_items - 1} items to draw."
            )

    @property
    def name(self) -> str:
        return f"gBCE, {self.config.negatives} uniform negatives, t {self.config.t:g}"

    @property
    def beta(self) -> float:
        """alpha (t (1 - 1 / alpha) + 1 / alpha) = t (alpha - 1) + 1, alpha = k / (items - 1): 1 at t = 0, alpha at t = 1."""
        alpha = self.config.negatives / (self._n_items - 1)
        return self.config.t * (alpha - 1) + 1
