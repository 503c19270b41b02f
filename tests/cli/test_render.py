"""Tables in terminals."""

from __future__ import annotations

import pytest
from rich.console import Console

from recbench.cli import render


def test_prose_gives_way_to_names_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [["amazon2018-arts-crafts", "thoughts refined by diffusion", "0.1234", "1 097 592"]]
    terminal = Console(highlight=False, soft_wrap=True, force_terminal=True, color_system=None, width=60)
    terminal.print(render.table(None, ["name", "what", "NDCG@10", "events"], rows, left=2))
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines() if line.strip()]
    first = [cell.strip() for cell in lines[2] if cell.strip()]
    assert first == ["amazon2018-arts-crafts", "thoughts", "0.1234", "1 097 592"]
    assert [" ".join(line).strip() for line in lines[3:]] == ["refined by", "diffusion"]
    terminal.width = 30
    terminal.print(render.table(None, ["name", "what", "NDCG@10", "events"], rows, left=2))
    said = capsys.readouterr().out
    assert all(whole in said for whole in ("amazon2018-arts-crafts", "0.1234", "1 097 592", "NDCG@10"))
