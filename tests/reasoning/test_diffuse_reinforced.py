"""Head ``diffuse``: reinforcement. The policy, its gradient, rewards, advantages and the reference."""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from recbench.reasoning.base import Reasoner
from recbench.reasoning.diffuse import DiffuReason
from recbench.reasoning.diffusion import direction, on_sphere
from recbench.reasoning.rewards import clipped_loss
from recbench.recommender import ItemRecommender
from recbench.scoring.softmax import ItemSoftmax
from tests.reasoning.refining import (
    ITEMS,
    ROWS,
    WIDTH,
    close,
    context,
    counted,
    generator,
    losses,
    of,
    path_log_prob,
    reached,
    rollout,
    system,
    thoughts,
)
from tests.systems import packed, small_backbone

FORWARDS = ["gauss", "shift", "none"]


def drawn(model: ItemRecommender, seed: int = 1) -> list[Tensor]:
    """z_S .. z_0 at every token."""
    with torch.no_grad():
        return rollout(of(model), of(model).condition(thoughts(model)), generator(seed))


# --- the path and its probability -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_prob", ["mean", "sum"])
@pytest.mark.parametrize("explore", [1.0, 0.5])
@pytest.mark.parametrize("start", [1.0, 0.25])
@pytest.mark.parametrize("forward", FORWARDS)
def test_a_paths_log_probability_is_that_of_its_normals(
    forward: str, start: float, explore: float, log_prob: str
) -> None:
    """Start, moves S .. 2 and the last one with its floor, by torch's own density. Also at S = 1."""
    model = system(forward=forward, start=start, explore=explore, noise_floor=0.3, log_prob=log_prob, kappa=0.8)
    head, h_NKD, path = of(model), thoughts(model), drawn(model)
    assert head.denoiser is not None
    p, h, S, terms = head.process, on_sphere(h_NKD[:, -1]), round(4 * start), []
    assert len(path) == S + 1
    known = head.denoiser.condition(h, h_NKD)
    if forward != "none":
        mean = p.a[S] * h if forward == "gauss" else h
        terms.append(Normal(mean, math.sqrt(p.v[S])).log_prob(path[0]))
    for at, t in enumerate(range(S, 0, -1)):
        x0 = head.denoiser(path[at], t, known)
        sd = 0.3 if t == 1 else explore * p.q[t]
        if t == 1 or forward == "none":
            mean = x0
        else:
            noise = (path[at] - p.a[t] * x0 - p.b[t] * h) / math.sqrt(p.v[t])
            mean = p.a[t - 1] * x0 + p.b[t - 1] * h + math.sqrt(p.v[t - 1] - sd**2) * noise
        if sd:
            terms.append(Normal(mean, sd).log_prob(path[at + 1]))
    assert len(terms) == {"gauss": S + 1, "shift": S + 1, "none": 1}[forward]
    stacked = torch.stack(terms)
    expected = stacked.mean((0, 2)) if log_prob == "mean" else stacked.sum((0, 2))
    assert close(path_log_prob(head, path, head.condition(h_NKD))[0], expected)


@pytest.mark.parametrize("forward", ["gauss", "shift"])
def test_a_rollout_draws_from_the_normals_that_score_it(forward: str) -> None:
    """Standardised start and moves of 3,800 x 8 entries have mean 0 and variance 1."""
    model = system(forward=forward, noise_floor=0.2, kappa=0.7)
    head, known = of(model), of(model).condition(thoughts(model).repeat(200, 1, 1))
    with torch.no_grad():
        path = rollout(head, known, generator())
        _, means = path_log_prob(head, path, known)
    start = (path[0] - (head.process.a[4] + head.process.b[4]) * known.h_ND) / math.sqrt(head.process.v[4])
    sds = [head.process.q[t] for t in (4, 3, 2)] + [0.2]
    for x in (start, *(z / sd - mean for z, sd, mean in zip(path[1:], sds, means, strict=True))):
        assert abs(x.mean()) < 5 / math.sqrt(x.numel())
        assert abs(x.var() - 1) < 5 * math.sqrt(2 / x.numel())


def test_without_a_floor_the_last_move_is_left_out() -> None:
    model = system(noise_floor=0.0)
    head, path = of(model), drawn(model)
    log_prob_N, means = path_log_prob(head, path, head.condition(thoughts(model)))
    assert log_prob_N.isfinite().all()
    assert len(means) == 3
    assert close(direction(path[-1]) * math.sqrt(WIDTH), path[-1])


