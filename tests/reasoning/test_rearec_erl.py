"""Ensemble reasoning learning: pooled states and the divergence between them, from given thoughts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.reasoning.given import cross_entropy, example, given
from tests.systems import small_backbone, small_head


def test_the_mean_of_all_states_answers_or_the_last() -> None:
    z, _, _ = example()
    backbone = small_backbone("sasrec")
    mean, last = (z[:, 0] + z[:, 1] + z[:, 2]) / 3, z[:, 2]
    torch.testing.assert_close(small_head("rearec-erl", backbone).answer(z), mean)
    torch.testing.assert_close(small_head("rearec-prl", backbone, pool="mean").answer(z), mean)
    assert torch.equal(small_head("rearec-prl", backbone).answer(z), last)
    assert torch.equal(small_head("rearec-erl", backbone, pool="last").answer(z), last)


@pytest.mark.parametrize(("form", "expected"), [("paper", -0.368), ("code", -(0.368 + 0.511) / 2)])
def test_the_divergence_points_the_right_way(form: str, expected: float) -> None:
    """p_0 = (.9, .1), p_1 = (.5, .5): KL(p_0 || p_1) = .9 ln 1.8 + .1 ln .2 = .368; KL(p_1 || p_0) = .5 ln (.25 / .09) = .511."""
    z = torch.tensor([[[0.9, 0.1], [0.5, 0.5]]]).log()
    table = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    terms = given("rearec-erl", z, table, torch.tensor([1]), diversity=1.0, diversity_form=form)
    assert terms["diversity"].item() == pytest.approx(expected, abs=1e-3)


def test_the_divergence_has_its_weight_and_both_parts_their_temperature() -> None:
    z, table, target = example()
    terms = given("rearec-erl", z, table, target, diversity=0.3, tau=0.5)
    log_p = (z @ table[1:].T / 0.5).log_softmax(-1)
    pairs = [(log_p[:, j].exp() * (log_p[:, j] - log_p[:, i])).sum(-1).mean() for i in range(3) for j in range(3)]
    torch.testing.assert_close(terms["diversity"], -0.3 * sum(pairs) / 6)
    torch.testing.assert_close(terms["next_item"], cross_entropy(z.mean(1), table, target, 0.5))


def test_the_second_argument_gets_no_gradient_in_the_form_of_the_code_and_some_in_that_of_the_paper() -> None:
    """code: each state is moved by the divergence it stands first in; paper: KL(p_0 || p_1) moves both."""
    z, table, target = example(states=2)

    def gradient(form: str) -> Tensor:
        with_term = sum(given("rearec-erl", z, table, target, diversity=1.0, diversity_form=form).values())
        without = given("rearec-erl", z, table, target, diversity=0.0)["next_item"]
        return torch.autograd.grad(with_term, z)[0] - torch.autograd.grad(without, z)[0]

    log_p, log_q = (z @ table[1:].T).log_softmax(-1).unbind(1)
    p_to_q = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    q_to_p = (log_q.exp() * (log_q - log_p)).sum(-1).mean()
    first = torch.autograd.grad(p_to_q, z, retain_graph=True)[0]
    second = torch.autograd.grad(q_to_p, z)[0]
    own = torch.stack([first[:, 0], second[:, 1]], dim=1)
    torch.testing.assert_close(gradient("code"), -own / 2, atol=1e-12, rtol=0)
    torch.testing.assert_close(gradient("paper"), -first, atol=1e-12, rtol=0)
    assert (first[:, 1].abs() > 1e-6).any()


def test_the_score_of_the_mean_state_is_the_mean_score_and_equal_states_have_the_plain_loss() -> None:
    z, table, target = example(states=1)
    terms = given("rearec-erl", z.expand(-1, 3, -1), table, target, diversity=0.3)
    torch.testing.assert_close(terms["next_item"], cross_entropy(z[:, 0], table, target), atol=1e-12, rtol=0)
    assert terms["diversity"].item() == pytest.approx(0, abs=1e-12)


def test_every_state_gets_its_equal_share_of_the_pooled_gradient() -> None:
    z, table, target = example()
    terms = given("rearec-erl", z, table, target, diversity=0.0)
    assert terms.keys() == {"next_item"}
    shares = torch.autograd.grad(terms["next_item"], z)[0]
    pooled = z.detach().mean(1).requires_grad_()
    whole = torch.autograd.grad(cross_entropy(pooled, table, target), pooled)[0]
    torch.testing.assert_close(shares, (whole / 3)[:, None].expand(-1, 3, -1), atol=1e-12, rtol=0)


def test_supervising_each_state_sums_their_losses() -> None:
    z, table, target = example()
    terms = given("rearec-erl", z, table, target, supervise="each", tau=0.5)
    losses = [cross_entropy(z[:, k], table, target, 0.5) for k in range(3)]
    torch.testing.assert_close(terms["next_item"], sum(losses), atol=1e-12, rtol=0)


def test_pooling_the_last_state_supervises_the_last_state() -> None:
    z, table, target = example()
    terms = given("rearec-erl", z, table, target, pool="last")
    torch.testing.assert_close(terms["next_item"], cross_entropy(z[:, 2], table, target), atol=1e-12, rtol=0)
