"""Scores in whole precision, whatever the encoder runs in: bfloat16 keeps 8 bits, too few for a softmax over a catalogue."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def whole(x: Tensor) -> Tensor:
    """In float32 where it was coarser."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def product(one: Tensor, other: Tensor) -> Tensor:
    """The matrix product in float32 at least, whatever a step of training runs in."""
    with torch.autocast(one.device.type, enabled=False):
        return whole(one) @ whole(other)


def in_whole_precision(
    method: Callable[Concatenate[Any, Tensor, P], R],
) -> Callable[Concatenate[Any, Tensor, P], R]:
    """A method of a score that leaves autocast while it runs, and takes its first tensor in float32 where that was coarser."""

    @wraps(method)
    def outside(self: Any, u: Tensor, *args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.is_autocast_enabled(u.device.type):
            return method(self, u, *args, **kwargs)
        with torch.autocast(u.device.type, enabled=False):
            return method(self, whole(u), *args, **kwargs)

    return outside  # type: ignore[return-value] # mypy takes self and u for keywords
