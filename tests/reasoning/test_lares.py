"""LARES by hand: the recurrence, early exit, what it learns and what it refuses."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recbench.data.batching import TrainingRows
from recbench.evaluation.evaluate import evaluate
from recbench.evaluation.thinking import thinking
from recbench.reasoning import lares
from recbench.reasoning.lares import LARES
from recbench.recommender import ItemRecommender
from recbench.training.checkpoint import Store
from recbench.training.loop import Job, Watcher, fit
from recbench.training.settings import stage_settings
from tests.reasoning.looping import ITEMS, ROWS, generator, gradients, random_users, same, system, training, whole
from tests.systems import CPU, histories, last_batch, packed, queries, small_head, small_system

# --- the recurrence ---------------------------------------------------------------------------------------------------


def test_parameters_beside_the_items_are_those_of_the_published_network() -> None:
    sizes = {"width": 64, "inner": 256, "max_length": 20, "n_layers": 4}
    model = small_system("sasrec", "lares", ITEMS, changes={"pre_layers": 2}, **sizes)
    assert model.n_parameters - model.backbone.items.weight.numel() == 201_472


@pytest.mark.parametrize(
    ("mix", "numbers"), [("add", 128), ("state", 128), ("linear", 129), ("concat", 8_384), ("gate", 1)]
)
def test_the_loop_adds_a_norm_and_what_mixes(mix: str, numbers: int) -> None:
    model = system(width=64, mix=mix)
    assert sum(p.numel() for p in model.head.parameters()) == numbers


@pytest.mark.parametrize(("mean_steps", "cap", "mean", "once"), [(4, 12, 4.93, 0.058), (3, 9, 3.93, 0.103)])
def test_steps_are_poisson_lognormal_plus_one_and_capped(mean_steps: int, cap: int, mean: float, once: float) -> None:
    head, source = system(mean_steps=mean_steps).head, generator()
    drawn = np.array([head.draw_steps(source) for _ in range(20_000)])
    assert (drawn.min(), drawn.max()) == (1, cap)
    assert abs(drawn.mean() - mean) < 0.06
    assert abs((drawn == 1).mean() - once) < (0.005 if mean_steps == 4 else 0.0065)


@pytest.mark.parametrize(("scheme", "most", "mean"), [("poisson", 8, 3.97), ("uniform", 8, 4.5), ("fixed", 4, 4)])
def test_no_law_of_steps_gives_none(scheme: str, most: int, mean: float) -> None:
    head, source = system(mean_steps=4, step_scheme=scheme).head, generator()
    drawn = np.array([head.draw_steps(source) for _ in range(4_000)])
    assert (drawn.min(), drawn.max()) == ((4, 4) if scheme == "fixed" else (1, most))
    assert abs(drawn.mean() - mean) < 0.12


def test_noise_is_cut_at_three_deviations_and_drawn_for_every_token_and_channel() -> None:
    head = system().head
    noise = head.draw_start(20_000, 8, generator())
    assert 8.5 < noise.abs().max() <= 9
    assert noise.std().item() == pytest.approx(2.96, rel=0.01)
    assert noise.mean().item() == pytest.approx(0, abs=0.03)
    assert len(noise.flatten().unique()) > 0.9 * noise.numel()
    assert torch.equal(head.draw_start(20_000, 8, generator()), noise)
    assert not torch.equal(head.draw_start(20_000, 8, generator(1)), noise)
    assert (system(start_scale=0).head.draw_start(5, 8, generator()) == 0).all()


def test_noise_at_test_belongs_to_the_position_whoever_else_is_in_the_batch() -> None:
    model = system().eval()
    assert torch.equal(system(table_seed=1).head.table, system(table_seed=1).head.table)
    assert not torch.equal(system(table_seed=1).head.table, system(table_seed=2).head.table)
    together = model.head.think(model.backbone, packed(ROWS))
    assert torch.equal(model.head.think(model.backbone, packed(ROWS)), together)
    first = 0
    for row in ROWS:
        alone = model.head.think(model.backbone, packed([row]))
        torch.testing.assert_close(together[first : first + len(row)], alone, atol=1e-6, rtol=0)
        first += len(row)


def test_noise_at_test_is_saved_with_the_model() -> None:
    one, other = system(table_seed=1).eval(), system(table_seed=2).eval()
    other.restore(one.tensors())
    batch = packed(ROWS)
    assert torch.equal(other.head.think(other.backbone, batch), one.head.think(one.backbone, batch))


def test_the_answer_over_several_noise_tables_is_their_mean() -> None:
    model, batch = system(test_draws=3).eval(), packed(ROWS)
    one = system().eval()
    each = []
    for table in model.head.table:
        one.head.table.copy_(table[None])
        each.append(one.head.answer(one.head.think(one.backbone, batch)))
    together = model.head.answer(model.head.think(model.backbone, batch))
    torch.testing.assert_close(together, torch.stack(each).mean(0), atol=1e-6, rtol=0)
    assert not torch.allclose(together, each[0], atol=1e-3)


@pytest.mark.parametrize("start", [{"test_start": "zero"}, {"start": "zero"}])
def test_one_step_from_zero_is_the_plain_network_with_a_norm_between(start: dict[str, object]) -> None:
    """With untouched gains and layers that end in their norm, that norm changes nothing either."""
    model, batch = system(n_layers=3, **start).eval(), packed(ROWS)
    backbone, head = model.backbone, model.head
    thought = head.think(backbone, batch, 1)[:, 0]
    lower = backbone.encode(backbone.embed(batch), batch, stop=1).h_QD
    torch.testing.assert_close(thought, backbone.encode(head.norm(lower), batch, start=1).h_QD, atol=1e-6, rtol=0)
    plain = backbone.encode(backbone.embed(batch), batch).h_QD
    torch.testing.assert_close(thought, plain, atol=1e-6, rtol=0)
    with torch.no_grad():
        head.norm.weight[0] = 3
    assert not torch.allclose(head.think(backbone, batch, 1)[:, 0], plain, atol=1e-2)


def test_noise_in_training_only_is_a_setting() -> None:
    model = system(test_start="zero")
    assert (model.head.draw_start(9, 8, generator()) != 0).any()
    model = system(start="zero")
    assert (model.head.draw_start(9, 8, generator()) == 0).all()


def test_layers_add_nothing_that_depends_on_position_or_item() -> None:
    backbone = system(n_layers=3).eval().backbone
    batch, other = packed(ROWS), packed([[item % ITEMS + 1 for item in row] for row in ROWS])
    x = torch.randn(batch.rows.n_tokens, 8, generator=generator())
    for start in range(4):
        assert backbone.encode(x, batch, start=start, stop=start).h_QD is x
        for stop in range(start, 4):
            ours = backbone.encode(x, batch, start=start, stop=stop).h_QD
            assert torch.equal(ours, backbone.encode(x, other, start=start, stop=stop).h_QD)
    constant = torch.ones(5, 8)  # equal inputs at every position: attention has nothing else to tell them apart by
    made = backbone.encode(constant, packed([[1, 2, 3, 4, 5]])).h_QD
    torch.testing.assert_close(made, made[:1].expand(5, 8), atol=1e-6, rtol=0)


def test_mean_sum_and_the_learned_mean_begin_equal() -> None:
    add, linear, batch = system().double().eval(), system(mix="linear").double().eval(), packed(ROWS)
    z, h = torch.randn(2, batch.rows.n_tokens, 8, generator=generator(), dtype=torch.float64)
    mean = add.head.refined(add.backbone, batch, z, h)
    torch.testing.assert_close(add.backbone.encode(add.head.norm(z + h), batch, start=1).h_QD, mean, atol=1e-10, rtol=0)
    torch.testing.assert_close(linear.head.refined(linear.backbone, batch, z, h), mean, atol=1e-12, rtol=0)
    with torch.no_grad():
        linear.head.gate.fill_(math.log(3))  # g = 3/4
    expected = linear.backbone.encode(linear.head.norm(0.75 * z + 0.25 * h), batch, start=1).h_QD
    torch.testing.assert_close(linear.head.refined(linear.backbone, batch, z, h), expected, atol=1e-12, rtol=0)


def test_a_projection_mixes_both_and_a_state_alone_sees_the_history_once() -> None:
    concat, state, batch = system(mix="concat").eval(), system(mix="state").eval(), packed(ROWS)
    z, h = torch.randn(2, batch.rows.n_tokens, 8, generator=generator())
    mixed = torch.cat([z, h], 1) @ concat.head.join.weight.T + concat.head.join.bias
    expected = concat.backbone.encode(concat.head.norm(mixed), batch, start=1).h_QD
    torch.testing.assert_close(concat.head.refined(concat.backbone, batch, z, h), expected, atol=1e-6, rtol=0)

    backbone, expected = state.backbone, state.head.history(state.backbone, batch)
    for made in state.head.trajectory(backbone, batch, 3, z):
        expected = backbone.encode(state.head.norm(expected), batch, start=1).h_QD
        torch.testing.assert_close(made, expected, atol=1e-6, rtol=0)


def test_a_gate_begins_as_the_plain_network_whatever_the_number_of_steps() -> None:
    """Then input = H + w (Z' - H), Z' = Z at the root mean square of H, and no norm; w has a gradient from the first step on."""
    model, batch = system(n_layers=3, mix="gate").double().eval(), packed(ROWS)
    backbone, head = model.backbone, model.head
    plain = backbone.encode(backbone.embed(batch), batch).h_QD
    for made in head.think(backbone, batch, 5).unbind(1):
        torch.testing.assert_close(made, plain, atol=1e-10, rtol=0)
    assert torch.autograd.grad(head.think(backbone, batch, 2)[:, -1].sin().sum(), head.gate)[0] != 0

    with torch.no_grad():
        head.gate.fill_(0.3)
    z, h = torch.randn(2, batch.rows.n_tokens, 8, generator=generator(), dtype=torch.float64)
    sizes = [x.square().mean(1, keepdim=True).add(1e-6).sqrt() for x in (z, h)]
    expected = backbone.encode(h + 0.3 * (z / sizes[0] * sizes[1] - h), batch, start=1).h_QD
    torch.testing.assert_close(head.refined(backbone, batch, z, h), expected, atol=1e-10, rtol=0)
    assert not head.refined(backbone, batch, torch.zeros_like(z), h).isnan().any()  # start=zero


@pytest.mark.parametrize("mix", ["add", "linear", "concat", "gate"])
def test_a_coarser_history_is_mixed_with_noise_in_float32(mix: str) -> None:
    """Under bfloat16 layers that do not end in a norm give states coarser than the noise."""
    model, batch = system(mix=mix), packed(ROWS)
    z, h = torch.randn(2, batch.rows.n_tokens, 8, generator=generator())
    for one, other in ((z, h.bfloat16()), (z.bfloat16(), h), (z.bfloat16(), h.bfloat16())):
        with torch.autocast("cpu", torch.bfloat16):
            coarse = model.head.refined(model.backbone, batch, one, other)
        torch.testing.assert_close(coarse.float(), model.head.refined(model.backbone, batch, z, h), atol=0.1, rtol=0)


def test_the_history_is_normalised_where_layers_do_not_end_in_their_norm() -> None:
    model, batch = system().eval(), packed(ROWS)
    assert not model.head.settled
    settled = system(norm_history=True).eval()
    assert settled.head.settled
    expected = F.layer_norm(model.head.history(model.backbone, batch), (8,))
    torch.testing.assert_close(settled.head.history(settled.backbone, batch), expected, atol=1e-6, rtol=0)
    model.backbone.post_norm = False
    assert small_head("lares", model.backbone).settled


LONG = [[1, 2], [3, 4, 5, 6], [7, 8, 9, 10, 11, 12, 13, 14]]
"""At a length of 4 the last user has 3 inputs too many."""


def by_target(model: ItemRecommender, rows: TrainingRows, steps: int) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
    """Z_1 .. Z_k behind each target's history, and the next-item loss; noise belongs to (user, position)."""
    table = torch.randn(len(LONG) + 1, rows.max_length, 8, generator=generator(), dtype=torch.float64) * 3
    batch = whole(rows)
    start = table[torch.from_numpy(batch.users_B).long()[batch.rows.row_N], batch.rows.position_N]
    z_NKD = torch.stack(list(model.head.trajectory(model.backbone, batch, steps, start)), 1)
    loss = model.score.loss(z_NKD[batch.at_Q, -1], batch.targets_Q)
    return dict(zip(batch.place_Q.tolist(), z_NKD[batch.at_Q], strict=True)), loss


@pytest.mark.parametrize("window", ["last", "exact"])
@pytest.mark.parametrize(
    ("backbone", "pre_layers"), [("sasrec", 0), ("sasrec", 1), ("gru4rec", 1), ("hstu", 1), ("lru", 1)]
)
def test_every_position_at_once_equals_one_row_a_prefix(window: str, backbone: str, pre_layers: int) -> None:
    """States of every step, loss and gradient; for users who fit under both rules, for longer ones under the exact one."""
    model = small_system(backbone, "lares", ITEMS, changes={"pre_layers": pre_layers}, n_layers=2).double().eval()
    users = LONG[:2] if window == "last" else LONG
    packed_Z, packed_loss = by_target(model, training(users, 4, window=window, times=True), 3)
    prefix_Z, prefix_loss = by_target(model, training(users, 4, every_position=False, times=True), 3)
    assert packed_Z.keys() == prefix_Z.keys()
    same([packed_Z[place] for place in prefix_Z], list(prefix_Z.values()), 1e-10)
    torch.testing.assert_close(packed_loss, prefix_loss, atol=1e-10, rtol=0)
    ours, theirs = gradients(packed_loss, model), gradients(prefix_loss, model)
    assert all((gradient != 0).any() for gradient in ours)
    same(ours, theirs, 1e-10)


def test_the_last_window_cuts_the_history_of_early_targets_of_long_users() -> None:
    model = system().double().eval()
    cut, _ = by_target(model, training(LONG, 4, window="last"), 3)
    prefix, _ = by_target(model, training(LONG, 4, every_position=False), 3)
    equal = {place: torch.allclose(cut[place], prefix[place], atol=1e-10) for place in cut}
    assert set(prefix) - set(cut) == {7, 8, 9}
    assert equal == {1: True, 3: True, 4: True, 5: True, 10: False, 11: False, 12: False, 13: True}


@pytest.mark.parametrize("what", ["item", "noise"])
def test_what_comes_later_changes_nothing_before_it(what: str) -> None:
    model, later = system(n_layers=3).eval(), 4
    items = [3, 1, 4, 1, 5, 9, 2]
    start = torch.randn(7, 8, generator=generator()) * 3
    before = list(model.head.trajectory(model.backbone, packed([items]), 4, start))
    if what == "item":
        items[later] = 12
    else:
        start = start.index_fill(0, torch.tensor([later]), 1.0)
    for one, other in zip(before, model.head.trajectory(model.backbone, packed([items]), 4, start), strict=True):
        torch.testing.assert_close(other[:later], one[:later], atol=1e-6, rtol=0)
        assert ((other - one)[later:].abs().amax(1) > 1e-5).all()


def test_neighbours_and_their_noise_change_nothing() -> None:
    model = system().eval()
    batch = packed(ROWS)
    start = torch.randn(batch.rows.n_tokens, 8, generator=generator())
    *_, together = model.head.trajectory(model.backbone, batch, 4, start)
    for first, row in zip(batch.rows.starts, ROWS, strict=True):
        here = slice(first, first + len(row))
        *_, alone = model.head.trajectory(model.backbone, packed([row]), 4, start[here])
        torch.testing.assert_close(together[here], alone, atol=1e-6, rtol=0)


def test_a_longer_chain_cut_short_is_the_shorter_chain() -> None:
    model = system(mean_steps=4).eval()
    _, batch = last_batch(ROWS, 12)
    four, sixteen = (model.head.think(model.backbone, batch, steps) for steps in (4, 16))
    assert (four.shape, sixteen.shape) == ((4, 4, 8), (4, 16, 8))
    assert torch.equal(sixteen[:, :4], four)
    assert torch.equal(model.head.think(model.backbone, batch), four)
    assert torch.equal(model.head.answer(sixteen), sixteen[:, 15])
    assert system(mean_steps=4, test_steps=6).head.think(model.backbone, batch).shape[1] == 6


def test_two_evaluations_of_one_model_give_the_same_counts() -> None:
    model = system(dropout=0.5)
    asked = queries(random_users(50, 6))
    one, other = evaluate(model, asked, CPU), evaluate(model.train(), asked, CPU)
    assert one.frame().equals(other.frame())


def test_the_core_is_one_set_of_weights_whose_gradient_is_the_sum_over_its_steps() -> None:
    model, batch, steps = system(n_layers=3).double().train(), packed(ROWS), 3
    start = torch.randn(batch.rows.n_tokens, 8, generator=generator(), dtype=torch.float64)
    *_, shared = model.head.trajectory(model.backbone, batch, steps, start)
    below, *copies = (copy.deepcopy(model) for _ in range(steps + 1))
    h, unrolled = below.head.history(below.backbone, batch), start
    for one in copies:
        unrolled = one.head.refined(one.backbone, batch, unrolled, h)
    torch.testing.assert_close(unrolled, shared, atol=1e-12, rtol=0)
    parts = [gradients(unrolled.sin().sum(), one) for one in (below, *copies)]
    same(gradients(shared.sin().sum(), model), [sum(part) for part in zip(*parts, strict=True)], 1e-12)
    core = [name.startswith("backbone.layers.1") for name, _ in model.named_parameters()]
    assert all((g != 0).any() for part in parts[1:] for g, is_core in zip(part, core, strict=True) if is_core)


@pytest.mark.parametrize("kept", [3, 7, 2, 1])
def test_the_gradient_goes_back_through_the_last_steps_only(kept: int) -> None:
    model, batch = system(backprop_steps=kept).double(), packed(ROWS)
    start = torch.randn(batch.rows.n_tokens, 8, generator=generator(), dtype=torch.float64)
    *_, made = model.head.trajectory(model.backbone, batch, 3, start)
    h, expected = model.head.history(model.backbone, batch), start
    for i in (1, 2, 3):
        expected = model.head.refined(model.backbone, batch, expected.detach() if 3 - i + 1 == kept else expected, h)
    torch.testing.assert_close(made, expected, atol=1e-12, rtol=0)
    ours = gradients(made.sin().sum(), model)
    same(ours, gradients(expected.sin().sum(), model), 1e-12)
    *_, free = system().double().head.trajectory(model.backbone, batch, 3, start)
    whole_way = gradients(free.sin().sum(), model.backbone)
    cut = gradients(made.sin().sum(), model.backbone)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(cut, whole_way, strict=True)) == (kept >= 3)


