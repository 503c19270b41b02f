"""``recbench evaluate``: the ranks of a run once more, and by several draws."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from recbench.cli.app import run
from tests.cli.commands import Captured

pytestmark = pytest.mark.usefixtures("at_home")


def test_evaluate_says_that_the_ranks_agree(capsys: Captured) -> None:
    assert run(["evaluate", "runs/tiny-sasrec-none-s0"]) == 0
    assert "equal the stored ones" in capsys.readouterr().out


def test_evaluate_says_what_the_best_of_several_draws_gains_by_chance(capsys: Captured) -> None:
    assert run(["evaluate", "runs/tiny-sasrec-none-s0", "--draws", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    each = [draw["test"]["ndcg@10"] for draw in told["draws"]]
    assert len(set(each)) == 3
    assert told["best_for_each_user"]["test"]["ndcg@10"] > max(each)
    assert run(["evaluate", "runs/tiny-sasrec-none-s0", "--draws", "3"]) == 0
    shown = capsys.readouterr().out
    assert "best for each" in shown
    assert f"{told['best_for_each_user']['test_unseen']['ndcg@10']:.4f}" in shown
    assert run(["evaluate", "runs/tiny-sasrec-none-s0"]) == 0  # nothing of it stays
    assert "equal the stored ones" in capsys.readouterr().out


def test_evaluate_says_when_the_ranks_differ(tmp_path: Path, capsys: Captured) -> None:
    import pandas as pd

    shutil.copytree("runs/tiny-markov-none-s0", tmp_path / "changed")
    path = tmp_path / "changed" / "users.parquet"
    ranks = pd.read_parquet(path)
    ranks.loc[:2, "above"] += 1
    ranks.to_parquet(path, index=False)
    assert run(["evaluate", str(tmp_path / "changed"), "--quiet"]) == 4
    assert "3 of the ranks differ" in capsys.readouterr().err
