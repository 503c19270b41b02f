"""Head ``diffuse``: what it thinks, and its losses without reinforcement."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.data.batching import Batch
from recbench.evaluation.evaluate import evaluate
from recbench.reasoning.diffusion import on_sphere
from recbench.recommender import ItemRecommender
from recbench.scoring.softmax import ItemSoftmax
from recbench.training.checkpoint import Store
from recbench.training.loop import Job, Watcher, fit
from recbench.training.seeding import seed_everything
from recbench.training.settings import stage_settings
from tests.reasoning.refining import (
    ITEMS,
    ROWS,
    WIDTH,
    close,
    context,
    counted,
    losses,
    of,
    reached,
    rollout,
    system,
    thoughts,
)
from tests.systems import CPU, histories, packed, queries, small_system

FORWARDS = ["gauss", "shift", "none"]


# --- thinking -----------------------------------------------------------------------------------------------------------


def test_without_thoughts_and_levels_it_is_no_reasoning_to_the_last_bit() -> None:
    model = system(double=False, steps=0, levels=0, grpo=0.0)
    plain = small_system("sasrec", "none", ITEMS, dropout=0.0, attention_dropout=0.0, n_layers=1).eval()
    plain.backbone.load_state_dict(model.backbone.state_dict())
    assert not list(model.head.parameters())
    batch = packed(ROWS)
    ours, theirs = (m.head.answer(m.head.think(m.backbone, batch)) for m in (model, plain))
    assert torch.equal(ours, theirs)
    (one,), (other,) = losses(model).values(), plain.losses(batch, context()).values()
    assert torch.equal(one, other)
    grads = [torch.autograd.grad(loss, list(m.parameters())) for m, loss in ((model, one), (plain, other))]
    assert all(torch.equal(*pair) for pair in zip(*grads, strict=True))


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("forward", FORWARDS)
def test_an_untrained_refinement_is_the_hypothesis(forward: str, steps: int) -> None:
    model = system(awake=False, forward=forward, steps=steps, noise_floor=0.0, explore=1.0, grpo=0.0)
    head, h_NKD = of(model), thoughts(model)
    z_NKD = head.think(model.backbone, packed(ROWS))
    for level in range(4):
        assert close(z_NKD[:, steps + 1 + level], h_NKD[:, -1], 1e-6)
    path = rollout(head, head.condition(h_NKD), torch.Generator().manual_seed(1))
    assert close(path[-1], on_sphere(h_NKD[:, -1]), 1e-6)
    terms = losses(model)
    torch.testing.assert_close(terms["refined"], terms["hypothesis" if steps else "plain"])


def test_it_thinks_the_chain_and_then_every_level_at_the_length_of_the_hypothesis() -> None:
    model = system(steps=3, levels=4, start=0.5)
    z_NKD, h_NKD = of(model).think(model.backbone, packed(ROWS)), thoughts(model)
    assert z_NKD.shape == (sum(map(len, ROWS)), 3 + 1 + 2, WIDTH)
    assert close(z_NKD[:, :4], h_NKD)
    for level in (4, 5):
        assert close(z_NKD[:, level].norm(dim=1), h_NKD[:, -1].norm(dim=1))
    assert close(of(model).answer(z_NKD), z_NKD[:, -1], 0)


@pytest.mark.parametrize("start", [0.5, 1.0])
@pytest.mark.parametrize("forward", FORWARDS)
def test_a_refinement_by_hand(forward: str, start: float) -> None:
    model = system(forward=forward, start=start, kappa=0.7)
    head, h_NKD = of(model), thoughts(model)
    p, denoiser, h = head.process, head.denoiser, on_sphere(h_NKD[:, -1])
    assert denoiser is not None
    known, S = denoiser.condition(h, h_NKD), round(4 * start)
    z, made = {"gauss": p.a[S], "shift": 1.0, "none": 1.0}[forward] * h, []
    for t in range(S, 0, -1):
        x0 = denoiser(z, t, known)
        made.append(x0 * h_NKD[:, -1].norm(dim=1, keepdim=True) / math.sqrt(WIDTH))
        if forward == "none":
            z = x0
        elif t > 1:
            noise = (z - p.a[t] * x0 - p.b[t] * h) / math.sqrt(p.v[t])
            z = p.a[t - 1] * x0 + p.b[t - 1] * h + math.sqrt(p.v[t - 1]) * noise
    assert close(head.refinements(h_NKD), torch.stack(made, dim=1))


def test_the_schedule_is_that_of_the_backbones_width_and_catalogue() -> None:
    p = of(system(levels=3, info_high=2.0, info_low=0.5)).process
    iota = WIDTH * np.array(p.a[1:]) ** 2 / np.array(p.v[1:]) / (2 * math.log(ITEMS))
    np.testing.assert_allclose(iota, [2.0, 1.0, 0.5])


@pytest.mark.parametrize("changes", [{}, {"test_samples": 3, "test_explore": 1.0}])
def test_thinking_twice_gives_the_same_and_touches_no_generator(changes: dict[str, object]) -> None:
    model, batch = system(**changes), packed(ROWS)
    before = torch.get_rng_state()
    first, second = (of(model).think(model.backbone, batch) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_dropout_training_mode_thinks_as_eval_does() -> None:
    model, batch = system(), packed(ROWS)
    assert torch.equal(of(model).think(model.backbone, batch), model.train().head.think(model.backbone, batch))
    model = system(denoiser_dropout=0.5)
    assert not torch.equal(of(model).think(model.backbone, batch), model.train().head.think(model.backbone, batch))


def test_neighbours_and_their_lengths_change_no_refinement() -> None:
    model, together, first = system(), packed(ROWS), 0
    z_NKD = of(model).think(model.backbone, together)
    for row in ROWS:
        alone = of(model).think(model.backbone, packed([row]))
        assert close(alone, z_NKD[first : first + len(row)], 1e-10)
        first += len(row)


def test_every_item_but_padding_can_rank() -> None:
    model = system()
    with torch.no_grad():
        model.backbone.items.weight[0] = 1e6
    ranks = evaluate(model, queries(ROWS), CPU, top=ITEMS)
    assert sorted(ranks.top_items[0].tolist()) == list(range(1, ITEMS + 1))  # type: ignore[index]


# --- losses -------------------------------------------------------------------------------------------------------------


def test_plain_hypothesis_and_refined_are_the_losses_of_their_vectors() -> None:
    model = system(plain=0.7, hypothesis=0.3, refined=2.0, grpo=0.0)
    z_NKD, batch = of(model).think(model.backbone, packed(ROWS)), packed(ROWS)
    terms, table = losses(model), model.backbone.items.weight[1:]
    for name, weight, place in (("plain", 0.7, 0), ("hypothesis", 0.3, 2), ("refined", 2.0, -1)):
        expected = F.cross_entropy(z_NKD[:, place] @ table.t(), batch.targets_Q - 1)  # type: ignore[operator]
        assert terms[name].item() == pytest.approx(weight * expected.item())


def test_denoising_losses_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    model = system(denoise_mse=0.5, denoise_ce=0.25, denoise_share=1.0, grpo=0.0)
    head, batch, h_NKD = of(model), packed(ROWS), thoughts(model)
    calls = counted(monkeypatch, head, "denoised")
    terms = losses(model)
    ((given, clean_ND, t_N, noise_ND, _),) = calls
    y_N, table = batch.targets_Q, model.backbone.items.weight
    assert y_N is not None
    assert head.denoiser is not None
    assert close(given, h_NKD)
    assert close(clean_ND, math.sqrt(WIDTH) * F.normalize(table[y_N], dim=1))
    assert not clean_ND.requires_grad
    abar = torch.tensor(head.process.a)[t_N, None].double() ** 2
    z_ND = abar.sqrt() * clean_ND + (1 - abar).sqrt() * noise_ND
    h = on_sphere(h_NKD[:, -1])
    zhat = head.denoiser(z_ND, t_N, head.denoiser.condition(h, h_NKD))
    cosine_N = F.cosine_similarity(zhat, clean_ND)
    assert terms["denoise_mse"].item() == pytest.approx(0.5 * (2 - 2 * cosine_N).mean().item(), rel=1e-6)
    u = zhat * h_NKD[:, -1].norm(dim=1, keepdim=True) / math.sqrt(WIDTH)
    expected = F.cross_entropy(u @ table[1:].t(), y_N - 1)
    assert terms["denoise_ce"].item() == pytest.approx(0.25 * expected.item(), rel=1e-6)


def test_a_shifted_target_slides_towards_a_hypothesis_that_it_does_not_train(monkeypatch: pytest.MonkeyPatch) -> None:
    model = system(forward="shift", kappa=0.5, residual=False, denoise_ce=0.0)
    head = of(model)
    h_NKD = thoughts(model).detach().requires_grad_()
    calls = counted(monkeypatch, head.denoiser, "forward")
    n = len(h_NKD)
    clean, t_N = on_sphere(torch.randn(n, WIDTH).double()), torch.full((n,), 2)
    head.denoised(h_NKD, clean, t_N, torch.zeros_like(clean), context())
    z_ND = calls[0][0]
    eta = head.process.b[2]
    assert close(z_ND, (1 - eta) * clean + eta * on_sphere(h_NKD[:, -1].detach()))
    assert not z_ND.requires_grad


def test_levels_are_drawn_from_all_for_one_half_and_up_to_the_start_for_the_other() -> None:
    head, n = of(system(levels=8, start=0.25)), 100_000
    share = torch.bincount(head.draw_levels(n, torch.Generator().manual_seed(1)), minlength=9).double() / n
    expected = torch.tensor([0, *[1 / 16 + 1 / 4] * 2, *[1 / 16] * 6]).double()
    assert ((share - expected).abs() <= 5 * (expected * (1 - expected) / n).sqrt()).all()


@pytest.mark.parametrize(("share", "rows"), [(1.0, 19), (0.25, 5), (0.001, 1)])
def test_a_share_of_the_positions_is_denoised(share: float, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = system(denoise_share=share, grpo=0.0)
    calls = counted(monkeypatch, model.head, "denoised")
    losses(model, seed=1)
    losses(model, seed=2)
    assert [len(call[0]) for call in calls] == [rows, rows]
    assert rows == 19 or not torch.equal(calls[0][1], calls[1][1])


def test_one_position_a_user_is_drawn_uniformly_from_the_asked_ones() -> None:
    model, batch = system(positions="one"), packed(ROWS, at=[0, 2, 3, 4, 8, 9, 10, 11, 13, 18])
    asked, n = [1, 3, 1, 4, 1], 4_000
    assert torch.bincount(batch.row_Q).tolist() == asked
    training, drawn = context(), torch.zeros(len(batch.at_Q))
    for _ in range(n):
        at = of(model)._positions(batch, training)
        assert at is not None
        assert batch.row_Q[at].tolist() == [0, 1, 2, 3, 4]
        drawn[at] += 1
    expected = 1 / torch.tensor(asked)[batch.row_Q]
    assert ((drawn / n - expected).abs() <= 5 * (expected * (1 - expected) / n).sqrt()).all()


def test_one_position_a_user_is_for_what_refines_and_not_for_what_thinks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = system(positions="one", denoise_share=1.0, group=3)
    calls = {name: counted(monkeypatch, model.head, name) for name in ("refinements", "denoised")}
    calls["rollout"] = counted(monkeypatch, model.head.moves, "rollout")
    scored = counted(monkeypatch, model.score, "loss")
    losses(model)
    assert len(calls["refinements"][0][0]) == len(ROWS)
    assert len(calls["denoised"][0][0]) == len(ROWS)
    assert len(calls["rollout"][0][1].h_ND) == 3 * len(ROWS)
    assert [len(call[0]) for call in scored] == [19, 19, 5, 5]


def test_all_positions_at_once_are_one_row_a_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradient of every term, given the noise of each position."""
    G, n = 3, 19
    model = system(denoise_share=1.0, group=G, grpo=1.0)
    head, batch = of(model), packed(ROWS)
    tokens = [row[: end + 1] for row in sorted(ROWS, key=len) for end in range(len(row))]
    order = sorted(range(n), key=lambda token: len(tokens[token]))
    prefixes = packed([tokens[token] for token in order])
    last = Batch(
        prefixes.items_N,
        prefixes.rows,
        prefixes.rows.last_B,
        batch.targets_Q[order],
        prefixes.users_B,  # type: ignore[index]
    )
    noise, level = torch.randn(n, WIDTH).double(), torch.randint(1, 5, (n,))
    path = [
        x.detach() for x in rollout(head, head.condition(thoughts(model).repeat_interleave(G, 0)), context().generator)
    ]
    denoised = head.denoised
    found = []
    for asked, at in ((batch, torch.arange(n)), (last, torch.tensor(order))):
        members = (at[:, None] * G + torch.arange(G)).flatten()
        monkeypatch.setattr(head, "denoised", lambda h, y, t, x, c, at=at: denoised(h, y, level[at], noise[at], c))
        monkeypatch.setattr(head.moves, "rollout", lambda *_, members=members: [z[members] for z in path])
        terms = losses(model, asked)
        params = list(model.parameters())
        grads = {k: torch.autograd.grad(v, params, retain_graph=True, allow_unused=True) for k, v in terms.items()}
        found.append((terms, grads))
    (terms, grads), (other_terms, other_grads) = found
    assert list(terms) == ["plain", "hypothesis", "refined", "denoise_mse", "denoise_ce", "grpo"]
    for name, term in terms.items():
        assert close(term, other_terms[name], 1e-10), name
        for one, other in zip(grads[name], other_grads[name], strict=True):
            assert (one is None) == (other is None)
            assert one is None or close(one, other, 1e-10), name


