"""Pause: extra steps that are told nothing, so that only their number is compared."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from recbench.data.batching import TrainingRows
from recbench.evaluation.evaluate import evaluate
from recbench.reasoning.base import Context
from recbench.training.checkpoint import Store
from recbench.training.loop import Job, Watcher, fit
from recbench.training.seeding import seed_everything
from recbench.training.settings import stage_settings
from tests.systems import CPU, histories, neural_backbones, packed, queries, small_backbone, small_head, small_system
from tests.training.test_learning import ITEMS, two_back

BACKBONES = neural_backbones()
ROWS = [[3], [5, 6], [7, 8, 9], [1, 2, 3, 4, 5]]


def context() -> Context:
    return Context("train", torch.Generator().manual_seed(5), None, epoch=1)


def test_the_tokens_have_dropout_in_training_alone() -> None:
    chain = small_head("pause", small_backbone("sasrec"), feed_dropout=0.4).chain
    dropped = chain.train().feed(torch.ones(500, 8), 0) == 0
    assert abs(dropped.double().mean() - 0.4) < 5 * math.sqrt(0.4 * 0.6 / dropped.numel())
    assert (chain.eval().feed(torch.ones(500, 8), 0) != 0).all()


def test_two_states_give_the_same_token_and_two_steps_different_ones() -> None:
    chain = small_head("pause", small_backbone("sasrec")).eval().chain
    one, other = torch.randn(2, 5, 8).unbind(0)
    assert torch.equal(chain.feed(one, 0), chain.feed(other, 0))
    assert torch.equal(chain.feed(one, 0), chain.feed(one, 0)[:1].expand(5, -1))
    assert not torch.allclose(chain.feed(one, 0), chain.feed(one, 1), atol=1e-2)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_pause_takes_as_many_extra_steps_as_it_is_set_to_and_the_last_state_answers(
    backbone: str, steps: int
) -> None:
    model = small_system(backbone, "pause", changes={"steps": steps}).eval()
    thoughts = model.head.think(model.backbone, packed(ROWS))
    assert thoughts.shape == (11, 1 + steps, 8)
    assert torch.equal(model.head.answer(thoughts), thoughts[:, steps])
    plain = model.backbone.encode(model.backbone.embed(packed(ROWS)), packed(ROWS)).h_QD
    torch.testing.assert_close(thoughts[:, 0], plain, atol=1e-6, rtol=0)


def test_a_pause_equals_history_and_learned_tokens_encoded_as_one_row() -> None:
    model = small_system(head="pause", changes={"steps": 3}).double().eval()
    items = [4, 7, 1]
    tokens = model.head.chain.norm(model.head.chain.step_embedding.weight)
    row = packed([[*items, 1, 1, 1]])
    x = torch.cat([model.backbone.embed(packed([items])), tokens])
    together = model.backbone.encode(x, row).h_QD[2:]
    thoughts = model.head.think(model.backbone, packed([items], at=[2]))
    torch.testing.assert_close(thoughts[0], together, atol=1e-12, rtol=0)


def test_only_the_last_state_is_supervised() -> None:
    model = small_system(head="pause").eval()
    thoughts = model.head.think(model.backbone, packed(ROWS))
    terms = model.losses(packed(ROWS), context())
    assert terms.keys() == {"next_item"}
    expected = model.score.loss(thoughts[:, -1], packed(ROWS).targets_Q)
    torch.testing.assert_close(terms["next_item"], expected, atol=1e-6, rtol=0)


def test_training_every_position_equals_one_row_a_prefix() -> None:
    model = small_system(head="pause").double().eval()
    gradients, losses = [], []
    for every_position in (True, False):
        rows = TrainingRows(histories(ROWS[1:]), max_length=12, window="last", every_position=every_position)
        losses.append(model.losses(next(rows.batches(99, np.random.default_rng(0), CPU)), context())["next_item"])
        gradients.append(torch.autograd.grad(losses[-1], list(model.parameters())))
    torch.testing.assert_close(*losses, atol=1e-10, rtol=0)
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, atol=1e-10, rtol=0)


def test_every_learned_token_gets_a_gradient() -> None:
    model = small_system(head="pause", changes={"steps": 3}).train()
    model.losses(packed(ROWS), context())["next_item"].backward()
    gradient = model.head.chain.step_embedding.weight.grad
    assert gradient.isfinite().all()
    assert (gradient.abs().sum(1) > 0).all()


def test_a_rule_is_learned_in_spite_of_pauses(tmp_path: Path) -> None:
    seed_everything(3)
    model = small_system("sasrec", "pause", ITEMS, width=16, dropout=0.0, attention_dropout=0.0)
    table = {"epochs": 25, "batch_size": 200, "learning_rate": 0.01, "patience": 25}
    asked = two_back(100, 2)
    stages = stage_settings(table, model.stages)
    job = Job(histories(two_back(150, 1)), queries(asked, "valid"), stages, 0, CPU, tmp_path, Watcher())
    fit(model, job, Store(tmp_path / "state"))
    assert evaluate(model, queries(asked), CPU).means(["hr@1"])["hr@1"] > 0.9
