"""Next-item loss of mixtures of states and the divergence of their distributions, from one set of scores, a few rows at a time.

Source: ReaRec's ensemble loss (arXiv 2503.22675, eq. 5 to 8). Scores are linear in the state, so the scores of a mixture are the
mixture of the scores; and sum_{i != j} KL(p_j || p_i) = sum_j sum_v p_j [K log p_j - sum_i log p_i], so no pair need be visited.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbench.scoring.base import Divergence
from recbench.scoring.products import times_transposed


def pooled_loss(
    z_NKD: Tensor,
    table_VD: Tensor,
    target_N: Tensor,
    mix_MK: Tensor,
    tau: float,
    divergence: float,
    form: Divergence,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """See ``Score.pooled``. Row 0 of the table is padding; ``chunk`` rows of K score vectors are held at once."""
    loss, apart = _Pooled.apply(z_NKD, table_VD, target_N, mix_MK, tau, divergence, form, chunk)  # type: ignore[no-untyped-call]
    return loss, apart


class _Pooled(torch.autograd.Function):
    """Gradients of loss + divergence are made in forward; kept for backward: two tensors of the size of the inputs."""

    @staticmethod
    def forward(
        ctx: Any,
        z_NKD: Tensor,
        table_VD: Tensor,
        target_N: Tensor,
        mix_MK: Tensor,
        tau: float,
        divergence: float,
        form: Divergence,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        N, K, D = z_NKD.shape
        e_VD, column_N = table_VD[1:], target_N - 1
        e_DV = e_VD.t().contiguous()
        dz_NKD, de_DV = torch.empty_like(z_NKD), torch.zeros_like(e_DV)
        loss = apart = z_NKD.new_zeros((), dtype=torch.float64)
        for first in range(0, N, chunk):
            here = slice(first, first + chunk)
            flat = z_NKD[here].transpose(0, 1).reshape(-1, D)
            s_KCV = times_transposed(flat, e_VD).div_(tau).view(K, -1, len(e_VD))
            grad_KCV = torch.zeros_like(s_KCV)
            loss = loss + _mixtures(s_KCV, column_N[here, None], mix_MK, grad_KCV)
            if divergence and K > 1:
                apart = apart + (_among_all if form == "code" else _by_pairs)(s_KCV, divergence, grad_KCV)
            flat_grad = grad_KCV.view(len(flat), -1)
            dz_NKD[here] = times_transposed(flat_grad, e_DV).view(K, -1, D).transpose(0, 1)
            de_DV += times_transposed(flat.t().contiguous(), flat_grad.t())
        scale = 1.0 / (tau * N)
        de_VD = torch.cat([de_DV.new_zeros(1, D), de_DV.t()])
        ctx.save_for_backward(dz_NKD.mul_(scale), de_VD.mul_(scale))
        return (loss / N).to(z_NKD.dtype), (apart / N).to(z_NKD.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.equal(grads[0], grads[1]):
            raise RuntimeError("the two parts of a pooled loss are differentiated together, with one weight")
        dz_NKD, de_VD = ctx.saved_tensors
        return dz_NKD * grads[0], de_VD * grads[0], None, None, None, None, None, None


def _mixtures(s_KCV: Tensor, column_C1: Tensor, mix_MK: Tensor, grad_KCV: Tensor) -> Tensor:
    """Sum of -log p[target] over rows and mixtures; adds its gradient by the scores."""
    total = s_KCV.new_zeros((), dtype=torch.float64)
    for mix in mix_MK.tolist():
        used = [(k, weight) for k, weight in enumerate(mix) if weight]
        p_CV = s_KCV[used[0][0]] * used[0][1]
        for k, weight in used[1:]:
            p_CV.add_(s_KCV[k], alpha=weight)
        own_C1 = p_CV.gather(1, column_C1)
        lse_C1 = _softmax_(p_CV)
        total = total + (lse_C1 - own_C1).double().sum()
        p_CV.scatter_add_(1, column_C1, p_CV.new_full(column_C1.shape, -1.0))
        for k, weight in used:
            grad_KCV[k].add_(p_CV, alpha=weight)
    return total


def _among_all(s_KCV: Tensor, weight: float, grad_KCV: Tensor) -> Tensor:
    """weight x sum over rows of the mean over ordered pairs of KL(p_j || sg p_i); adds its gradient."""
    K = len(s_KCV)
    weight = weight / (K * (K - 1))
    total_CV = s_KCV.sum(0)
    lse_KC1, q_CV = [], []
    for s_CV in s_KCV:
        q = s_CV.clone()
        lse_KC1.append(_softmax_(q))
        q_CV.append(q)
    lse_sum_C1 = torch.stack(lse_KC1).sum(0)
    apart = s_KCV.new_zeros((), dtype=torch.float64)
    for s_CV, q, lse_C1, grad_CV in zip(s_KCV, q_CV, lse_KC1, grad_KCV, strict=True):
        far_CV = (s_CV * K).sub_(total_CV)
        mean_C1 = (q * far_CV).sum(1, keepdim=True)
        apart = apart + (mean_C1 - K * lse_C1 + lse_sum_C1).double().sum()
        grad_CV.addcmul_(q, far_CV.sub_(mean_C1), value=weight)
    return apart * weight


def _by_pairs(s_KCV: Tensor, weight: float, grad_KCV: Tensor) -> Tensor:
    """weight x sum over rows and pairs i < j of KL(p_i || p_j), both sides with gradient; adds it."""
    lse_KC1, q_KCV = [], s_KCV.clone()
    for q_CV in q_KCV:
        lse_KC1.append(_softmax_(q_CV))
    apart = s_KCV.new_zeros((), dtype=torch.float64)
    for i in range(len(s_KCV)):
        for j in range(i + 1, len(s_KCV)):
            far_CV = s_KCV[i] - s_KCV[j]
            mean_C1 = (q_KCV[i] * far_CV).sum(1, keepdim=True)
            apart = apart + (mean_C1 - lse_KC1[i] + lse_KC1[j]).double().sum()
            grad_KCV[i].addcmul_(q_KCV[i], far_CV.sub_(mean_C1), value=weight)
            grad_KCV[j].add_(q_KCV[j], alpha=weight).sub_(q_KCV[i], alpha=weight)
    return apart * weight


def _softmax_(s_CV: Tensor) -> Tensor:
    """Scores to probabilities in place; returns each row's log sum exp, (C, 1)."""
    most_C1 = s_CV.amax(1, keepdim=True)
    sum_C1 = s_CV.sub_(most_C1).exp_().sum(1, keepdim=True)
    s_CV.div_(sum_C1)
    return sum_C1.log() + most_C1
