"""Commands of every kind, in process: help, ``list``, ``show``, ``recommend``, ``compare``, ``doctor``."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest

from recbench.cli.app import COMMANDS, run
from tests.cli.commands import Captured

pytestmark = pytest.mark.usefixtures("at_home")


def test_no_arguments_show_the_help_and_no_empty_error(capsys: Captured) -> None:
    assert run([]) == 2
    captured = capsys.readouterr()
    assert "prepare" in captured.out
    assert captured.err == ""


def test_help_names_every_command(capsys: Captured) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize(
    ("args", "code"), [(["--help"], 0), (["train", "--help"], 0), (["show", "nowhere"], 4), (["trian"], 2)]
)
def test_python_m_is_the_command_and_goes_by_its_name(
    args: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("sys.argv", ["-m", *args])
    with pytest.raises(SystemExit) as left:
        runpy.run_module("recbench", run_name="__main__", alter_sys=True)
    said = capsys.readouterr()
    assert left.value.code == code
    assert code or f"Usage: {' '.join(['recbench', *args[:-1]])} [OPTIONS]" in said.out
    assert "__main__" not in said.out + said.err
    assert "python" not in said.out + said.err
    assert run(args) == code
    assert capsys.readouterr() == said


def test_list_shows_what_there_is(capsys: Captured) -> None:
    assert run(["list"]) == 0
    text = capsys.readouterr().out
    assert all(words in text for words in ("sasrec", "none", "tiny", "tiny-sasrec-none-s0", "finished"))
    assert run(["list", "runs", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert run(["list", "configs", "--json"]) == 0
    assert {"name": "esasrec"}.items() <= json.loads(capsys.readouterr().out)[0].items()


def test_show_tells_a_run_and_a_dataset(capsys: Captured) -> None:
    assert run(["show", "runs/tiny-sasrec-none-s0"]) == 0
    text = capsys.readouterr().out
    assert all(
        words in text for words in ("softmax over all items", "leave-one-out", "test, unseen items", "next_item")
    )
    assert run(["show", "tiny"]) == 0
    assert "200" in capsys.readouterr().out
    assert run(["show", "runs/tiny-sasrec-none-s0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 0


def test_show_tells_how_far_an_unfinished_run_is(home: Path, tmp_path: Path, capsys: Captured) -> None:
    shutil.copytree(home / "runs" / "tiny-sasrec-none-s0", tmp_path / "cut")
    manifest = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert manifest["n_parameters"] > 0
    manifest |= {"status": "interrupted", "seconds": {}, "metrics": {}, "epochs": 0, "best_epoch": None}
    (tmp_path / "cut" / "run.json").write_text(json.dumps(manifest))
    assert run(["show", str(tmp_path / "cut")]) == 0
    shown = capsys.readouterr().out
    assert "2 epochs so far" in shown
    (tmp_path / "cut" / "log.jsonl").unlink()
    (tmp_path / "cut" / "run.json").write_text(json.dumps(manifest | {"n_parameters": 0}))
    assert run(["show", str(tmp_path / "cut")]) == 0
    shown = capsys.readouterr().out
    assert "not yet" in shown
    assert "parameters" not in shown


def test_a_step_that_an_epoch_did_not_draw_is_blank_and_a_whole_stands_before_its_parts(
    home: Path, tmp_path: Path, capsys: Captured
) -> None:
    shutil.copytree(home / "runs" / "tiny-sasrec-none-s0", tmp_path / "run")
    log = tmp_path / "run" / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[0]["diagnostics"] = {"depth@0": 0.25, "depth": float("nan")}
    lines[1]["diagnostics"] = {"depth@10": 0.5, "depth@0": 0.125, "depth": 4.5}
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(["show", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "nan" not in shown
    assert [line.split() for line in shown.splitlines() if line.lstrip().startswith("depth")] == [
        ["depth", "4.5"],
        ["depth@0", "0.25", "0.125"],
        ["depth@10", "0.5"],
    ]


@pytest.fixture(scope="module")
def timed(home: Path) -> str:
    """A finished run of a system that looks at times."""
    small = ["--set", "backbone.width=8", "--set", "train.epochs=1", "--device", "cpu"]
    places = ["--datasets", str(home / "datasets"), "--runs", str(home / "others"), "--quiet"]
    assert run(["train", "--backbone", "hstu", "--dataset", "tiny", *small, *places]) == 0
    return "others/tiny-hstu-none-s0"


def test_recommend_lists_titles_for_a_user_and_for_a_typed_history(capsys: Captured) -> None:
    assert run(["recommend", "runs/tiny-sasrec-none-s0", "--user", "U00001", "--top", "5"]) == 0
    assert "next for user U00001" in capsys.readouterr().out
    import pandas as pd

    first, second = pd.read_parquet("datasets/tiny/items.parquet")["raw_id"].head(2)
    assert run(["recommend", "runs/tiny-markov-none-s0", "--history", f"{first}, {second}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [line["raw_id"] for line in told["history"]] == [first, second]
    assert len(told["items"]) == 10
    assert not {first, second} & {line["raw_id"] for line in told["items"]}


def test_a_typed_history_has_no_times_and_a_system_that_looks_at_them_says_so(timed: str, capsys: Captured) -> None:
    assert run(["show", timed]) == 0
    assert "and their times" in capsys.readouterr().out
    assert run(["recommend", timed, "--user", "U00001"]) == 0
    assert "no times" not in capsys.readouterr().err
    import pandas as pd

    first = pd.read_parquet("datasets/tiny/items.parquet")["raw_id"][0]
    assert run(["recommend", timed, "--history", first]) == 0
    assert "a typed-in history has no times" in " ".join(capsys.readouterr().err.split())
    assert run(["recommend", "runs/tiny-sasrec-none-s0", "--history", first]) == 0
    assert "no times" not in capsys.readouterr().err


def test_compare_reads_the_runs_and_shows_the_oracle(capsys: Captured) -> None:
    assert run(["compare", "runs", "--baseline", "markov"]) == 0
    captured = capsys.readouterr()
    assert "markov" in captured.out
    assert "sasrec" in captured.out
    assert "oracle" in captured.out


def test_doctor_tells_versions_and_devices(capsys: Captured) -> None:
    assert run(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "cpu" in told["devices"]
    assert told["torch"]
