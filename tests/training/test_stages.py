"""Two stages by the one loop: killed anywhere, stopped between, begun from a finished first one, and harmful."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recbench.evaluation.evaluate import evaluate
from recbench.reasoning.base import Context
from recbench.recommender import ItemRecommender
from recbench.training.checkpoint import Progress, Store
from recbench.training.loop import Job, Start, Watcher, fit
from recbench.training.seeding import seed_everything
from recbench.training.settings import stage_settings
from tests.interrupted import killed
from tests.systems import CPU, histories, queries, small_system

ITEMS = 30


def users(count: int, seed: int) -> list[list[int]]:
    """Each user repeats a pair of items."""
    pairs = np.random.default_rng(seed).integers(1, ITEMS + 1, (count, 2))
    return [[int(a), int(b)] * 4 for a, b in pairs]


def fresh(**head: object) -> ItemRecommender:
    """A small LARES, always the same one."""
    seed_everything(3)
    changes = {"mean_steps": 2, "filter_top": 10, "reward_k": 3, "kl_weight": 0.1, **head}
    return small_system("sasrec", "lares", ITEMS, changes=changes, dropout=0.2, attention_dropout=0.2)


def job(folder: Path, watcher: Watcher | None = None, **stages: dict[str, object]) -> Job:
    table = {"batch_size": 100, "learning_rate": 0.01, "patience": 9, "spt": {"epochs": 3}}
    rpt = {"epochs": 3, "batch_size": 100, "learning_rate": 0.01, "patience": 9, **stages.get("rpt", {})}
    settings = stage_settings({**table, **stages, "rpt": rpt}, fresh().stages)
    folder.mkdir(exist_ok=True)
    asked = queries(users(40, 2), "valid")
    return Job(histories(users(60, 1)), asked, settings, 0, CPU, folder, watcher or Watcher())


class Trained:
    """A model after ``fit``, and what there is to compare."""

    def __init__(self, asked: Job, model: ItemRecommender | None = None) -> None:
        self.model = model or fresh()
        self.progress = fit(self.model, asked, Store(asked.folder / "state"))
        self.tensors = {name: tensor.clone() for name, tensor in self.model.tensors().items()}
        self.ranks = evaluate(self.model, queries(users(40, 4)), CPU).frame()
        self.log = [json.loads(line) for line in (asked.folder / "log.jsonl").read_text().splitlines()]

    def curves(self, stage: str) -> list[Any]:
        lines = [line for line in self.log if line["stage"] == stage]
        return [(line["epoch"], line["losses"], line["diagnostics"], line["valid"], line["best"]) for line in lines]


def same(one: Trained, other: Trained, stages: tuple[str, ...] = ("spt", "rpt")) -> None:
    assert one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
    assert one.ranks.equals(other.ranks)
    for stage in stages:
        assert one.curves(stage) == other.curves(stage)
    for name in ("best", "best_epoch", "best_stage", "finished"):
        assert getattr(one.progress, name) == getattr(other.progress, name)


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Both stages without interruption; the second is better in some epoch, and not only in the last."""
    trained = Trained(job(tmp_path_factory.mktemp("through")))
    assert [line["stage"] for line in trained.log] == ["spt"] * 3 + ["rpt"] * 3
    assert trained.progress.best_stage == 1
    return trained


class Killer(Watcher):
    """Kills its process as a stage begins, or in one of its steps, counted over epochs from 1."""

    def __init__(self, stage: str, step: int) -> None:
        self.where, self.at = stage, step
        self.now, self.steps = "", 0

    def stage(self, name: str, epochs: int) -> None:
        self.now, self.steps = name, 0
        if (name, self.at) == (self.where, 0):
            os.kill(os.getpid(), signal.SIGKILL)

    def step(self, step: int, steps: int, loss: float) -> None:
        self.steps += 1
        if (self.now, self.steps) == (self.where, self.at):
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("stage", "step"), [("spt", 2), ("spt", 6), ("rpt", 0), ("rpt", 2), ("rpt", 5), ("rpt", 8)])
def test_killed_in_a_stage_or_between_them_a_resumed_run_ends_with_the_same_numbers(
    stage: str, step: int, through: Trained, tmp_path: Path
) -> None:
    assert killed(lambda: Trained(job(tmp_path, Killer(stage, step))))
    same(Trained(job(tmp_path)), through)


