"""``recbench train`` from its line to its table and its run folder."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from recbench.cli.app import run
from tests.cli.commands import LARES, SMALL, Captured, failed
from tests.systems import prefix_backbones

pytestmark = pytest.mark.usefixtures("at_home")


def test_train_prints_both_candidate_rules_and_the_mean_over_seeds(capsys: Captured) -> None:
    assert run(["train", "--backbone", "sasrec", "--seeds", "0,1", *SMALL]) == 0
    captured = capsys.readouterr()
    for words in ("sasrec on tiny", "all items", "unseen items", "seed 1", "mean", "sd", "runs/tiny-sasrec-none-s0"):
        assert words in captured.out
    assert "dataset: tiny" in captured.err
    assert "finished already" in captured.err


def test_no_seed_is_trained_where_another_is_refused(home: Path, tmp_path: Path, capsys: Captured) -> None:
    until = ["--until", "spt", "--runs", str(tmp_path), "--quiet"]
    assert run([*LARES, *SMALL, *until]) == 0
    start = ["--from", f"{tmp_path}/tiny-sasrec-lares-spt-s{{seed}}", "--runs", str(tmp_path / "more")]
    code, told = failed([*LARES, *SMALL, "--seeds", "0,1", *start], capsys)
    assert (code, "tiny-sasrec-lares-spt-s1" in told) == (4, True)
    assert not (tmp_path / "more").exists()


def test_train_as_json_is_the_manifest(capsys: Captured) -> None:
    assert run(["train", "--backbone", "markov", "--json", "--quiet"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["status"] == "finished"
    assert told["backbone"] == "markov"


def test_other_settings_in_a_taken_folder_are_refused(capsys: Captured) -> None:
    args = ["train", "--backbone", "sasrec", *SMALL, "--set", "train.learning_rate=0.5"]
    code, text = failed([*args, "--quiet"], capsys)
    assert code == 4
    assert "train.learning_rate" in text


@pytest.mark.parametrize("backbone", prefix_backbones())
def test_a_backbone_of_prefix_rows_goes_through_every_command(backbone: str, tmp_path: Path, capsys: Captured) -> None:
    runs, folder = ["--runs", str(tmp_path)], str(tmp_path / f"tiny-{backbone}-rearec-erl-s0")
    assert run(["train", "--backbone", backbone, "--reason", "rearec-erl", *SMALL, *runs]) == 0
    assert f"{backbone}+rearec-erl on tiny" in capsys.readouterr().out
    assert run(["evaluate", folder]) == 0
    assert "equal the stored ones" in capsys.readouterr().out
    assert run(["evaluate", folder, "--steps", "1,3", "--json"]) == 0
    assert [line["steps"] for line in json.loads(capsys.readouterr().out)["steps"]] == [1, 3]
    assert run(["recommend", folder, "--user", "U00001", "--top", "5", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["items"]) == 5
    assert run(["show", folder]) == 0


def test_cloze_rows_are_a_setting_of_the_backbone(tmp_path: Path, capsys: Captured) -> None:
    sets = ["--set", "backbone.rows=cloze", "--set", "backbone.blanked=0.4", "--json", "--quiet"]
    assert run(["train", "--backbone", "bert4rec", *SMALL, *sets, "--runs", str(tmp_path)]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["status"] == "finished"
    assert 'rows = "cloze"' in (tmp_path / "tiny-bert4rec-none-s0" / "config.toml").read_text(encoding="utf-8")


def test_a_window_that_cloze_rows_do_not_have_is_refused(tmp_path: Path, capsys: Captured) -> None:
    sets = ["--set", "backbone.rows=cloze", "--set", "train.window=all", "--quiet"]
    assert run(["train", "--backbone", "bert4rec", *SMALL, *sets, "--runs", str(tmp_path)]) == 2
    assert "train.window=all cannot be used with cloze rows" in capsys.readouterr().err


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """A background job of a shell is born deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_and_a_polite_kill_end_with_130_and_an_interrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    from recbench.training import loop

    train_epoch = loop._train_epoch
    for number in (signal.SIGINT, signal.SIGTERM):

        def stopped(*args: object, number: int = number) -> dict[str, float]:
            losses = train_epoch(*args)  # type: ignore[arg-type]
            os.kill(os.getpid(), number)
            return losses

        monkeypatch.setattr(loop, "_train_epoch", stopped)
        runs = tmp_path / str(int(number))
        assert run(["train", "--backbone", "sasrec", *SMALL, "--runs", str(runs)]) == 130
        assert "--resume" in capsys.readouterr().err
        assert json.loads((runs / "tiny-sasrec-none-s0" / "run.json").read_text())["status"] == "interrupted"
