"""Run folders with a file that is cut, empty, gone or written by another hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from recbench.cli.app import run
from tests.cli.commands import Captured, failed

pytestmark = pytest.mark.usefixtures("at_home")


def spoiled(home: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(home / "runs" / "tiny-sasrec-none-s0", tmp_path / "copy"))


@pytest.mark.parametrize(
    ("name", "text"), [("config.toml", "backbone = "), ("users.parquet", "PAR1"), ("run.json", "[")]
)
def test_evaluate_names_the_damaged_file_of_a_run(
    name: str, text: str, home: Path, tmp_path: Path, capsys: Captured
) -> None:
    run_ = spoiled(home, tmp_path)
    (run_ / name).write_text(text, encoding="utf-8")
    code, told = failed(["evaluate", str(run_)], capsys)
    assert code == 4
    assert str(run_ / name) in told


def test_damaged_ranks_are_written_again_by_what_compare_says_to_type(
    home: Path, tmp_path: Path, capsys: Captured
) -> None:
    run_ = spoiled(home, tmp_path)
    whole = (run_ / "users.parquet").read_bytes()
    (run_ / "users.parquet").write_bytes(whole[:300])
    asked = ["compare", str(run_), "runs/tiny-markov-none-s0"]
    code, told = failed(asked, capsys)
    assert code == 4
    command = told.partition("fix: ")[2]
    assert command.startswith(f"rm {run_}/users.parquet && recbench evaluate {run_}")
    (run_ / "users.parquet").unlink()
    assert run(["evaluate", str(run_)]) == 0
    assert f"{run_}/users.parquet was not there and is written again" in capsys.readouterr().out
    assert (run_ / "users.parquet").read_bytes() == whole
    assert run(asked) == 0


def test_evaluate_does_not_call_ranks_equal_where_there_were_none(home: Path, tmp_path: Path, capsys: Captured) -> None:
    run_ = spoiled(home, tmp_path)
    (run_ / "users.parquet").unlink()
    for differing in (None, 0):
        assert run(["evaluate", str(run_), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["differing"] == differing


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("users.parquet", "ranks again from its weights"),
        ("topk.parquet", "Copy the whole run folder"),
        ("model.safetensors", "Copy the whole run folder"),
    ],
)
def test_verify_sends_to_weights_only_where_they_are_those_of_the_run_and_ranking_mends_it(
    name: str, fix: str, home: Path, tmp_path: Path, capsys: Captured
) -> None:
    run_ = spoiled(home, tmp_path)
    (run_ / name).write_bytes(b"")
    assert run(["verify", str(run_), "--quiet"]) == 4
    assert fix in capsys.readouterr().err.partition("fix: ")[2]


def test_what_verify_says_of_spoiled_ranks_mends_the_run(home: Path, tmp_path: Path, capsys: Captured) -> None:
    run_ = spoiled(home, tmp_path)
    for spoil in (b"", None):
        (run_ / "users.parquet").write_bytes(spoil) if spoil is not None else (run_ / "users.parquet").unlink()
        code, told = failed(["verify", str(run_), "--quiet"], capsys)
        assert code == 4
        commands = told.partition("fix: ")[2].partition(", which")[0].split(" && ")
        assert commands[-1] == f"recbench evaluate {run_}"
        if spoil is not None:
            assert commands[0] == f"rm {run_}/users.parquet"
            (run_ / "users.parquet").unlink()
        assert run([*commands[-1].split()[1:], "--quiet"]) == 0
        assert run(["verify", str(run_), "--quiet"]) == 0


@pytest.mark.parametrize(
    ("edited", "fix"),
    [
        ({"metrics": {"test": {"ndcg@10": 0.9}}}, "Copy the whole run folder again"),
        ({"best_epoch": 9}, "Copy the whole run folder again"),
        ({"status": "interrupted"}, "make it again as it was made"),
    ],
)
def test_verify_does_not_send_to_the_weights_where_run_json_was_edited(
    edited: dict[str, object], fix: str, home: Path, tmp_path: Path, capsys: Captured
) -> None:
    path = spoiled(home, tmp_path) / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edited), encoding="utf-8")
    code, told = failed(["verify", str(path.parent), "--quiet"], capsys)
    assert code == 4
    assert fix in told.partition("fix: ")[2]
    assert "evaluate" not in told


@pytest.mark.parametrize(
    ("field", "value"), [("dataset", []), ("seed", "one"), ("protocol", None), ("metrics", {"test": {"ndcg@10": "x"}})]
)
def test_a_run_json_that_recbench_cannot_have_written_is_refused(
    field: str, value: object, home: Path, tmp_path: Path, capsys: Captured
) -> None:
    path = spoiled(home, tmp_path) / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}), encoding="utf-8")
    for asked in (["show"], ["verify"], ["evaluate"], ["compare", "runs/tiny-markov-none-s0"]):
        code, told = failed([*asked, str(path.parent)], capsys)
        assert code == 4
        assert f"{field} is" in told


def test_a_line_of_the_log_that_a_kill_cut_does_not_hide_the_run(home: Path, tmp_path: Path, capsys: Captured) -> None:
    run_ = spoiled(home, tmp_path)
    with (run_ / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"stage": "tr')
    assert run(["show", str(run_)]) == 0
    assert "* best so far" in capsys.readouterr().out


def test_settings_that_are_not_the_runs_own_are_not_shown_beside_its_numbers(
    home: Path, tmp_path: Path, capsys: Captured
) -> None:
    run_ = spoiled(home, tmp_path)
    path = run_ / "config.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("epochs = 2", "epochs = 3"), encoding="utf-8")
    code, told = failed(["compare", str(run_), "runs/tiny-markov-none-s0"], capsys)
    assert code == 4
    assert f"{path} is changed" in told


def test_a_dataset_that_was_changed_is_neither_trained_on_nor_verified(
    home: Path, tmp_path: Path, capsys: Captured
) -> None:
    shutil.copytree(home / "datasets", tmp_path / "datasets")
    train = pd.read_parquet(tmp_path / "datasets" / "tiny" / "train.parquet")
    train["item"] = train["item"].to_numpy()[::-1]
    train.to_parquet(tmp_path / "datasets" / "tiny" / "train.parquet", index=False)
    there = ["--datasets", str(tmp_path / "datasets")]
    code, told = failed(["train", "--backbone", "markov", *there, "--runs", str(tmp_path / "runs"), "--quiet"], capsys)
    assert code == 3
    assert "train.parquet is not what was prepared" in told
    assert not (tmp_path / "runs" / "tiny-markov-none-s0" / "users.parquet").exists()
    assert run(["verify", "runs/tiny-markov-none-s0", *there, "--json"]) == 4
    assert "train.parquet is not what was prepared" in capsys.readouterr().out


def test_a_log_that_is_gone_is_said_to_be(home: Path, tmp_path: Path, capsys: Captured) -> None:
    run_ = spoiled(home, tmp_path)
    (run_ / "log.jsonl").unlink()
    run(["verify", str(run_), "--json"])
    told = capsys.readouterr().out
    assert "log.jsonl is not here" in told
    assert "nothing was trained by epochs" not in told
