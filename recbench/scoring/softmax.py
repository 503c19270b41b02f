"""Full softmax over the catalogue, its gradients made in the forward pass a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.kernels.products import times_transposed
from recbench.scoring.base import Divergence, Score
from recbench.scoring.counting import count
from recbench.scoring.log_sum_exp import log_sum_exp
from recbench.scoring.pooled import pooled_loss

CHUNK_ROWS = 128
"""Rows of logits held at once. 128 x 12,000 floats stay in a CPU's cache; measured best of 64 to 1,024 on CPU."""
CHUNK_ROWS_GPU = 2048
"""The same on a GPU, where launches cost more than memory."""
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
        ctx.save_for_backward(*(g.mul_(scale) for g in (du_ND, de_VD) if g is not None))
        ctx.has = du_ND is not None, de_VD is not None
        return (loss / N).to(u_ND.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Scale what forward made; a factor of 1, the common case, costs nothing."""
        made = iter(ctx.saved_tensors)
        same = grads[0].device.type == "cpu" and grads[0].item() == 1.0
        du_ND, de_VD = (next(made) if had else None for had in ctx.has)
        if not same:
            du_ND, de_VD = (None if g is None else g * grads[0] for g in (du_ND, de_VD))
        return du_ND, de_VD, None, None, None


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
class ItemSoftmax(Score):
    """Dot products with the item table; loss: cross-entropy over the whole catalogue.

    Args:
        table: gives the item table (V, D) with its padding row 0; called anew each time, so that gradients reach it.
    """

    name = "softmax over all items"

    def __init__(self, table: Callable[[], Tensor], chunk_rows: int | None = None) -> None:
        self._table = table
        self._chunk_rows = chunk_rows

    def loss(self, u_ND: Tensor, target_N: Tensor, *, tau: float = 1.0, frozen: bool = False) -> Tensor:
        table_VD = self._table()
        chunk = self._chunk(u_ND)
        loss: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call] # torch leaves apply untyped
            u_ND, table_VD.detach() if frozen else table_VD, target_N, tau, chunk
        )
        return loss

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

    def log_prob(self, u_ND: Tensor, items_NG: Tensor, *, tau: float = 1.0, frozen: bool = False) -> Tensor:
        table_VD = self._table().detach() if frozen else self._table()
        own_NG = (u_ND[:, None] * F.embedding(items_NG, table_VD)).sum(-1) / tau
        return (own_NG - log_sum_exp(u_ND, table_VD, tau, self._chunk(u_ND))[:, None])[..., None]

    @torch.no_grad()
    def top(self, u_ND: Tensor, g: int) -> Tensor:
        chunk = self._chunk(u_ND)
        return torch.cat([times_transposed(u, self.items()).topk(g).indices + 1 for u in u_ND.split(chunk)])

    @torch.no_grad()
    def place(self, u_ND: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
        above, tied = torch.empty_like(target_N), torch.empty_like(target_N)
        e_VD, none = self.items(), target_N.new_empty(0)
        chunk = self._chunk(u_ND)
        for first in range(0, len(u_ND), chunk):
            here = slice(first, first + chunk)
            counts = count(times_transposed(u_ND[here], e_VD), target_N[here], none, none)
            above[here], tied[here] = counts.above, counts.tied
        return above, tied

    def items(self) -> Tensor:
        return self._table()[1:]

    def _chunk(self, u_ND: Tensor) -> int:
        return self._chunk_rows or (CHUNK_ROWS if u_ND.device.type == "cpu" else CHUNK_ROWS_GPU)
