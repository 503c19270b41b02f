"""Head ``diffuse``: what each setting does, for the ablations; that a weight of 0 costs nothing; what is refused."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.reasoning.diffuse import DiffuReason
from recbench.reasoning.diffusion import on_sphere
from tests.reasoning.refining import (
    ITEMS,
    ROWS,
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

TOKENS = 19


# --- a weight of 0 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "hypothesis", "refined", "denoise_mse", "denoise_ce", "grpo"])
def test_a_weight_scales_its_own_term_and_no_other(name: str) -> None:
    """At 0 the term is gone, and what is left draws as before."""
    terms = ["plain", "hypothesis", "refined", "denoise_mse", "denoise_ce", "grpo"]
    settings: dict[str, Any] = {
        **dict.fromkeys(terms, 1.0),
        "baseline": "greedy",
    }  # whose advantages do not add up to 0
    whole = losses(system(**settings))
    assert list(whole) == terms
    assert all(abs(term) > 1e-3 for term in whole.values())
    for weight in (0.5, 0.0):
        found = losses(system(**{**settings, name: weight}))
        assert set(found) == (set(terms) if weight else set(terms) - {name})
        for other, term in found.items():
            assert close(term, whole[other] * (weight if other == name else 1.0)), other


@pytest.mark.parametrize(
    ("off", "owner", "method"),
    [
        ({"refined": 0.0}, "head", "refinements"),
        ({"denoise_mse": 0.0, "denoise_ce": 0.0}, "head", "denoised"),
        ({"denoise_share": 0.0}, "head", "denoised"),
        ({"forward": "none"}, "head", "denoised"),
        ({"grpo": 0.0}, "head.moves", "rollout"),
        ({"grpo": 0.0}, "head", "_reward"),
        ({}, "head", "_kl"),
        ({"reward_softmax": 0.0}, "score", "log_prob"),
        ({"reward": "random"}, "score", "place"),
        ({"reward": "likelihood"}, "score", "place"),
    ],
)
def test_what_weighs_nothing_is_not_computed(
    off: dict[str, Any], owner: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"kl": 0.1, "reference": "ema"} if method == "_kl" else {}
    for changes, called in ((settings, True), (off, False)):
        model = system(**changes)
        calls = counted(monkeypatch, attrgetter(owner)(model), method)
        losses(model)
        assert bool(calls) == called


@pytest.mark.parametrize(
    ("off", "softmaxes"),
    [
        ({}, 4),
        ({"plain": 0.0}, 3),
        ({"hypothesis": 0.0}, 3),
        ({"refined": 0.0}, 3),
        ({"denoise_ce": 0.0}, 3),
        ({"denoise_mse": 0.0}, 4),
    ],
)
def test_every_loss_over_the_catalogue_has_a_weight(
    off: dict[str, Any], softmaxes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = system(**off)
    calls = counted(monkeypatch, model.score, "loss")
    losses(model)
    assert len(calls) == softmaxes


@pytest.mark.parametrize(
    ("changes", "calls"),
    [({}, 4), ({"start": 0.5}, 2), ({"drop_condition": 0.1}, 4), ({"drop_condition": 0.1, "guidance": 1.0}, 8)],
)
def test_a_ranking_calls_the_denoiser_once_a_level_and_twice_with_guidance(
    changes: dict[str, Any], calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = system(**changes)
    noted = counted(monkeypatch, model.head.denoiser, "forward")
    of(model).think(model.backbone, packed(ROWS))
    assert len(noted) == calls


# --- parts left out -----------------------------------------------------------------------------------------------------


def test_think_only() -> None:
    model = system(levels=0, grpo=0.0)
    assert of(model).denoiser is None
    assert not any("denoiser" in name for name, _ in model.named_parameters())
    z_NKD = of(model).think(model.backbone, packed(ROWS))
    assert close(z_NKD, thoughts(model), 0)
    assert close(of(model).answer(z_NKD), z_NKD[:, 2], 0)
    assert list(losses(model)) == ["plain", "hypothesis"]


def test_diffuse_without_think() -> None:
    model = system(steps=0)
    assert not list(of(model).chain.parameters())
    z_NKD = of(model).think(model.backbone, packed(ROWS))
    assert z_NKD.shape[1] == 1 + 4
    assert not close(z_NKD[:, -1], z_NKD[:, 0], 1e-3)
    assert list(losses(model)) == ["plain", "refined", "denoise_mse", "denoise_ce", "grpo"]


def test_without_thoughts_the_plain_state_is_scored_once_with_the_weight_that_is_left() -> None:
    for plain, hypothesis, weight in ((1.0, 1.0, 1.0), (0.0, 0.3, 0.3), (0.5, 0.0, 0.5)):
        terms = losses(system(steps=0, plain=plain, hypothesis=hypothesis))
        assert close(terms["plain"], weight * losses(system(steps=0))["plain"])
    assert "plain" not in losses(system(steps=0, plain=0.0, hypothesis=0.0))


def test_no_forward_process_is_the_same_network_called_as_often_without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    model = system(forward="none")
    same = system()
    assert [p.shape for p in model.parameters()] == [p.shape for p in same.parameters()]
    assert list(losses(model)) == ["plain", "hypothesis", "refined", "grpo"]
    calls = counted(monkeypatch, model.head.denoiser, "forward")
    of(model).think(model.backbone, packed(ROWS))
    assert len(calls) == 4
    assert close(calls[0][0], calls[0][2].h_ND, 0)


def test_a_shift_starts_at_the_hypothesis_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for forward, length in (("shift", 1.0), ("gauss", None)):
        model = system(forward=forward, start=1.0)
        calls = counted(monkeypatch, model.head.denoiser, "forward")
        of(model).think(model.backbone, packed(ROWS))
        share = length or of(model).process.a[4]
        assert close(calls[0][0], share * on_sphere(thoughts(model)[:, -1]))
        assert [call[1] for call in calls] == [4, 3, 2, 1]


def test_the_tokens_of_the_chain_are_as_set() -> None:
    h_ND = torch.randn(TOKENS, WIDTH).double()
    chains = {
        name: of(system(**{name: value})).chain
        for name, value in (("steps", 2), ("step_embedding", False), ("feed_norm", False), ("feed_dropout", 0.4))
    }
    whole = chains["steps"]
    assert not close(whole.feed(h_ND, 0), whole.feed(h_ND, 1), 1e-3)
    bare = chains["step_embedding"]
    assert close(bare.feed(h_ND, 0), bare.feed(h_ND, 1), 0)
    plain = chains["feed_norm"]
    assert close(plain.feed(h_ND, 1), h_ND + plain.step_embedding.weight[1], 0)  # type: ignore[union-attr]
    x_ND = torch.ones(500, WIDTH).double()
    dropped = chains["feed_dropout"].train().feed(x_ND, 0) == 0
    assert abs(dropped.double().mean() - 0.4) < 5 * math.sqrt(0.4 * 0.6 / dropped.numel())
    assert not (whole.train().feed(x_ND, 0) == 0).any()


# --- the condition --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("condition", "reads"), [("all", [0, 1, 2]), ("last", [2]), ("none", [])])
def test_the_condition_is_what_the_denoiser_reads(condition: str, reads: list[int]) -> None:
    model = system(condition=condition)
    h_NKD = thoughts(model).detach()
    before, felt = F.normalize(of(model).refinements(h_NKD)[:, -1], dim=1), []
    for k in range(3):
        changed = h_NKD.clone()
        changed[:, k] += torch.linspace(-1, 2, WIDTH).double()
        after = F.normalize(of(model).refinements(changed)[:, -1], dim=1)
        if not close(after, before, 1e-9):
            felt.append(k)
    assert felt == reads


@pytest.mark.parametrize("forward", ["gauss", "shift", "none"])
def test_without_a_condition_all_histories_are_refined_in_one_direction(forward: str) -> None:
    model = system(condition="none", forward=forward)
    for level in (3, 4, 5, 6):
        z_ND = F.normalize(of(model).think(model.backbone, packed(ROWS))[:, level], dim=1)
        assert close(z_ND, z_ND[:1].expand_as(z_ND), 1e-9)
    assert "head.null" in reached(model, losses(model)["refined"])


def test_without_a_condition_not_even_the_noisy_target_holds_the_hypothesis(monkeypatch: pytest.MonkeyPatch) -> None:
    model = system(condition="none", forward="shift")
    calls = counted(monkeypatch, model.head.denoiser, "forward")
    clean = on_sphere(torch.randn(TOKENS, WIDTH).double())
    t_N = torch.full((TOKENS,), 3)
    of(model).denoised(thoughts(model), clean, t_N, torch.zeros_like(clean), context())
    eta = of(model).process.b[3]
    null = on_sphere(of(model).null.expand(TOKENS, -1))  # type: ignore[union-attr]
    assert close(calls[0][0], (1 - eta) * clean + eta * null)


def test_a_dropped_condition_is_one_learned_vector_also_in_the_residual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of denoising terms only, in the share of rows that is asked for."""
    model = system(drop_condition=0.3, denoise_share=1.0)
    head, h_NKD, n = of(model), thoughts(model).repeat(200, 1, 1), 200 * TOKENS
    net, null = head._denoiser(), on_sphere(head.null)  # type: ignore[arg-type]
    conditions = counted(monkeypatch, net, "condition")
    clean, noise = on_sphere(torch.randn(n, WIDTH).double()), torch.randn(n, WIDTH).double()
    t_N = torch.full((n,), 2)
    predicted = head.denoised(h_NKD, clean, t_N, noise, context())
    told, read = conditions[0]
    dropped_N = (told == null).all(1)
    assert abs(dropped_N.double().mean() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / n)
    assert (read[dropped_N] == null).all()
    assert close(read[~dropped_N], h_NKD[~dropped_N], 0)
    z_ND = head.process.noised(clean, on_sphere(h_NKD[:, -1]), t_N, noise)
    blind = net(z_ND, 2, net.condition(null.expand(n, -1), null.expand(n, 1, -1)))
    assert close(predicted[dropped_N], blind[dropped_N])
    conditions.clear()
    losses(twin(model, drop_condition=0.3, denoise_mse=0.0, denoise_ce=0.0))
    head.think(model.backbone, packed(ROWS))
    assert not any((told == null).all(1).any() for told, _ in conditions)


