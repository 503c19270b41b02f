"""A product of spectra over a fixed window is a circular convolution, whatever the width a row is laid out in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbench.backbones.bsarec import low_pass
from recbench.backbones.filters import circulant, filtered, lags
from recbench.data.batching import Rows
from tests.backbones import plain
from tests.systems import CPU

LENGTHS = [1, 2, 3, 5, 6, 7]


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("N", [7, 8])
def test_a_filter_equals_transform_weigh_and_transform_back(N: int) -> None:
    spectrum, x = drawn(N // 2 + 1, 3, 2), drawn(sum(LENGTHS), 3)
    rows = Rows(np.array(LENGTHS), CPU)
    h = torch.fft.irfft(torch.view_as_complex(spectrum), n=N, dim=0)
    found = filtered(x, rows, circulant(h, lags(N))).split(LENGTHS)
    weights = [[complex(*spectrum[k, d].tolist()) for k in range(N // 2 + 1)] for d in range(3)]
    for row, mixed in zip(x.split(LENGTHS), found, strict=True):
        torch.testing.assert_close(mixed, plain.filtered(row, weights, N), atol=1e-10, rtol=0)


@pytest.mark.parametrize("N", [7, 8])
@pytest.mark.parametrize("kept", [1, 2, 4, 5, 9])
def test_the_low_part_is_what_the_kept_frequencies_make(N: int, kept: int) -> None:
    x = drawn(sum(LENGTHS), 2)
    rows = Rows(np.array(LENGTHS), CPU)
    found = filtered(x, rows, low_pass(lags(N), kept, torch.float64)).split(LENGTHS)
    passed = [1 + 0j if k < kept else 0j for k in range(N // 2 + 1)]
    for row, low in zip(x.split(LENGTHS), found, strict=True):
        torch.testing.assert_close(low, plain.filtered(row, [passed, passed], N), atol=1e-10, rtol=0)


def test_all_frequencies_kept_change_nothing() -> None:
    torch.testing.assert_close(low_pass(lags(9), 5, torch.float64), torch.eye(9, dtype=torch.float64))
    torch.testing.assert_close(low_pass(lags(8), 5, torch.float64), torch.eye(8, dtype=torch.float64))


def test_where_in_the_window_a_row_stands_changes_nothing() -> None:
    mix, row = circulant(drawn(8, 1), lags(8))[0], drawn(3)
    windows = [torch.cat([torch.zeros(left), row, torch.zeros(5 - left)]) for left in range(6)]
    placed = [(mix @ window)[left : left + 3] for left, window in enumerate(windows)]
    for other in placed[1:]:
        torch.testing.assert_close(other, placed[0], atol=1e-12, rtol=0)
