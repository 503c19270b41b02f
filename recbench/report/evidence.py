"""What the files of runs hold beside the ranks: learning curves, steps at test, depths; and what is not there, and why."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from recbench import columns
from recbench.errors import RecbenchError
from recbench.runs import folder as layout
from recbench.runs.folder import Run

DEPTH = "depth@"
"""A diagnostic ``depth@k`` of an epoch is the share of users, or of targets, that thought k steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """A line of ``log.jsonl``."""

    stage: str
    epoch: int
    """Within its stage."""
    losses: Mapping[str, float]
    valid: Mapping[str, float]
    """Empty where it was not validated."""
    best: bool
    diagnostics: Mapping[str, float]
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A run with its system's label and what its folder holds."""

    label: str
    run: Run
    epochs: tuple[Epoch, ...] = ()
    steps: tuple[Mapping[str, float], ...] = ()
    """Lines of ``steps.csv``."""
    beams: tuple[Mapping[str, float], ...] = ()
    """Lines of ``beams.csv``."""
    depths: Mapping[int, float] = field(default_factory=dict)
    """Share by number of steps: of test queries, or where a run does not say that, of its best epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Something a reader may look for in vain."""

    what: str
    why: str
    fix: str


def gather(labelled: Sequence[tuple[str, Run]]) -> tuple[list[Evidence], list[Missing]]:
    """Read every run; a damaged file costs a figure, not the page."""
    found, missing = [], []
    for label, run in labelled:
        epochs, lost = _epochs(run)
        steps, no_steps = _again(run, layout.STEPS_TABLE, columns.STEPS, "Steps at test", "--steps 1,2,4,8")
        beams, no_beams = _again(run, layout.BEAMS_TABLE, columns.BEAM, "Width of the search", "--beams 10,20,50")
        missing += lost + no_steps + no_beams
        depths = _depths(run, epochs)
        found.append(Evidence(label=label, run=run, epochs=epochs, steps=steps, beams=beams, depths=depths))
    return found, missing


def _epochs(run: Run) -> tuple[tuple[Epoch, ...], list[Missing]]:
    path = run.folder / layout.LOG
    trained = run.manifest.epochs > 0
    if not path.exists():
        lost = Missing(
            what=f"Learning curve of {run.folder}",
            why=f"It trained for {run.manifest.epochs} epochs, but {layout.LOG} is not there.",
            fix="Copy whole run folders, not only run.json and users.parquet.",
        )
        return (), [lost] if trained else []
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return tuple(_epoch(line) for line in lines), []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return (), [
            Missing(
                what=f"Learning curve of {run.folder}", why=f"{path} cannot be read: {error}", fix="Train it again."
            )
        ]


def _epoch(line: Mapping[str, Any]) -> Epoch:
    return Epoch(
        stage=str(line["stage"]),
        epoch=int(line["epoch"]),
        losses=_numbers(line["losses"]),
        valid=_numbers(line.get("valid", {})),
        best=bool(line.get("best")),
        diagnostics=_numbers(line.get("diagnostics", {})),
        seconds=line.get("seconds"),
    )


def _again(
    run: Run, table: str, column: str, what: str, option: str
) -> tuple[tuple[Mapping[str, float], ...], list[Missing]]:
    """A run ranked in several ways, a line each; none where nobody asked."""
    path = run.folder / table
    if not path.exists():
        return (), []
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(handle)]
        if not all(column in row for row in rows):
            raise ValueError(f"no column {column}")
    except (OSError, ValueError, TypeError) as error:
        fix = f"recbench evaluate {run.folder} {option}"
        return (), [Missing(what=f"{what} of {run.folder}", why=f"{path} cannot be read: {error}", fix=fix)]
    return tuple(sorted(rows, key=lambda row: row[column])), []


def _depths(run: Run, epochs: Sequence[Epoch]) -> dict[int, float]:
    """Of the test queries; else of the last epoch that was best so far and says it, or of the last that says it."""
    thinking = run.manifest.facts.get("thinking", {})
    told = _numbers(thinking.get("share", {})) if isinstance(thinking, Mapping) else {}
    if told:
        return {int(k): share for k, share in sorted(told.items(), key=lambda pair: int(pair[0]))}
    telling = [epoch for epoch in epochs if any(name.startswith(DEPTH) for name in epoch.diagnostics)]
    chosen = [epoch for epoch in telling if epoch.best] or telling
    if not chosen:
        return {}
    shares = {
        name.removeprefix(DEPTH): share for name, share in chosen[-1].diagnostics.items() if name.startswith(DEPTH)
    }
    return {int(k): share for k, share in sorted(shares.items(), key=lambda pair: int(pair[0])) if k.isdecimal()}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Those that can be drawn."""
    return {name: float(v) for name, v in values.items() if isinstance(v, (int, float)) and isfinite(v)}


def absent(error: RecbenchError, what: str) -> Missing:
    """A refusal as something missing."""
    return Missing(what=what, why=f"{error.what} {error.why}", fix=error.fix)
