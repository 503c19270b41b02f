"""The chunked softmax equals the textbook one, value and gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from recbench.scoring.softmax import ItemSoftmax


def textbook(u: torch.Tensor, table: torch.Tensor, target: torch.Tensor, tau: float) -> torch.Tensor:
    return F.cross_entropy(u @ table[1:].T / tau, target - 1)


def example(rows: int = 37, items: int = 50, width: int = 6, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    u = torch.randn(rows, width, generator=generator, dtype=dtype, requires_grad=True)
    table = torch.randn(items + 1, width, generator=generator, dtype=dtype, requires_grad=True)
    return [u, table, torch.randint(1, items + 1, (rows,), generator=generator)]


@pytest.mark.parametrize("tau", [1.0, 0.3])
@pytest.mark.parametrize("chunk", [1, 8, 37, 100])
def test_value_and_gradients_equal_cross_entropy_whatever_the_chunk(tau: float, chunk: int) -> None:
    u, table, target = example()
    loss = ItemSoftmax(lambda: table, chunk).loss(u, target, tau=tau)
    ours = torch.autograd.grad(3 * loss, [u, table])
    expected = textbook(u, table, target, tau)
    theirs = torch.autograd.grad(3 * expected, [u, table])
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_float32_agrees_with_autograd_within_a_millionth() -> None:
    u, table, target = example(rows=300, items=400, width=16, dtype=torch.float32)
    ours = torch.autograd.grad(ItemSoftmax(lambda: table).loss(u, target), [u, table])
    theirs = torch.autograd.grad(textbook(u, table, target, 1.0), [u, table])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_a_frozen_table_gets_no_gradient_and_the_answers_the_same_one() -> None:
    u, table, target = example()
    score = ItemSoftmax(lambda: table)
    free = torch.autograd.grad(score.loss(u, target), [u])[0]
    frozen = score.loss(u, target, frozen=True)
    torch.testing.assert_close(torch.autograd.grad(frozen, [u], retain_graph=True)[0], free)
    assert torch.autograd.grad(frozen, [table], allow_unused=True)[0] is None


def test_the_padding_row_is_no_item() -> None:
    u, table, target = example()
    gradient = torch.autograd.grad(ItemSoftmax(lambda: table).loss(u, target), [table])[0]
    assert (gradient[0] == 0).all()
    assert ItemSoftmax(lambda: table).items().shape == (50, 6)


def test_a_probability_that_underflows_still_has_the_right_loss() -> None:
    u = torch.tensor([[1.0]])
    table = torch.tensor([[0.0], [0.0], [300.0]])
    assert ItemSoftmax(lambda: table).loss(u, torch.tensor([1])).item() == pytest.approx(300.0)


def test_nan_answers_give_a_nan_loss() -> None:
    u, table, target = example()
    assert ItemSoftmax(lambda: table).loss(u * float("nan"), target).isnan()


def test_place_counts_items_above_and_tied() -> None:
    table = torch.tensor([[0.0], [3.0], [1.0], [1.0], [2.0]])  # items 1..4 score 3, 1, 1, 2
    above, tied = ItemSoftmax(lambda: table).place(torch.ones(2, 1), torch.tensor([2, 4]))
    assert above.tolist() == [2, 1]
    assert tied.tolist() == [1, 0]
