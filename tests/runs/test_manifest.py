"""What a run says of itself, in words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from recbench.runs.manifest import Manifest
from tests.run_folders import make_run, ranks


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest.read(make_run(tmp_path, "sasrec", ranks([0, 1])))


def test_the_kept_epoch_is_counted_in_its_stage(manifest: Manifest) -> None:
    one = replace(manifest, stages=["train"], best_stage="train", best_epoch=3, epochs=9, stage_epochs={"train": 9})
    assert one.kept == "epoch 3 of 9"
    several = replace(one, stages=["align", "rl"], best_stage="rl", best_epoch=1, stage_epochs={"align": 7, "rl": 2})
    assert several.kept == "rl, epoch 1 of 2"
    assert replace(several, best_epoch=0).kept == "the weights it began with, of 9 epochs none"
    assert replace(several, best_epoch=None, epochs=0).kept == ""


def test_an_older_run_that_does_not_tell_its_stage_is_read_and_not_guessed(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "sasrec", ranks([0, 1]), head="lares", stages=["spt", "rpt"], best_epoch=2, epochs=9)
    raw = json.loads((folder / "run.json").read_text())
    del raw["best_stage"], raw["stage_epochs"]
    (folder / "run.json").write_text(json.dumps(raw))
    assert Manifest.read(folder).kept == "epoch 2 of a stage; 9 epochs in all stages"
    assert replace(Manifest.read(folder), stages=["train"]).kept == "epoch 2 of 9"


def test_the_command_can_be_pasted(manifest: Manifest) -> None:
    typed = replace(manifest, argv=["/bin/recbench", "train", "--runs", "my runs", "--from", "runs/a-s{seed}"])
    assert typed.command == "recbench train --runs 'my runs' --from 'runs/a-s{seed}'"