@pytest.mark.parametrize("rows", [1, 7])
def test_the_rows_scored_at_once_change_nothing(rows: int) -> None:
    model = system(reward_softmax=0.5, baseline="greedy")  # whose advantages do not add up to 0
    whole = losses(model)
    model.score = ItemSoftmax(model.backbone.item_vectors, chunk_rows=rows)
    for name, term in losses(model).items():
        torch.testing.assert_close(term, whole[name], atol=1e-10, rtol=0)


# --- where gradients go -----------------------------------------------------------------------------------------------------


def test_each_term_reaches_what_it_trains() -> None:
    model = system()
    terms = losses(model)
    denoiser = {name for name, _ in model.named_parameters() if "denoiser" in name}
    everything = {name for name, _ in model.named_parameters()}
    # A key's bias adds the same to every thought's weight, so no softmax feels it.
    without = {"head.denoiser.key.bias"}
    thinking = everything - denoiser
    chain = {name for name in thinking if "chain" in name}
    dead = everything - reached(model, sum(terms.values()))  # type: ignore[arg-type]
    assert without <= dead
    assert not {name for name in dead if "denoiser" in name} - without
    assert reached(model, terms["plain"]) == thinking - chain - dead
    assert reached(model, terms["hypothesis"]) == thinking - dead
    for name in ("refined", "denoise_mse", "denoise_ce", "grpo"):
        assert reached(model, terms[name]) == everything - dead, name