def test_exploration_of_half_draws_half_the_noise() -> None:
    spread = []
    for explore in (1.0, 0.5, 0.0):
        head = of(model := system(explore=explore, levels=2, policy_start=True))
        known = head.condition(thoughts(model)[:1].repeat(4_000, 1, 1))
        with torch.no_grad():
            path = rollout(head, known, generator())
            mean = head.process.mean(
                path[0], head._denoiser()(path[0], 2, known), known.h_ND, 2, explore * head.process.q[2]
            )
            spread.append((path[1] - mean).std().item())
    assert spread[0] / head.process.q[2] == pytest.approx(1, rel=0.05)
    assert spread[1] / spread[0] == pytest.approx(0.5, rel=0.02)
    assert spread[2] == 0


# --- the gradient -----------------------------------------------------------------------------------------------------------


def two_dimensional(**changes: object) -> tuple[DiffuReason, Tensor]:
    """A head of two levels in two dimensions, and a hypothesis."""
    backbone = small_backbone("sasrec", ITEMS, width=2, n_heads=1, inner=4)
    config = DiffuReason.Config(steps=0, levels=2, log_prob="sum", info_low=0.2, denoiser_dropout=0.0, **changes)
    head = DiffuReason(config, backbone).eval()  # type: ignore[arg-type]
    torch.manual_seed(5)
    torch.nn.init.normal_(head._denoiser().leave.weight, std=0.7)
    return head, torch.tensor([[[1.2, -0.5]]])


def estimated_and_true(head: DiffuReason, h_1KD: Tensor, paths: int) -> tuple[Tensor, Tensor]:
    """Gradient of the mean reward, by the path's log-probability and by central differences with the same noise.

    By four numbers: the hypothesis' angle, and the bias and one weight of the last layer.
    """
    leave, towards = head._denoiser().leave, direction(torch.tensor([0.6, 0.8]))
    turn = torch.tensor([0.5, 1.2])  # across the hypothesis
    at = torch.zeros(4, requires_grad=True)
    weight = leave.weight.detach().clone()

    def placed(at: Tensor) -> dict[str, Tensor]:
        grown = torch.stack([torch.stack([at[3], at[3] * 0]), torch.zeros(2)])
        return {"weight": weight + grown, "bias": at[1:3]}

    def rolled(at: Tensor) -> list[Tensor]:
        with torch.no_grad():
            for name, value in placed(at).items():
                getattr(leave, name).copy_(value)
            known = head.condition((h_1KD + at[0] * turn).expand(paths, -1, -1))
            return rollout(head, known, generator())

    def rewards(path: list[Tensor]) -> Tensor:
        return (3 * direction(path[-1]) @ towards).exp() / math.exp(3)

    path = rolled(at.detach())
    reward_N = rewards(path)
    log_prob_N, _ = path_log_prob(head, path, head.condition((h_1KD + at[0] * turn).expand(paths, -1, -1)))
    by_at, by_weight, by_bias = torch.autograd.grad(
        ((reward_N - reward_N.mean()) * log_prob_N).mean(), [at, leave.weight, leave.bias]
    )
    estimate = torch.cat([by_at[:1], by_bias, by_weight[0, :1]])
    step = 0.02
    true = [
        (rewards(rolled(step * one)).double().mean() - rewards(rolled(-step * one)).double().mean()) / (2 * step)
        for one in torch.eye(4)
    ]
    return estimate.double(), torch.stack(true)


def test_the_policy_gradient_is_that_of_the_mean_reward_when_every_move_counts() -> None:
    estimate, true = estimated_and_true(*two_dimensional(), paths=600_000)
    assert (estimate - true).norm() < 0.05 * true.norm()


def test_the_policy_gradient_is_not_when_start_and_last_move_are_left_out() -> None:
    estimate, true = estimated_and_true(*two_dimensional(policy_start=False, noise_floor=0.0), paths=100_000)
    assert (estimate - true).norm() > 0.3 * true.norm()


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_the_first_update_has_the_gradient_of_advantage_times_log_probability(epsilon: float) -> None:
    log_prob_N = torch.randn(6).double().requires_grad_()
    advantage_N = torch.tensor([2.0, -1.0, 0.0, 0.5, -0.3, 1.0]).double()
    loss = clipped_loss(log_prob_N, advantage_N, epsilon).mean()
    assert loss.item() == pytest.approx(-advantage_N.mean().item())  # w = 1
    (grad,) = torch.autograd.grad(loss, log_prob_N)
    assert close(grad, -advantage_N / 6)


