"""Rewards of a ranking and advantages within a group, by hand."""

from __future__ import annotations

import pytest
import torch

from recbench.reasoning.base import Context
from recbench.reasoning.rewards import advantages, hit, ndcg, note_rewards, prefix_rewards
from recbench.scoring.softmax import ItemSoftmax

RANKS = torch.tensor([1, 2, 3, 10, 11])


def of(*rewards: float) -> list[float]:
    return advantages(torch.tensor([rewards], dtype=torch.float))[0].tolist()


def test_a_lone_hit_is_worth_three_misses() -> None:
    assert of(1, 0, 0, 0) == pytest.approx([1.4997, -0.4999, -0.4999, -0.4999], abs=5e-5)  # .75 / (.5 + 1e-4)


def test_two_hits_of_four_are_worth_as_much_as_two_misses() -> None:
    assert of(1, 1, 0, 0) == pytest.approx([0.8659, 0.8659, -0.8659, -0.8659], abs=5e-5)


def test_a_lone_hit_is_worth_the_same_at_rank_one_and_below() -> None:
    assert of(0.63093, 0, 0, 0) == pytest.approx(of(1, 0, 0, 0), abs=5e-4)


def test_ranks_of_several_hits_differ_in_advantage() -> None:
    assert of(1, 0.63093, 0, 0) == pytest.approx([1.1979, 0.4514, -0.8246, -0.8246], abs=5e-5)


@pytest.mark.parametrize("group", [2, 3, 4, 5, 8, 12])
def test_equal_rewards_give_exactly_no_advantage(group: int) -> None:
    """Also where their mean is rounded: Adam would make a whole step of the remainder."""
    rewards = ndcg(RANKS, torch.zeros_like(RANKS), 20)[:, None].expand(-1, group)
    assert (advantages(rewards) == 0).all()


def test_advantages_of_a_group_sum_to_zero() -> None:
    rewards = torch.rand(100, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(advantages(rewards).sum(1), torch.zeros(100), atol=1e-5, rtol=0)


def test_a_bound_cuts_advantages_on_both_sides() -> None:
    cut = advantages(torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 0]]), bound=1)
    assert cut.tolist() == [
        pytest.approx([1, -0.4999, -0.4999, -0.4999], abs=5e-5),
        pytest.approx([0.4999, 0.4999, 0.4999, -1], abs=5e-5),
    ]


def test_ndcg_falls_with_the_rank_and_ends_at_the_cutoff() -> None:
    earned = ndcg(RANKS - 1, torch.zeros_like(RANKS), 10)
    assert earned.tolist() == pytest.approx([1, 0.63093, 0.5, 0.28906, 0], abs=5e-6)


def test_a_hit_is_a_rank_up_to_the_cutoff() -> None:
    assert hit(RANKS - 1, torch.zeros_like(RANKS), 10).tolist() == [1, 1, 1, 1, 0]


@pytest.mark.parametrize("reward", [hit, ndcg])
def test_neither_a_constant_scorer_nor_a_diverged_one_earns_anything(reward: object) -> None:
    score = ItemSoftmax(lambda: torch.ones(101, 4))
    answers = torch.ones(2, 4)
    answers[1] = float("nan")
    above, tied = score.place(answers, torch.tensor([7, 7]))
    assert (above.tolist(), tied[0].item()) == ([0, 99], 99)
    assert reward(above, tied, 10).tolist() == [0, 0]  # type: ignore[operator]


def test_a_wrong_item_is_paid_by_its_leading_right_codes() -> None:
    own = torch.tensor([[1, 2, 3, 4]])
    codes = torch.tensor([[[1, 2, 3, 4], [1, 2, 3, 0], [1, 2, 0, 4], [1, 0, 3, 4], [0, 2, 3, 4]]])
    is_target = torch.tensor([[True, False, False, False, False]])
    assert prefix_rewards(codes, own, is_target)[0].tolist() == pytest.approx([1, 0.866, 0.707, 0.5, 0])
    five = torch.tensor([[[1, 2, 3, 4, 0]]]), torch.tensor([[1, 2, 3, 4, 5]])
    assert prefix_rewards(*five, torch.tensor([[False]])).item() == pytest.approx(0.95)


def test_rewards_are_noted_with_their_spread_and_the_share_of_groups_that_teach_nothing() -> None:
    context = Context("rpt", torch.Generator(), None)
    rewards = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.5, 0.5]])
    note_rewards(context, rewards)
    assert context.noted() == {"reward_mean": 0.5, "reward_variance": 0.125, "no_signal": 0.75}
    note_rewards(context, rewards, ranked_NG=torch.tensor([[1.0, 0.0]] * 4))
    assert context.noted()["no_signal"] == 0
