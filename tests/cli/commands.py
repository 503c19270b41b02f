"""What tests of whole commands share."""

from __future__ import annotations

import pytest

from recbench.cli.app import run

SMALL = ["--set", "backbone.width=8", "--set", "backbone.inner=16", "--set", "train.epochs=2", "--device", "cpu"]
LARES = ["train", "--backbone", "sasrec", "--reason", "lares", "--dataset", "tiny"]
DIFFUSE = ["train", "--backbone", "sasrec", "--reason", "diffuse"]
Captured = pytest.CaptureFixture[str]


def failed(args: list[str], capsys: Captured) -> tuple[int, str]:
    """Exit code and stderr of a command that must say what, why and fix, and nothing on stdout."""
    code = run(args)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "\nwhy: " in captured.err
    assert "\nfix: " in captured.err
    return code, captured.err
