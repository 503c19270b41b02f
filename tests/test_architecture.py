"""Decisions held by tests: who may import whom, and what stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import recbench

ROOT = Path(recbench.__file__).parent
LAYERS = [
    {"__main__"},
    {"cli"},
    {"experiment", "report"},
    {"start", "statement"},
    {"reference", "trained"},
    {"settings"},
    {"training", "comparison"},
    {"evaluation"},
    {"recommender"},
    {"generators", "reasoning"},
    {"backbones", "baselines", "scoring", "semantic_ids"},
    {"bands", "data", "kernels", "stats", "runs"},
    {"conditions"},
    {"columns", "config", "limits", "registry"},
    {"files"},
    {"errors"},
]
"""From the top: a line may import what stands below it. ``docs/architecture.md`` says the same."""
MODULES = sorted(ROOT.rglob("*.py"))


def layer(part: str) -> int:
    return next(place for place, parts in enumerate(LAYERS) if part in parts)


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_line_imports_only_what_stands_below_it(path: Path) -> None:
    own = part_of(path)
    if own == "__init__":
        return
    for name in imports(path):
        words = name.split(".")
        if words[0] != "recbench" or len(words) < 2 or words[1] in (own, "__version__"):
            continue
        assert layer(words[1]) > layer(own), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_and_visible_libraries_stay_in_their_rooms(path: Path) -> None:
    own = part_of(path)
    for name in imports(path):
        first = name.split(".")[0]
        if first in ("typer", "rich"):
            assert own == "cli"
        if name.startswith("scipy.stats"):
            assert own == "stats"
        if first == "torch":
            light = own in (
                "__main__",
                "cli",
                "config",
                "data",
                "stats",
                "runs",
                "bands",
                "comparison",
                "report",
                "errors",
                "columns",
                "files",
            )
            assert not light or path.name in ("batching.py", "doctor.py"), name
            assert path.name not in ("metrics.py", "beyond.py")


@pytest.mark.parametrize(
    "command", [["--help"], ["list"], ["compare", "nowhere"], ["verify", "nowhere"], ["train", "--help"]]
)
def test_looking_around_never_imports_torch(command: list[str], tmp_path: Path) -> None:
    code = (
        f"import sys; from recbench.cli.app import run; run({command!r}); sys.exit(9 if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_module_branches_on_a_models_name() -> None:
    from recbench.registry import BACKBONES, HEADS

    names = {*BACKBONES.entries(), *HEADS.entries()} - {"none"}
    for path in MODULES:
        if path.name in ("registry.py", "demo.py") or part_of(path) in ("comparison", "report"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                constants = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                assert not names & {value for value in constants if isinstance(value, str)}, f"{path}:{node.lineno}"


def test_every_name_in_the_tables_can_be_loaded() -> None:
    from recbench.registry import BACKBONES, HEADS, SOURCES

    for table in (BACKBONES, HEADS, SOURCES):
        for name in table.entries():
            assert isinstance(table.load(name), type)
