"""What every head logs of its thoughts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.reasoning.base import Context


@torch.no_grad()
def note_similarity(context: Context, z_QKD: Tensor) -> None:
    """Cosine between successive thoughts, ``similarity@k`` between thought k - 1 and k: near 1, further steps change nothing."""
    for k in range(1, z_QKD.shape[1]):
        context.note(f"similarity@{k}", F.cosine_similarity(z_QKD[:, k - 1], z_QKD[:, k], dim=-1).mean())
