"""What is read from run folders beside the ranks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recbench.report.evidence import gather
from recbench.runs.folder import LOG, STEPS_TABLE, Run
from tests.run_folders import make_run, ranks


def line(epoch: int, *, best: bool, **more: Any) -> str:
    return json.dumps(
        {"stage": "rl", "epoch": epoch, "losses": {"total": 1.0}, "valid": {"ndcg@10": 0.1}, "best": best} | more
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.open(make_run(tmp_path, "sasrec", ranks([1, 2, 3]), head="lares"))


def write(run: Run, *lines: str) -> None:
    (run.folder / LOG).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_depths_are_those_of_the_last_best_epoch_in_order_of_steps(run: Run) -> None:
    write(
        run,
        line(1, best=True, diagnostics={"depth@2": 0.9, "depth@10": 0.1}),
        line(2, best=True, diagnostics={"depth@10": 0.25, "depth@2": 0.75, "similarity@1": 0.5}),
        line(3, best=False, diagnostics={"depth@2": 1.0}),
    )
    ((found,), missing) = gather([("a", run)])
    assert list(found.depths.items()) == [(2, 0.75), (10, 0.25)]
    assert missing == []


def test_depths_are_those_of_the_test_queries_where_the_run_says_them(run: Run) -> None:
    write(run, line(1, best=True, diagnostics={"depth@2": 1.0}))
    facts = {"thinking": {"mean": 3.0, "share": {"10": 0.25, "2": 0.75}}}
    replace(run.manifest, facts=facts).write(run.folder)
    ((found,), _) = gather([("a", Run.open(run.folder))])
    assert list(found.depths.items()) == [(2, 0.75), (10, 0.25)]


def test_what_cannot_be_drawn_is_left_out_of_an_epoch(run: Run) -> None:
    write(run, line(1, best=True, diagnostics={"kl": None, "reward": float("nan")}))
    ((found,), _) = gather([("a", run)])
    assert found.epochs[0].diagnostics == {}
    assert found.epochs[0].valid == {"ndcg@10": 0.1}


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"stage": "a"}', '{"stage": "a", "epoch": "x", "losses": {}, "valid": {}}', '"a"']
)
def test_a_damaged_log_is_missing_with_its_path_and_nothing_fails(run: Run, text: str) -> None:
    write(run, text)
    ((found,), (missing,)) = gather([("a", run)])
    assert found.epochs == ()
    assert LOG in missing.why


def test_steps_are_sorted_and_a_table_without_them_is_missing(run: Run) -> None:
    write(run, line(1, best=True))
    (run.folder / STEPS_TABLE).write_text("steps,test_ndcg@10\n4,0.2\n1,0.1\n", encoding="utf-8")
    ((found,), missing) = gather([("a", run)])
    assert [row["steps"] for row in found.steps] == [1.0, 4.0]
    assert missing == []
    (run.folder / STEPS_TABLE).write_text("k,test_ndcg@10\n4,0.2\n", encoding="utf-8")
    ((found,), (lost,)) = gather([("a", run)])
    assert found.steps == ()
    assert "evaluate" in lost.fix


def test_a_trained_run_without_a_log_is_missing_its_curve_and_a_closed_form_one_is_not(
    tmp_path: Path, run: Run
) -> None:
    baseline = Run.open(make_run(tmp_path, "markov", ranks([1, 2, 3])))
    _, (missing,) = gather([("a", run), ("b", baseline)])
    assert str(run.folder) in missing.what
