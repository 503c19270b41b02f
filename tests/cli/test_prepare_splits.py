"""Splits and ties from the command line: what is printed, what is kept, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recbench.cli.app import run
from recbench.data.card import Card


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve users who visit every day of ten, twice on the last."""
    rows = "".join(f"u{u},i{(u + d) % 7},2014-05-{d:02d}\n" for u in range(12) for d in [*range(1, 11), 10])
    (tmp_path / "t.csv").write_text("user,item,timestamp\n" + rows)
    return tmp_path / "t.csv"


def prepare(source: Path, *options: str) -> int:
    return run(["prepare", "x", "--source", str(source), "--core", "0", "--datasets", str(source.parent), *options])


def test_a_cut_by_date_is_printed_and_kept(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--split",
        "temporal",
        "--target",
        "successive",
        "--valid-from",
        "2014-05-08",
        "--test-from",
        "2014-05-10",
    ]
    assert prepare(source, *options) == 0
    told = capsys.readouterr().out
    assert "temporal: train 84, valid 24, test 24 events" in told
    assert "each event of a user in the window, after all before it; 12 users in valid, 12 in test" in told
    assert "24 targets in valid, 24 in test" in told
    split = Card.read(source.parent / "x").split
    assert (split["valid_from"], split["test_from"], split["target"]) == ("2014-05-08", "2014-05-10", "successive")
    assert split["test_after"] == 1_399_680_000 - 1
    assert run(["list", "datasets", "--datasets", str(source.parent)]) == 0
    assert "temporal, successive" in capsys.readouterr().out


def test_the_tie_policy_stands_in_the_card(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(source, "--ties", "hash", "--tie-seed", "7", "--json") == 0
    assert "hash of user, item and seed 7" in json.loads(capsys.readouterr().out)["tie_rule"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tie-seed", "7"], "--tie-seed 7 does not go with --ties source"),
        (["--ties", "random"], "Unknown tie policy 'random'"),
        (["--quantile", "0.5"], "--quantile does not go with --split leave-one-out"),
        (["--split", "temporal", "--test-from", "2030-01-01"], "--test-from 2030-01-01 cuts nothing"),
        (["--split", "temporal", "--test-from", "May"], "a number of seconds"),
        (["--split", "temporal", "--quantile", "0.999"], "leaves nobody to evaluate"),
    ],
)
def test_options_that_cannot_be_are_refused_in_words(
    options: list[str], words: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(source, *options) in (2, 3)
    told = capsys.readouterr()
    assert words in told.err
    assert "fix:" in told.err
    assert not told.out
    assert not (source.parent / "x").exists()


def test_show_draws_what_the_data_card_draws(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(source) == 0
    capsys.readouterr()
    assert run(["show", "x", "--datasets", str(source.parent)]) == 0
    told = capsys.readouterr().out
    bars = [line.strip() for line in (source.parent / "x" / "README.md").read_text().splitlines() if "#" * 20 in line]
    assert bars
    assert all(bar in told for bar in bars)
