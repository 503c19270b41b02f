"""Every command that the documents name exists, takes the options it is shown with, and knows the settings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from recbench.cli.app import app
from recbench.conditions import without_effect
from recbench.config import parse_assignments
from recbench.settings import Asked, resolve

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("results/*.md"))]
PLACEHOLDER = re.compile(r"[A-Z]+")
WITHOUT_VALUE = re.compile(r"--(format \.\.\.|user|steps)$")
"""Options that a sentence names without a value."""


def commands(document: Path) -> Iterator[list[str]]:
    """Words behind ``recbench`` of every command, in blocks and in sentences; optional parts are taken as given."""
    inside = False
    for line in document.read_text(encoding="utf-8").splitlines():
        inside ^= line.startswith("```")
        whole = line.strip().removeprefix("$ ")
        found = [whole] if inside and whole.startswith("recbench ") else re.findall(r"`(recbench [^`]*)`", line)
        for text in found:
            typed = WITHOUT_VALUE.sub("", re.sub(r"[\[\]\\]", "", text)).replace("...", "")
            _, *words = shlex.split(typed, comments=True)
            if words and not words[0].startswith("--"):
                yield words


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documented_commands_exist_with_their_options_and_settings(document: Path) -> None:
    known = typer.main.get_command(app)
    for name, *words in commands(document):
        command = known.commands[name]  # type: ignore[attr-defined]  # a group
        given, _, _ = command.make_parser(command.context_class(command, info_name=name)).parse_args(words)
        backbone, head = given.get("backbone") or "", given.get("reason") or "none"
        if name == "train" and backbone and not PLACEHOLDER.fullmatch(backbone) and "$" not in backbone:
            head = "none" if PLACEHOLDER.fullmatch(head) else head
            asked = Asked(backbone, head, "beauty", None, parse_assignments(given.get("assignments") or [])).table()
            assert not without_effect(asked, resolve(asked, "amazon").parts)
