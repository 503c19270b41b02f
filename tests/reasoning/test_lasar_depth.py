"""REINFORCE of the depth in stage rl: its loss by hand, step after step, and the bandits that it must solve."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.reasoning.depth import indifferent_mean
from recbench.reasoning.lasar_rl import Reinforcement
from tests.reasoning.test_heads import USERS
from tests.reasoning.test_lasar import system, told
from tests.reasoning.test_lasar_terms import DRAWN, OTHERS, Pieces, draws, exact, same
from tests.systems import training_batch

BASELINES = ["ema", "paired", "exact"]
DEPTHS = torch.arange(1, 9)


def net(pays: list[list[float]], price: float, least: int = 1) -> list[list[float]]:
    """What depths ``least``, ``least`` + 1, .. of each answer earn, after ``price`` a thought."""
    return [[earned - price * depth for depth, earned in enumerate(row, least)] for row in pays]


def reinforced(
    baseline: str, log_pi_PC: Tensor, earned: list[list[float]], drawn: list[tuple[int, int]], before: float
) -> Tensor:
    """-E[(R - b - price N) log pi(N)], one answer after the other.

    Args:
        earned: R - price N of each answer and depth.
        drawn: the two depths of each answer, the least counted as 0.
        before: b, where the baseline is the moving mean.
    """
    each = []
    for log_pi_C, r, (n, m) in zip(log_pi_PC, earned, drawn, strict=True):
        if baseline == "exact":
            each.append(-sum(log_pi_C[k].exp() * r[k] for k in range(len(r))))
        elif baseline == "paired":  # each is the other's baseline, and both count as answers
            each.append(-((r[n] - r[m]) * log_pi_C[n] + (r[m] - r[n]) * log_pi_C[m]) / 2)
        else:
            each.append(-(r[n] - before) * log_pi_C[n])
    return torch.stack(each).mean()  # type: ignore[arg-type]


def undecided(log_pi_PC: Tensor) -> Tensor:
    """Mean entropy."""
    return torch.stack([-sum(x.exp() * x for x in log_pi_C) for log_pi_C in log_pi_PC]).mean()  # type: ignore[misc]


# --- by hand --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_depth_is_paid_by_where_the_target_ranks_behind_it(baseline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = exact(depth_baseline=baseline, depth_weight=0.6, step_cost=0.1, entropy=0.2)
    model.head.paid.fill_(0.3)
    seen = Pieces(model, "rl")
    scores_PKV = seen.z_PKD.detach() @ model.score.items().detach().T
    own_PK1 = scores_PKV[torch.arange(16), :, seen.batch.targets_Q - 1][:, :, None]  # type: ignore[operator]
    places = (scores_PKV >= own_PK1).sum(2)[:, 1:9].tolist()
    pays = [[1 / math.log2(1 + place) if place <= 8 else 0.0 for place in row] for row in places]
    drawn = [(n - 1, m - 1) for n, m in zip(DRAWN, OTHERS, strict=True)]
    log_pi = seen.log_pi()
    by_hand = reinforced(baseline, log_pi, net(pays, 0.1 * 0.3), drawn, 0.3) - 0.2 * 0.3 * undecided(log_pi)
    draws(monkeypatch)
    same(seen.terms()["depth"], 0.6 * by_hand, model.head.policy.outer.bias, model.head.policy.inner.weight)
    mean = sum(row[n - 1] for row, n in zip(pays, DRAWN, strict=True)) / 16
    assert float(model.head.paid) == pytest.approx(0.95 * 0.3 + 0.05 * mean)


def step_of(**head: object) -> Reinforcement:
    """A step that pays each answer by its first coordinate."""
    model = system(**head)
    batch = training_batch(model, USERS)
    some = torch.arange(len(batch.at_Q))
    step = Reinforcement(model.head, model.backbone, batch, model.score, told(model, "rl"), some)
    step._pay_at = lambda u_PD: u_PD[:, 0]
    return step


def answers(pays: Tensor, least: int = 1) -> Tensor:
    """What each depth from 0 answers, where depths ``least``, ``least`` + 1, .. earn this, (P, K, 1)."""
    return F.pad(pays, (least, 0))[..., None]


@pytest.mark.parametrize("unit", ["relative", "raw"])
@pytest.mark.parametrize("baseline", BASELINES)
def test_two_steps_are_paid_against_a_mean_that_moves(baseline: str, unit: str) -> None:
    prices = {"reward_unit": unit, "ema": 0.75, "step_cost": 0.1, "entropy": 0.2}
    step = step_of(depth_baseline=baseline, min_depth=2, max_depth=4, **prices)
    step.head.paid = torch.tensor(0.4, dtype=torch.float64)
    logits = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64).log().requires_grad_()
    one, other = torch.tensor([2, 4]), torch.tensor([4, 3])  # depths of two answers, the one that was taken and another
    first, second = [[1.0, 0.0, 0.5], [0.2, 0.1, 0.6]], [[0.0, 0.3, 0.1], [0.7, 0.9, 0.4]]
    # taken depths earn (1.0 + 0.6) / 2 = 0.8, then (0.0 + 0.4) / 2 = 0.2
    moves = [0.4, 0.75 * 0.4 + 0.25 * 0.8, 0.75 * 0.5 + 0.25 * 0.2]
    for earned, before, after in zip((first, second), moves, moves[1:], strict=False):
        pays = torch.tensor(earned, dtype=torch.float64)
        several = None if baseline == "ema" else answers(pays, least=2)
        loss = step._depth_loss(logits, one, other, pays[[0, 1], one - 2], several)
        scale, log_pi = before if unit == "relative" else 1.0, logits.log_softmax(1)
        by_hand = reinforced(baseline, log_pi, net(earned, 0.1 * scale, least=2), [(0, 2), (2, 1)], before)
        same(loss, by_hand - 0.2 * scale * undecided(log_pi), logits)
        assert float(step.head.paid) == pytest.approx(after)


def test_where_nothing_was_earned_yet_a_thought_still_has_a_price() -> None:
    """A thousandth of what a hit at the first place earns: 0.1 * 0.001 * (1 + 3) / 2 less for depths 1 and 3."""
    step = step_of(max_depth=3, step_cost=0.1, entropy=0.0)
    step.head.paid = torch.tensor(0.0)
    logits = torch.zeros(2, 3, dtype=torch.float64)
    loss = step._depth_loss(logits, torch.tensor([1, 3]), torch.tensor([1, 1]), torch.zeros(2), None)
    assert float(loss) == pytest.approx(2e-4 * math.log(1 / 3))


# --- bandits --------------------------------------------------------------------------------------------------------


def learnt(pay: Tensor, steps: int = 600, **head: object) -> Tensor:
    """pi after REINFORCE on a bandit that pays ``pay`` a depth, from a uniform start."""
    step = step_of(**head)
    logits = torch.zeros(8, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    generator = torch.Generator().manual_seed(1)
    several = None if step.config.depth_baseline == "ema" else answers(pay.expand(256, 8))
    for _ in range(steps):
        one, other = torch.multinomial(logits.detach().softmax(0), 512, True, generator=generator).view(2, 256)
        loss = step._depth_loss(logits.expand(256, 8), one + 1, other + 1, pay[one], several)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return logits.detach().softmax(0)


@pytest.mark.parametrize("baseline", BASELINES)
def test_the_depth_that_pays_is_found(baseline: str) -> None:
    pay = torch.full((8,), 0.2)
    pay[2] = 0.8
    assert learnt(pay, depth_baseline=baseline)[2] > 0.9


@pytest.mark.parametrize("baseline", BASELINES)
def test_paid_by_the_rewards_of_others_nobody_learns_which_depth_pays(baseline: str) -> None:
    pay = torch.full((8,), 0.2)
    pay[2] = 0.8
    pi = learnt(pay, depth_baseline=baseline, shuffle_reward=True, step_cost=0.1, entropy=0.2)
    assert pi.argmax() == 0
    assert float((pi * DEPTHS).sum()) == pytest.approx(2.39, abs=0.25)


@pytest.mark.parametrize("baseline", BASELINES)
def test_where_all_depths_pay_the_same_a_cost_alone_leads_to_one_step(baseline: str) -> None:
    assert learnt(torch.full((8,), 0.5), depth_baseline=baseline, step_cost=0.1, entropy=0.0)[0] > 0.9


def test_where_all_depths_pay_the_same_cost_and_bonus_alone_set_the_mean() -> None:
    pi = learnt(torch.full((8,), 0.5), steps=1500, step_cost=0.1, entropy=0.2)
    assert float((pi * DEPTHS).sum()) == pytest.approx(2.39, abs=0.15)
    assert indifferent_mean(0.1, 0.2, 1, 8) == pytest.approx(2.39, abs=0.005)
