"""Next-item loss of mixtures of states and the divergence of their distributions, from one set of scores, a few rows at a time.

Source: ReaRec's ensemble loss (arXiv 2503.22675, eq. 5 to 8). Scores are linear in the state, so the scores of a mixture are the
mixture of the scores; and sum_{i != j} KL(p_j || p_i) = sum_j sum_v p_j [K log p_j - sum_i log p_i], so no pair need be visited.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbench.kernels.products import times_transposed
from recbench.scoring.base import Divergence
from recbench.scoring.log_sum_exp import softmax_


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
    loss, apart = _Pooled.apply(z_NKD, table_VD, target_N, mix_MK, (tau, divergence, form, chunk))  # type: ignore[no-untyped-call]
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
        asked: tuple[float, float, Divergence, int],
    ) -> tuple[Tensor, Tensor]:
        tau, divergence, form, chunk = asked
        N, K, D = z_NKD.shape
        e_VD, column_N = table_VD[1:], target_N - 1
        e_DV = e_VD.t().contiguous()
        dz_NKD, de_DV = torch.empty_like(z_NKD), torch.zeros_like(e_DV)
        loss = apart = z_NKD.new_zeros((), dtype=torch.float64)
        ctx.two_parts = bool(divergence) and K > 1
        for first in range(0, N, chunk):
            here = slice(first, first + chunk)
            flat = z_NKD[here].transpose(0, 1).reshape(-1, D)
            s_KCV = _divided(times_transposed(flat, e_VD), tau).view(K, -1, len(e_VD))
            added, grads = _mixtures(s_KCV, column_N[here, None], mix_MK)
            loss = loss + added
            if ctx.two_parts:
                added, grad_KCV = (_among_all if form == "code" else _by_pairs)(s_KCV, divergence, grads)
                apart = apart + added
            else:
                grad_KCV = torch.stack(grads)
            flat_grad = grad_KCV.flatten(0, 1)
            dz_NKD[here] = times_transposed(flat_grad, e_DV).view(K, -1, D).transpose(0, 1)
            de_DV += times_transposed(flat.t().contiguous(), flat_grad.t())
        scale = 1.0 / (tau * N)
        de_VD = torch.cat([de_DV.new_zeros(1, D), de_DV.t()])
        ctx.save_for_backward(dz_NKD.mul_(scale), de_VD.mul_(scale))
        return (loss / N).to(z_NKD.dtype), (apart / N).to(z_NKD.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.two_parts and not torch.equal(grads[0], grads[1]):
            raise RuntimeError("the two parts of a pooled loss are differentiated together, with one weight")
        dz_NKD, de_VD = ctx.saved_tensors
        return dz_NKD * grads[0], de_VD * grads[0], None, None, None


def _mixtures(s_KCV: Tensor, column_C1: Tensor, mix_MK: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Sum of -log p[target] over rows and mixtures, and its gradient by each state's scores."""
    total = s_KCV.new_zeros((), dtype=torch.float64)
    grads: list[Tensor | None] = [None] * len(s_KCV)
    for mix in mix_MK.tolist():
        used = [(k, weight) for k, weight in enumerate(mix) if weight]
        p_CV = s_KCV[used[0][0]] * used[0][1]
        for k, weight in used[1:]:
            p_CV.add_(s_KCV[k], alpha=weight)
        own_C1 = p_CV.gather(1, column_C1)
        lse_C1 = softmax_(p_CV)
        total = total + (lse_C1 - own_C1).double().sum()
        p_CV.scatter_add_(1, column_C1, p_CV.new_full(column_C1.shape, -1.0))
        scaled = {weight: p_CV if weight == 1 else p_CV * weight for weight in {weight for _, weight in used}}
        for k, weight in used:
            before = grads[k]
            grads[k] = scaled[weight] if before is None else before + scaled[weight]
    return total, [torch.zeros_like(s_KCV[0]) if grad is None else grad for grad in grads]


def _among_all(s_KCV: Tensor, weight: float, grads: list[Tensor]) -> tuple[Tensor, Tensor]:
    """weight x sum over rows of the mean over ordered pairs of KL(p_j || sg p_i), and ``grads`` with its gradient added, (K, C, V).

    The log-sum-exps of the states cancel in the sum over pairs, so sum_v p_j [K s_j - sum_i s_i] is all there is. Overwrites s.
    """
    K = len(s_KCV)
    weight = -weight / (K * (K - 1))
    total_CV, q_KCV = s_KCV.sum(0), torch.softmax(s_KCV, dim=-1)
    apart = s_KCV.new_zeros((), dtype=torch.float64)
    for s_CV, q_CV, grad_CV in zip(s_KCV, q_KCV, grads, strict=True):
        near_CV = torch.add(total_CV, s_CV, alpha=-K, out=s_CV)
        mean_C1 = torch.linalg.vecdot(q_CV, near_CV)[:, None]
        apart = apart + mean_C1.double().sum()
        torch.addcmul(grad_CV, q_CV, near_CV.sub_(mean_C1), value=weight, out=q_CV)
    return apart * weight, q_KCV


def _by_pairs(s_KCV: Tensor, weight: float, grads: list[Tensor]) -> tuple[Tensor, Tensor]:
    """weight x sum over rows and pairs i < j of KL(p_i || p_j), both sides with gradient; ``grads`` with that added, (K, C, V)."""
    q_KCV = s_KCV.clone()
    lse_KC1 = [softmax_(q_CV) for q_CV in q_KCV]
    made_KCV = torch.stack(grads)
    apart = s_KCV.new_zeros((), dtype=torch.float64)
    for i in range(len(s_KCV)):
        for j in range(i + 1, len(s_KCV)):
            far_CV = s_KCV[i] - s_KCV[j]
            mean_C1 = torch.linalg.vecdot(q_KCV[i], far_CV)[:, None]
            apart = apart + (mean_C1 - lse_KC1[i] + lse_KC1[j]).double().sum()
            made_KCV[i].addcmul_(q_KCV[i], far_CV.sub_(mean_C1), value=weight)
            made_KCV[j].add_(q_KCV[j], alpha=weight).sub_(q_KCV[i], alpha=weight)
    return apart * weight, made_KCV


def _divided(s: Tensor, tau: float) -> Tensor:
    """Scores over their temperature, in place."""
    return s if tau == 1 else s.div_(tau)
