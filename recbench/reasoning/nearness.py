"""How far thoughts are from what they are pulled towards.

Letters: **P** targets, **K** thoughts, **X** width of an anchor: D, or the codes of a level.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Measure = Literal["kl", "cosine", "mse", "none"]


def apart(a_PKX: Tensor, c_PKX: Tensor, measure: Measure, tau: float) -> Tensor:
    """How far each thought is from its anchor, (P, K).

    Args:
        tau: temperature of kl.
    """
    if measure == "cosine":
        return 1 - F.cosine_similarity(a_PKX, c_PKX, dim=2)
    if measure == "mse":
        return (a_PKX - c_PKX).square().mean(2)
    return both_ways(a_PKX, c_PKX, tau)


def both_ways(a: Tensor, b: Tensor, tau: float = 1.0) -> Tensor:
    """Mean of KL(p || q) and KL(q || p), p and q the softmax of a / tau and b / tau over the last dimension; nats.

    It is 1/2 sum_j (p_j - q_j) (a_j - b_j) / tau, as the normalisers cancel.
    """
    p, q = (a / tau).softmax(-1), (b / tau).softmax(-1)
    return ((p - q) * (a - b)).sum(-1) / (2 * tau)


def over_thoughts(far_PK: Tensor, s_P: Tensor, n_P: Tensor) -> Tensor:
    """Mean over the thoughts of each target, mean over targets; thoughts without an anchor add nothing.

    Args:
        s_P: anchors of each target.
        n_P: thoughts of each target.
    """
    step_K = torch.arange(1, far_PK.shape[1] + 1, device=n_P.device)
    on_PK = (step_K <= s_P[:, None]) & (step_K <= n_P[:, None])
    return ((far_PK * on_PK).sum(1) / n_P.clamp_min(1)).mean()
