"""The latent chain: the last state goes back in as one more token behind its position, K times.

Source: Tang et al., "Think Before Recommend" (ReaRec), arXiv 2503.22675v3, section 3.1 and eq. 4.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from recbench.backbones.base import Backbone
from recbench.data.batching import Batch, Rows
from recbench.kernels.dropout import Dropout

PROBE_ITEMS = 256


class Chain(nn.Module):
    """Makes the token of each step: dropout(norm(state + step embedding)).

    Args:
        steps: K; one learned row each. Steps beyond K, asked for at test time, take the last row.
        fed: ``state``: ReaRec; ``constant``: the step embedding alone, so that nothing is fed back.
        norm: a LayerNorm of its own, whose gain starts at the scale of the backbone's own inputs.
    """

    def __init__(
        self,
        backbone: Backbone,
        steps: int,
        *,
        dropout: float,
        fed: Literal["state", "constant"] = "state",
        step_embedding: bool = True,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.steps = steps
        self.fed = fed
        self.step_embedding = nn.Embedding(steps, backbone.width) if steps and step_embedding else None
        if self.step_embedding is not None:
            nn.init.normal_(self.step_embedding.weight, std=0.02)
        self.norm = nn.LayerNorm(backbone.width, eps=1e-12) if steps and norm else None
        if self.norm is not None:
            nn.init.constant_(self.norm.weight, input_scale(backbone))
        self.dropout = Dropout(dropout)

    def feed(self, h_QD: Tensor, k: int, noise_QD: Tensor | None = None) -> Tensor:
        """Token of step ``k`` (from 0) after states ``h_QD``, (Q, D)."""
        x_QD = h_QD if self.fed == "state" else torch.zeros_like(h_QD)
        if self.step_embedding is not None:
            x_QD = x_QD + self.step_embedding.weight[min(k, self.steps - 1)]
        if noise_QD is not None:
            x_QD = x_QD + noise_QD
        if self.norm is not None:
            x_QD = self.norm(x_QD)
        return torch.as_tensor(self.dropout(x_QD))

    def run(self, backbone: Backbone, batch: Batch, steps: int | None = None) -> Tensor:
        """r_0 .. r_K at the asked tokens, (Q, K + 1, D): the plain state, then the output of each step."""
        steps = self.steps if steps is None else steps
        seen = backbone.encode(backbone.embed(batch), batch, at_Q=batch.at_Q, remember=steps > 0)
        z = [seen.h_QD]
        for k in range(steps):
            z.append(backbone.extend(seen.memory, self.feed(z[-1], k), batch.at_Q))
        return torch.stack(z, dim=1)


@torch.no_grad()
def input_scale(backbone: Backbone) -> float:
    """Root mean square of what the backbone's first layer is given, over single items, without dropout."""
    n = min(backbone.n_items, PROBE_ITEMS)
    device = backbone.item_vectors().device
    rows = Rows(np.ones(n, dtype=np.int64), device)
    items = torch.arange(1, n + 1, device=device)
    training = backbone.training
    x_ND = backbone.eval().embed(Batch(items, rows, rows.last_B, None, np.arange(n)))
    backbone.train(training)
    return float(x_ND.square().mean().sqrt())