def test_each_epoch_takes_the_steps_that_the_kills_count_on(through: Trained) -> None:
    from recbench.data.batching import TrainingRows

    rows = TrainingRows(histories(users(60, 1)), max_length=12, window="last", every_position=True)
    assert rows.steps(100) == 4
    assert 250 <= through.progress.facts["rpt"]["filter"]["kept"] < 350  # so rpt takes 3


def test_a_run_may_stop_after_its_first_stage(through: Trained, tmp_path: Path) -> None:
    trained = Trained(replace(job(tmp_path), until="spt"))
    assert trained.progress.finished
    assert {line["stage"] for line in trained.log} == {"spt"}
    assert trained.curves("spt") == through.curves("spt")
    assert trained.progress.best_stage == 0


def test_epochs_are_told_by_stage_and_more_of_them_by_the_setting_of_the_stage(
    through: Trained, tmp_path: Path
) -> None:
    assert through.progress.stage_epochs == {"spt": 3, "rpt": 3}
    short = Trained(replace(job(tmp_path, spt={"epochs": 1}), until="spt"))
    assert "more epochs may be better (train.spt.epochs)" in " ".join(short.progress.warnings)


def test_weights_that_no_epoch_trained_are_told(tmp_path: Path) -> None:
    asked = replace(job(tmp_path, spt={"epochs": 0}), until="spt")
    assert "no epoch was trained (train.spt.epochs=0)" in " ".join(Trained(asked).progress.warnings)


def test_the_second_stage_alone_from_a_finished_first_equals_both_in_one_go(through: Trained, tmp_path: Path) -> None:
    first = Trained(replace(job(tmp_path / "first"), until="spt"))
    second = Trained(replace(job(tmp_path / "second"), start=Start(first.tensors, ("spt",))))
    assert {line["stage"] for line in second.log} == {"rpt"}
    same(second, through, ("rpt",))


def test_a_second_stage_alone_can_be_killed_before_its_first_epoch_too(through: Trained, tmp_path: Path) -> None:
    first = Trained(replace(job(tmp_path / "first"), until="spt"))

    def second(watcher: Watcher) -> Job:
        return replace(job(tmp_path / "second", watcher), start=Start(first.tensors, ("spt",)))

    assert killed(lambda: Trained(second(Killer("rpt", 3))))
    same(Trained(second(Watcher())), through, ("rpt",))


@pytest.mark.parametrize("gone", [("rpt",), ("train",), ("spt", "rpt")])
def test_a_start_that_is_no_start_of_these_stages_is_refused(gone: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="first of the stages"):
        fit(fresh(), replace(job(tmp_path), start=Start(fresh().tensors(), gone)), Store(tmp_path / "state"))


def test_a_harmful_second_stage_leaves_the_weights_of_the_first_and_says_so(tmp_path: Path) -> None:
    first = Trained(replace(job(tmp_path / "first"), until="spt"))
    both = Trained(job(tmp_path / "both", rpt={"learning_rate": 30.0}), fresh(kl_weight=0))
    assert len(both.curves("rpt")) == 3
    assert all(torch.equal(both.tensors[name], first.tensors[name]) for name in first.tensors)
    assert both.ranks.equals(first.ranks)
    assert both.progress.best_stage == 0
    assert [doubt for doubt in both.progress.warnings if doubt.startswith("rpt: no epoch was better")]


