"""Lists on terminals of any width, and off them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from recbench.cli import render
from recbench.cli.app import run
from recbench.cli.list import KINDS, _heading, _text
from recbench.errors import RecbenchError
from recbench.registry import BACKBONES, HEADS, LOSSES, SOURCES, TOKENISERS
from tests.run_folders import make_run, ranks

Captured = pytest.CaptureFixture[str]
LONG = "amazon2018-arts-crafts-and-sewing"


@pytest.fixture(autouse=True)
def at_home(tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among prepared datasets and two runs, one of a long name."""
    (tmp_path / "datasets").symlink_to(tiny_home)
    for dataset in ("tiny", LONG):
        make_run(tmp_path / "runs", "markov", ranks(np.arange(20)), dataset={"name": dataset})
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=[72, 80, 90, 100, 120])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Columns of a terminal that stdout is."""
    terminal = Console(highlight=False, soft_wrap=True, force_terminal=True, color_system=None, width=request.param)
    monkeypatch.setattr(render, "out", terminal)
    return request.param


def listed(kind: str, capsys: Captured) -> tuple[list[dict[str, Any]], list[str], str]:
    """Rows as machines get them, lines as a person does, and what stands on stderr."""
    assert run(["list", kind, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert run(["list", kind]) == 0
    said = capsys.readouterr()
    return rows, [line.rstrip() for line in said.out.splitlines() if line.strip()], said.err


def test_every_fix_that_names_a_kind_names_one_that_is_listed(capsys: Captured) -> None:
    for table in (BACKBONES, HEADS, LOSSES, SOURCES, TOKENISERS):
        with pytest.raises(RecbenchError) as error:
            table.entry("?")
        assert error.value.fix == f"recbench list {table.plural}"
        assert run(["list", table.plural]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("kind", KINDS)
def test_no_word_is_broken_and_no_line_is_longer_than_the_terminal(kind: str, width: int, capsys: Captured) -> None:
    rows, lines, told = listed(kind, capsys)
    shown = [column for column in rows[0] if _heading(column) in lines[1]]
    gone = [column for column in rows[0] if column not in shown]
    assert max(map(len, lines)) <= width
    assert shown[0] in ("name", "run")
    assert len(shown) > 1
    words = {
        word for row in rows for column in shown for word in _text(column, row[column]).split() if not word.isdigit()
    }
    assert words <= {word for line in lines for word in line.split()}
    assert all(_heading(column) in told for column in gone)
    assert ("no room for" in told) == bool(gone)


@pytest.mark.parametrize("kind", KINDS)
def test_a_person_is_told_where_settings_are_listed(kind: str, width: int, capsys: Captured) -> None:
    _, _, told = listed(kind, capsys)
    assert ("recbench show NAME" in told) == (kind in ("backbones", "heads", "losses", "tokenisers"))


def test_the_most_telling_columns_stay_longest(width: int, capsys: Captured) -> None:
    _, lines, told = listed("datasets", capsys)
    assert "events" in lines[1]
    assert "checksum" in told
    assert ("users" in told) == (width < 100)
    _, lines, told = listed("runs", capsys)
    assert "NDCG@10" in lines[1]
    assert ("HR@10" in told) == (width < 80)


@pytest.mark.parametrize("kind", KINDS)
def test_off_a_terminal_a_row_is_a_line_and_no_column_goes(kind: str, capsys: Captured) -> None:
    rows, lines, told = listed(kind, capsys)
    assert all(_heading(column) in lines[1] for column in rows[0])
    assert len(lines) == len(rows) + 3
    assert not told


def test_a_dataset_that_cannot_be_read_hides_no_other(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "mine" / "broken").mkdir(parents=True)
    (tmp_path / "mine" / "broken" / "card.json").write_text("{")
    assert run(["list", "datasets", "--datasets", "mine", "--json"]) == 0
    captured = capsys.readouterr()
    rows = {row["name"]: row["here"] for row in json.loads(captured.out)}
    assert rows["broken"] == "cannot be read"
    assert "beauty" in rows
    assert "card.json" in captured.err


def test_a_run_that_cannot_be_read_hides_no_other(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.json").write_text("{")
    assert run(["list", "runs"]) == 0
    captured = capsys.readouterr()
    assert "tiny-markov-none-s0" in captured.out
    assert "cannot be read" in captured.out
    assert "broken" in captured.err


def test_runs_are_numbers_for_machines(tmp_path: Path, capsys: Captured) -> None:
    told = {
        "metrics": {"test": {"hr@10": 0.123456, "ndcg@10": 0.1}},
        "seconds": {"fit": 70.0, "test": 2.5},
        "epochs": 7,
    }
    make_run(tmp_path / "more", "sasrec", ranks(np.arange(20)), **told)
    assert run(["list", "runs", "--runs", "more", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["HR@10"], row["NDCG@10"], row["seconds"], row["epochs"]) == (0.123456, 0.1, 72.5, 7)
    assert row["started"] == "2026-01-01T00:00:00+00:00"
    assert run(["list", "runs", "--runs", "more"]) == 0
    assert "1 min 12 s" in capsys.readouterr().out
