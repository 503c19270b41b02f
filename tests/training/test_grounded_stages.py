"""Three stages, the last of which needs the second: killed anywhere, begun from another head's run, and left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from recbench.recommender import GeneratorRecommender, ItemRecommender
from recbench.training.loop import Job, Start, Watcher
from recbench.training.seeding import seed_everything
from recbench.training.settings import stage_settings
from tests.generators.checkpoints import NEEDED
from tests.generators.spelled import known, small
from tests.interrupted import killed
from tests.semantic_ids.spelling import random_table
from tests.systems import CPU, histories, queries, small_system
from tests.training.test_stages import ITEMS, Killer, Trained, same, users

STAGES = ("ground", "align", "rl")
DROPOUT = {"dropout": 0.2, "attention_dropout": 0.2}
SPELT = random_table(ITEMS, (5, 4))
KILLS = [("ground", 5), ("align", 0), ("align", 6), ("rl", 0), ("rl", 6)]
Reasoned = ItemRecommender | GeneratorRecommender


def fresh(head: str = "lasar", backbone: str = "sasrec", **changes: object) -> Reasoned:
    """A small LASAR, always the same one, that has not been taught to think."""
    seed_everything(3)
    if backbone == "sasrec":
        model = small_system(backbone, head, ITEMS, changes=changes, **DROPOUT)
    else:
        model = small(backbone, head, SPELT, known(backbone, **DROPOUT, width=16, inner=32), changes, beam=10)
    if head == "lasar":
        model.head.thinks.fill_(False)
    return model


def job(folder: Path, watcher: Watcher | None = None, head: str = "lasar", **stages: dict[str, Any]) -> Job:
    table = {"batch_size": 100, "learning_rate": 0.01, "patience": 9, "epochs": 2}
    align = {"epochs": 4, "learning_rate": 0.02, **stages.get("align", {})}
    rl = {"epochs": 3, "learning_rate": 0.002, "batch_size": 100, **stages.get("rl", {})}
    later = {"align": align, "rl": rl} if head == "lasar" else {}
    settings = stage_settings(table | later, fresh(head).stages)
    folder.mkdir(exist_ok=True)
    asked = queries(users(40, 2), "valid")
    return Job(histories(users(60, 1)), asked, settings, 0, CPU, folder, watcher or Watcher())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """All stages of a backbone in one go."""

    @cache
    def trained(backbone: str) -> Trained:
        run = Trained(job(tmp_path_factory.mktemp(backbone)), fresh(backbone=backbone))
        assert [line["stage"] for line in run.log] == ["ground"] * 2 + ["align"] * 4 + ["rl"] * 3
        assert run.progress.best_stage >= 1
        return run

    return trained


@pytest.fixture(scope="module")
def through(whole: Callable[[str], Trained]) -> Trained:
    return whole("sasrec")


@pytest.mark.parametrize(("stage", "step"), KILLS)
@pytest.mark.parametrize("backbone", ["sasrec", "sid-lm"])
def test_killed_in_a_stage_a_resumed_run_ends_with_the_same_numbers(
    backbone: str, stage: str, step: int, whole: Callable[[str], Trained], tmp_path: Path
) -> None:
    through = whole(backbone)
    assert killed(lambda: Trained(job(tmp_path, Killer(stage, step)), fresh(backbone=backbone)))
    same(Trained(job(tmp_path), fresh(backbone=backbone)), through, STAGES[1:])


@NEEDED
def test_a_pretrained_language_model_goes_through_all_stages(tmp_path: Path) -> None:
    layout = {"feed": "state", "readout": "end", "align_weight": 0.1}  # that of language models
    asked = job(tmp_path, align={"learning_rate": 0.003, "epochs": 6})
    trained = Trained(asked, fresh(backbone="hf-lm", **layout))
    assert [line["stage"] for line in trained.log] == ["ground"] * 2 + ["align"] * 6 + ["rl"] * 3
    assert trained.progress.best_stage >= 1
    assert trained.log[-1]["diagnostics"]["hit_share"] > 0
    assert (trained.ranks["steps"] >= 1).all()


@pytest.mark.parametrize(("stage", "step"), [("align", 6), ("rl", 6)])
def test_what_a_stage_found_out_as_it_began_survives_a_kill(stage: str, step: int, tmp_path: Path) -> None:
    changes = {"align_weight": "auto", "anchor": "backbone", "candidates": "sample", "ground_codes": 0.1, "cuts": 0}
    whole = Trained(job(tmp_path / "whole"), fresh(**changes))
    assert whole.progress.best_stage == 2
    assert killed(lambda: Trained(job(tmp_path, Killer(stage, step)), fresh(**changes)))
    same(Trained(job(tmp_path), fresh(**changes)), whole, STAGES[1:])


def test_the_last_stage_alone_goes_on_from_a_finished_second(through: Trained, tmp_path: Path) -> None:
    second = Trained(replace(job(tmp_path / "second"), until="align"), fresh())
    last = Trained(replace(job(tmp_path / "last"), start=Start(second.tensors, STAGES[:2])), fresh())
    assert {line["stage"] for line in last.log} == {"rl"}
    same(last, through, ("rl",))


def test_a_run_without_a_head_is_the_first_stage(through: Trained, tmp_path: Path) -> None:
    plain = Trained(job(tmp_path / "plain", head="none"), fresh("none"))
    start = Start(plain.tensors, ("ground",), backbone_only=True)
    rest = Trained(replace(job(tmp_path / "rest"), start=start), fresh())
    assert {line["stage"] for line in rest.log} == {"align", "rl"}
    same(rest, through, ("align", "rl"))


def test_weights_of_another_shape_are_no_start(tmp_path: Path) -> None:
    start = Start({"backbone.nonsense": torch.zeros(1)}, ("ground",), backbone_only=True)
    with pytest.raises(RuntimeError, match="nonsense"):
        Trained(replace(job(tmp_path), start=start), fresh())


def test_where_the_second_stage_was_not_kept_the_third_is_left_out_and_the_run_says_so(tmp_path: Path) -> None:
    trained = Trained(job(tmp_path, align={"learning_rate": 50.0, "epochs": 1}), fresh())
    assert {line["stage"] for line in trained.log} == {"ground", "align"}
    assert "rl: left out, as the weights of align were not kept" in trained.progress.warnings
    assert not trained.model.head.thinks


def test_patience_counts_from_a_stages_own_best(tmp_path: Path) -> None:
    """Thoughts that begin below the plain model may still climb past it."""
    settings = job(tmp_path).settings
    hasty = settings | {"align": replace(settings["align"], patience=1, epochs=6)}
    trained = Trained(replace(job(tmp_path / "a"), settings=hasty), fresh())
    before, climbed = ([line["monitor"] for line in trained.log if line["stage"] == name] for name in STAGES[:2])
    assert climbed[1] < max(before) < climbed[-1]  # two epochs below the plain model did not end the stage
    for value, later in pairwise(climbed[:-1]):
        assert value < later