class Watched(ItemRecommender):  # type: ignore[misc] # a test may extend a final class
    """Keeps what its second stage is held against, and which positions its filter left."""

    references: list[dict[str, Tensor]]
    kept: list[Any]

    def begin(self, context: Context) -> None:
        super().begin(context)
        if context.reference is not None:
            assert (
                context.reference.score.items().data_ptr() == context.reference.backbone.item_vectors()[1:].data_ptr()
            )
            assert not context.reference.training  # type: ignore[attr-defined]
            assert all(not p.requires_grad for p in context.reference.parameters())  # type: ignore[attr-defined]
            self.references.append({name: tensor.clone() for name, tensor in context.reference.tensors().items()})  # type: ignore[attr-defined]
            self.kept.append((context.facts["filter"], self.head._kept.copy()))


def watched() -> Watched:
    model = fresh()
    made = Watched(model.backbone, model.head)
    made.references, made.kept = [], []
    return made


def test_a_resumed_stage_is_held_against_where_it_began_and_not_against_the_best_since(tmp_path: Path) -> None:
    whole = watched()
    through = Trained(job(tmp_path / "whole"), whole)
    assert killed(lambda: Trained(job(tmp_path / "killed", Killer("rpt", 7))))
    state = Store(tmp_path / "killed" / "state")
    progress = state.load()
    assert progress is not None
    assert (progress.stage, progress.best_stage) == (1, 1)
    assert progress.best_file != progress.began_file
    again = watched()
    resumed = Trained(job(tmp_path / "killed"), again)
    ((reference,), (other,)) = whole.references, again.references
    began = Trained(replace(job(tmp_path / "first"), until="spt")).tensors
    best = state.tensors(resumed.progress.best_file)
    assert all(torch.equal(reference[name], other[name]) for name in reference)
    assert all(torch.equal(reference[name], began[name]) for name in reference)
    assert not all(torch.equal(reference[name], best[name]) for name in reference)
    ((facts, kept),), ((facts_again, kept_again),) = whole.kept, again.kept
    assert facts == facts_again == through.progress.facts["rpt"]["filter"] == resumed.progress.facts["rpt"]["filter"]
    assert 0 < facts["share"] < 1
    assert (kept == kept_again).all()


def test_the_first_stage_has_no_reference_and_the_second_trains_all_but_it(through: Trained, tmp_path: Path) -> None:
    model = watched()
    trained = Trained(job(tmp_path), model)
    (reference,) = model.references
    moved = {name for name in reference if not torch.equal(reference[name], trained.tensors[name])}
    assert moved == set(reference) - {"head.table"}


def test_a_stage_of_no_epochs_is_passed_over(tmp_path: Path) -> None:
    trained = Trained(job(tmp_path, rpt={"epochs": 0}))
    assert {line["stage"] for line in trained.log} == {"spt"}
    assert trained.progress.finished
    assert trained.progress.best_stage == 0


def test_dropout_of_a_stage_holds_in_that_stage_only(tmp_path: Path) -> None:
    rates: list[tuple[str, float]] = []

    class Rates(Watcher):
        now = ""

        def stage(self, name: str, epochs: int) -> None:
            self.now = name

        def step(self, step: int, steps: int, loss: float) -> None:
            rates.append((self.now, model.backbone.dropout.p))

    model = fresh()
    fit(model, job(tmp_path, Rates(), rpt={"dropout": 0.05}), Store(tmp_path / "state"))
    assert set(rates) == {("spt", 0.2), ("rpt", 0.05)}
    assert model.backbone.dropout.p == 0.2


def test_a_loss_below_zero_that_stands_still_is_not_doubted(tmp_path: Path) -> None:
    """All advantages 1 without a fence: the loss is -1 in every step."""
    model = fresh(advantage="one", kl_weight=0)
    progress: Progress = fit(model, job(tmp_path, rpt={"learning_rate": 1e-4}), Store(tmp_path / "state"))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["losses"]["total"] for line in lines if line["stage"] == "rpt"] == pytest.approx([-1] * 3, abs=1e-6)
    assert not [doubt for doubt in progress.warnings if doubt.startswith("rpt: the training loss rose")]
