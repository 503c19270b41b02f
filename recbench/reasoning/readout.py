"""The token behind the last thought, whose state is the answer.

Source: LASAR (arXiv 2605.10207) as two public close readings describe its layout, ``[prompt] <s> <t> x N <e> [codes]``; the same
three kinds of token stand in Coconut (arXiv 2412.06769).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbench.backbones.base import Backbone
from recbench.reasoning.chain import input_scale


class End(nn.Module):
    """``<e>``: one learned input vector, which begins as large as the backbone's own."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(backbone.width) * input_scale(backbone))

    def forward(self, backbone: Backbone, memory: Any, at_P: Tensor) -> Tensor:
        """Its state behind each of these chains as they stand, (P, D). It takes no place: a thought that follows never sees it."""
        never_P = torch.zeros(len(at_P), dtype=torch.bool, device=at_P.device)
        return backbone.extend(memory, self.vector.expand(len(at_P), -1), at_P, live_Q=never_P)


def ended(z_PKD: Tensor, u_PD: Tensor, n_P: Tensor) -> Tensor:
    """Chains with ``u_PD`` behind thought n_p of each, repeated up to the end, (P, K + 1, D).

    Args:
        z_PKD: K = 1 + the largest n.
    """
    K = z_PKD.shape[1]
    step_K = torch.arange(K + 1, device=n_P.device)
    at_PK = torch.where(step_K <= n_P[:, None], step_K, K)
    whole_PKD = torch.cat([z_PKD, u_PD[:, None]], dim=1)
    return whole_PKD.gather(1, at_PK[:, :, None].expand(-1, -1, z_PKD.shape[2]))
