"""How far two states are from each other: both KLs, by hand."""

from __future__ import annotations

import pytest
import torch

from recbench.reasoning.nearness import apart, both_ways
from tests.systems import small_system


def test_the_divergence_is_zero_at_equality_symmetric_shift_invariant_and_both_kls() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(7, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    assert both_ways(a, a).abs().max() == 0
    torch.testing.assert_close(both_ways(a, b), both_ways(b, a))
    torch.testing.assert_close(both_ways(a + 3, b - 2), both_ways(a, b))
    p, q = (a / 2).log_softmax(1), (b / 2).log_softmax(1)
    by_hand = ((p.exp() * (p - q)).sum(1) + (q.exp() * (q - p)).sum(1)) / 2
    torch.testing.assert_close(both_ways(a, b, 2.0), by_hand)


def test_its_gradient_is_the_formula() -> None:
    a, b = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64), torch.tensor([1.0, 0.2, -0.4], dtype=torch.float64)
    a.requires_grad_()
    both_ways(a, b).backward()
    p, q = a.detach().softmax(0), b.softmax(0)
    d = a.detach() - b
    torch.testing.assert_close(a.grad, ((p - q) + p * (d - (p * d).sum())) / 2)


def test_for_small_coordinates_it_is_half_their_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (0.1 * torch.randn(4000, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    half = (a - b).var(1, correction=0).mean() / 2
    assert float(both_ways(a, b).mean() / half) == pytest.approx(1, abs=0.02)


def test_thoughts_may_be_held_near_their_anchors_in_other_ways() -> None:
    a, c = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]]), torch.tensor([[[4.0, 3.0], [0.0, 5.0]]])
    torch.testing.assert_close(apart(a, c, "cosine", 1.0), torch.tensor([[1 - 24 / 25, 1.0]]))
    torch.testing.assert_close(apart(a, c, "mse", 1.0), torch.tensor([[1.0, 13.0]]))
    torch.testing.assert_close(apart(a, c, "kl", 3.0), both_ways(a, c, 3.0))


def test_it_stays_in_float32_under_autocast() -> None:
    head = small_system("sasrec", "lasar", 20).head
    z, c = torch.randn(3, 2, 8), torch.randn(3, 2, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = head.apart(z, c, first=0)
    assert under.dtype == torch.float32
    torch.testing.assert_close(under, head.apart(z, c, first=0))
