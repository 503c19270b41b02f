"""Full softmax over the catalogue, its gradients made in the forward pass a few rows at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from recbench.kernels.products import times_transposed
from recbench.scoring.base import Divergence
from recbench.scoring.items import ItemScore
from recbench.scoring.kept import hand_back, keep
from recbench.scoring.pooled import pooled_loss
from recbench.scoring.precision import in_whole_precision

TINY = 1e-30
"""Below this a float32 probability is too near to underflow for its log to be trusted."""


class _CrossEntropy(torch.autograd.Function):
    """Mean of -log softmax(u e / tau)[target]. Kept for backward: two gradients of the size of the inputs, no logits."""

    @staticmethod
    def forward(ctx: Any, u_ND: Tensor, table_VD: Tensor, target_N: Tensor, tau: float, chunk: int) -> Tensor:
        """Loss and, where asked for, both gradients. Row 0 of the table is padding and takes no part."""
        e_VD, column_N = table_VD[1:], target_N - 1
        N, scale = len(u_ND), 1.0 / (tau * len(u_ND))
        du_ND = torch.empty_like(u_ND) if ctx.needs_input_grad[0] else None
        de_DV = e_VD.new_zeros(e_VD.shape[::-1]) if ctx.needs_input_grad[1] else None
        e_DV = e_VD.t().contiguous()
        loss = u_ND.new_zeros((), dtype=torch.float64)
        for first in range(0, N, chunk):
            u, y = u_ND[first : first + chunk], column_N[first : first + chunk, None]
            p = times_transposed(u, e_VD)
            if tau != 1:
                p.div_(tau)
            loss += _softmax_(p, y, u, e_VD, tau)
            if du_ND is None and de_DV is None:
                continue
            p.scatter_add_(1, y, p.new_full(y.shape, -1.0))
            if du_ND is not None:
                du_ND[first : first + chunk] = times_transposed(p, e_DV)
            if de_DV is not None:
                de_DV += times_transposed(u.t().contiguous(), p.t())
        de_VD = None if de_DV is None else torch.cat([de_DV.new_zeros(1, len(de_DV)), de_DV.t()])
        keep(ctx, scale, du_ND, de_VD)
        return (loss / N).to(u_ND.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*hand_back(ctx, grads[0]), None, None, None)


def _softmax_(s_CV: Tensor, column_C1: Tensor, u_CD: Tensor, e_VD: Tensor, tau: float) -> Tensor:
    """Turn scores into probabilities in place; returns the sum of -log p of the asked columns, in float64."""
    torch.softmax(s_CV, dim=1, out=s_CV)
    p_C1 = s_CV.gather(1, column_C1)
    if bool((p_C1 > TINY).all()):
        return -p_C1.double().log().sum()
    scores_CV = (
        u_CD.double() @ e_VD.double().t() / tau
    )  # a probability has underflowed, or something is NaN: exactly, but slowly
    return (scores_CV.logsumexp(dim=1) - scores_CV.gather(1, column_C1)[:, 0]).sum()


@final
class ItemSoftmax(ItemScore):
    """Loss: cross-entropy over the whole catalogue."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Nothing to set."""

    @property
    def name(self) -> str:
        return "softmax over all items"

    @in_whole_precision
    def loss(self, u_ND: Tensor, target_N: Tensor, *, tau: float = 1.0, frozen: bool = False) -> Tensor:
        loss: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call] # torch leaves apply untyped
            u_ND, self._trained(frozen), target_N, tau, self._chunk(u_ND)
        )
        return loss

    @in_whole_precision
    def pooled(
        self,
        z_NKD: Tensor,
        target_N: Tensor,
        *,
        mix_MK: Tensor,
        tau: float = 1.0,
        divergence: float = 0.0,
        form: Divergence = "code",
    ) -> tuple[Tensor, Tensor]:
        chunk = max(16, self._chunk(z_NKD) // 2)
        return pooled_loss(z_NKD, self._table(), target_N, mix_MK, tau, divergence, form, chunk)