def test_guidance_goes_away_from_the_prediction_without_condition() -> None:
    model = system(drop_condition=0.1, guidance=0.5, levels=1, start=1.0)
    head, h_NKD = of(model), thoughts(model)
    net, null, h = head._denoiser(), on_sphere(head.null), on_sphere(h_NKD[:, -1])  # type: ignore[arg-type]
    z_ND = head.process.a[1] * h
    told = net(z_ND, 1, net.condition(h, h_NKD))
    blind = net(z_ND, 1, net.condition(null.expand(TOKENS, -1), null.expand(TOKENS, 3, -1)))
    expected = F.normalize(1.5 * told - 0.5 * blind, dim=1) * h_NKD[:, -1].norm(dim=1, keepdim=True)
    assert close(head.refinements(h_NKD)[:, 0], expected)
    assert not close(head.refinements(h_NKD), of(twin(model, drop_condition=0.1, levels=1)).refinements(h_NKD), 1e-3)


# --- the form of the prediction ---------------------------------------------------------------------------------------------


def test_without_a_residual_an_untrained_refinement_is_not_the_hypothesis() -> None:
    h_NKD = thoughts(system())
    for residual in (True, False):
        model = system(awake=False, residual=residual)
        same = F.cosine_similarity(of(model).refinements(h_NKD)[:, -1], h_NKD[:, -1])
        assert bool((same > 0.999).all()) == residual