# --- early exit -------------------------------------------------------------------------------------------------------


def test_a_row_stops_once_its_asked_state_settles_and_repeats_its_last_thought() -> None:
    rng = np.random.default_rng(5)
    users = [rng.integers(1, ITEMS + 1, n).tolist() for n in (2, 3, 3, 5, 6, 8, 9, 12)]
    tolerance, steps = 0.1, 8
    free, model = system().eval(), system(exit_tolerance=tolerance).eval()
    _, batch = last_batch(users, 12)
    every = free.head.think(free.backbone, batch, steps)
    before = torch.cat([free.head.table[0][batch.rows.position_N][batch.at_Q][:, None], every[:, :-1]], 1)
    settled = (every - before).norm(dim=2) < tolerance * before.norm(dim=2)
    expected, exits = every.clone(), []
    for q in range(len(users)):
        exits.append(int(settled[q].nonzero()[0, 0]))
        expected[q, exits[q] :] = every[q, exits[q]]
    assert len(set(exits)) > 1
    assert free.head.taken_Q is None
    lengths, encode = [], model.backbone.encode

    def encoding(x: torch.Tensor, *args: object, **kinds: object) -> object:
        lengths.append(len(x))
        return encode(x, *args, **kinds)

    model.backbone.encode = encoding
    torch.testing.assert_close(model.head.think(model.backbone, batch, steps), expected, atol=1e-5, rtol=0)
    assert model.head.taken_Q.tolist() == [last + 1 for last in exits]
    sizes = batch.rows.lengths
    assert lengths[1:] == [
        size for i in range(max(exits) + 1) if (size := sum(sizes[q] for q in range(8) if exits[q] >= i))
    ]


