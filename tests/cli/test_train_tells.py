"""What ``recbench train`` says of settings that were typed and do not hold, before it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbench.cli.app import run

Captured = pytest.CaptureFixture[str]
SMALL = ["--set", "backbone.width=8", "--set", "train.epochs=2", "--device", "cpu"]


@pytest.fixture
def train(tiny_home: Path, tmp_path: Path) -> list[str]:
    """``sasrec`` on the tiny dataset, in a folder of its own."""
    places = ["--datasets", str(tiny_home), "--runs", str(tmp_path)]
    return ["train", "--backbone", "sasrec", "--dataset", "tiny", *SMALL, *places]


def test_a_setting_that_a_stage_has_its_own_value_of_is_told(
    train: list[str], tmp_path: Path, capsys: Captured
) -> None:
    assert run([*train, "--reason", "lares", "--until", "spt"]) == 0
    assert "does not hold" not in capsys.readouterr().err
    start = ["--from", f"{tmp_path}/tiny-sasrec-lares-spt-s0"]
    assert run([*train, "--reason", "lares", "--set", "train.rpt.batch_size=999", *start]) == 0
    told = capsys.readouterr().err
    assert "train.epochs=2 does not hold in rpt (1)" in told
    assert "batch_size" not in told


def test_settings_of_a_stage_that_is_not_reached_are_told(train: list[str], capsys: Captured) -> None:
    sets = ["--set", "train.rpt.epochs=3", "--set", "train.rpt.dropout=0.1", "--set", "train.spt.epochs=1"]
    assert run([*train, "--reason", "lares", *sets, "--until", "spt"]) == 0
    told = capsys.readouterr().err
    assert "train.rpt.epochs=3, train.rpt.dropout=0.1 does nothing here: training ends with stage spt" in told
    assert told.count("does nothing") == 1


def test_settings_that_do_nothing_beside_the_others_are_told(train: list[str], capsys: Captured) -> None:
    sets = ["--set", "head.levels=0", "--set", "head.grpo=0.0", "--set", "head.kappa=2.0"]
    assert run([*train, "--reason", "diffuse", *sets]) == 0
    told = capsys.readouterr().err
    assert "head.kappa=2.0 does nothing here: it counts only where head.levels above 0 and head.forward=shift" in told
    assert told.count("does nothing") == 1


def test_quiet_says_none_of_it(train: list[str], capsys: Captured) -> None:
    assert run([*train, "--reason", "diffuse", "--set", "head.kappa=2.0", "--quiet"]) == 0
    assert not capsys.readouterr().err