def test_the_first_step_opens_the_inner_layers() -> None:
    model = system(awake=False)
    leave = {"head.denoiser.leave.weight", "head.denoiser.leave.bias"}
    assert {name for name in reached(model, losses(model)["refined"]) if "denoiser" in name} == leave
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    sum(losses(model).values()).backward()  # type: ignore[union-attr]
    optimizer.step()
    assert len([name for name in reached(model, losses(model)["refined"]) if "denoiser" in name]) > 20


@pytest.mark.parametrize("detach", [True, False])
def test_denoising_trains_no_item_as_a_target_and_as_a_candidate_only_if_told(detach: bool) -> None:
    """The table that scores is another than the one that makes histories, so that the two ways are told apart."""
    model = system(detach_items=detach)
    table = torch.nn.Parameter(torch.randn(ITEMS + 1, WIDTH).double())
    terms = of(model).losses(model.backbone, packed(ROWS), ItemSoftmax(lambda: table), context())

    def reaches_table(name: str) -> bool:
        (grad,) = torch.autograd.grad(terms[name], table, allow_unused=True, retain_graph=True)
        return grad is not None and bool(grad.any())

    assert reaches_table("refined")
    assert not reaches_table("denoise_mse")
    assert reaches_table("denoise_ce") == (not detach)
    assert not reaches_table("grpo")
    assert "backbone.items.weight" in reached(model, terms["denoise_ce"])


