"""Every head on backbones that train on one row a prefix: partners, masks, filter, losses row by row, steps at test."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recbench.data.batching import Batch
from recbench.evaluation.evaluate import evaluate
from recbench.reasoning import lares, rearec_prl
from recbench.reasoning.base import Context
from recbench.recommender import ItemRecommender
from recbench.registry import HEADS
from tests.systems import CPU, packed, prefix_backbones, queries, small_system, training_batch, training_rows

USERS = [[1, 2, 3], [4, 2, 3, 2], [5, 6, 1, 3, 7], [8, 9, 1, 2, 3, 4, 5, 6]]
N_PREFIXES = sum(len(user) - 1 for user in USERS)
LONG = [list(range(1, 17)), [3, 5, 3, 7]]
BACKBONES = pytest.mark.parametrize("backbone", prefix_backbones())


def context(model: ItemRecommender, stage: str, rows: list[list[int]] = USERS) -> Context:
    told = Context(
        stage, torch.Generator().manual_seed(5), training_rows(model, rows), epoch=1, step=1, epochs=2, steps=1
    )
    told.reference = copy.deepcopy(model).eval().requires_grad_(False)
    return told


def one_row(batch: Batch, row: int) -> Batch:
    return batch.only(np.array([row]))[0]


@BACKBONES
@pytest.mark.parametrize(
    ("head", "changes"),
    [
        ("none", {}),
        ("pause", {}),
        ("rearec-erl", {}),
        ("rearec-prl", {"contrast": 0.0}),
        ("diffuse", {"grpo": 0.0, "denoise_share": 0.0}),
    ],
)
def test_losses_are_the_mean_over_prefixes_taken_one_at_a_time(
    backbone: str, head: str, changes: dict[str, object]
) -> None:
    model = small_system(backbone, head, changes=changes).double().eval()
    batch = training_batch(model, LONG)
    assert len(batch.rows) == 15 + 3
    together = model.losses(batch, context(model, "train", LONG))
    alone = [model.losses(one_row(batch, row), context(model, "train", LONG)) for row in range(len(batch.rows))]
    for name, value in together.items():
        mean = torch.stack([terms[name] for terms in alone]).mean()
        torch.testing.assert_close(value, mean, atol=1e-10, rtol=0)


@BACKBONES
def test_a_looped_state_is_that_of_its_prefix_alone(backbone: str) -> None:
    model = small_system(backbone, "lares", changes={"start": "zero"}).double().eval()
    batch = training_batch(model, LONG)
    zeros = torch.zeros(batch.rows.n_tokens, 8, dtype=torch.float64)
    together = [z[batch.at_Q] for z in model.head.trajectory(model.backbone, batch, 3, zeros)]
    for row in range(len(batch.rows)):
        single = one_row(batch, row)
        alone = model.head.trajectory(model.backbone, single, 3, zeros[: single.rows.n_tokens])
        for z, among_others in zip(alone, together, strict=True):
            torch.testing.assert_close(z[single.at_Q[0]], among_others[row], atol=1e-10, rtol=0)


@BACKBONES
def test_noise_at_test_has_a_row_for_every_token_of_the_longest_row(backbone: str) -> None:
    model = small_system(backbone, "lares").eval()
    assert model.head.table.shape == (1, model.backbone.longest_row, 8)
    asked = queries([list(range(1, 18))])
    assert evaluate(model, asked, CPU).n_nan == 0


@BACKBONES
def test_partners_are_histories_before_the_same_target_of_whom_they_say(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_system(backbone, "lares").train()
    told, batch, asked = context(model, "spt"), training_batch(model, USERS), []

    def watched(self: lares.LARES, x: Tensor, y: Tensor, users: tuple[Tensor, Tensor], target_A: Tensor) -> Tensor:
        asked.append((users, target_A))
        return kept(self, x, y, users, target_A)

    kept = lares.LARES._aligned
    monkeypatch.setattr(lares.LARES, "_aligned", watched)
    terms = model.losses(batch, told)
    assert {"next_item", "tla"} <= terms.keys()
    (own, other), target_A = asked[0]
    followed = {(user + 1, item) for user, items in enumerate(USERS) for item in items[1:]}
    assert len(own) == N_PREFIXES
    assert {(int(u), int(y)) for u, y in zip(own, target_A, strict=True)} == followed
    assert {(int(u), int(y)) for u, y in zip(other, target_A, strict=True)} <= followed
    shared = [int(y) for y, a, b in zip(target_A, own, other, strict=True) if a != b]
    assert shared
    assert set(shared) <= {1, 2, 3, 6}  # what more than one user goes on to


@BACKBONES
def test_contrasts_never_take_a_prefix_of_the_same_user_for_a_negative(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden: list[Tensor] = []

    def watched(x: Tensor, y: Tensor, tau: float, hidden_AA: Tensor) -> Tensor:
        hidden.append(hidden_AA)
        return x.sum() * 0

    for module, head, stage, changes in (
        (rearec_prl, "rearec-prl", "train", {"mask_same_target": False}),
        (lares, "lares", "spt", {"partner": "self", "tla": 1.0}),
    ):
        monkeypatch.setattr(module, "info_nce", watched)
        model = small_system(backbone, head, changes=changes).train()
        batch = training_batch(model, USERS)
        model.losses(batch, context(model, stage))
        users = torch.from_numpy(batch.users_B.astype(np.int64))
        assert len(set(batch.users_B.tolist())) < len(batch.rows)
        assert torch.equal(hidden[-1], users[:, None] == users[None, :])


def test_a_user_is_not_alike_to_itself() -> None:
    told = Context("spt", torch.Generator(), None)
    z_AKD = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]], [[1.0, 0.0]]])
    lares.note_changes(
        told, z_AKD, torch.tensor([1, 2, 1, 3])
    )  # rows 0 and 2 are user 1's, 1 and 3 are at right angles
    assert told.noted() == {"alike@1": 0.0}
    lares.note_changes(told, z_AKD[:2], torch.tensor([1, 1]))
    assert told.noted() == {}


@BACKBONES
def test_the_filter_keeps_prefixes_by_their_target_and_rpt_trains_on_them(backbone: str) -> None:
    model = small_system(backbone, "lares", changes={"filter_top": 10}).train()
    told = context(model, "rpt")
    model.begin(told)
    facts = told.facts["filter"]
    assert facts["of"] == N_PREFIXES
    assert 0 < facts["kept"] <= N_PREFIXES
    kept = model.head._kept
    assert kept is not None
    assert not kept[[0, 3, 7, 12]].any()  # the first event of a user is nobody's target
    assert {"policy", "kl"} <= model.losses(training_batch(model, USERS), told).keys()


@BACKBONES
@pytest.mark.parametrize("head", [head for head in HEADS.entries() if HEADS.load(head).scalable])
def test_a_number_of_steps_given_at_test_is_taken(backbone: str, head: str) -> None:
    model = small_system(backbone, head)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    asked = queries([[1, 2, 3, 4], [5, 6], list(range(1, 16)), [9, 8, 7]] * 4)
    lists = {steps: evaluate(model, asked, CPU, top=5, steps=steps).top_scores for steps in (1, 2, 4)}
    assert not np.allclose(lists[1], lists[2], atol=1e-3)  # type: ignore[arg-type]
    assert not np.allclose(lists[2], lists[4], atol=1e-3)  # type: ignore[arg-type]


@BACKBONES
def test_recommending_sees_the_history_as_training_does(backbone: str) -> None:
    model = small_system(backbone).eval()
    batch = training_batch(model, [[4, 9, 2, 7]])
    asked = replace(one_row(batch, 2), targets_Q=None)
    expected = model.head.answer(model.head.think(model.backbone, asked))
    row = packed([[4, 9, 2] + [0] * model.closed], at=[2 + model.closed])
    torch.testing.assert_close(model.head.answer(model.head.think(model.backbone, row)), expected)
    ranked = evaluate(model, queries([[4, 9, 2, 7]]), CPU, top=20)
    scores = expected @ model.score.items().t()
    assert ranked.top_items is not None
    assert ranked.top_items[0, 0] == int(scores.argmax()) + 1
