"""A run that was not validated behind each epoch: trained under a bar, shown, verified and reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from recbench.cli import render
from recbench.cli.app import run

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
SMALL = ["--set", "backbone.width=8", "--set", "backbone.inner=16", "--device", "cpu"]


def test_it_is_trained_shown_verified_and_reported(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as terminal:
        terminal.setattr(render, "err", Console(stderr=True, force_terminal=True, width=100))
        given = ["--datasets", str(tiny_home), "--dataset", "tiny", *SMALL]
        given += ["--set", "train.epochs=5", "--set", "train.validate_every=2"]
        assert run(["train", "--backbone", "sasrec", *given]) == 0
    folder = Path("runs/tiny-sasrec-none-s0")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "valid" in line] == [2, 4, 5]
    capsys.readouterr()

    assert run(["show", str(folder)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("train ")]
    told = {row[1]: row[3:] for row in rows if row[1] in "12345"}
    assert [len(told[epoch]) for epoch in "13"] == [1, 1]  # users/s alone
    assert told["4"][:2] == [f"{lines[3]['valid'][name]:.4f}" for name in ("hr@10", "ndcg@10")]

    assert run(["verify", str(folder), "--datasets", str(tiny_home)]) == 0
    assert run(["report", "runs", "--datasets", str(tiny_home), "--quiet"]) == 0
    page = Path("report.html").read_text()
    assert "cannot be read" not in page
    assert f"{lines[4]['valid']['ndcg@10']:.4f}" in page