@pytest.mark.parametrize("when", ["joint", "after"])
def test_the_term_is_minus_advantage_times_log_probability(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = system(grpo=0.5, group=4, grpo_positions=7, grpo_when=when)
    head = of(model)
    scored = counted(monkeypatch, head.moves, "path_log_prob")
    returned = []
    inner = head._advantage
    monkeypatch.setattr(head, "_advantage", lambda *given: returned.append(inner(*given)) or returned[-1])  # type: ignore[func-returns-value]
    terms = losses(model, stage="train" if when == "joint" else "align")
    assert (set(terms) == {"grpo"}) == (when == "after")
    ((_, path, known),) = scored
    assert len(known.h_ND) == 28
    expected = -0.5 * (returned[0].flatten() * path_log_prob(head, path, known)[0]).mean()
    params = [p for p in model.parameters() if p.requires_grad]
    for one, other in zip(
        torch.autograd.grad(terms["grpo"], params, retain_graph=True, allow_unused=True),
        torch.autograd.grad(expected, params, allow_unused=True),
        strict=True,
    ):
        assert one is None or close(one, cast("Tensor", other))


def test_paths_are_drawn_without_gradient_and_scored_with_it() -> None:
    """z is data, H is not: that is how thinking, backbone and items are reached."""
    model = system()
    grpo = losses(model)["grpo"]
    assert {"backbone.items.weight", "head.chain.step_embedding.weight", "head.denoiser.leave.weight"} <= reached(
        model, grpo
    )
    assert not any(x.requires_grad for x in drawn(model))


@pytest.mark.parametrize("policy", ["path", "item"])
def test_detached_thoughts_leave_the_reinforcement_to_the_denoiser(policy: str) -> None:
    model = system(detach_thoughts=True, policy=policy, reward_softmax=1.0)
    found = reached(model, losses(model)["grpo"])
    assert found
    assert all(name.startswith("head.denoiser") for name in found)


def test_the_denoisers_dropout_is_off_for_paths_and_on_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    model = system(denoiser_dropout=0.5).train()
    head, modes = of(model), []
    assert head.denoiser is not None
    for owner, name in (
        *((head.moves, name) for name in ("rollout", "path_log_prob")),
        (head, "denoised"),
        (head, "refinements"),
    ):
        method = getattr(owner, name)
        monkeypatch.setattr(
            owner,
            name,
            lambda *given, name=name, method=method, net=head.denoiser: (
                modes.append((name, net.training)),
                method(*given),
            )[1],
        )
    losses(model)
    assert sorted(modes) == [("denoised", True), ("path_log_prob", False), ("refinements", True), ("rollout", False)]
    assert all(module.training for module in head.denoiser.modules())


def test_probabilities_are_made_in_float32_also_from_coarse_states() -> None:
    model = system(double=False, noise_floor=0.1)
    head, h_NKD = of(model), thoughts(model)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        known = head.condition(h_NKD.bfloat16().float())
        path = rollout(head, known, generator())
        log_prob_N, _ = path_log_prob(head, path, known)
    assert known.h_ND.dtype == path[-1].dtype == log_prob_N.dtype == torch.float32
    assert log_prob_N.isfinite().all()


@pytest.mark.parametrize("reward", ["ndcg", "likelihood", "sampled", "random"])
def test_every_draw_comes_from_the_generator_of_the_epoch(reward: str) -> None:
    """A resumed run has to draw what an uninterrupted one draws."""
    settings = {
        "positions": "one",
        "drop_condition": 0.3,
        "self_condition": True,
        "baseline": "greedy",
        "reward": reward,
    }
    model = system(**settings, grpo_positions=3)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(losses(model))
        assert torch.equal(torch.get_rng_state(), before)
    for name, term in found[0].items():
        assert torch.equal(term, found[1][name]), name


@pytest.mark.parametrize("policy", ["path", "item"])
@pytest.mark.parametrize("positions", ["all", "one"])
def test_answers_meet_the_score_at_the_tokens_they_stand_at(
    positions: str, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spelled item is read off the history as well, so a score told of another token would read another history."""
    rows = [[1, 2], [3, 4, 5], [6, 7, 8, 9], [10, 11, 12, 13, 14]]
    model, batch = system(positions=positions, policy=policy, baseline="greedy", grpo_positions=5), packed(rows)
    asked, calls = {id(model.score): torch.arange(14)}, []

    def at(score: ItemSoftmax, asked_N: Tensor) -> ItemSoftmax:
        there = copy.copy(score)
        kept.append(there)
        asked[id(there)] = asked[id(score)][asked_N]
        return there

    def watched(name: str) -> None:
        inner = getattr(ItemSoftmax, name)

        def told(score: ItemSoftmax, u_ND: Tensor, y_N: Tensor, **how: Any) -> Any:
            calls.append((name, len(u_ND), asked[id(score)], y_N.flatten()))
            return inner(score, u_ND, y_N, **how)

        monkeypatch.setattr(ItemSoftmax, name, told)

    kept: list[ItemSoftmax] = []
    monkeypatch.setattr(ItemSoftmax, "at", at)
    for name in ("loss", "place", "log_prob"):
        watched(name)
    model.losses(batch, context())
    n = 14 if positions == "all" else 4
    drawn = min(5, n)
    told = [("loss", 14)] * 2 + [("loss", n), ("loss", max(1, round(n / 4)))]
    told += [("place", 8 * drawn), ("log_prob", 8 * drawn), ("place", drawn), ("log_prob", drawn)]
    told += [("log_prob", 8 * drawn)] if policy == "item" else []
    assert [(name, rows) for name, rows, _, _ in calls] == told
    for name, rows, at_N, y_N in calls:
        assert len(at_N) == rows, name
        assert torch.equal(batch.targets_Q[at_N], y_N), name  # type: ignore[index]


# --- the reference --------------------------------------------------------------------------------------------------------------


def reference_of(model: ItemRecommender) -> Reasoner:
    return cast("Reasoner", copy.deepcopy(model).eval().requires_grad_(False))


@pytest.mark.parametrize("policy", ["path", "item"])
@pytest.mark.parametrize("condition", ["all", "last", "none"])
@pytest.mark.parametrize("positions", ["all", "one"])
def test_the_divergence_from_a_reference_that_is_the_policy_is_0(positions: str, condition: str, policy: str) -> None:
    same = {"condition": condition, "positions": positions, "policy": policy, "kl": 1.0, "grpo_positions": 4}
    averaged = system(reference="ema", **same)
    of(averaged).averaged.load_state_dict(of(averaged).denoiser.state_dict())  # type: ignore[union-attr]
    begun = system(reference="stage", grpo_when="after", **same)
    for model, stage in ((averaged, "train"), (begun, "align")):
        training = context(stage, reference=reference_of(model) if stage == "align" else None)
        model.losses(packed(ROWS), training)
        assert training.noted()["kl"] == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize("reference", ["ema", "stage"])
def test_the_divergence_is_that_of_normals_by_the_dimension_over_the_moves(
    reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for kl in (0.7, 1.4):
        when = "after" if reference == "stage" else "joint"
        model = system(reference=reference, kl=kl, grpo_when=when, grpo=1.0, noise_floor=0.3, explore=0.8)
        other = reference_of(model)
        torch.manual_seed(4)
        changed = of(cast("ItemRecommender", other)).denoiser if reference == "stage" else of(model).averaged
        torch.nn.init.normal_(changed.leave.weight, std=0.5)  # type: ignore[union-attr]
        if reference == "stage":
            torch.nn.init.normal_(other.backbone.items.weight, std=0.5)  # type: ignore[union-attr, arg-type]
        averaged = copy.deepcopy(of(model).averaged)  # it follows the denoiser at the end of each step
        calls = counted(monkeypatch, model.head.moves, "rollout")
        paths: list[list[Tensor]] = []
        inner = model.head.moves.rollout
        monkeypatch.setattr(
            model.head.moves,
            "rollout",
            lambda *given, inner=inner, paths=paths: paths.append(inner(*given)) or paths[-1],
        )
        training = context("align" if reference == "stage" else "train", reference=other)
        grpo = model.losses(packed(ROWS), training)["grpo"]
        known = calls[0][1]
        if reference == "stage":
            theirs = thoughts(cast("ItemRecommender", other)).repeat_interleave(8, 0)
            their_h, their_net = on_sphere(theirs[:, -1]), other.head.denoiser
            their_known = their_net.condition(their_h, theirs)
        else:
            their_h, their_net = known.h_ND, averaged
            their_known = their_net.condition(their_h, thoughts(model).repeat_interleave(8, 0))
        terms, p = [], of(model).process
        for at, t in enumerate((4, 3, 2, 1)):
            sd = 0.3 if t == 1 else 0.8 * p.q[t]
            z = paths[0][at]
            own, ref = (
                Normal(p.mean(z, net(z, t, k), h, t, sd), sd)
                for net, k, h in ((of(model)._denoiser(), known, known.h_ND), (their_net, their_known, their_h))
            )
            terms.append(kl_divergence(own, ref).mean())
        expected = torch.stack(terms).mean().item()
        assert training.noted()["kl"] == pytest.approx(expected)
        weights.append((kl, grpo.item(), expected))
    (one, first, kl), (two, second, _) = weights
    assert second - first == pytest.approx((two - one) * kl)


def test_an_averaged_reference_follows_the_denoiser_slowly_and_is_not_trained() -> None:
    model = system(reference="ema", kl=0.1)
    head = of(model)
    assert head.averaged is not None
    before = head.averaged.leave.weight.clone()
    live = head._denoiser().leave.weight
    with torch.no_grad():
        live.add_(1.0)
    terms = losses(model)
    assert close(head.averaged.leave.weight, 0.999 * before + 0.001 * live, 1e-12)
    assert not any("averaged" in name for name in reached(model, sum(terms.values())))  # type: ignore[arg-type]
    assert not any(p.requires_grad for p in head.averaged.parameters())


@pytest.mark.parametrize("policy", ["path", "item"])
def test_neither_an_averaged_reference_nor_what_is_held_against_it_has_dropout(policy: str) -> None:
    model = system(reference="ema", kl=1.0, denoiser_dropout=0.5, policy=policy)
    of(model).averaged.load_state_dict(of(model).denoiser.state_dict())  # type: ignore[union-attr]
    training = context()
    model.train().losses(packed(ROWS), training)
    assert training.noted()["kl"] == pytest.approx(0, abs=1e-20)


def test_a_reference_of_the_stage_has_to_be_there() -> None:
    with pytest.raises(ValueError, match="as the stage began"):
        losses(system(reference="stage", kl=0.1, grpo_when="after"), stage="align")


# --- does it work? --------------------------------------------------------------------------------------------------------------


def earned(**changes: object) -> tuple[float, float]:
    """Mean reward of rollouts before and after training the denoiser by reinforcement alone, on a frozen backbone."""
    model = system(
        double=False,
        steps=0,
        grpo_when="after",
        grpo=1.0,
        group=16,
        levels=2,
        noise_floor=0.3,
        log_prob="sum",
        **changes,
    )
    head, batch = of(model), packed(ROWS)
    model.requires_grad_(False)
    head._denoiser().requires_grad_(True)
    judge = system(double=False, steps=0, levels=2, reward_softmax=1.0).head
    h_RKD, y_R = thoughts(model).repeat_interleave(32, 0), batch.targets_Q.repeat_interleave(32)  # type: ignore[union-attr]

    def mean_reward() -> float:
        with torch.no_grad():
            path = rollout(head, head.condition(h_RKD), generator(5))
            u_RD = h_RKD[:, -1].norm(dim=1, keepdim=True) * direction(path[-1])
            return of_reward(judge, u_RD)

    def of_reward(judge: torch.nn.Module, u_RD: Tensor) -> float:
        return float(judge._reward(u_RD, y_R, model.score, context())[0].mean())  # type: ignore[operator]

    before, training = mean_reward(), context("align", seed=3)
    optimizer = torch.optim.Adam(head._denoiser().parameters(), lr=3e-3)
    for _ in range(120):
        terms = model.losses(batch, training)
        assert set(terms) == {"grpo"}
        optimizer.zero_grad()
        terms["grpo"].backward()
        optimizer.step()
    return before, mean_reward()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"baseline": "greedy"},
        {"positive_only": True},
        {"reward": "sampled"},
        {"reward": "likelihood"},
        {"policy": "item", "positive_only": True},
    ],
)
def test_reinforcement_alone_raises_the_mean_reward(changes: dict[str, object]) -> None:
    before, after = earned(**changes)
    assert after > before + 0.1


def test_random_rewards_raise_nothing() -> None:
    before, after = earned(reward="random")
    assert after < before + 0.04
