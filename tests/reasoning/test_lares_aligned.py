"""LARES' first stage by hand: the next item, and thoughts aligned with each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recbench.reasoning.contrast import info_nce
from tests.reasoning.looping import (
    FIXED,
    Recorded,
    context,
    generator,
    gradients,
    random_users,
    same,
    system,
    training,
    whole,
)


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
    one_partner = (torch.tensor([1, 2, 4]), torch.tensor([3, 3, 5]))
    torch.testing.assert_close(head._aligned(x, y, one_partner, targets), expected)
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


def test_every_anchor_is_told_the_user_of_its_own_partner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets 10 to 15 stand twice each; partners come sorted by length, anchors by user."""
    rows = training([[1, 2, 3, 4, 10], [5, 11, 12], [6, 10], [7, 8, 9, 13, 14], [16, 11], [17, 18, 19, 12, 15], [20, 13],
                     [3, 5, 14], [2, 15]])  # fmt: skip
    model, told = system(sla=0, **FIXED), []
    monkeypatch.setattr(model.head, "_aligned", lambda x, y, users, target: told.append((users, target)) or x.sum())
    model.head.losses(model.backbone, whole(rows), model.score, context(model, rows))
    (((own, other), target),) = told
    items, user = rows.histories.items, np.repeat(rows.histories.users, rows.histories.lengths)
    for item in range(10, 16):
        (anchors,) = (target == item).nonzero(as_tuple=True)
        both = set(user[items == item].tolist())
        assert {(own[a].item(), other[a].item()) for a in anchors} == {tuple(both), tuple(both)[::-1]}


def test_cosines_know_no_length() -> None:
    head = system(similarity="cos").head
    x, y = torch.randn(2, 6, 8, generator=generator())
    users, targets = (torch.arange(6), torch.arange(6, 12)), torch.arange(6)
    alike = head._aligned(x, y, users, targets)
    torch.testing.assert_close(head._aligned(5 * x, y / 3, users, targets), alike)
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    torch.testing.assert_close(alike, (info_nce(x, y, 1.0) + info_nce(y, x, 1.0)) / 2)


def test_cosines_are_taken_in_float32_where_the_encoder_runs_in_bfloat16() -> None:
    head = system(similarity="cos", contrast_tau=0.07).head
    x, y = torch.randn(2, 6, 8, generator=generator()).bfloat16()
    users, targets = (torch.arange(6), torch.arange(6, 12)), torch.arange(6)
    expected = head._aligned(x.float(), y.float(), users, targets)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head._aligned(x, y, users, targets), expected)


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
    assert noted["alike@3"] == pytest.approx(users)
    alike = F.cosine_similarity(z[:, 0], z[:, 1], dim=-1).mean().item()
    assert noted["similarity@2"] == pytest.approx(alike, abs=1e-5)  # of the same two thoughts as change@2
    assert noted["steps"] == 3


@pytest.mark.parametrize("weights", [{"tla": 0, "sla": 0}, {"tla": 0.1, "sla": 0.1}, {"share_pass": False}], ids=str)
def test_what_thoughts_look_like_is_noted_whatever_the_weights(weights: dict[str, object]) -> None:
    model, rows = system(dropout=0.3, **{**FIXED, **weights}), training(random_users(30, 6))
    around = context(model.train(), rows, step=1, steps=3)
    model.head.losses(model.backbone, whole(rows), model.score, around)
    noted = around.noted()
    assert set(noted) == {
        "steps", "similarity@2", "similarity@3", "change@2", "change@3", "alike@1", "alike@2", "alike@3",
        "noise@1", "noise@2", "noise@3",
    }  # fmt: skip
    assert noted["noise@1"] > noted["noise@2"] > noted["noise@3"] > 0  # it contracts as long as nothing is trained
    assert model.head.training
    around.step = 2
    model.head.losses(model.backbone, whole(rows), model.score, around)
    assert not any(name.startswith("noise") for name in around.noted())
