"""Streamed log-probabilities equal the full log-softmax, value and gradients, without ever holding the full matrix."""

from __future__ import annotations

import os
import resource
import sys

import pytest
import torch
from torch.nn import functional as F

from recbench.scoring.softmax import ItemSoftmax


def textbook(u: torch.Tensor, table: torch.Tensor, items: torch.Tensor, tau: float) -> torch.Tensor:
    return F.log_softmax(u @ table[1:].T / tau, dim=1).gather(1, items - 1)


def example(
    rows: int = 15, items: int = 50, width: int = 6, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    u = torch.randn(rows, width, generator=generator, dtype=dtype, requires_grad=True)
    table = torch.randn(items + 1, width, generator=generator, dtype=dtype, requires_grad=True)
    return u, table, torch.randint(1, items + 1, (rows, 3), generator=generator)


@pytest.mark.parametrize("tau", [1.0, 0.3])
@pytest.mark.parametrize("chunk", [1, 7, 15])
def test_value_and_gradients_equal_the_full_log_softmax_whatever_the_chunk(tau: float, chunk: int) -> None:
    u, table, items = example()
    weight = torch.randn(15, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    ours = ItemSoftmax(lambda: table, chunk).log_prob(u, items, tau=tau)
    theirs = textbook(u, table, items, tau)
    assert ours.shape == (15, 3, 1)
    torch.testing.assert_close(ours[..., 0], theirs, atol=1e-12, rtol=0)
    gradients = torch.autograd.grad((ours[..., 0] * weight).sum(), [u, table])
    for a, b in zip(gradients, torch.autograd.grad((theirs * weight).sum(), [u, table]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_float32_agrees_within_a_hundred_thousandth() -> None:
    u, table, items = example(rows=300, items=400, width=16, dtype=torch.float32)
    ours, theirs = ItemSoftmax(lambda: table).log_prob(u, items)[..., 0], textbook(u, table, items, 1.0)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    gradients = torch.autograd.grad(ours.mean(), [u, table]), torch.autograd.grad(theirs.mean(), [u, table])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_scores_far_from_zero_neither_overflow_nor_vanish() -> None:
    table = torch.tensor([[0.0], [-2000.0], [0.0], [2000.0]])
    made = ItemSoftmax(lambda: table).log_prob(torch.ones(1, 1), torch.tensor([[1, 2, 3]]))
    assert made.flatten().tolist() == [-4000, -2000, 0]


def test_a_frozen_table_gets_no_gradient_and_the_answers_the_same_one() -> None:
    u, table, items = example()
    score = ItemSoftmax(lambda: table, 4)
    free = torch.autograd.grad(score.log_prob(u, items).sum(), [u])[0]
    frozen = score.log_prob(u, items, frozen=True).sum()
    torch.testing.assert_close(torch.autograd.grad(frozen, [u], retain_graph=True)[0], free)
    assert torch.autograd.grad(frozen, [table], allow_unused=True)[0] is None


def test_the_padding_row_takes_no_part() -> None:
    u, table, items = example()
    score = ItemSoftmax(lambda: table)
    made = score.log_prob(u, items)
    assert (torch.autograd.grad(made.sum(), [table])[0][0] == 0).all()
    with torch.no_grad():
        table[0] = 100.0
    torch.testing.assert_close(score.log_prob(u, items), made, atol=0, rtol=0)


@pytest.mark.parametrize("chunk", [1, 7, 15])
def test_top_lists_the_best_items_best_first(chunk: int) -> None:
    u, table, _ = example()
    listed = ItemSoftmax(lambda: table, chunk).top(u, 4)
    assert listed.tolist() == (u @ table[1:].T).sort(1, descending=True).indices[:, :4].add(1).tolist()
    assert not listed.requires_grad


@pytest.mark.parametrize("chunk", [1, 2])
def test_items_are_drawn_as_often_as_their_probabilities_say(chunk: int) -> None:
    u, table, _ = example(rows=3, items=8)
    drawn = ItemSoftmax(lambda: table, chunk).draw(u, 40_000, torch.Generator().manual_seed(0))
    share = torch.stack([torch.bincount(row, minlength=9) for row in drawn])[:, 1:] / 40_000
    wanted = (u @ table[1:].T).softmax(1)
    error = (wanted * (1 - wanted) / 40_000).sqrt()
    assert bool(((share - wanted).abs() < 4 * error).all())
    assert not drawn.requires_grad


def test_what_has_no_probability_is_not_drawn_and_a_diverged_answer_breaks_nothing() -> None:
    table = torch.tensor([[0.0], [-2000.0], [0.0], [-2000.0], [0.0], [-2000.0]])
    drawn = ItemSoftmax(lambda: table).draw(
        torch.tensor([[1.0], [float("nan")]]), 500, torch.Generator().manual_seed(0)
    )
    assert set(drawn[0].tolist()) == {2, 4}
    assert set(drawn[1].tolist()) <= {1, 2, 3, 4, 5}


@pytest.mark.parametrize("chunk", [1, 7, 15])
def test_place_agrees_with_a_full_sort_whatever_the_chunk(chunk: int) -> None:
    u, table, items = example(dtype=torch.float32)
    strided = torch.stack([u, -u], dim=1)[:, 0]
    above, tied = ItemSoftmax(lambda: table, chunk).place(strided, items[:, 0])
    scores = u @ table[1:].T
    assert above.tolist() == (scores > scores.gather(1, items[:, :1] - 1)).sum(1).tolist()
    assert tied.tolist() == [0] * 15


def test_what_cannot_be_compared_beats_the_target() -> None:
    table = torch.tensor([[0.0], [3.0], [float("nan")], [1.0], [1.0]])
    above, tied = ItemSoftmax(lambda: table).place(torch.tensor([[1.0], [float("nan")]]), torch.tensor([1, 1]))
    assert above.tolist() == [1, 3]
    assert tied[0].item() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a forked child's memory in Linux units")
def test_log_probabilities_of_many_answers_over_a_large_catalogue_stay_small_in_memory() -> None:
    rows, items = 1_600, 100_000  # 4 steps of 400 positions: in full 640 MB, and as much again for the gradient

    def work() -> bool:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        u, table, asked = example(rows, items, 4, torch.float32)
        ItemSoftmax(lambda: table).log_prob(u, asked).sum().backward()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kilobytes

    child = os.fork()
    if child == 0:
        status = 2
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
