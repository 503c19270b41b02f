"""Attention over rectangles of rows that are not full."""

from __future__ import annotations

import torch

from recbench.backbones.packing import bidirectional

TOO_RARE_TO_DROP = 1e-6
"""Takes the way of training on a CPU, and drops nothing: rates are rounded to 1 / 65,536."""


def test_empty_cells_get_no_weight_with_and_without_dropout() -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = torch.randn(3, 2, 1, 4, 8, generator=generator, dtype=torch.float64)
    empty = torch.tensor([[False] * 4, [False, False, True, True]])
    alone = bidirectional(q[1:, :, :2], k[1:, :, :2], v[1:, :, :2], 0.0)
    for dropout in (0.0, TOO_RARE_TO_DROP):
        mixed = bidirectional(q, k, v, dropout, empty)
        torch.testing.assert_close(mixed[1:, :, :2], alone, atol=1e-12, rtol=0)
        torch.testing.assert_close(mixed[:1], bidirectional(q[:1], k[:1], v[:1], dropout), atol=1e-12, rtol=0)
