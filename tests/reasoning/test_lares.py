"""LARES by hand: the recurrence, both stages' losses, the filter, early exit."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from recbench.data.batching import Batch, TrainingRows
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.evaluate import evaluate
from recbench.reasoning import lares
from recbench.reasoning.base import Context
from recbench.reasoning.contrast import info_nce
from recbench.reasoning.lares import LARES, k3
from recbench.reasoning.rewards import hit, ndcg
from recbench.recommender import ItemRecommender
from recbench.training.checkpoint import Store
from recbench.training.loop import Job, Watcher, fit
from recbench.training.settings import stage_settings
from tests.systems import CPU, histories, last_batch, packed, queries, small_head, small_system

ITEMS = 20
ROWS = [[1, 2], [3, 4, 5], [6, 7, 8, 9, 10], [2, 4, 6, 8, 1, 3, 5, 7]]
FIXED = {"step_scheme": "fixed", "mean_steps": 3}


def system(
    *,
    dropout: float = 0.0,
    n_items: int = ITEMS,
    width: int = 8,
    n_layers: int = 2,
    max_length: int = 12,
    **head: object,
) -> ItemRecommender:
    """A small SASRec with LARES, without dropout unless asked for."""
    sizes = {"width": width, "n_layers": n_layers, "max_length": max_length}
    rates = {"dropout": dropout, "attention_dropout": dropout}
    return small_system("sasrec", "lares", n_items, changes=head, **sizes, **rates)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def training(rows: list[list[int]], max_length: int = 12, **kind: object) -> TrainingRows:
    return TrainingRows(histories(rows), **{"max_length": max_length, "window": "last", "every_position": True, **kind})


def whole(rows: TrainingRows) -> Batch:
    """All rows in one batch."""
    (batch,) = rows.batches(10**6, np.random.default_rng(0), CPU)
    return batch


def context(model: ItemRecommender, rows: TrainingRows, stage: str = "spt", seed: int = 0, **more: object) -> Context:
    """What the loop hands to a head; the reference is the model as it stands."""
    frozen = copy.deepcopy(model).eval().requires_grad_(False) if stage == "rpt" else None
    return Context(stage, generator(seed), rows, **{"reference": frozen, "epoch": 1, **more})


def random_users(users: int, length: int, n_items: int = ITEMS, seed: int = 0) -> list[list[int]]:
    return np.random.default_rng(seed).integers(1, n_items + 1, (users, length)).tolist()


def gradients(loss: torch.Tensor, model: torch.nn.Module) -> list[torch.Tensor]:
    """Of every parameter, zeros where none arrives."""
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), found, strict=True)]


def same(ones: list[torch.Tensor], others: list[torch.Tensor], atol: float) -> None:
    for one, other in zip(ones, others, strict=True):
        torch.testing.assert_close(one, other, atol=atol, rtol=0)


class Recorded:
    """Every trajectory that a head makes from now on: its batch, and Z_1 .. Z_k with their graph."""

    def __init__(self, head: LARES) -> None:
        self.batches: list[Batch] = []
        self.states: list[list[torch.Tensor]] = []
        self.training: list[bool] = []
        made = head.trajectory

        def trajectory(
            backbone: torch.nn.Module, batch: Batch, steps: int, start: torch.Tensor
        ) -> Iterator[torch.Tensor]:
            self.batches.append(batch)
            self.training.append(backbone.training or head.training)
            self.states.append(kept := [])
            for z in made(backbone, batch, steps, start):
                kept.append(z)
                yield z

        head.trajectory = trajectory

    @property
    def steps(self) -> list[int]:
        return [len(states) for states in self.states]


# --- the recurrence ---------------------------------------------------------------------------------------------------


def test_parameters_beside_the_items_are_those_of_the_published_network() -> None:
    sizes = {"width": 64, "inner": 256, "max_length": 20, "n_layers": 4}
    model = small_system("sasrec", "lares", ITEMS, changes={"pre_layers": 2}, **sizes)
    assert model.n_parameters - model.backbone.items.weight.numel() == 201_472


@pytest.mark.parametrize(("mix", "numbers"), [("add", 128), ("state", 128), ("linear", 129), ("concat", 8_384)])
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
@pytest.mark.parametrize("pre_layers", [0, 1])
def test_every_position_at_once_equals_one_row_a_prefix(window: str, pre_layers: int) -> None:
    """States of every step, loss and gradient; for users who fit under both rules, for longer ones under the exact one."""
    model = system(pre_layers=pre_layers).double().train()
    users = LONG[:2] if window == "last" else LONG
    packed_Z, packed_loss = by_target(model, training(users, 4, window=window), 3)
    prefix_Z, prefix_loss = by_target(model, training(users, 4, every_position=False), 3)
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


# --- pre-training -----------------------------------------------------------------------------------------------------


def test_the_contrast_of_two_orthogonal_views_by_hand() -> None:
    two = torch.eye(2)
    assert info_nce(two, two, 1.0).item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert info_nce(two, 2 * two, 0.5).item() == pytest.approx(math.log(1 + math.exp(-4)), abs=1e-6)


def test_a_contrast_without_negatives_is_zero() -> None:
    x = torch.randn(5, 3, generator=generator(), requires_grad=True)
    assert info_nce(x[:1], x[:1], 1.0).item() == 0
    masked = info_nce(x, x.flip(0), 1.0, torch.ones(5, 5, dtype=torch.bool))
    assert masked.item() == 0
    assert torch.equal(torch.autograd.grad(masked, x)[0], torch.zeros(5, 3))


def test_a_hidden_pair_never_enters_its_sum_and_the_others_do() -> None:
    x, y = torch.randn(2, 3, 4, generator=generator())
    hidden = torch.zeros(3, 3, dtype=torch.bool)
    hidden[0, 2] = True
    moved = y.clone()
    moved[2] += 1

    def row(a: int, other: torch.Tensor) -> float:
        logits = (x @ other.T).masked_fill(hidden, -torch.inf)
        return F.cross_entropy(logits[a : a + 1], torch.tensor([a])).item()

    assert row(0, y) == row(0, moved)
    for views in (y, moved):
        assert info_nce(x, views, 1.0, hidden).item() == pytest.approx(np.mean([row(a, views) for a in range(3)]))


def test_positions_of_one_user_are_no_negatives_of_each_other_on_either_side() -> None:
    """Anchors of users 1, 2 and 4, whose partners are of users 3, 1 and 5: the first two touch user 1 both."""
    head = system().head
    x, y = torch.randn(2, 3, 8, generator=generator())
    users, targets = (torch.tensor([1, 2, 4]), torch.tensor([3, 1, 5])), torch.tensor([6, 7, 8])

    hidden = torch.zeros(3, 3, dtype=torch.bool)
    hidden[0, 1] = hidden[1, 0] = True
    expected = (info_nce(x, y, 1.0, hidden) + info_nce(y, x, 1.0, hidden)) / 2
    torch.testing.assert_close(head._aligned(x, y, users, targets), expected)
    everyone = (info_nce(x, y, 1.0) + info_nce(y, x, 1.0)) / 2
    torch.testing.assert_close(system(mask_same_user=False).head._aligned(x, y, users, targets), everyone)
    equal_targets = torch.tensor([6, 6, 8])
    torch.testing.assert_close(
        system(mask_same_user=False, mask_same_target=True).head._aligned(x, y, users, equal_targets), expected
    )


PAIRS = [[1, 9, 10], [2, 9, 11], [3, 10, 12], [4, 11, 12]]
"""Every target stands twice, each time with another user: its partner is known."""


def test_pre_training_is_next_item_and_two_contrasts_both_ways_by_hand() -> None:
    """Values and gradients: nothing is detached on either side."""
    model, rows = system(mask_same_user=False, tla=0.2, sla=0.7, contrast_tau=2.0, **FIXED).double(), training(PAIRS)
    batch, seen = whole(rows), Recorded(model.head)
    terms = model.head.losses(model.backbone, batch, model.score, context(model, rows))
    assert list(terms) == ["next_item", "tla", "sla"]
    assert seen.steps == [3, 3]

    own, other = ([z[batch.at_Q] for z in states] for batch, states in zip(seen.batches, seen.states, strict=True))
    row_of = {place: row for row, place in enumerate(seen.batches[1].place_Q.tolist())}
    items = rows.histories.items
    partner = [row_of[next(q for q in row_of if q != p and items[q] == items[p])] for p in batch.place_Q.tolist()]
    views = {"tla": (0.2, other[-1][partner]), "sla": (0.7, None)}

    def contrast(y: torch.Tensor) -> torch.Tensor:
        return (info_nce(own[-1], y, 2.0) + info_nce(y, own[-1], 2.0)) / 2

    steps = [0.7 * contrast(own[t]) for t in range(3)]
    nearest = min(steps, key=lambda value: abs(value.item() - terms["sla"].item()))
    expected = {
        "next_item": F.cross_entropy(own[-1] @ model.backbone.item_vectors()[1:].T, batch.targets_Q - 1),
        "tla": 0.2 * contrast(views["tla"][1]),
        "sla": nearest,
    }
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name], atol=1e-10, rtol=0)
        same(gradients(term, model), gradients(expected[name], model), 1e-10)


@pytest.mark.parametrize(("exclude_last", "possible"), [(False, {1, 2, 3}), (True, {1, 2})])
def test_step_alignment_takes_every_step(exclude_last: bool, possible: set[int]) -> None:
    model, rows = system(tla=0, mask_same_user=False, sla_exclude_last=exclude_last, **FIXED), training(PAIRS)
    batch, taken = whole(rows), set()
    for seed in range(30):
        seen = Recorded(model.head)
        term = model.head.losses(model.backbone, batch, model.score, context(model, rows, seed=seed))["sla"].item()
        own = [z[batch.at_Q] for z in seen.states[0]]
        values = [0.25 * (info_nce(own[-1], z, 1.0) + info_nce(z, own[-1], 1.0)).item() for z in own]
        taken.add(1 + min(range(3), key=lambda t: abs(values[t] - term)))
        assert min(abs(value - term) for value in values) < 1e-5
        del model.head.trajectory
    assert taken == possible


def test_one_step_has_no_earlier_one_to_align_with() -> None:
    model, rows = system(mean_steps=1, step_scheme="fixed"), training(PAIRS)
    assert list(model.head.losses(model.backbone, whole(rows), model.score, context(model, rows))) == [
        "next_item",
        "tla",
    ]


@pytest.mark.parametrize(
    ("changes", "names", "calls"),
    [
        ({"tla": 0, "sla": 0}, ["next_item"], [4]),
        ({"tla": 0}, ["next_item", "sla"], [4]),
        ({"sla": 0}, ["next_item", "tla"], [4, 4]),
        ({}, ["next_item", "tla", "sla"], [4, 4]),
        ({"share_pass": False}, ["next_item", "tla", "sla"], [4, 4, 4]),
        ({"share_pass": False, "tla": 0, "sla": 0}, ["next_item"], [4]),
        ({"partner": "self"}, ["next_item", "tla", "sla"], [4, 4]),
    ],
)
def test_a_term_that_is_off_costs_no_pass(changes: dict[str, object], names: list[str], calls: list[int]) -> None:
    """A pass of three steps encodes four times: once below, three times in the core."""
    model, rows = system(**FIXED, **changes), training(PAIRS)
    encode, count = model.backbone.encode, [0]

    def counting(*args: object, **kinds: object) -> object:
        count[0] += 1
        return encode(*args, **kinds)

    model.backbone.encode = counting
    terms = model.head.losses(model.backbone, whole(rows), model.score, context(model, rows))
    assert list(terms) == names
    assert count[0] == sum(calls)


@pytest.mark.parametrize(("share_pass", "same_step", "draws"), [(True, True, 1), (False, True, 2), (True, False, 2)])
def test_both_views_take_the_same_steps_unless_told_otherwise(share_pass: bool, same_step: bool, draws: int) -> None:
    model, rows = system(share_pass=share_pass, same_step=same_step, n_layers=2), training(PAIRS)
    batch, drawn, differ, draw = whole(rows), [], [], model.head.draw_steps
    model.head.draw_steps = lambda source: drawn.append(draw(source)) or drawn[-1]
    seen = Recorded(model.head)
    for seed in range(20):
        model.head.losses(model.backbone, batch, model.score, context(model, rows, seed=seed))
        differ.append(seen.steps[-1] != seen.steps[-2])
        assert len(seen.steps) == 2 + (not share_pass)
        seen.states.clear()
    assert len(drawn) == 20 * draws
    assert any(differ) == (not same_step)


def test_only_so_many_anchors_are_aligned_and_all_positions_are_trained() -> None:
    model, rows = system(anchors=3, **FIXED), training(random_users(6, 5))
    batch, seen = whole(rows), Recorded(model.head)
    drawn = set()
    for seed in range(20):
        terms = model.head.losses(model.backbone, batch, model.score, context(model, rows, seed=seed))
        expected = model.score.loss(seen.states[-2][-1][batch.at_Q], batch.targets_Q)
        torch.testing.assert_close(terms["next_item"], expected)
        assert len(seen.batches[-1].rows) == 3
        drawn |= set(rows.histories.items[seen.batches[-1].place_Q])
    assert drawn == set(batch.targets_Q.tolist())


def test_a_batch_of_one_user_has_nothing_to_contrast() -> None:
    for mask, zero in ((True, True), (False, False)):
        model, rows = system(mask_same_user=mask, **FIXED), training([[1, 2, 3, 4, 5, 6]])
        terms = model.head.losses(model.backbone, whole(rows), model.score, context(model, rows))
        assert (terms["tla"].item() == 0, terms["next_item"].item() == 0) == (zero, False)


def test_a_partner_of_the_same_user_is_no_negative() -> None:
    """Two users with one target each, the same: each one's partner is the other's position."""
    rows = training([[1, 2], [3, 2]])
    for mask, zero in ((True, True), (False, False)):
        model = system(mask_same_user=mask, **FIXED)
        terms = model.head.losses(model.backbone, whole(rows), model.score, context(model, rows))
        assert (terms["tla"].item() == 0) == zero
        assert terms["sla"].item() != 0


def test_cosines_know_no_length() -> None:
    head = system(similarity="cos").head
    x, y = torch.randn(2, 6, 8, generator=generator())
    users, targets = (torch.arange(6), torch.arange(6, 12)), torch.arange(6)
    alike = head._aligned(x, y, users, targets)
    torch.testing.assert_close(head._aligned(5 * x, y / 3, users, targets), alike)
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    torch.testing.assert_close(alike, (info_nce(x, y, 1.0) + info_nce(y, x, 1.0)) / 2)


def test_alignment_weights_rise_over_their_epochs() -> None:
    rows = training(PAIRS)
    values = []
    for ramp, epoch in ((0, 1), (4, 1), (4, 4), (4, 9)):
        model = system(align_ramp_epochs=ramp, **FIXED)
        terms = model.head.losses(model.backbone, whole(rows), model.score, context(model, rows, epoch=epoch))
        values.append((terms["tla"].item(), terms["sla"].item()))
    full = pytest.approx(values[0])
    assert values[1:] == [pytest.approx([value / 4 for value in values[0]]), full, full]


def test_a_partner_of_its_own_is_the_same_position_under_other_noise() -> None:
    model, rows = system(partner="self", sla=0, mask_same_user=False, **FIXED), training(PAIRS)
    batch, seen = whole(rows), Recorded(model.head)
    term = model.head.losses(model.backbone, batch, model.score, context(model, rows))["tla"]
    assert seen.batches == [batch, batch]
    one, other = (states[-1][batch.at_Q] for states in seen.states)
    assert not torch.allclose(one, other, atol=1e-3)
    torch.testing.assert_close(term, 0.05 * (info_nce(one, other, 1.0) + info_nce(other, one, 1.0)))


def test_what_the_states_do_is_noted() -> None:
    model, rows = system(**FIXED), training(PAIRS)
    batch, seen, around = whole(rows), Recorded(model.head), context(model, rows)
    model.head.losses(model.backbone, batch, model.score, around)
    noted = around.noted()
    z = torch.stack([state[batch.at_Q] for state in seen.states[0]], 1)
    change = ((z[:, 1] - z[:, 0]).norm(dim=1) / z[:, 0].norm(dim=1)).mean().item()
    assert noted["change@2"] == pytest.approx(change)
    users = F.cosine_similarity(z[:, -1], z[:, -1].roll(4, 0)).mean().item()  # 8 positions, 2 a user: 4 away is another
    assert noted["alike"] == pytest.approx(users)
    assert noted["steps"] == 3
    assert set(noted) == {"change@2", "change@3", "alike", "steps", "similarity@1", "similarity@2"}


# --- reinforcement ----------------------------------------------------------------------------------------------------


class Attempts:
    """What a step of rpt asks of its scores: log-probabilities as leaves of the graph, and where the targets were placed."""

    def __init__(self, model: ItemRecommender, around: Context) -> None:
        self.policy: list[torch.Tensor] = []
        self.reference: list[torch.Tensor] = []
        self.scored: list[torch.Tensor] = []
        self.ranked: list[torch.Tensor] = []
        self.counts: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.targets: list[torch.Tensor] = []
        self._leaves(model.score, self.policy)
        self._leaves(around.reference.score, self.reference)
        place = model.score.place

        def placing(u: torch.Tensor, target: torch.Tensor, within: int) -> tuple[torch.Tensor, torch.Tensor]:
            self.ranked.append(u)
            self.targets.append(target)
            self.counts.append(place(u, target, within=within))
            return self.counts[-1]

        model.score.place = placing

    def _leaves(self, score: object, kept: list[torch.Tensor]) -> None:
        made = score.log_prob

        def log_prob(u: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
            self.scored.append(u)
            kept.append(made(u, items).detach().requires_grad_())
            return kept[-1]

        score.log_prob = log_prob

    def rewards(self, reward: object = hit, k: int = 10) -> torch.Tensor:
        return torch.stack([reward(above, tied, k) for above, tied in self.counts], 1)


def reinforced(
    dropout: float = 0.0, users: int = 8, seed: int = 0, **head: object
) -> tuple[ItemRecommender, Batch, Context]:
    """A system at the start of rpt, one batch of it, and what stands around."""
    model = system(dropout=dropout, n_items=30, **head)
    rows = training(random_users(users, 6, 30, seed=2))
    return model.train(), whole(rows), context(model, rows, "rpt", seed)


def by_pass(flat: torch.Tensor, steps: list[int], positions: int) -> list[torch.Tensor]:
    parts = flat.flatten().split([positions * k for k in steps])
    return [part.view(positions, k) for part, k in zip(parts, steps, strict=True)]


def test_the_fence_is_convex_and_zero_where_both_agree() -> None:
    assert k3(torch.tensor([math.log(2), -math.log(2), 0])).tolist() == pytest.approx([0.3069, 0.1931, 0], abs=5e-5)


@pytest.mark.parametrize("reward", ["recall", "ndcg"])
def test_the_gradient_of_every_log_probability_is_its_signed_weight(reward: str) -> None:
    """dL/dlp = -(A - beta (1 - q/p)) / (positions G k_g): each pass counts the same, whatever its number of steps."""
    model, batch, around = reinforced(dropout=0.2, kl_weight=0.7, reward=reward, mean_steps=3)
    seen, asked = Recorded(model.head), Attempts(model, around)
    terms = model.head.losses(model.backbone, batch, model.score, around)
    assert list(terms) == ["policy", "kl"]
    sum(terms.values()).backward()
    assert len(set(seen.steps)) > 1

    for states, u in zip(seen.states, asked.ranked, strict=True):
        assert torch.equal(u, states[-1][batch.at_Q])
    earned = asked.rewards(ndcg if reward == "ndcg" else hit)
    assert (earned.amin(1) < earned.amax(1)).sum() > 5
    advantage = (earned - earned.mean(1, keepdim=True)) / (earned.std(1, keepdim=True) + 1e-4)
    (lp,), (lq,), P, G = asked.policy, asked.reference, len(batch.at_Q), 4
    fences = []
    parts = (by_pass(flat, seen.steps, P) for flat in (lp.detach(), lq.detach(), lp.grad))
    for g, (p, q, made) in enumerate(zip(*parts, strict=True)):
        expected = -(advantage[:, g, None] - 0.7 * (1 - torch.exp(q - p))) / (P * G * seen.steps[g])
        torch.testing.assert_close(made, expected, atol=1e-7, rtol=1e-5)
        fences.append((torch.exp(q - p) - (q - p) - 1).mean())
    assert terms["policy"].item() == pytest.approx(0, abs=1e-6)
    assert terms["kl"].item() == pytest.approx(0.7 * torch.stack(fences).mean().item(), rel=1e-5)
    assert around.noted()["kl"] == pytest.approx(torch.stack(fences).mean().item(), rel=1e-5)


def test_the_reference_thinks_as_long_without_dropout_and_gradient() -> None:
    model, batch, around = reinforced(dropout=0.5, start="zero", mean_steps=3)
    seen, theirs = Recorded(model.head), Recorded(around.reference.head)
    terms = model.head.losses(model.backbone, batch, model.score, around)
    assert theirs.steps == seen.steps
    assert not any(theirs.training)
    assert all(seen.training)
    for g, steps in enumerate(seen.steps):
        expected = list(model.eval().head.trajectory(model.backbone, batch, steps, seen.states[g][0].new_zeros(40, 8)))
        same(theirs.states[g], expected, 1e-6)
    assert not any(z.requires_grad for states in theirs.states for z in states)
    terms["kl"].backward()
    assert all(p.grad is None for p in around.reference.parameters())


def test_equal_rewards_without_a_fence_move_nothing() -> None:
    model, batch, around = reinforced(dropout=0.3, kl_weight=0, reward_k=30)
    before = {name: tensor.clone() for name, tensor in model.tensors().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    terms = model.head.losses(model.backbone, batch, model.score, around)
    sum(terms.values()).backward()
    assert all(p.grad is not None and (p.grad == 0).all() for p in model.parameters())
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.tensors().items())
    assert around.noted()["no_signal"] == 1


@pytest.mark.parametrize(
    ("dropout", "share_start", "apart"), [(0.0, True, False), (0.0, False, True), (0.1, True, True)]
)
def test_policy_and_reference_agree_at_first_only_without_dropout_and_from_one_start(
    dropout: float, share_start: bool, apart: bool
) -> None:
    model, batch, around = reinforced(dropout=dropout, share_start=share_start)
    fence = model.head.losses(model.backbone, batch, model.score, around)["kl"]
    assert (fence.item() > 1e-6) == apart
    assert any((g != 0).any() for g in gradients(fence, model)) == apart
    if not apart:
        assert fence.item() == 0


def test_all_advantages_one_without_a_fence_is_plain_supervision_of_every_step() -> None:
    model, batch, around = reinforced(advantage="one", kl_weight=0, dropout=0.2)
    model.double()
    seen = Recorded(model.head)
    terms = model.head.losses(model.backbone, batch, model.score, around)
    assert list(terms) == ["policy"]
    assert terms["policy"].item() == pytest.approx(-1)
    table = model.backbone.item_vectors()[1:]
    passes = [
        torch.stack([F.cross_entropy(z[batch.at_Q] @ table.T, batch.targets_Q - 1) for z in states]).mean()
        for states in seen.states
    ]
    same(gradients(terms["policy"], model), gradients(torch.stack(passes).mean(), model), 1e-12)


def test_a_step_holds_no_tensor_of_positions_and_items() -> None:
    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            made = func(*args, **(kwargs or {}))
            for tensor in made if isinstance(made, tuple | list) else (made,):
                if isinstance(tensor, torch.Tensor):
                    self.numbers = max(self.numbers, tensor.numel())
            return made

    model = system(n_items=2_000, mean_steps=6, step_scheme="fixed")
    model.score._chunk_rows = 8
    rows = training(random_users(20, 6, 2_000))
    batch, around = whole(rows), context(model, rows, "rpt")
    with Largest() as largest:
        sum(model.head.losses(model.backbone, batch, model.score, around).values()).backward()
    positions, steps = len(batch.at_Q), 6
    assert largest.numbers < 4 * positions * steps * 8 + 8 * 2_001 * 2 < positions * 2_000


def test_depths_of_a_group_differ_unless_told_otherwise() -> None:
    for same_depth in (True, False):
        model, batch, around = reinforced(same_depth=same_depth)
        seen, groups = Recorded(model.head), []
        for _ in range(5):
            model.head.losses(model.backbone, batch, model.score, around)
            groups.append(set(seen.steps))
            assert len(seen.steps) == 4
            seen.states.clear()
        assert all(len(group) == 1 for group in groups) == same_depth
        assert len(set.union(*groups)) > 1


def test_a_few_steps_of_each_pass_may_be_scored_and_the_last_is_rewarded_still() -> None:
    model, batch, around = reinforced(rpt_steps=2, mean_steps=5, step_scheme="fixed", group=2)
    drawn = set()
    for _ in range(15):
        seen, asked = Recorded(model.head), Attempts(model, around)
        model.head.losses(model.backbone, batch, model.score, around)
        policy, reference = asked.scored
        P = len(batch.at_Q)
        assert len(policy) == len(reference) == 2 * P * 2
        for g, part in enumerate(policy.view(2, P, 2, 8)):
            steps = [
                next(i for i in range(5) if torch.equal(seen.states[g][i][batch.at_Q], part[:, j])) for j in (0, 1)
            ]
            assert steps[0] < steps[1]
            assert torch.equal(asked.ranked[g], seen.states[g][-1][batch.at_Q])
            drawn |= set(steps)
        del model.head.trajectory, model.score.place, model.score.log_prob, around.reference.score.log_prob
    assert drawn == {0, 1, 2, 3, 4}
    assert around.noted()["steps"] == 5


# --- the filter -------------------------------------------------------------------------------------------------------


class Placing:
    """A score that places targets as told: ``ranks`` by item, one for each call in turn."""

    def __init__(self, **ranks: object) -> None:
        self.ranks = {int(name.removeprefix("item")): rank for name, rank in ranks.items()}
        self.answers: list[torch.Tensor] = []

    def step(self, *_: object) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def place(self, u: torch.Tensor, target: torch.Tensor, within: int) -> tuple[torch.Tensor, torch.Tensor]:
        assert within in (99, 100)
        rank = torch.tensor([self.ranks[item][len(self.answers) % 3] for item in target.tolist()])
        self.answers.append(u)
        return (rank - 1) // 2, rank - 1 - (rank - 1) // 2  # half of what stands before it ties


FILTERED = [[7, 1, 2], [7, 3, 4], [7, 2, 1, 4], [7, 2]]
RANKED = {"item1": (100, 100, 100), "item2": (101, 101, 101), "item3": (900, 100, 900), "item4": (900, 900, 101)}


def filtered(**head: object) -> tuple[ItemRecommender, TrainingRows, Context, Placing]:
    model, rows, score = system(**head), training(FILTERED), Placing(**RANKED)
    around = context(model, rows, "rpt")
    model.head.begin(model.backbone, score, around)
    return model, rows, around, score


def test_a_target_in_the_top_hundred_once_in_three_draws_is_kept() -> None:
    model, rows, around, score = filtered()
    assert around.facts == {"filter": {"top": 100, "kept": 3, "of": 8, "share": 3 / 8}}
    assert len(score.answers) == 3
    asked = Attempts(model, around)
    model.head.losses(model.backbone, whole(rows), model.score, around)
    assert [sorted(target.tolist()) for target in asked.targets] == [[1, 1, 3]] * 4


def test_the_filter_looks_at_the_mean_number_of_steps_without_dropout_and_with_fresh_noise() -> None:
    for start in ("normal", "zero"):
        model, rows, score = (
            system(dropout=0.5, mean_steps=3, test_steps=7, start=start),
            training(FILTERED),
            Placing(**RANKED),
        )
        model.train()
        around, seen = context(model, rows, "rpt"), Recorded(model.head)
        model.head.begin(model.backbone, score, around)
        assert seen.steps == [3, 3, 3]
        assert not any(seen.training)
        assert model.backbone.training
        assert model.head.training
        one, other, _ = score.answers
        assert torch.equal(one, other) == (start == "zero")


def test_without_a_filter_every_position_is_kept() -> None:
    model, rows, around, score = filtered(filter_top=0)
    assert (score.answers, around.facts) == ([], {})
    asked = Attempts(model, around)
    model.head.losses(model.backbone, whole(rows), model.score, around)
    assert sorted(asked.targets[0].tolist()) == [1, 1, 2, 2, 2, 3, 4, 4]


def test_a_batch_without_a_kept_position_is_passed_over() -> None:
    model, rows, around, _ = filtered()
    batch, _, _ = whole(rows).only(np.array([0]))
    assert batch.targets_Q.tolist() == [2]
    assert model.head.losses(model.backbone, batch, model.score, around) == {}


def test_a_step_takes_at_most_so_many_positions() -> None:
    model, rows, around, _ = filtered(rpt_positions=2)
    asked = Attempts(model, around)
    for _ in range(10):
        model.head.losses(model.backbone, whole(rows), model.score, around)
    assert {len(target) for target in asked.targets} == {2}
    assert {item for target in asked.targets for item in target.tolist()} == {1, 3}


def test_a_filter_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(RecbenchError, match="No training position is left") as refused:
        filtered(filter_top=99)
    assert refused.value.code == Exit.RUN
    assert "top 99" in refused.value.why
    assert "head.filter_top=0" in refused.value.fix


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
    lengths, encode = [], model.backbone.encode

    def encoding(x: torch.Tensor, *args: object, **kinds: object) -> object:
        lengths.append(len(x))
        return encode(x, *args, **kinds)

    model.backbone.encode = encoding
    torch.testing.assert_close(model.head.think(model.backbone, batch, steps), expected, atol=1e-5, rtol=0)
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
    ],
)  # fmt: skip
def test_settings_without_sense_are_refused_by_name(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad)) if "tla" not in bad else "weights"):
        LARES.Config(**bad)
