"""Head ``diffuse``: what each setting does, for the ablations; that a weight of 0 costs nothing; what is refused."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.reasoning.diffusion import on_sphere
from tests.reasoning.refining import (
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
