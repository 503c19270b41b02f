"""Head ``diffuse``: what a path earns. Rewards, advantages, baselines, and when they are part of the loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from recbench.reasoning.diffuse import DiffuReason
from tests.reasoning.refining import (
    ITEMS,
    ROWS,
    TOKENS,
    WIDTH,
    close,
    context,
    counted,
    losses,
    of,
    path_log_prob,
    reached,
    rollout,
    system,
    thoughts,
    twin,
)
from tests.systems import packed

# --- rewards and advantages ---------------------------------------------------------------------------------------------------


def test_a_reward_is_the_ndcg_of_the_rank_and_a_share_of_the_probability() -> None:
    """Ranks 1, 2, 10 and 11 of 20; NaN comes last."""
    model = system(reward_softmax=0.05)
    u = torch.ones(1, 1).double()
    scores = torch.cat([torch.zeros(1), torch.linspace(2, 0, ITEMS)]).double()[:, None]  # item j has rank j
    model.score._table = lambda: scores
    y_N = torch.tensor([1, 2, 10, 11])
    reward_N, ranked_N = of(model)._reward(u.expand(4, 1), y_N, model.score, context())
    torch.testing.assert_close(ranked_N, torch.tensor([1, 0.6309, 0.2891, 0]), atol=1e-4, rtol=0)
    probability = scores[1:, 0].softmax(0)[y_N - 1]
    torch.testing.assert_close(reward_N, ranked_N.double() + 0.05 * probability, check_dtype=False)
    reward_N, ranked_N = of(model)._reward(torch.full((4, 1), torch.nan).double(), y_N, model.score, context())
    assert not reward_N.any()
    assert not ranked_N.any()


def test_ties_earn_a_collapsed_model_nothing() -> None:
    model = system(reward_softmax=0.0)
    reward_N, _ = of(model)._reward(torch.zeros(3, WIDTH).double(), torch.tensor([1, 2, 3]), model.score, context())
    assert not reward_N.any()


def test_the_cutoff_of_the_reward() -> None:
    model = system(reward_softmax=0.0, reward_cutoff=3)
    model.score._table = lambda: torch.cat([torch.zeros(1), torch.linspace(2, 0, ITEMS)]).double()[:, None]
    reward_N, _ = of(model)._reward(torch.ones(4, 1).double(), torch.tensor([1, 3, 4, 10]), model.score, context())
    torch.testing.assert_close(reward_N, torch.tensor([1, 0.5, 0, 0]))


def test_the_vector_that_is_rewarded_has_the_length_of_the_hypothesis(monkeypatch: pytest.MonkeyPatch) -> None:
    model = system(group=3)
    calls = counted(monkeypatch, model.head, "_reward")
    losses(model)
    lengths = thoughts(model)[:, -1].norm(dim=1).repeat_interleave(3)
    assert close(calls[0][0].norm(dim=1), lengths)


def test_advantages_of_a_group_sum_to_0_and_are_bounded() -> None:
    model = system(group=8)
    reward_PG = torch.rand(50, 8).double()
    reward_PG[0] = torch.eye(8)[0]  # the farthest that one may stand out
    advantage_PG = of(model)._advantage(reward_PG, torch.empty(0), torch.empty(0), model.score, context())
    assert close(advantage_PG.sum(1), torch.zeros(50).double(), 1e-12)
    assert (advantage_PG.abs() <= 7 / math.sqrt(8)).all()
    assert advantage_PG[0, 0].item() == pytest.approx(7 / math.sqrt(8), rel=1e-3)
    expected = (reward_PG - reward_PG.mean(1, keepdim=True)) / (reward_PG.std(1, keepdim=True) + 1e-4)
    assert close(advantage_PG, expected)


@pytest.mark.parametrize("baseline", ["group", "greedy"])
def test_no_advantage_is_beyond_5_even_in_a_large_group(baseline: str) -> None:
    """One hit among 40: 39 / sqrt(40) = 6.2."""
    model = system(group=40, baseline=baseline, reward="random")
    reward_PG, y_P = torch.eye(40)[:1].double(), torch.tensor([1])
    advantage_PG = of(model)._advantage(10 * reward_PG, thoughts(model)[:1], y_P, model.score, context())
    assert advantage_PG[0, 0] == 5


def test_a_group_that_missed_throughout_gives_no_gradient_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    model = system(reward_softmax=0.0)
    monkeypatch.setattr(model.score, "place", lambda u, y, within: (torch.full_like(y, 15), torch.zeros_like(y)))
    grpo = losses(model)["grpo"]
    assert grpo.item() == 0
    assert not reached(model, grpo)
    grads = torch.autograd.grad(grpo, list(model.parameters()), allow_unused=True)
    assert all(grad is None or not grad.any() for grad in grads)


def test_a_group_teaches_nothing_where_its_ranks_tie_whatever_its_probabilities(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = system(reward_softmax=0.5)
    monkeypatch.setattr(model.score, "place", lambda u, y, within: (torch.full_like(y, 15), torch.zeros_like(y)))
    training = context()
    model.losses(packed(ROWS), training)
    noted = training.noted()
    assert noted["reward_variance"] > 0
    assert noted["no_signal"] == 1


def test_a_drawn_share_of_positions_is_reinforced(monkeypatch: pytest.MonkeyPatch) -> None:
    model = system(grpo_positions=6, group=5)
    calls = counted(monkeypatch, model.head.moves, "rollout")
    for seed in (1, 2):
        losses(model, seed=seed)
    assert [len(call[1].h_ND) for call in calls] == [30, 30]
    assert not torch.equal(calls[0][1].h_ND, calls[1][1].h_ND)
    groups = calls[0][1].h_ND.view(6, 5, WIDTH)
    assert torch.equal(groups, groups[:, :1].expand_as(groups))


def test_a_sampled_reward_is_in_float32_whatever_the_step_runs_in() -> None:
    model = system(double=False, reward="sampled")
    u_ND, y_N = torch.randn(ITEMS, WIDTH), torch.arange(1, ITEMS + 1)
    found = []
    for coarse in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=coarse):
            found.append(of(model)._reward(u_ND, y_N, model.score, context())[0])
    assert found[1].dtype == torch.float32
    assert torch.equal(*found)


# --- reinforcement ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "stage", "terms"),
    [
        ("joint", "train", ["plain", "hypothesis", "refined", "denoise_mse", "denoise_ce", "grpo"]),
        ("after", "train", ["plain", "hypothesis", "refined", "denoise_mse", "denoise_ce"]),
        ("after", "align", ["grpo"]),
        ("joint", "align", ["grpo"]),
    ],
)
def test_when_reinforcement_is_part_of_the_loss(when: str, stage: str, terms: list[str]) -> None:
    assert list(losses(system(grpo_when=when), stage=stage)) == terms


def test_the_stage_of_its_own_has_epochs_only_where_it_has_something_to_do() -> None:
    def epochs(**changes: Any) -> list[int | None]:
        return [stage.defaults.get("epochs") for stage in DiffuReason.plan(DiffuReason.Config(**changes))]

    assert DiffuReason.plan(DiffuReason.Config(grpo_when="after"))[1].defaults["patience"] == 5

    assert epochs() == [None, 0]
    assert [stage.name for stage in DiffuReason.plan(DiffuReason.Config())] == ["train", "align"]
    assert epochs(grpo_when="after") == [None, 20]
    assert epochs(grpo_when="after", grpo=0.0) == [None, 0]


def test_the_weight_of_the_reinforcement_rises_over_the_ramp() -> None:
    model = system(grpo=1.0, grpo_ramp_epochs=4, baseline="greedy")
    whole = losses(system(grpo=1.0, baseline="greedy"))["grpo"]
    assert abs(whole) > 1e-3
    for epoch, share in ((1, 0.25), (2, 0.5), (4, 1.0), (9, 1.0)):
        assert close(losses(model, epoch=epoch)["grpo"], share * whole)


@pytest.mark.parametrize("told", [False, True])
def test_an_item_policy_is_the_targets_probability_through_the_last_call(
    told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = system(policy="item", group=3, grpo=1.0, self_condition=told)
    head = of(model)
    paths, advantages = [], []
    inner, advantage = head.moves.rollout, head._advantage
    monkeypatch.setattr(head.moves, "rollout", lambda *given: paths.append(inner(*given)) or paths[-1])  # type: ignore[func-returns-value]
    monkeypatch.setattr(head, "_advantage", lambda *given: advantages.append(advantage(*given)) or advantages[-1])  # type: ignore[func-returns-value]
    moves = counted(monkeypatch, head.moves, "path_log_prob")
    grpo = losses(model)["grpo"]
    assert not moves
    h_RKD, y_R = thoughts(model).repeat_interleave(3, 0), packed(ROWS).targets_Q.repeat_interleave(3)  # type: ignore[union-attr]
    known, before = head.condition(h_RKD), None
    for place, t in enumerate((4, 3, 2) if told else ()):
        before = head._denoiser()(paths[0][place], t, known, before).detach()
    x0 = head._denoiser()(paths[0][-2], 1, known, before)
    u_RD = x0 * h_RKD[:, -1].norm(dim=1, keepdim=True) / math.sqrt(WIDTH)
    lp_R = -F.cross_entropy(u_RD @ model.backbone.items.weight[1:].t(), y_R - 1, reduction="none")
    expected = -(advantages[0].flatten() * lp_R).mean()
    params = [model.backbone.items.weight, head._denoiser().leave.weight]
    for one, other in zip(torch.autograd.grad(grpo, params), torch.autograd.grad(expected, params), strict=True):
        assert close(one, other)


def test_a_greedy_baseline_is_the_reward_of_what_is_deployed() -> None:
    model = system(baseline="greedy", reward_softmax=1.0)
    head, h_NKD, y_N = of(model), thoughts(model), packed(ROWS).targets_Q
    assert y_N is not None
    reward_PG = 0.1 * torch.rand(TOKENS, 8).double()
    deployed, _ = head._reward(head.refinements(h_NKD)[:, -1], y_N, model.score, context())
    expected = (reward_PG - deployed[:, None]) / (reward_PG.std(1, keepdim=True) + 1e-4)
    found = head._advantage(reward_PG, h_NKD, y_N, model.score, context())
    assert close(found, expected.clamp(-5, 5))
    assert expected.abs().max() > 5
    same = deployed[:, None].expand(-1, 8)
    assert not head._advantage(same, h_NKD, y_N, model.score, context()).any()


def test_with_positive_only_no_path_is_pushed_down() -> None:
    reward_PG = torch.rand(TOKENS, 8).double()
    for baseline in ("group", "greedy"):
        model = system(baseline=baseline)
        positive = of(twin(model, baseline=baseline, positive_only=True))
        given = (reward_PG, thoughts(model), packed(ROWS).targets_Q, model.score, context())
        both, kept = of(model)._advantage(*given), positive._advantage(*given)  # type: ignore[arg-type]
        assert both.min() < 0
        assert close(kept, both.clamp_min(0), 0)


def test_a_sampled_reward_is_the_targets_share_among_negatives_and_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    from recbench.reasoning import rewards

    monkeypatch.setattr(rewards, "SAMPLED_NEGATIVES", 3)
    monkeypatch.setattr(rewards, "SAMPLED_TOP", 2)
    model = system(reward="sampled")
    table, y_N = model.backbone.items.weight.detach(), torch.arange(1, ITEMS + 1)
    u_ND = torch.randn(ITEMS, WIDTH).double()
    found, same = of(model)._reward(u_ND, y_N, model.score, context(seed=4))
    negatives = 1 + torch.randint(ITEMS, (3,), generator=context(seed=4).generator)
    for n, y in enumerate(y_N.tolist()):
        scores = table @ u_ND[n]
        top = (scores[1:].topk(2).indices + 1).tolist()
        others = [item for item in (*negatives.tolist(), *top) if item != y]
        assert found[n].item() == pytest.approx((scores[y] - torch.logsumexp(scores[[y, *others]], 0)).exp().item())
    assert torch.equal(found, same)


def test_a_likelihood_is_the_targets_log_probability_among_all_items() -> None:
    model = system(reward="likelihood")
    u_ND, y_N = torch.randn(ITEMS, WIDTH).double(), torch.arange(1, ITEMS + 1)
    found, same = of(model)._reward(u_ND, y_N, model.score, context())
    expected = (u_ND @ model.backbone.items.weight[1:].t()).log_softmax(1).diagonal()
    assert close(found, expected)
    assert torch.equal(found, same)
    u_ND[3] = torch.nan
    assert of(model)._reward(u_ND, y_N, model.score, context())[0].argmin() == 3


def test_a_random_reward_knows_nothing_of_the_target() -> None:
    model = system(reward="random")
    u_ND, y_N = torch.randn(5_000, WIDTH).double(), torch.full((5_000,), 3)
    one, _ = of(model)._reward(u_ND, y_N, model.score, context(seed=1))
    other, _ = of(model)._reward(-u_ND, y_N + 1, model.score, context(seed=1))
    assert torch.equal(one, other)
    assert abs(one.mean() - 0.5) < 5 / math.sqrt(12 * 5_000)


def test_the_start_counts_as_a_move_only_if_told() -> None:
    model = system()
    head, known = of(model), of(model).condition(thoughts(model))
    path = rollout(head, known, context().generator)
    without, _ = path_log_prob(of(twin(model, policy_start=False)), path, known)
    sd = math.sqrt(head.process.v[4])
    start = torch.distributions.Normal(head.process.a[4] * known.h_ND, sd).log_prob(path[0]).mean(1)
    assert close(path_log_prob(head, path, known)[0], (4 * without + start) / 5)