def test_unprojected_predictions_keep_their_length() -> None:
    for project in (True, False):
        model = system(project=project)
        z_NKD = of(model).think(model.backbone, packed(ROWS))
        ratio = z_NKD[:, -1].norm(dim=1) / z_NKD[:, 2].norm(dim=1)
        assert close(ratio, torch.ones(TOKENS).double(), 1e-9) == project
    head, h_NKD = of(model), thoughts(model)
    known = head.condition(h_NKD)
    z_ND = head.moves.predictions(head._predict(known), known.h_ND, None)[:, -1]
    assert close(head.refinements(h_NKD)[:, -1], z_ND * h_NKD[:, -1].norm(dim=1, keepdim=True) / math.sqrt(WIDTH))


def test_self_conditioning_hands_on_the_prediction_before(monkeypatch: pytest.MonkeyPatch) -> None:
    model = system(self_condition=True, denoise_share=1.0)
    head, h_NKD = of(model), thoughts(model).repeat(50, 1, 1)
    net, n = head._denoiser(), 50 * TOKENS
    returned: list[Tensor] = []
    given: list[Tensor | None] = []
    forward = net.forward

    def noted(z_ND: Tensor, t: Any, known: Any, previous_ND: Tensor | None = None) -> Tensor:
        given.append(previous_ND)
        returned.append(forward(z_ND, t, known, previous_ND))
        return returned[-1]

    monkeypatch.setattr(net, "forward", noted)
    head.refinements(h_NKD)
    assert given[0] is None
    assert all(one is other for one, other in zip(given[1:], returned[:-1], strict=True))
    path = rollout(head, known := head.condition(h_NKD), context().generator)
    for use in (lambda: rollout(head, known, context().generator), lambda: path_log_prob(head, path, known)):
        given.clear()
        returned.clear()
        use()
        assert given[0] is None
        assert all(one is other for one, other in zip(given[1:], returned[:-1], strict=True))
    given.clear()
    returned.clear()
    clean = on_sphere(torch.randn(n, WIDTH).double())
    head.denoised(h_NKD, clean, torch.full((n,), 2), torch.zeros_like(clean), context())
    first, second = given
    assert first is None
    assert second is not None
    assert not second.requires_grad
    told_N = second.any(1)
    assert abs(told_N.double().mean() - 0.5) < 5 * 0.5 / math.sqrt(n)
    assert close(second[told_N], returned[0][told_N], 0)


