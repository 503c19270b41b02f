"""Filters over the frequencies of a row, as what they are in time: circular convolutions of a fixed length.

A row x of T tokens stands in a window of N places whose others are 0. With X its discrete Fourier transform over the N
places, irfft(w X) is the circular convolution of x with h = irfft(w):

    y_t = sum over s < T of h[(t - s) mod N] x_s

so what a token gets depends on N, never on how wide the batch was laid out, nor on where in the window the row stands, and a
row of T tokens takes T x T multiplications a channel, no padding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recbench.backbones.packing import over_buckets
from recbench.data.batching import Rows


def lags(N: int) -> Tensor:
    """(t - s) mod N for every pair of places, (N, N)."""
    place_N = torch.arange(N)
    return (place_N[:, None] - place_N[None, :]) % N


def circulant(h_ND: Tensor, lag_TT: Tensor) -> Tensor:
    """h[(t - s) mod N] of each channel, (D, T, T), for the corner of ``lags`` that the longest row needs."""
    T, D = len(lag_TT), h_ND.shape[1]
    return h_ND.index_select(0, lag_TT.flatten()).view(T, T, D).permute(2, 0, 1)


def filtered(x_ND: Tensor, rows: Rows, mix: Tensor) -> Tensor:
    """Each row through its filter, (N, D).

    Args:
        mix: a circulant a channel (D, T, T), or one for all, (T, T). No row is longer than its T; a shorter one takes its corner.
    """
    return over_buckets(x_ND, rows, lambda x_BTD: _over_rows(x_BTD, mix[..., : x_BTD.shape[1], : x_BTD.shape[1]]))


def _over_rows(x_BTD: Tensor, mix: Tensor) -> Tensor:
    if mix.dim() == 2:
        return mix @ x_BTD
    return torch.bmm(x_BTD.permute(2, 0, 1), mix.transpose(1, 2)).permute(1, 2, 0)
