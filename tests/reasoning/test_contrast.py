"""The contrastive loss by hand, and the draw of rows."""

from __future__ import annotations

import math

import pytest
import torch

from recbench.reasoning.contrast import info_nce, some_of

X = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
Y = torch.tensor([[3.0, 1.0], [0.0, 1.0]])
"""X Y^T = [[3, 0], [2, 2]]."""


def drawn(n: int, count: int, seed: int) -> list[int]:
    return some_of(n, count, torch.Generator().manual_seed(seed)).tolist()


def test_the_loss_is_that_of_the_own_partner_among_all() -> None:
    expected = (math.log(1 + math.exp(-3)) + math.log(2)) / 2
    assert info_nce(X, Y, 1.0).item() == pytest.approx(expected)
    assert info_nce(X, Y, 0.5).item() == pytest.approx((math.log(1 + math.exp(-6)) + math.log(2)) / 2)


def test_a_hidden_partner_is_no_negative_and_the_own_one_is_never_hidden() -> None:
    hidden = torch.tensor([[True, False], [True, True]])
    assert info_nce(X, Y, 1.0, hidden).item() == pytest.approx(math.log(1 + math.exp(-3)) / 2)
    assert info_nce(X, Y, 1.0, torch.ones(2, 2, dtype=torch.bool)).item() == 0


def test_it_stays_in_float32_where_the_encoder_runs_in_bfloat16() -> None:
    """Value and gradient: products of states of length sqrt(64), to 8 bits, would be wrong by tenths."""
    x, y = torch.randn(2, 50, 64, generator=torch.Generator().manual_seed(1))
    for views in ((x, y), (x.bfloat16(), y.bfloat16())):
        found = []
        for coarse in (False, True):
            one, other = (view.detach().float() if not coarse else view.detach() for view in views)
            one.requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=coarse):
                loss = info_nce(one, other, 1.0)
            found.append((loss, torch.autograd.grad(loss, one)[0].to(views[0].dtype)))
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])


def test_a_single_row_costs_nothing() -> None:
    assert info_nce(X[:1], Y[:1], 1.0).item() == 0


def test_some_are_drawn_without_repeats_ascending_by_the_generator_alone() -> None:
    some = drawn(100, 20, seed=1)
    assert some == sorted(set(some))
    assert len(some) == 20
    torch.manual_seed(0)
    assert drawn(100, 20, seed=1) == some
    assert drawn(100, 20, seed=2) != some


def test_all_are_taken_where_there_are_no_more() -> None:
    assert drawn(5, 5, seed=1) == drawn(5, 9, seed=2) == [0, 1, 2, 3, 4]


def test_each_is_drawn_equally_often() -> None:
    counts = torch.zeros(4)
    for seed in range(400):
        counts[drawn(4, 1, seed)] += 1
    assert counts.min() > 100 - 4 * math.sqrt(400 * 0.25 * 0.75)
