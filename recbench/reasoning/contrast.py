"""What contrastive terms share: the loss, who may not be a negative, and the draw of rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.data.batching import Batch
from recbench.scoring.precision import product


def info_nce(x_AD: Tensor, y_AD: Tensor, tau: float, hidden_AA: Tensor | None = None) -> Tensor:
    """Mean of -log softmax(x_a . y_j / tau)[a] over rows a; 0 for a single row (van den Oord et al., arXiv 1807.03748, eq. 4).

    In float32 at least.

    Args:
        hidden_AA: True where j may not be a negative of a; its diagonal is ignored.
    """
    logits_AA = product(x_AD, y_AD.t()) / tau
    if hidden_AA is not None:
        own = torch.eye(len(x_AD), dtype=torch.bool, device=x_AD.device)
        logits_AA = logits_AA.masked_fill(hidden_AA & ~own, -torch.inf)
    return F.cross_entropy(logits_AA, torch.arange(len(x_AD), device=x_AD.device))


def some_of(n: int, count: int, generator: torch.Generator) -> Tensor:
    """``count`` of 0..n-1 without repeats, uniformly, ascending; all of them where n is no larger."""
    if n <= count:
        return torch.arange(n, device=generator.device)
    return torch.randperm(n, generator=generator, device=generator.device)[:count].sort().values


def user_of(batch: Batch, at_A: Tensor) -> Tensor:
    """User of each token, (A,)."""
    users_B = torch.from_numpy(batch.users_B.astype("int64")).to(at_A.device)
    return users_B[batch.rows.row_N[at_A]]


def equal(one_A: Tensor, other_A: Tensor) -> Tensor:
    """(A, A): is entry a of one entry j of the other?"""
    return one_A[:, None] == other_A[None, :]
