"""Codes of items for heads: what is near is in one code, what is left over decides the next, and the loss by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from recbench.errors import Exit, RecbenchError
from recbench.reasoning.codebooks import Codebooks, code_loss


def corners() -> torch.Tensor:
    """Padding, four directions twice each, and an item that nothing is known of."""
    directions = torch.tensor([[1.0, 0.2], [1.0, -0.2], [-1.0, 0.2], [-1.0, -0.2]])
    return torch.cat([torch.zeros(1, 2), 3 * directions, directions, torch.zeros(1, 2)])


def test_the_first_code_tells_far_apart_items_and_the_second_what_is_left_over() -> None:
    codes = Codebooks(corners(), 2, 2, "x", "text").codes()
    assert codes[0].tolist() == codes[-1].tolist() == [-1, -1]
    assert torch.equal(codes[1:5], codes[5:9])
    first, second = codes[1:5].T.tolist()
    assert first[0] == first[1] != first[2] == first[3]
    assert second[0] == second[2] != second[1] == second[3]


def test_distances_are_those_of_what_the_levels_before_left_over() -> None:
    books = Codebooks(corners(), 2, 2, "x", "text")
    first, second = books.distances(books.x_VA[1:])
    r = books.x_VA[1] - books.books[0][first[0].argmin()]
    torch.testing.assert_close(second[0], (r - books.books[1]).square().sum(1))
    assert second.amin(1)[:8].max() < 1e-6


def test_more_codes_than_known_items_are_refused() -> None:
    with pytest.raises(RecbenchError, match="this is asked, but only 8 items have a vector") as caught:
        Codebooks(corners(), 2, 9, "this is asked", "text")
    assert caught.value.code == Exit.DATA


def test_the_loss_is_a_cross_entropy_a_level_over_items_that_have_codes() -> None:
    readers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 4)])
    for reader in readers:
        nn.init.zeros_(reader.weight)
        nn.init.zeros_(reader.bias)
    with torch.no_grad():
        readers[0].bias[1] = math.log(3)
    e = torch.randn(3, 2, requires_grad=True)
    loss = code_loss(readers, e, torch.tensor([[1, 0], [-1, -1], [0, 3]]))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2 + math.log(4))
    with torch.no_grad():
        readers[0].weight.fill_(1.0)
        readers[0].weight[1] = -1.0
    code_loss(readers, e, torch.tensor([[1, 0], [-1, -1], [0, 3]])).backward()
    assert e.grad.any(1).tolist() == [True, False, True]
    assert code_loss(readers, e, torch.full((3, 2), -1)) == 0
