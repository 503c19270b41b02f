"""How a long job says how far it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Report = Callable[[str, int, int | None], None]
"""Told the stage, how far it is, and how far it goes if that is known."""


def counting(stage: str, path: Path | None, report: Report) -> Callable[[int], None]:
    """Adds up what a reader of ``path`` says it has read."""
    total = path.stat().st_size if path else None
    done = 0

    def progress(size: int) -> None:
        nonlocal done
        done += size
        report(stage, done, total)

    return progress
