"""The policy of how long to think: what its losses come to, its draws, and chains that stop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbench.reasoning.depth import (
    Policy,
    expected_loss,
    fixed_uniform,
    held,
    indifferent_mean,
    label_loss,
    sampled_loss,
)
from tests.systems import packed, small_backbone


@pytest.mark.parametrize(("ratio", "mean"), [(0, 4.50), (0.25, 3.27), (0.5, 2.39), (0.7, 1.96), (1, 1.58), (2, 1.16)])
def test_the_indifferent_mean_is_that_of_a_truncated_geometric(ratio: float, mean: float) -> None:
    assert indifferent_mean(ratio * 0.1, 0.1, 1, 8) == pytest.approx(mean, abs=0.006)


def test_without_a_bonus_indifference_ends_at_the_least_or_anywhere() -> None:
    assert indifferent_mean(0.1, 0.0, 1, 8) == 1
    assert indifferent_mean(0.0, 0.0, 1, 8) == 4.5


def test_the_exact_gradient_is_the_mean_of_the_sampled_one() -> None:
    generator = torch.Generator().manual_seed(3)
    logits_PC = torch.randn(5, 8, generator=generator).requires_grad_()
    pay_PC = torch.rand(5, 8, generator=generator)
    exact = torch.autograd.grad(expected_loss(logits_PC, pay_PC), logits_PC)[0]
    draws = []
    for _ in range(2000):
        drawn = torch.multinomial(logits_PC.detach().softmax(1), 1, generator=generator)[:, 0]
        loss = sampled_loss(logits_PC, drawn, pay_PC[torch.arange(5), drawn] - 0.5)
        draws.append(torch.autograd.grad(loss, logits_PC)[0])
    sampled = torch.stack(draws)
    error = sampled.std(0) / 2000**0.5
    assert bool(((sampled.mean(0) - exact).abs() < 3.5 * error + 1e-9).all())


def test_constant_labels_leave_a_smoothed_policy() -> None:
    logits = torch.zeros(8, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(1500):
        optimizer.zero_grad()
        label_loss(logits.expand(16, 8), torch.full((16,), 3), 0.1).backward()
        optimizer.step()
    pi = logits.detach().softmax(0)
    assert float(pi[3]) == pytest.approx(1 - 0.1 + 0.1 / 8, abs=0.01)
    torch.testing.assert_close(pi[[0, 1, 2, 4, 5, 6, 7]], torch.full((7,), 0.1 / 8), atol=0.01, rtol=0)


def test_the_policy_starts_at_its_least_depth_and_draws_by_inverse_cdf() -> None:
    torch.manual_seed(0)
    policy = Policy(small_backbone("sasrec"), least=2, most=4, hidden=None)
    with torch.no_grad():
        policy.outer.weight.zero_()
        policy.outer.bias.copy_(torch.tensor([0.5, 0.3, 0.2]).log())
    h = torch.zeros(5, 8)
    assert policy.inner.out_features == 64
    assert policy.best(h).tolist() == [2] * 5
    drawn = policy.drawn(h, torch.tensor([0.0, 0.49, 0.51, 0.79, 0.999], dtype=torch.float64))
    assert drawn.tolist() == [2, 2, 3, 3, 4]


def test_draws_at_test_depend_on_user_and_place_alone_and_are_uniform() -> None:
    one, other = packed([[1, 2], [3, 4, 5]]), packed([[9, 9], [8, 8, 8]], at=[1, 4])
    torch.testing.assert_close(fixed_uniform(other), fixed_uniform(one)[[1, 4]])
    many = packed([[1, 2, 3, 4, 5]] * 400)
    u = np.sort(fixed_uniform(many).numpy())
    assert len(np.unique(u)) == 2000
    assert np.abs(u - np.arange(2000) / 2000).max() < 1.63 / 2000**0.5  # Kolmogorov's bound at 1 %


def test_a_chain_that_stops_repeats_its_last_thought() -> None:
    z = torch.arange(8.0).view(2, 4, 1)
    assert held(z, torch.tensor([0, 2]))[:, :, 0].tolist() == [[0, 0, 0], [4, 5, 6]]
    assert held(z, torch.tensor([1, 1]))[:, :, 0].tolist() == [[0, 1], [4, 5]]
