"""What a shell is offered behind Tab."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recbench.cli.app import run
from tests.run_folders import make_run, ranks


class Shell:
    """Bash, asking as typer's script for it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, line: str) -> list[str]:
        """What is offered where ``line`` ends."""
        words = line.split()
        self.monkeypatch.setenv("_RECBENCH_COMPLETE", "complete_bash")
        self.monkeypatch.setenv("COMP_WORDS", line)
        self.monkeypatch.setenv("COMP_CWORD", str(len(words) - (not line.endswith(" "))))
        with pytest.raises(SystemExit):
            run([])
        return self.capsys.readouterr().out.split()


@pytest.fixture
def shell(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    shutil.copytree(tiny_home, tmp_path / "datasets")
    make_run(tmp_path / "runs", "sasrec", ranks([1, 2, 3]))
    monkeypatch.chdir(tmp_path)
    return Shell(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("recbench train --backbone sa", ["sasrec"]),
        ("recbench train --reason la", ["lares", "lasar"]),
        ("recbench train --dataset t", ["tiny"]),
        ("recbench train --set ", ["train.", "backbone.", "head.", "loss."]),
        ("recbench train --set train.ep", ["train.epochs"]),
        ("recbench train --backbone sid-lm --set backbone.st", ["backbone.start"]),
        ("recbench train --reason lasar --set head.step", ["head.step_cost"]),
        ("recbench train --set head.step", []),
        ("recbench train --backbone nonsense --set backbone.", []),
        ("recbench train --set loss.", ["loss.name"]),
        ("recbench train --set loss.name=gbce --set loss.", ["loss.negatives", "loss.t"]),
        ("recbench train --reason lares --until ", ["spt", "rpt"]),
        ("recbench train --until ", []),
        ("recbench verify-model sasrec --loss g", ["gbce"]),
        ("recbench ids t", ["tiny"]),
        ("recbench ids --method r", ["rkmeans", "rqvae"]),
        ("recbench ids --method rqvae --set method.be", ["method.beta"]),
        ("recbench ids --set features.s", ["features.source"]),
        ("recbench prepare bea", ["beauty"]),
        ("recbench prepare x --source-format st", ["steam"]),
        ("recbench list tok", ["tokenisers"]),
        ("recbench show t", ["tiny", "tiger", "train"]),
        ("recbench show runs/", ["runs/beauty-sasrec-none-s0"]),
        ("recbench audit t", ["tiny"]),
        ("recbench export t", ["tiny"]),
    ],
)
def test_names_and_settings_are_offered(line: str, offered: list[str], shell: Shell) -> None:
    assert shell(line) == offered


def test_a_broken_card_of_the_users_own_breaks_no_line(shell: Shell) -> None:
    (Path("datasets") / "mine.toml").write_text("x = [\n")
    assert shell("recbench prepare bea") == []