def test_a_network_without_self_conditioning_has_no_third_input() -> None:
    assert of(system())._denoiser().enter.in_features == 2 * WIDTH
    assert of(system(self_condition=True))._denoiser().enter.in_features == 3 * WIDTH


# --- the answer -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mix", ["fixed", "learned"])
@pytest.mark.parametrize("start", [0.5, 1.0])
def test_a_mix_answers_between_hypothesis_and_refinement(mix: str, start: float) -> None:
    model = system(mix=mix, mix_weight=0.3, start=start)
    z_NKD = of(model).think(model.backbone, packed(ROWS))
    expected = z_NKD[:, 2] + 0.3 * (z_NKD[:, -1] - z_NKD[:, 2])
    assert close(of(model).answer(z_NKD), expected, 1e-7)
    scored = losses(model)["refined"].item()
    table, y_N = model.backbone.items.weight[1:], packed(ROWS).targets_Q
    assert scored == pytest.approx(F.cross_entropy(expected @ table.t(), y_N - 1).item())  # type: ignore[operator]
    assert ("head.gate" in reached(model, losses(model)["refined"])) == (mix == "learned")
    if mix == "learned":
        fresh = system(mix=mix, awake=False, levels=4)
        assert "head.denoiser.leave.weight" in reached(fresh, losses(fresh)["refined"])


def test_a_fixed_mix_of_0_is_the_hypothesis_and_of_1_the_refinement() -> None:
    for weight, place in ((0.0, 2), (1.0, -1)):
        model = system(mix="fixed", mix_weight=weight)
        z_NKD = of(model).think(model.backbone, packed(ROWS))
        assert close(of(model).answer(z_NKD), z_NKD[:, place], 1e-12)


def test_samples_at_test_come_from_a_fixed_table_and_their_vectors_are_averaged() -> None:
    model = system(test_samples=3, test_explore=0.5)
    head, h_NKD = of(model), thoughts(model)
    assert head.noise.shape == (3, 5, WIDTH)
    assert "head.noise" in model.state_dict()
    p, known, samples = head.process, head.condition(h_NKD), []
    for noise in head.noise:
        z = p.a[4] * known.h_ND + math.sqrt(p.v[4]) * noise[0]
        for place, t in enumerate((4, 3, 2, 1)):
            x0 = head._denoiser()(z, t, known)
            sd = 0.5 * p.q[t]
            z = p.mean(z, x0, known.h_ND, t, sd) + sd * noise[1 + place]
        samples.append(x0)
    expected = torch.stack(samples).mean(0) * h_NKD[:, -1].norm(dim=1, keepdim=True) / math.sqrt(WIDTH)
    assert close(head.refinements(h_NKD)[:, -1], expected)
    restored = system(test_samples=3, test_explore=0.5)
    restored.load_state_dict(model.state_dict())
    assert close(of(restored).refinements(h_NKD), head.refinements(h_NKD), 0)
    plain = of(twin(model))
    assert close(head.train().refinements(h_NKD), plain.refinements(h_NKD), 0)  # training refines without noise


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


def test_an_item_policy_is_the_targets_probability_through_the_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    model = system(policy="item", group=3, grpo=1.0)
    head = of(model)
    paths, advantages = [], []
    inner, advantage = head.moves.rollout, head._advantage
    monkeypatch.setattr(head.moves, "rollout", lambda *given: paths.append(inner(*given)) or paths[-1])  # type: ignore[func-returns-value]
    monkeypatch.setattr(head, "_advantage", lambda *given: advantages.append(advantage(*given)) or advantages[-1])  # type: ignore[func-returns-value]
    moves = counted(monkeypatch, head.moves, "path_log_prob")
    grpo = losses(model)["grpo"]
    assert not moves
    h_RKD, y_R = thoughts(model).repeat_interleave(3, 0), packed(ROWS).targets_Q.repeat_interleave(3)  # type: ignore[union-attr]
    x0 = head._denoiser()(paths[0][-2], 1, head.condition(h_RKD))
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


