"""``recbench ids``, in process: what it prints, what it keeps, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from recbench.cli.app import run

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def at_home(tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny_home, tmp_path / "datasets", ignore=shutil.ignore_patterns("ids"))  # other tests' tables
    monkeypatch.chdir(tmp_path)


def test_ids_reports_usage_and_collisions_and_then_finds_the_table(capsys: Captured) -> None:
    assert run(["ids", "tiny", "--set", "ids.codes=8"]) == 0
    first = capsys.readouterr().out
    for words in ("tiny", "rkmeans", "perplexity", "collisions", "features", "a suffix of", "written"):
        assert words in first
    assert run(["ids", "tiny", "--set", "ids.codes=8"]) == 0
    assert "written" not in (second := capsys.readouterr().out)
    assert "there" in second
    assert run(["ids", "tiny", "--set", "ids.codes=8", "--rebuild"]) == 0
    assert "written" in capsys.readouterr().out


def test_a_setting_that_does_nothing_beside_the_others_is_told(capsys: Captured) -> None:
    assert run(["ids", "tiny", "--set", "ids.codes=8", "--set", "ids.sinkhorn_eps=0.5"]) == 0
    told = "ids.sinkhorn_eps=0.5 does nothing here: it counts only where ids.dedup=sinkhorn"
    assert told in capsys.readouterr().err
    assert run(["ids", "tiny", "--set", "ids.codes=8", "--set", "ids.sinkhorn_eps=0.5", "--quiet"]) == 0
    assert not capsys.readouterr().err


def test_json_is_the_card_of_the_table_that_was_written(capsys: Captured) -> None:
    assert run(["ids", "tiny", "--method", "balanced", "--set", "ids.codes=8", "--seed", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["method"]["name"] == "balanced"
    assert told["seed"] == 3
    assert told["unique"] == told["report"]["items"]
    kept = json.loads((Path(told["folder"]) / "card.json").read_text())
    assert kept["codes_sha256"] == told["codes_sha256"]
    codes = pd.read_parquet(Path(told["folder"]) / "codes.parquet")
    assert list(codes.columns) == ["item", "code_1", "code_2", "code_3", "code_4"]
    assert len(codes.drop_duplicates(subset=list(codes.columns[1:]))) == told["unique"]


def test_an_items_codes_are_shown_beside_those_that_begin_alike(capsys: Captured) -> None:
    raw = pd.read_parquet("datasets/tiny/items.parquet")["raw_id"]
    assert run(["ids", "tiny", "--set", "ids.codes=4", "--item", raw[5]]) == 0
    shown = capsys.readouterr().out
    told = pd.read_parquet(next(Path("datasets/tiny/ids").glob("*/codes.parquet")))
    codes = " ".join(str(code) for code in told.iloc[5, 1:])
    assert codes in shown
    assert "like" in shown


def test_a_config_file_gives_the_same_table_as_the_options(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "ids.toml").write_text('[method]\nname = "balanced"\niterations = 2\n[ids]\ncodes = 8\n')
    assert run(["ids", "tiny", "--config", "ids.toml", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    options = ["--method", "balanced", "--set", "method.iterations=2", "--set", "ids.codes=8"]
    assert run(["ids", "tiny", *options, "--json"]) == 0
    two = json.loads(capsys.readouterr().out)
    assert two["folder"] == one["folder"]
    assert two["was_there"]


def test_quiet_prints_nothing_and_builds(capsys: Captured) -> None:
    assert run(["ids", "tiny", "--set", "ids.codes=8", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    assert next(Path("datasets/tiny/ids").glob("*/codes.parquet"))


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["ids", "tyni"], 3, "Did you mean tiny?"),
        (["ids", "tiny", "--method", "rqave"], 2, "Did you mean rqvae?"),
        (["ids", "tiny", "--set", "ids.code=8"], 2, "Did you mean ids.codes?"),
        (["ids", "tiny", "--set", "id.codes=8"], 2, "Did you mean ids?"),
        (["ids", "tiny", "--set", "ids=8"], 2, "--set ids.NAME="),
        (["ids", "tiny", "--set", "ids.codes=1"], 2, "codes is 1"),
        (["ids", "tiny", "--set", "ids.dedup=sufix"], 2, "ids.dedup=suffix"),
        (["ids", "tiny", "--set", "method.iterations=0"], 2, "at least 1"),
        (["ids", "tiny", "--set", "ids.codes=20000"], 3, "rkmeans with 20000 codes needs 20000 items"),
        (["ids", "tiny", "--set", "features.encoder=./nowhere"], 3, "no sentence encoder"),
        (["ids", "tiny", "--item", "no-such-item"], 2, "No item 'no-such-item'"),
        (["ids", "tiny", "--config", "nowhere.toml"], 2, "cannot be read"),
    ],
)
def test_a_mistake_is_answered_with_what_why_fix_and_its_code(
    args: list[str], code: int, words: str, capsys: Captured
) -> None:
    assert run(args) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert "\nfix: " in captured.err


def test_where_no_number_of_codes_is_small_enough_none_is_advised(tmp_path: Path, capsys: Captured) -> None:
    rows = [f"u{u},i{(u + step) % 3},{step}" for u in range(3) for step in range(3)]
    (tmp_path / "raw.csv").write_text("\n".join(["user,item,timestamp", *rows, ""]))
    home = ["--datasets", str(tmp_path)]
    assert run(["prepare", "few", "--source", str(tmp_path / "raw.csv"), "--core", "0", "--quiet", *home]) == 0
    assert run(["ids", "few", *home]) == 3
    told = capsys.readouterr().err
    assert "there are 0" in told
    assert "ids.codes" not in told
