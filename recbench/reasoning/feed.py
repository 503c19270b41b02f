"""The token of one more thought: what the thought before becomes on its way back in.

Source: Coconut (arXiv 2412.06769) feeds the last hidden state as it is, which is ``state``. Behind a last norm it is many times
larger than an input; ``rms`` brings it to their scale.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.backbones.base import Backbone
from recbench.reasoning.chain import input_scale

Fed = Literal["rms", "state", "linear", "constant"]


class Feed(nn.Module):
    """The token of thought t: what the thought before becomes, plus a learned vector of the step that starts at zero.

    Args:
        steps: learned vectors; later steps take the last.
    """

    def __init__(self, backbone: Backbone, kind: Fed, steps: int) -> None:
        super().__init__()
        self.kind = kind
        self.step = nn.Parameter(torch.zeros(steps, backbone.width))
        if kind in ("rms", "constant"):
            self.gain = nn.Parameter(torch.empty(backbone.width))
        if kind == "linear":
            self.weight = nn.Parameter(torch.empty(backbone.width, backbone.width))
        self.begin(backbone)
        if kind == "constant":
            self.constant = nn.Parameter(torch.randn(backbone.width))

    @torch.no_grad()
    def begin(self, backbone: Backbone) -> None:
        """Feed at the scale that the backbone's inputs have now: training moves it, by 13 times for ``sid-lm`` on Beauty."""
        scale = input_scale(backbone)
        if self.kind in ("rms", "constant"):
            self.gain.fill_(scale)
        if self.kind == "linear":
            self.weight.copy_(torch.eye(len(self.weight)) * scale)

    def forward(self, h_PD: Tensor, t: int) -> Tensor:
        """(P, D); ``t`` counts from 0."""
        step_D = self.step[min(t, len(self.step) - 1)]
        if self.kind == "state":
            return h_PD + step_D
        if self.kind == "linear":
            return h_PD @ self.weight + step_D
        if self.kind == "constant":
            h_PD = self.constant.expand_as(h_PD)
        return F.rms_norm(h_PD, h_PD.shape[-1:], self.gain.to(h_PD.dtype), 1e-6) + step_D