# --- what is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_samples": 8}, "set test_explore"),
        ({"test_explore": 0.5, "forward": "none"}, "no noise to scale"),
        ({"start": 0.1}, "level 0"),
        ({"start": 0.0}, r"start is 0; it lies in \(0, 1\]"),
        ({"start": 1.1}, r"start is 1.1; it lies in \(0, 1\]"),
        ({"levels": 1, "schedule": "cosine"}, "cosine"),
        ({"info_low": 0.0}, "info_low is 0"),
        ({"info_low": 2.0}, "info_low is 2 and info_high 1"),
        ({"kappa": 0.0}, "kappa is 0"),
        ({"mix": "learned", "mix_weight": 0.0}, "mix_weight is 0; .* strictly between"),
        ({"mix": "learned", "mix_weight": 1.0}, "mix_weight is 1; .* strictly between"),
        ({"guidance": 1.0}, "drop_condition"),
        ({"group": 1}, "group is 1"),
        ({"levels": 0}, "levels=0 makes none"),
        ({"kl": 0.1}, "kl is 0.1 and reference none"),
        ({"reference": "ema"}, "kl is 0 and reference ema"),
        ({"kl": 0.1, "reference": "stage"}, "grpo_when=after"),
        ({"forward": "none", "noise_floor": 0.0}, "No move"),
        ({"policy_start": False, "noise_floor": 0.0, "start": 0.25}, "No move"),
        ({"policy_start": False, "noise_floor": 0.0, "explore": 0.0}, "No move"),
        ({"policy": "item", "kl": 0.1, "reference": "ema", "forward": "none", "noise_floor": 0.0}, "kl is over moves"),
        ({"kl": 0.1, "reference": "ema", "explore": 0.0, "noise_floor": 0.0}, "kl is over moves"),
        ({"kl": 0.1, "reference": "ema", "start": 0.25, "noise_floor": 0.0}, "kl is over moves"),
        (dict.fromkeys(["plain", "hypothesis", "refined", "denoise_mse", "denoise_ce", "grpo"], 0.0), "every loss"),
        ({"plain": 0.0, "hypothesis": 0.0, "refined": 0.0, "denoise_share": 0.0, "grpo_when": "after"}, "every loss"),
        ({"plain": 0.0, "hypothesis": 0.0, "levels": 0, "grpo": 0.0}, "every loss"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DiffuReason.Config(**changes)


@pytest.mark.parametrize(
    ("names", "values", "words"),
    [
        (["steps", "levels", "grpo_ramp_epochs"], [-1], "at least 0"),
        (["plain", "hypothesis", "refined", "denoise_mse", "denoise_ce", "grpo", "kl"], [-0.1], "at least 0"),
        (["reward_softmax", "clip", "noise_floor", "guidance"], [-0.1], "at least 0"),
        (["grpo_positions", "reward_cutoff", "test_samples"], [0], "at least 1"),
        (["explore", "test_explore", "denoise_share", "mix_weight"], [-0.1, 1.1], r"in \[0, 1\]"),
        (["drop_condition", "feed_dropout", "denoiser_dropout"], [-0.1, 1.0], r"in \[0, 1\)"),
    ],
)
def test_a_value_out_of_its_range_is_named_with_its_range(names: list[str], values: list[float], words: str) -> None:
    for name in names:
        for value in values:
            with pytest.raises(ValueError, match=rf"^{name} is {value:g}; it .* ?{words}\.$"):
                DiffuReason.Config(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"levels": 0, "grpo": 0.0},
        {"plain": 0.0, "hypothesis": 0.0, "refined": 0.0, "denoise_mse": 0.0, "denoise_ce": 0.0},
        {"plain": 0.0, "hypothesis": 0.0, "refined": 0.0, "denoise_mse": 0.0, "grpo": 0.0},
        {"kl": 0.1, "reference": "ema", "start": 0.25},
        {"levels": 1, "schedule": "cosine", "forward": "none"},
        {"policy_start": False, "noise_floor": 0.0},
        {"explore": 0.0, "noise_floor": 0.0},
        {"forward": "none", "noise_floor": 0.0, "grpo": 0.0},
        {"forward": "none", "noise_floor": 0.0, "policy": "item"},
        {"schedule": "cosine", "levels": 8, "start": 0.5, "refined": 0.0, "detach_items": False, "denoise_ce": 1.0}
        | {"denoise_share": 1.0, "policy_start": False, "noise_floor": 0.0},
    ],
)
def test_what_stands_at_the_edge_is_taken_and_trains(changes: dict[str, Any]) -> None:
    model = system(**changes)
    terms = losses(model)
    assert terms
    assert all(term.isfinite() for term in terms.values())
