"""Where weights start, the same in all backbones that do not say otherwise."""

from __future__ import annotations

import torch
from torch import nn


def initialise(module: nn.Module, sd: float) -> None:
    """Normal weights of that standard deviation in every linear layer and table, zero biases, a zero padding row."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=sd)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            with torch.no_grad():
                part.weight[part.padding_idx] = 0