def test_with_a_tolerance_neighbours_change_nothing_either() -> None:
    model = system(exit_tolerance=0.1).eval()
    users = [[1, 2, 3], [4, 5, 6, 7, 8], [9, 1], [3, 2, 1, 4, 5, 6, 7]]
    places, batch = last_batch(users, 12)
    together = model.head.think(model.backbone, batch, 8)
    for row, place in enumerate(places):
        alone = model.head.think(model.backbone, last_batch([users[place]], 12)[1], 8)
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)


def test_a_change_is_a_share_of_the_state_before() -> None:
    """Noise is about three times as long as a state behind a norm, so a first step changes it by less than 1.5 times its length."""
    model, (_, batch) = system(exit_tolerance=1.5).eval(), last_batch(ROWS, 12)
    model.head.think(model.backbone, batch, 4)
    assert model.head.taken_Q.tolist() == [1, 1, 1, 1]


def test_of_several_noise_tables_the_longest_chain_counts() -> None:
    model, (_, batch) = system(exit_tolerance=0.1, test_draws=3).eval(), last_batch(random_users(40, 6), 12)
    one, each = system(exit_tolerance=0.1).eval(), []
    for table in model.head.table:
        one.head.table.copy_(table[None])
        one.head.think(one.backbone, batch, 8)
        each.append(one.head.taken_Q)
    model.head.think(model.backbone, batch, 8)
    assert torch.equal(model.head.taken_Q, torch.stack(each).amax(0))
    assert not torch.equal(model.head.taken_Q, each[-1])


