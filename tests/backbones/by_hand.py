"""Pieces of backbones as plain loops over numbers, for tests that hold the fast code against them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recbench.backbones.base import Backbone
from tests.systems import packed

HISTORY = [3, 1, 4, 15, 9, 2, 6]
GAPS = [0, 0, 40, 86_400, 86_400, 90_000_000, 90_000_007]
"""When each event of the history happens, in seconds: two at once, then minutes, days, years."""


def silu(x: Tensor) -> Tensor:
    """x times its logistic function."""
    return x / (1 + torch.exp(-x))


def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution function."""
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def norm(x: Tensor, layer: nn.LayerNorm | None, eps: float) -> Tensor:
    """LayerNorm of one vector; None: without gain and offset."""
    centred = x - x.sum() / len(x)
    scaled = centred / torch.sqrt((centred * centred).sum() / len(x) + eps)
    return scaled if layer is None else scaled * layer.weight + layer.bias


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """W x + b of one vector."""
    y = layer.weight @ x
    return y if layer.bias is None else y + layer.bias


def shaken(backbone: Backbone, scale: float = 0.3) -> Backbone:
    """The backbone in float64 and eval mode, every parameter drawn anew, so that none is 0 or 1 by chance."""
    generator = torch.Generator().manual_seed(7)
    backbone = backbone.double().eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        backbone.item_vectors()[0] = 0
    return backbone


def fast(backbone: Backbone, times: list[int] | None = None) -> Tensor:
    """States of HISTORY by the backbone's own code, beside a row that must not matter."""
    clocks = None if times is None else [times, [5, 6]]
    batch = packed([HISTORY, [7, 8]], times=clocks)
    return backbone.encode(backbone.embed(batch), batch).h_QD[2:]
