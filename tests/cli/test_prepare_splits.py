"""Splits and ties from the command line: what is printed, what is kept, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
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


def test_what_the_order_of_ties_is_worth_is_printed_and_kept(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare(source) == 0
    told = capsys.readouterr().out
    assert "what the order of equal times is worth" in told
    assert "mean and range over 5 seeds of --ties hash" in told
    kept = Card.read(source.parent / "x")
    assert kept.audit["tie_sensitivity"]["seeds"] == [0, 1, 2, 3, 4]
    value = kept.audit["tie_sensitivity"]["markov"]["as_prepared"]["ndcg@10"]
    assert f"{value:.4f}" in told
    assert "| markov | NDCG@10 |" in (source.parent / "x" / "README.md").read_text()
    assert "not measured" not in told
    assert prepare(source, "--shuffles", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["audit"]["tie_sensitivity"]["seeds"] == [0]
    assert prepare(source, "--shuffles", "0") == 0
    told = capsys.readouterr().out
    assert "what the order of equal times is worth to a baseline is not measured yet: recbench audit" in told
    assert "tie_sensitivity" not in Card.read(source.parent / "x").audit
    monkeypatch.setattr("recbench.evaluation.sensitivity.LARGEST", 131)  # one event fewer than there are
    assert prepare(source) == 0
    assert "not measured yet" in capsys.readouterr().out


def test_where_nothing_is_tied_nothing_is_shuffled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"u{u},i{(u + d) % 7},2014-05-{d:02d}\n" for u in range(12) for d in range(1, 11))
    (tmp_path / "t.csv").write_text("user,item,timestamp\n" + rows)
    assert prepare(tmp_path / "t.csv") == 0
    told = capsys.readouterr().out
    assert "no user has two events at one time" in told
    assert "order of equal times" not in told
    assert run(["audit", "x", "--datasets", str(tmp_path)]) == 0
    assert "No user has two events at one time: no order of ties can be tried." in capsys.readouterr().out


def test_preparing_never_imports_torch(source: Path) -> None:
    code = (
        "import sys; from recbench.cli.app import run; "
        f"run(['prepare', 'x', '--source', {str(source)!r}, '--core', '0', '--datasets', {str(source.parent)!r}]); "
        "sys.exit(9 if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "what the order of equal times is worth" in done.stdout
