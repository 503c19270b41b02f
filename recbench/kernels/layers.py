"""Dense layers and dropout at the speed a CPU has; elsewhere torch's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.kernels.products import linear, times_transposed

BITS = 16
"""Random bits a dropout decision takes; the rate is rounded to so many binary places."""


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al., 2014) from 16 random bits an entry: on a CPU a tenth of the time of torch's own."""

    def forward(self, x: Tensor) -> Tensor:
        return drop(x, self.p) if self.training else x


def drop(x: Tensor, rate: float) -> Tensor:
    """Entries at 0 with probability ``rate`` (to 1 / 65,536), the others scaled so that the expectation stays."""
    if not rate:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    threshold = round(rate * 2**BITS)
    words = -(-x.numel() * BITS // 64)
    bits = torch.empty(words, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[: x.numel()].view(x.shape)
    mask = torch.ge(bits, threshold - 2 ** (BITS - 1), out=torch.empty(x.shape, dtype=x.dtype))
    return x * mask.mul_(1 / (1 - threshold / 2**BITS))


class Linear(nn.Linear):
    """``nn.Linear`` whose three products go where they are fastest."""

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = _Linear.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call] # torch leaves apply untyped
        return made


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_NI, weight_OI)
        ctx.biased = bias_O is not None
        return linear(x_NI, weight_OI, bias_O)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x_NI, weight_OI = ctx.saved_tensors
        g_NO = grads[0]
        flat_g, flat_x = g_NO.reshape(-1, g_NO.shape[-1]), x_NI.reshape(-1, x_NI.shape[-1])
        dx = times_transposed(flat_g, weight_OI.t()).view_as(x_NI) if ctx.needs_input_grad[0] else None
        dw = times_transposed(flat_g.t().contiguous(), flat_x.t()) if ctx.needs_input_grad[1] else None
        return dx, dw, flat_g.sum(0) if ctx.biased else None
