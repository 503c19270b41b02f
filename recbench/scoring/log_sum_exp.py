"""log sum exp of scores over the catalogue, streamed: backward makes the scores anew instead of keeping them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbench.kernels.products import times_transposed


def log_sum_exp(u_ND: Tensor, table_VD: Tensor, tau: float, chunk: int, first: int = 1) -> Tensor:
    """log sum_v exp(u e_v / tau) of each row, (N,), with gradient into both.

    Four matrix products in all, and never more than ``chunk`` rows of scores.

    Args:
        first: rows of the table before it take no part; row 0 of an item table is padding.
    """
    made: Tensor = _LogSumExp.apply(u_ND, table_VD, tau, chunk, first)  # type: ignore[no-untyped-call] # torch leaves apply untyped
    return made


def softmax_(s_CV: Tensor) -> Tensor:
    """Scores to probabilities in place; returns each row's log sum exp, (C, 1).

    The greatest probability is 1 / sum exp(s - max s): never near to underflow, and cheaper than exponentials of our own.
    """
    most_C1 = s_CV.amax(1, keepdim=True)
    torch.softmax(s_CV, dim=1, out=s_CV)
    return most_C1 - s_CV.amax(1, keepdim=True).log()


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u_ND: Tensor, table_VD: Tensor, tau: float, chunk: int, before: int) -> Tensor:
        e_VD = table_VD[before:]
        lse_N = u_ND.new_empty(len(u_ND))
        for first in range(0, len(u_ND), chunk):
            s_CV = times_transposed(u_ND[first : first + chunk], e_VD).div_(tau)
            lse_N[first : first + chunk] = softmax_(s_CV)[:, 0]
        ctx.save_for_backward(u_ND, table_VD)
        ctx.tau, ctx.chunk, ctx.before = tau, chunk, before
        return lse_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        u_ND, table_VD = ctx.saved_tensors
        e_VD, upstream_N = table_VD[ctx.before :], grads[0] / ctx.tau
        du_ND = torch.empty_like(u_ND) if ctx.needs_input_grad[0] else None
        de_DV = e_VD.new_zeros(e_VD.shape[::-1]) if ctx.needs_input_grad[1] else None
        e_DV = e_VD.t().contiguous()
        for first in range(0, len(u_ND), ctx.chunk):
            here = slice(first, first + ctx.chunk)
            p_CV = times_transposed(u_ND[here], e_VD).div_(ctx.tau)
            torch.softmax(p_CV, dim=1, out=p_CV).mul_(upstream_N[here, None])
            if du_ND is not None:
                du_ND[here] = times_transposed(p_CV, e_DV)
            if de_DV is not None:
                de_DV += times_transposed(u_ND[here].t().contiguous(), p_CV.t())
        de_VD = None if de_DV is None else torch.cat([de_DV.new_zeros(ctx.before, len(de_DV)), de_DV.t()])
        return du_ND, de_VD, None, None, None
