"""Softmax of the target against a shared set of items, gradients made in the forward pass a few rows at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbench.kernels.products import times_transposed
from recbench.scoring.kept import hand_back, keep
from recbench.scoring.negatives import Shared


def candidate_loss(u_ND: Tensor, table_VD: Tensor, target_N: Tensor, drawn: Shared, tau: float, chunk: int) -> Tensor:
    """Mean over rows of -log [w_y exp s_y / (w_y exp s_y + sum over j in S, j != y, of w_j exp s_j)]; s = u e / tau."""
    loss: Tensor = _Candidates.apply(u_ND, table_VD, target_N, drawn, tau, chunk)  # type: ignore[no-untyped-call]
    return loss


class _Candidates(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u_ND: Tensor, table_VD: Tensor, target_N: Tensor, drawn: Shared, tau: float, chunk: int
    ) -> Tensor:
        e_SD, own_ND = table_VD.index_select(0, drawn.items_S), table_VD.index_select(0, target_N)
        column_N1, hit_N1 = _own_columns(drawn.items_S, target_N)
        weight_S = drawn.log_weight_S.to(u_ND.dtype)
        own_N1 = (u_ND * own_ND).sum(1, keepdim=True).div_(tau)
        if drawn.log_own_V is not None:
            own_N1 += drawn.log_own_V[target_N, None].to(u_ND.dtype)
        du_ND, de_DS, e_DS = torch.empty_like(u_ND), torch.zeros_like(e_SD.t()), e_SD.t().contiguous()
        pull_N1 = torch.empty_like(own_N1)
        loss = u_ND.new_zeros((), dtype=torch.float64)
        for first in range(0, len(u_ND), chunk):
            here = slice(first, first + chunk)
            s_CS = torch.add(weight_S, times_transposed(u_ND[here], e_SD), alpha=1 / tau)
            column_C1 = column_N1[here]
            s_CS.scatter_(1, column_C1, s_CS.gather(1, column_C1).masked_fill_(hit_N1[here], -torch.inf))
            added, pull_N1[here] = _softmax_against_(s_CS, own_N1[here])
            loss += added
            du_ND[here] = torch.addcmul(times_transposed(s_CS, e_DS), pull_N1[here], own_ND[here])
            de_DS += times_transposed(u_ND[here].t().contiguous(), s_CS.t())
        de_VD = None
        if ctx.needs_input_grad[1]:
            de_VD = torch.zeros_like(table_VD).index_copy_(0, drawn.items_S, de_DS.t())
            de_VD.index_add_(0, target_N, pull_N1 * u_ND)
        keep(ctx, 1.0 / (tau * len(u_ND)), du_ND if ctx.needs_input_grad[0] else None, de_VD)
        return (loss / len(u_ND)).to(u_ND.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*hand_back(ctx, grads[0]), None, None, None, None)


def _own_columns(items_S: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
    """Where each row's target would stand among the drawn items, and whether it does, (N, 1) each."""
    column_N = torch.searchsorted(items_S, target_N).clamp_max_(len(items_S) - 1)
    return column_N[:, None], (items_S[column_N] == target_N)[:, None]


def _softmax_against_(s_CS: Tensor, own_C1: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the negatives to probabilities in place; the sum of -log p of the target in float64, and p - 1 of it, (C, 1)."""
    most_C1 = torch.maximum(s_CS.amax(1, keepdim=True), own_C1)
    own_part_C1 = (own_C1 - most_C1).exp_()
    sum_C1 = s_CS.sub_(most_C1).exp_().sum(1, keepdim=True)
    whole_C1 = sum_C1 + own_part_C1
    s_CS.div_(whole_C1)
    # log(whole / own part) as log1p(others / own part) where the target leads: no digits are lost near a loss of 0.
    leads_C1 = own_C1 == most_C1
    loss_C1 = torch.where(leads_C1, sum_C1.log1p(), whole_C1.log() + most_C1 - own_C1)
    return loss_C1.double().sum(), -sum_C1 / whole_C1