def test_states_and_items_of_nothing_but_zeros_give_no_nan() -> None:
    model = system(denoise_share=1.0)
    with torch.no_grad():
        model.backbone.items.weight[5] = 0
        model.backbone.layers[0].norm.weight.zero_()
    for name, term in losses(model).items():
        assert term.isfinite(), name
        grads = torch.autograd.grad(term, list(model.parameters()), allow_unused=True, retain_graph=True)
        assert all(grad is None or grad.isfinite().all() for grad in grads), name


# --- what is logged -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("forward", "kappa"), [("gauss", 1.0), ("shift", 0.01)])
def test_what_can_be_read_off_a_noisy_target_is_logged_as_leak(forward: str, kappa: float) -> None:
    """At information 50 a target can be told by whoever knows the hypothesis, at .001 by nobody."""
    for information, least, most in ((50.0, 0.9, 1.0), (1e-3, 0.0, 0.6)):
        model = system(
            levels=2, forward=forward, kappa=kappa, info_high=information, info_low=information, denoise_share=1.0
        )
        training, shares = context(step=1), []
        for _ in range(8):
            model.losses(packed(ROWS), training)
            noted = training.noted()
            shares.append(noted.get("leak@1", least))
        assert least <= np.mean(shares) <= most
    silent = context(step=2)
    model.losses(packed(ROWS), silent)
    assert not any(name.startswith("leak") for name in silent.noted())


