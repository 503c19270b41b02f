"""Generators: what an item spelled code by code must keep, over every head."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from recbench import experiment
from recbench.comparison import Settings, compare
from recbench.config import parse_assignments
from recbench.data.batching import Batch
from recbench.data.dataset import open_dataset
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.evaluate import evaluate
from recbench.evaluation.metrics import parse
from recbench.experiment import Order
from recbench.reasoning.base import Context, Stage
from recbench.recommender import GeneratorRecommender, build
from recbench.registry import BACKBONES, HEADS, LOSSES
from recbench.runs.sources import read
from recbench.semantic_ids.table import SemanticIds
from recbench.settings import Asked, resolve
from recbench.trained import rank_again, rank_at_steps
from recbench.training.checkpoint import Store
from recbench.training.loop import Job, Watcher, fit
from recbench.training.seeding import seed_everything
from recbench.training.settings import stage_settings
from tests.reasoning.test_heads import USERS
from tests.run_folders import make_run, ranks
from tests.semantic_ids.spelling import random_table
from tests.systems import CPU, histories, packed, queries, training_batch, training_rows

N_ITEMS = 20
SMALL = ["backbone.width=8", "backbone.inner=16", "train.epochs=3", "train.batch_size=400", "train.learning_rate=0.01"]
GENERATORS = [name for name, entry in BACKBONES.entries().items() if entry.family == "generator"]
TABLE = random_table(N_ITEMS, (4, 3))
ROWS = [[3], [5, 6], [7, 8, 9], [1, 2, 3, 4, 5]]


def small(
    name: str = "sid-lm",
    head: str = "none",
    table: SemanticIds = TABLE,
    sizes: dict[str, object] | None = None,
    **loss: object,
) -> GeneratorRecommender:
    """A small generator with a head; no dropout."""
    torch.manual_seed(1)
    backbone = BACKBONES.load(name).Config(
        **{"width": 8, "n_heads": 2, "inner": 16, "dropout": 0.0, "attention_dropout": 0.0, **(sizes or {})}
    )
    config = LOSSES.load("spelling").Config(**loss)
    model = build(name, backbone, head, HEADS.load(head).Config(), table.n_items, "spelling", config, table)
    assert isinstance(model, GeneratorRecommender)
    for parameter in model.backbone.carried.parameters():  # zero at the start: then nothing of it is tested
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def told(model: GeneratorRecommender, stage: Stage) -> Context:
    first = stage.name == model.stages[0].name
    reference = None if first else copy.deepcopy(model).eval().requires_grad_(False)
    rows = training_rows(model, USERS)
    return Context(stage.name, torch.Generator().manual_seed(5), rows, reference, epoch=1, step=1, epochs=2, steps=1)


def exact(model: GeneratorRecommender, batch: Batch) -> Tensor:
    with model.backbone.about(batch), torch.no_grad():
        return model.score.exact(model.eval().answers(batch))


@pytest.mark.parametrize("head", HEADS.entries())
@pytest.mark.parametrize("name", GENERATORS)
def test_every_head_has_finite_losses_and_gradients_in_every_stage(name: str, head: str) -> None:
    model = small(name, head, beam=10)
    for stage in model.stages:
        if not stage.defaults.get("epochs", 1):
            continue
        context = told(model, stage)
        model.begin(context)
        losses = model.train().losses(training_batch(model, USERS), context)
        assert losses
        assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
        model.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        grads = [p.grad for p in model.backbone.parameters() if p.grad is not None]
        assert grads
        assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("head", HEADS.entries())
def test_a_row_ranks_the_same_alone_and_beside_others(head: str) -> None:
    model = small(head=head)
    together = exact(model, packed(ROWS, at=[0, 2, 5, 10]))
    for row, scores in zip(ROWS, together, strict=True):
        alone = exact(model, packed([row], at=[len(row) - 1]))[0]
        assert torch.allclose(alone, scores, atol=1e-5)


def test_what_comes_later_changes_nothing() -> None:
    model = small()
    before = exact(model, packed([[1, 2, 3, 4, 5]], at=[0, 1, 2]))
    after = exact(model, packed([[1, 2, 3, 19, 7]], at=[0, 1, 2]))
    assert torch.equal(before, after)


def test_one_pass_over_all_items_is_one_row_a_prefix() -> None:
    model = small()
    row = [4, 9, 2, 17, 6]
    whole = training_batch(model, [row])
    with model.backbone.about(whole):
        together = model.score.loss(model.answers(whole), whole.targets_Q)
    each = []
    for stop in range(1, len(row)):
        part = packed([row[:stop]], at=[stop - 1])
        with model.backbone.about(part):
            each.append(model.score.loss(model.answers(part), torch.tensor([row[stop]])))
    assert torch.allclose(together, torch.stack(each).mean(), atol=1e-5)


def test_a_spelling_beside_the_row_is_the_spelling_in_it() -> None:
    """With nothing carried from the answer, codes see what they would see as the next tokens of the row."""
    model = small().eval()
    torch.nn.init.zeros_(model.backbone.carried.weight)
    row, target = [4, 9, 2], 17
    batch = packed([row], at=[2])
    with model.backbone.about(batch), torch.no_grad():
        beside = model.score.log_prob(model.answers(batch), torch.tensor([[target]]))[0, 0]
    longer = packed([[*row, target]], at=[3])
    inner = model.backbone._codes(longer)
    with torch.no_grad():
        h_ND = model.backbone.over_codes.encode(model.backbone.over_codes.embed(inner), inner).h_QD
    first = len(row) * (len(TABLE) + 1)  # the <s> behind the row
    codes = TABLE.codes_VM[target].tolist()
    within = [model.backbone.read(h_ND[first + m, None], m).log_softmax(1)[0, code] for m, code in enumerate(codes)]
    assert torch.allclose(beside, torch.stack(within), atol=1e-5)


def test_log_probabilities_of_given_items_are_those_of_the_exact_search() -> None:
    model = small(head="rearec-erl")
    batch = packed(ROWS, at=[0, 2, 5, 10])
    items_NG = torch.arange(1, N_ITEMS + 1).expand(len(ROWS), -1)
    with model.backbone.about(batch), torch.no_grad():
        u_ND = model.eval().answers(batch)
        given = model.score.log_prob(u_ND, items_NG).sum(-1)
        assert torch.allclose(given, model.score.exact(u_ND), atol=1e-5)


def test_an_answer_may_stand_anywhere_if_it_says_where() -> None:
    model = small()
    batch = packed(ROWS, at=[0, 2, 5, 10])
    some = torch.tensor([3, 0, 3])
    targets = torch.tensor([[2], [7], [11]])
    with model.backbone.about(batch), torch.no_grad():
        u_ND = model.answers(batch)
        wanted = model.score.log_prob(u_ND, torch.arange(1, N_ITEMS + 1).expand(4, -1))[some, targets[:, 0] - 1]
        assert torch.allclose(model.score.at(some).log_prob(u_ND[some], targets)[:, 0], wanted, atol=1e-5)
        with pytest.raises(ValueError, match=r"say where"):
            model.score.log_prob(u_ND[some], targets)


def test_a_beam_as_wide_as_the_catalogue_ranks_as_exact_scoring() -> None:
    asked = queries([[1, 2, 3, 4], [5, 6, 7], [8, 9, 1, 2, 3], [4, 5], [1, 2, 1]])
    wide, full = small(beam=N_ITEMS - 1), small(scoring="exact")
    assert wide.rank_cutoff == N_ITEMS - 1
    assert full.rank_cutoff is None
    found, known = evaluate(wide, asked, CPU), evaluate(full, asked, CPU)
    below = known.above < N_ITEMS - 1
    assert np.array_equal(found.above[below], known.above[below])
    assert np.array_equal(found.above_unseen, known.above_unseen)


def test_a_target_outside_of_the_beam_is_last_and_unseen_lists_are_as_long_as_the_beam() -> None:
    asked = queries([[1, 2, 3, 4], [5, 6, 7], [8, 9, 1, 2, 3]])
    model, full = small(beam=5), small(scoring="exact")
    found, known = evaluate(model, asked, CPU), evaluate(full, asked, CPU)
    for rule, last in (("above", N_ITEMS - 1), ("above_unseen", None)):
        a, b = getattr(found, rule), getattr(known, rule)
        inside = b < 5
        assert np.array_equal(a[inside], b[inside])
        if last is not None:
            assert (a[~inside] == last).all()
        assert (a[~inside] >= 5).all()


def test_metrics_beyond_the_beam_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path, "sid-lm", ranks([0, 3, 12]), rank_cutoff=10)
    make_run(tmp_path, "markov", ranks([1, 2, 30]))
    compare(read([tmp_path]), Settings(metrics=(parse("ndcg@10"),), baseline="markov"), datasets=tmp_path)
    with pytest.raises(RecbenchError) as caught:
        compare(read([tmp_path]), Settings(metrics=(parse("ndcg@20"),), baseline="markov"), datasets=tmp_path)
    assert "ends at rank 10" in caught.value.why
    assert "loss.beam=20" in caught.value.fix


def test_weights_of_other_ids_are_refused() -> None:
    model, other = small(), small(table=random_table(N_ITEMS, (3, 4)))
    with pytest.raises(ValueError, match=r"other ids"):
        other.restore(model.tensors())


def test_a_reward_that_needs_item_vectors_is_refused_where_items_are_spelled() -> None:
    config = HEADS.load("diffuse").Config(reward="sampled")
    with pytest.raises(RecbenchError) as caught:
        build("sid-lm", BACKBONES.load("sid-lm").Config(), "diffuse", config, N_ITEMS, "spelling", None, TABLE)
    assert "spells its items" in caught.value.why
    assert caught.value.code == Exit.USAGE


def test_a_table_of_other_items_is_refused() -> None:
    with pytest.raises(RecbenchError, match=r"20 items; the dataset has 30") as caught:
        build(
            "sid-lm",
            BACKBONES.load("sid-lm").Config(),
            "none",
            HEADS.load("none").Config(),
            30,
            "spelling",
            None,
            TABLE,
        )
    assert caught.value.code == Exit.DATA


def test_a_rule_is_learned(tmp_path: Path) -> None:
    pairs = np.random.default_rng(1).integers(1, N_ITEMS + 1, (300, 2))
    rows = [[int(a), int(b)] * 4 for a, b in pairs]
    seed_everything(3)
    model = small(sizes={"width": 16, "inner": 32}, scoring="exact")
    table = {"epochs": 30, "batch_size": 200, "learning_rate": 0.01, "patience": 30}
    job = Job(
        histories(rows[:200]),
        queries(rows[200:], "valid"),
        stage_settings(table, model.stages),
        0,
        CPU,
        tmp_path,
        Watcher(),
    )
    fit(model, job, Store(tmp_path / "state"))
    assert evaluate(model, queries(rows[200:]), CPU).means(["hr@1"])["hr@1"] > 0.8


def test_a_run_trains_resumes_and_ranks_again(tiny_home: Path, tmp_path: Path) -> None:
    table = Asked("sid-lm", "rearec-prl", "tiny", None, parse_assignments([*SMALL, "loss.beam=50"])).table()
    dataset = open_dataset("tiny", tiny_home)
    asked = Order(dataset, resolve(table, dataset.card.family), 0, tmp_path, CPU, False)
    run, again = experiment.run(asked, Watcher())
    assert not again
    assert run.manifest.rank_cutoff in (50, None)
    _, different = rank_again(run, tiny_home, CPU)
    assert different == 0
    assert len(rank_at_steps(run, [1, 3], tiny_home, CPU)) == 2
    stored = run.ranks("test")

    class Stopping(Watcher):
        def epoch(self, line: dict[str, object]) -> None:
            if line["epoch"] == 2:
                raise KeyboardInterrupt

    other = replace(asked, runs=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        experiment.run(other, Stopping())
    resumed, _ = experiment.run(replace(other, resume=True), Watcher())
    assert resumed.ranks("test").equals(stored)
