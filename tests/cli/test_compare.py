"""`recbench compare`, whole: status, stdout, stderr, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recbench.cli.app import run
from tests.comparison.test_compare import places
from tests.run_folders import make_run

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_run(tmp_path / "runs", "markov", places(0.1))
    make_run(tmp_path / "runs", "sasrec", places(0.2, seed=1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_goes_to_stdout_and_warnings_to_stderr(home: Path, capsys: Captured) -> None:
    assert run(["compare"]) == 0
    captured = capsys.readouterr()
    assert "sasrec" in captured.out
    assert "Holm" in captured.out
    assert captured.out.endswith("\n")
    assert "warning" not in captured.out
    assert "One seed only" in captured.err


@pytest.mark.parametrize(
    "arguments", [["runs"], ["runs/*"], ["runs/beauty-markov-none-s0", "runs/beauty-sasrec-none-s0"]]
)
def test_runs_are_found_by_folder_pattern_or_name(arguments: list[str], home: Path, capsys: Captured) -> None:
    assert run(["compare", *arguments, "--quiet"]) == 0
    captured = capsys.readouterr()
    assert "markov" in captured.out
    assert captured.err == ""


def test_json_is_json_and_a_file_gets_the_format_of_its_suffix(home: Path, capsys: Captured) -> None:
    assert run(["compare", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert run(["compare", "--output", "table.md", "--quiet"]) == 0
    assert (home / "table.md").read_text().startswith("## beauty")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["compare", "nowhere"], 4, "No run at nowhere"),
        (["compare", "nowhere*"], 4, "Nothing matches"),
        (["compare", "--metric", "ndgc@10"], 2, "ndcg@10"),
        (["compare", "--baseline", "sasrek"], 5, "sasrec"),
        (["compare", "--output", "."], 2, "It is a folder"),
        (["compare", "--output", "no/where.md"], 2, "not a folder"),
        (["compare", "runs/beauty-sasrec-none-s0"], 5, "why: "),
        (["compare", "--json", "--format", "csv"], 2, "Leave out one"),
        (["compare", "--candidates", "some"], 2, "some"),
    ],
)
def test_mistakes_are_answered_with_their_code(
    arguments: list[str], code: int, words: str, home: Path, capsys: Captured
) -> None:
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert "fix: " in captured.err


def test_no_runs_at_all_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["compare"]) == 4
    assert "recbench train" in capsys.readouterr().err