def test_the_change_by_refinement_is_logged() -> None:
    model = system(mix="learned", mix_weight=0.3)
    training = context()
    model.losses(packed(ROWS), training)
    z_NKD, noted = of(model).think(model.backbone, packed(ROWS)), training.noted()
    last, refined = z_NKD[:, 2], z_NKD[:, -1]
    assert noted["cos_refined"] == pytest.approx(F.cosine_similarity(last, refined).mean().item())
    assert noted["refinement"] == pytest.approx(((refined - last).norm(dim=1) / last.norm(dim=1)).mean().item())
    assert noted["mix_gate"] == pytest.approx(0.3)
    assert {"similarity@1", "similarity@2", "reward_mean", "no_signal"} <= noted.keys()


def test_the_share_of_the_reinforcement_is_logged_once_an_epoch() -> None:
    model = system(grpo=0.7)
    head = of(model)
    shares, run, h = [], head.chain.run, thoughts(model).detach().requires_grad_()
    head.chain.run = lambda *given: h  # type: ignore[method-assign]
    for step in range(1, 9):
        training = context(step=step, steps=4)
        terms = model.losses(packed(ROWS), training)
        if "grad_share" in (noted := training.noted()):
            shares.append(step)
            grpo = terms.pop("grpo")
            (own,), (rest,) = (torch.autograd.grad(x, h) for x in (grpo, sum(terms.values())))  # type: ignore[arg-type]
            assert noted["grad_share"] == pytest.approx((own.norm() / rest.norm()).item(), rel=1e-5)
    assert shares == [1, 5]
    head.chain.run = run  # type: ignore[method-assign]