def test_users_of_a_run_with_a_tolerance_have_their_steps_and_no_step_is_no_choice() -> None:
    model = system(exit_tolerance=0.1).eval()
    asked = queries(random_users(30, 6))
    ranks = evaluate(model, asked, CPU)
    assert ranks.steps is not None
    assert set(ranks.steps) <= {1, 2, 3, 4}
    told = thinking(model, asked, ranks, [1, 256], CPU)
    assert told is not None
    assert told["mean"] == ranks.steps.mean()
    assert not any("plain" in name for name in told)


def test_no_tolerance_is_exactly_off() -> None:
    model = system(exit_tolerance=0.0).eval()
    _, batch = last_batch(ROWS, 12)
    states = list(model.head.trajectory(model.backbone, batch, 8, model.head.table[0][batch.rows.position_N]))
    expected = torch.stack([z[batch.at_Q] for z in states], 1)
    assert torch.equal(model.head.think(model.backbone, batch, 8), expected)


# --- learning ---------------------------------------------------------------------------------------------------------


def two_back(users: int, seed: int) -> list[list[int]]:
    """Each user repeats a pair of items: the next item is always the one two back."""
    return [[*pair] * 3 for pair in random_users(users, 2, seed=seed)]


def trained(
    model: ItemRecommender, rows: list[list[int]], asked: list[list[int]], folder: Path, **settings: object
) -> tuple[float, list[dict[str, Any]]]:
    """HR@1 on ``asked`` after training on ``rows``, and the log."""
    table = {"batch_size": 200, "learning_rate": 0.01, "patience": 99, **settings}
    job = Job(histories(rows), queries(asked, "valid"), stage_settings(table, model.stages), 0, CPU, folder, Watcher())
    fit(model, job, Store(folder / "state"))
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return evaluate(model, queries(asked), CPU).means(["hr@1"])["hr@1"], log


