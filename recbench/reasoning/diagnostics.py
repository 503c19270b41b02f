"""What heads log of their thoughts and of their losses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.reasoning.base import Context
from recbench.reasoning.diffusion import direction
from recbench.scoring.base import Score


@torch.no_grad()
def note_similarity(context: Context, z_QKD: Tensor, first: int = 0, steps_Q: Tensor | None = None) -> None:
    """Cosine between successive thoughts, ``similarity@k`` between thought k - 1 and k: near 1, further steps change nothing.

    Args:
        first: the number of the first of them. 0: the plain state.
        steps_Q: steps behind the first that each chain takes; one that has stopped says nothing of later steps. None: all of them.
    """
    for k in range(1, z_QKD.shape[1]):
        alike_Q = F.cosine_similarity(z_QKD[:, k - 1], z_QKD[:, k], dim=-1)
        if steps_Q is not None:
            alike_Q = alike_Q[steps_Q >= k]
        if len(alike_Q):
            context.note(f"similarity@{first + k}", alike_Q.mean())


def gradient_share(part: Tensor, rest: Tensor | int, of: Tensor) -> Tensor:
    """Gradient norm of one term by the thoughts, as a share of the others'."""
    if not isinstance(rest, Tensor) or not part.requires_grad:
        return of.new_zeros(())
    norms = [torch.autograd.grad(term, of, retain_graph=True, allow_unused=True)[0] for term in (part, rest)]
    own, others = (of.new_zeros(()) if grad is None else grad.norm() for grad in norms)
    return own / others.clamp_min(1e-12)


@torch.no_grad()
def note_leak(context: Context, z_ND: Tensor, t_N: Tensor, y_N: Tensor, score: Score) -> None:
    """``leak@t``: share of noisy targets whose nearest item is the target. Near 1, level t teaches decoding only."""
    with torch.autocast(z_ND.device.type, enabled=False):  # bfloat16 would take close items for the same
        nearest_N = (z_ND @ direction(score.items()).t()).argmax(1) + 1
    for t in t_N.unique().tolist():
        context.note(f"leak@{t}", (nearest_N == y_N)[t_N == t].float().mean())
