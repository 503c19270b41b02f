"""A folder to run commands in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recbench.cli.app import run
from tests.cli.commands import SMALL


@pytest.fixture(scope="session")
def home(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny dataset and three finished runs."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_home, home / "datasets")
    places = ["--datasets", str(home / "datasets"), "--runs", str(home / "runs"), "--quiet"]
    assert run(["train", "--backbone", "sasrec", "--seeds", "0,1", *SMALL, *places]) == 0
    assert run(["train", "--backbone", "markov", *places]) == 0
    (home / "runs" / "tiny-lru.toml").write_text(
        '[backbone]\nname = "lru"\nwidth = 8\n[head]\nname = "lares"\ngroup = 4\n'
    )
    (home / "runs" / "broken.toml").write_text("x = [\n")
    (home / "runs" / "latin.toml").write_bytes(b"x = '\xe9'\n")
    return home


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs in ``home``."""
    monkeypatch.chdir(home)