def test_a_rule_is_learned_in_pre_training(tmp_path: Path) -> None:
    """As well as the plain backbone learns it: more than nine in ten."""
    model = system(width=16)
    hits, _ = trained(model, two_back(150, 1), two_back(100, 2), tmp_path, epochs=25, rpt={"epochs": 0})
    assert hits > 0.9


def test_noise_is_not_learned(tmp_path: Path) -> None:
    model, asked = system(width=16), random_users(400, 6, seed=2)
    short = {"epochs": 3, "batch_size": 200}
    hits, _ = trained(model, random_users(100, 6, seed=1), asked, tmp_path, **short, rpt=short)
    assert hits < 1 / ITEMS + 3 * np.sqrt(1 / ITEMS / 400)


def test_reinforcement_raises_the_reward_and_does_not_where_rewards_are_shuffled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While targets are still unlikely. Where they are not, log-probabilities fall faster at misses than they rise at hits."""
    pairs = random_users(100, 2, 200, seed=1)

    def gain(name: str) -> float:
        """Of the mean reward, from the first epoch of rpt to its last three."""
        torch.manual_seed(0)
        model = system(width=16, n_items=200, kl_weight=0, filter_top=0)
        (tmp_path / name).mkdir()
        rpt = {"epochs": 6, "batch_size": 100, "learning_rate": 0.002, "dropout": 0.0, "patience": 99}
        rows = [[*pair] * 3 for pair in pairs]
        _, log = trained(model, rows, rows[:20], tmp_path / name, epochs=3, rpt=rpt)
        rewards = [line["diagnostics"]["reward_mean"] for line in log if line["stage"] == "rpt"]
        return float(np.mean(rewards[-3:])) - rewards[0]

    earned = gain("earned")
    shuffling, source = lares.advantages, generator()

    def shuffled(reward_PG: torch.Tensor) -> torch.Tensor:
        order = torch.rand(reward_PG.shape, generator=source).argsort(1)
        return shuffling(reward_PG.gather(1, order))

    monkeypatch.setattr(lares, "advantages", shuffled)
    assert earned > 0.03
    assert gain("shuffled") < 0.01


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_backbone_without_a_layer_left_for_the_core_is_refused() -> None:
    for layers, below in ((2, 2), (1, None)):
        with pytest.raises(ValueError, match="no layer is left for the core"):
            system(n_layers=layers, pre_layers=below)
    assert system(n_layers=1, pre_layers=0).head.pre == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"group": 1}, {"mean_steps": 0}, {"test_steps": 0}, {"anchors": 0}, {"rpt_steps": 0}, {"contrast_tau": 0},
        {"pre_layers": -1}, {"backprop_steps": 0}, {"filter_top": -1}, {"filter_draws": 0}, {"tla": -0.1},
        {"test_draws": 2, "start": "zero"}, {"test_draws": 2, "test_start": "zero"}, {"test_draws": 2, "mix": "state"},
        {"sla": -0.1}, {"kl_weight": -1}, {"start_sd": -1}, {"exit_tolerance": -0.1}, {"align_ramp_epochs": -1},
    ],
)  # fmt: skip
def test_settings_without_sense_are_refused_by_name(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        LARES.Config(**bad)
