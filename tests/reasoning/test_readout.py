"""LASAR that reads its answer off a token behind its last thought: rows of all depths side by side, N = 0, what each loss sees."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from recbench.data.batching import Batch
from recbench.evaluation.evaluate import evaluate
from recbench.reasoning.base import Context
from recbench.reasoning.lasar_rl import Reinforcement
from recbench.recommender import Reasoned
from recbench.registry import BACKBONES, HEADS
from tests.generators.spelled import GENERATORS, N_ITEMS, small
from tests.reasoning.test_heads import USERS
from tests.systems import CPU, neural_backbones, packed, queries, small_system, training_batch, training_rows

DEPTHS = [0, 1, 2, 4, 8]
ROWS = [[3], [5, 6], [7, 8, 9], [1, 2, 3, 4], [4, 3, 2, 1, 11, 12, 13, 14]]
AT = [0, 2, 5, 9, 17]
ALL = [*neural_backbones(), *GENERATORS]
STILL = {"dropout": 0.0, "attention_dropout": 0.0}


def system(name: str = "sasrec", **head: object) -> Reasoned:
    """A system that has been taught to think, without dropout."""
    settings = {"readout": "end"} | head
    if BACKBONES.entries()[name].family != "generator":
        return small_system(name, "lasar", N_ITEMS, changes=settings, **STILL).eval()
    model = small(name, "lasar", settings=settings, beam=10).eval()
    model.head.thinks.fill_(True)
    return model


def told(model: Reasoned, stage: str) -> Context:
    reference = None if stage == "ground" else copy.deepcopy(model).eval().requires_grad_(False)
    rows = training_rows(model, USERS)
    return Context(
        stage, torch.Generator().manual_seed(5), rows, reference=reference, epoch=1, step=1, epochs=2, steps=1
    )


def losses(model: Reasoned, stage: str) -> dict[str, Tensor]:
    context = told(model, stage)
    model.begin(context)
    return model.losses(training_batch(model, USERS), context)


def seen(model: Reasoned, batch: Batch) -> tuple[Any, ...]:
    """What a rollout begins from."""
    backbone = model.backbone
    encoded = backbone.encode(backbone.embed(batch), batch, at_Q=batch.at_Q, remember=True)
    return backbone, encoded.memory, encoded.h_QD, batch.at_Q


def log_probs(model: Reasoned, batch: Batch, u: Tensor) -> Tensor:
    """Of every item under each answer."""
    with model.score.step(torch.Generator(), batch.targets_Q, batch):
        return model.score.log_prob(u, torch.arange(1, N_ITEMS + 1).expand(len(u), -1)).sum(-1)


@pytest.mark.parametrize("name", ALL)
def test_rows_of_all_depths_side_by_side_are_each_row_alone(name: str) -> None:
    model, batch = system(name), packed(ROWS, at=AT)
    with torch.no_grad():
        thoughts, answers = model.head.rollout(*seen(model, batch), torch.tensor(DEPTHS))
        given = log_probs(model, batch, answers)
        for p, (row, n) in enumerate(zip(ROWS, DEPTHS, strict=True)):
            alone = packed([row], at=[len(row) - 1])
            z, u = model.head.rollout(*seen(model, alone), torch.tensor([n]))
            torch.testing.assert_close(thoughts[p, : n + 1], z[0], atol=1e-5, rtol=0)
            assert torch.equal(thoughts[p, n:], thoughts[p, n].expand(len(thoughts[p]) - n, -1))
            torch.testing.assert_close(answers[p], u[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(given[p], log_probs(model, alone, u)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_the_token_stands_right_behind_the_last_thought(name: str) -> None:
    """As if it were thought n + 1, fed a vector that no thought is fed."""
    model, batch = system(name), packed(ROWS, at=AT)
    with torch.no_grad():
        for n in (0, 3):
            _, answers = model.head.rollout(*seen(model, batch), torch.full((5,), n))
            backbone, memory, h, at = seen(model, batch)
            for t in range(n):
                h = backbone.extend(memory, model.head.feed(h, t), at)
            by_hand = backbone.extend(memory, model.head.end.vector.expand(5, -1), at)
            torch.testing.assert_close(answers, by_hand, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_what_every_depth_would_answer_is_what_it_does_answer(name: str) -> None:
    model, batch = system(name), packed(ROWS, at=AT)
    with torch.no_grad():
        thoughts, every = model.head.every_depth(*seen(model, batch), 4)
        for n in range(5):
            z, u = model.head.rollout(*seen(model, batch), torch.full((5,), n))
            torch.testing.assert_close(every[:, n], u, atol=1e-5, rtol=0)
        torch.testing.assert_close(thoughts, z, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_without_a_step_it_is_the_model_of_ground_rank_for_rank(name: str) -> None:
    model, asked = system(name, depth="fixed", fixed_depth=0), queries(USERS)
    ground = system(name)
    ground.load_state_dict(model.state_dict())
    ground.head.thinks.fill_(False)
    plain = system(name, readout="last", depth="fixed", fixed_depth=0)
    plain.backbone.load_state_dict(model.backbone.state_dict())
    ours, theirs = evaluate(model, asked, CPU).frame(), evaluate(ground, asked, CPU).frame()
    assert ours.equals(theirs)
    assert not ours.equals(evaluate(plain, asked, CPU).frame())


def test_ground_and_keep_read_off_the_token_too() -> None:
    model = system(cuts=0)
    batch = training_batch(model, USERS)
    _, answers = model.head.rollout(*seen(model, batch), torch.zeros(len(batch.at_Q), dtype=torch.long))
    by_hand = model.score.loss(answers, batch.targets_Q)
    torch.testing.assert_close(losses(model, "ground")["next_item"], by_hand)
    torch.testing.assert_close(losses(model, "align")["keep"], by_hand)
    plain = system(readout="last")
    plain.backbone.load_state_dict(model.backbone.state_dict())
    assert not torch.allclose(losses(plain, "ground")["next_item"], by_hand)


def test_a_plain_run_is_no_first_stage_of_it() -> None:
    LASAR = HEADS.load("lasar")
    assert LASAR.begins_as(LASAR.Config(readout="end")) == {}


def test_without_it_there_is_nothing_new_to_train_or_to_store() -> None:
    assert not any("end." in name for name in system(readout="last").tensors())
    assert [name for name in system().tensors() if "end." in name] == ["head.end.vector"]


@pytest.mark.parametrize("name", ALL)
def test_every_stage_has_finite_gradients_beside_rows_that_stopped(name: str) -> None:
    model = system(name, cuts=0)
    for stage in model.stages:
        model.zero_grad()
        terms = losses(model, stage.name)
        torch.stack(list(terms.values())).sum().backward()
        found = {part: p.grad for part, p in model.named_parameters() if p.grad is not None}
        assert all(gradient.isfinite().all() for gradient in found.values())
        assert found["head.end.vector"].any()


def test_anchors_meet_thoughts_and_never_the_token() -> None:
    model = system(cuts=0)
    before = {stage: losses(model, stage) for stage in ("align", "rl")}
    with torch.no_grad():
        model.head.end.vector.mul_(-3)
    after = {stage: losses(model, stage) for stage in ("align", "rl")}
    assert torch.equal(before["align"]["align"], after["align"]["align"])
    assert torch.equal(before["rl"]["terminal"], after["rl"]["terminal"])
    assert not torch.equal(before["align"]["next_item"], after["align"]["next_item"])
    assert before["rl"]["terminal"] > 0


@pytest.mark.parametrize("baseline", ["paired", "exact"])
def test_a_depth_is_paid_for_what_it_would_answer(baseline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = system(cuts=0, depth_baseline=baseline, max_depth=3)
    context = told(model, "rl")
    model.begin(context)
    batch = training_batch(model, USERS)
    every = torch.arange(len(batch.at_Q))
    asked: list[Tensor] = []
    pay_at = Reinforcement._pay_at
    monkeypatch.setattr(Reinforcement, "_pay_at", lambda self, u: (asked.append(u), pay_at(self, u))[1])
    with torch.no_grad():
        model.losses(batch, context)
        _, wanted = model.head.every_depth(*seen(model, batch), 3)
    if baseline == "exact":
        torch.testing.assert_close(torch.stack(asked, 1), wanted[:, 1:], atol=1e-5, rtol=0)
    else:
        (other,) = asked
        apart = (other[:, None] - wanted[:, 1:]).abs().amax(2)
        assert (apart.amin(1) < 1e-5).all()
        assert set(apart.argmin(1).tolist()) == {0, 1, 2}
    assert len(every) == len(asked[0])


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "bsarec"])
def test_a_thinker_gives_its_thoughts_and_then_the_token(name: str) -> None:
    model, batch = system(name, depth="random"), packed(ROWS, at=AT)
    with torch.no_grad():
        z = model.head.think(model.backbone, batch)
        depths = model.head.taken_Q
        thoughts, answers = model.head.rollout(*seen(model, batch), depths)
    assert len(set(depths.tolist())) > 2
    assert z.shape[1] == int(depths.max()) + 2
    for p, n in enumerate(depths.tolist()):
        assert torch.equal(z[p, : n + 1], thoughts[p, : n + 1])
        assert torch.equal(z[p, n + 1 :], answers[p].expand(z.shape[1] - n - 1, -1))
