"""A linear recurrence over packed rows, all tokens at once: log2 of the longest row steps instead of one a token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Shifts = tuple[tuple[int, Tensor], ...]
"""For each reach 1, 2, 4 ...: the tokens that have so many before them in their row."""


def shifts(position_N: Tensor, longest: int) -> Shifts:
    """What ``scan`` needs to know of the rows.

    Args:
        position_N: position of each token in its row, from 0.
        longest: tokens of the longest row.
    """
    reaches = [1 << step for step in range((longest - 1).bit_length())]
    return tuple((reach, (position_N >= reach).nonzero()[:, 0]) for reach in reaches)


def scan(u_NC: Tensor, decay_C: Tensor, of: Shifts) -> Tensor:
    """h with h_n = decay * h_{n-1} + u_n along each row, h = u at its first token, (N, C). Complex.

    By doubling (Hillis & Steele, "Data Parallel Algorithms", CACM 1986): after the step of reach r a token has gathered its last
    2 r inputs. Tokens with fewer behind them are left alone, so short rows cost little. Kept for backward: h.

    Args:
        u_NC: inputs of packed rows.
        decay_C: one factor a channel.
        of: ``shifts`` of the rows.
    """
    h_NC: Tensor = _Scan.apply(u_NC, decay_C, of)  # type: ignore[no-untyped-call] # torch leaves apply untyped
    return h_NC


class _Scan(torch.autograd.Function):
    """The scan; its backward is the same scan from the end of each row."""

    @staticmethod
    def forward(ctx: Any, u_NC: Tensor, decay_C: Tensor, of: Shifts) -> Tensor:
        """(N, C)."""
        h_NC = u_NC.clone(memory_format=torch.contiguous_format)
        power_C = decay_C  # to the reach, by squaring: in float32 several times as exact as pow
        for reach, token in of:
            _add(h_NC, token, power_C * h_NC.index_select(0, token - reach))
            power_C = power_C.square()
        ctx.save_for_backward(h_NC, decay_C)
        ctx.of = of
        return h_NC

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """Of u: what reaches it from all later tokens; of decay: that times the state before, over all tokens."""
        h_NC, decay_C = ctx.saved_tensors
        g_NC = grads[0].clone(memory_format=torch.contiguous_format)
        power_C = decay_C.conj()
        for reach, token in ctx.of:
            _add(g_NC, token - reach, power_C * g_NC.index_select(0, token))
            power_C = power_C.square()
        decay = torch.zeros_like(decay_C)
        if ctx.of:
            _, token = ctx.of[0]
            decay = (h_NC.index_select(0, token - 1).conj() * g_NC.index_select(0, token)).sum(0)
        return g_NC, decay, None


def _add(to_NC: Tensor, token: Tensor, what: Tensor) -> None:
    """Add rows in place. As pairs of reals: on a CPU index_add of complex rows takes five times as long."""
    torch.view_as_real(to_NC).flatten(1).index_add_(0, token, torch.view_as_real(what.resolve_conj()).flatten(1))