# --- training as a whole ----------------------------------------------------------------------------------------------------


def trained(
    rows: list[list[int]], folder: Path, changes: dict[str, object] | None = None, **settings: object
) -> ItemRecommender:
    seed_everything(3)
    sizes = {"width": 16, "dropout": 0.0, "attention_dropout": 0.0}
    quiet = {"feed_dropout": 0.0, "denoiser_dropout": 0.0, "grpo_positions": 32, "steps": 1, "levels": 2}
    model = small_system("sasrec", "diffuse", ITEMS, changes={**quiet, **(changes or {})}, **sizes)
    table = {"epochs": 16, "batch_size": 200, "learning_rate": 0.01, "patience": 30, **settings}
    job = Job(
        histories(rows), queries(rows[:60], "valid"), stage_settings(table, model.stages), 0, CPU, folder, Watcher()
    )
    fit(model, job, Store(folder / "state"))
    return model


def hits(model: ItemRecommender, rows: list[list[int]], k: int = 1) -> float:
    return evaluate(model, queries(rows), CPU).means([f"hr@{k}"])[f"hr@{k}"]


def two_back(users: int, seed: int) -> list[list[int]]:
    """Each user repeats a pair of items."""
    return [[int(a), int(b)] * 4 for a, b in np.random.default_rng(seed).integers(1, ITEMS + 1, (users, 2))]


def test_a_rule_is_learned_and_the_refinement_knows_it_as_well_as_the_hypothesis(tmp_path: Path) -> None:
    model, asked = trained(two_back(200, 1), tmp_path), two_back(200, 2)
    refined = hits(model, asked)
    model.head.config = replace(model.head.config, mix="fixed", mix_weight=0.0)
    hypothesis = hits(model, asked)
    assert refined > 0.85
    assert refined >= hypothesis - 0.02


def test_noise_is_not_learned(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    model = trained(rng.integers(1, ITEMS + 1, (100, 8)).tolist(), tmp_path, epochs=5)
    found = hits(model, rng.integers(1, ITEMS + 1, (400, 8)).tolist())
    assert found < 1 / ITEMS + 3 * math.sqrt(1 / ITEMS / 400)


def test_without_a_condition_it_falls_to_popularity(tmp_path: Path) -> None:
    """Of the rule nothing is left: every user gets the same ranking, led by what is bought most."""
    rows = [*two_back(150, 1), *([[7, 8] * 4] * 50)]
    model = trained(rows, tmp_path, {"condition": "none", "grpo": 0.0}, epochs=10)
    asked = queries(two_back(100, 2))
    ranks = evaluate(model, asked, CPU, top=ITEMS)
    assert ranks.top_items is not None
    assert (ranks.top_items == ranks.top_items[0]).all()
    assert set(ranks.top_items[0, :2].tolist()) == {7, 8}


def test_a_stage_of_no_epochs_leaves_the_weights_untouched(tmp_path: Path) -> None:
    seed_everything(1)
    kept: dict[str, Tensor] = {}
    for until in ("train", None):
        seed_everything(3)
        model = small_system("sasrec", "diffuse", ITEMS)
        table = {"epochs": 1, "batch_size": 100}
        folder = tmp_path / str(until)
        folder.mkdir()
        rows = two_back(30, 1)
        settings = stage_settings(table, model.stages)
        assert settings["align"].epochs == 0
        job = Job(histories(rows), queries(rows, "valid"), settings, 0, CPU, folder, Watcher(), until=until)
        fit(model, job, Store(folder / "state"))
        kept = kept or {name: x.clone() for name, x in model.tensors().items()}
        assert all(torch.equal(x, kept[name]) for name, x in model.tensors().items())
