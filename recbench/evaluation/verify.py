"""A run's claims, derived again from its own evidence: hashes, counts and every reported number."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recbench import columns
from recbench.config import read_toml, system_digest
from recbench.data.dataset import Dataset
from recbench.errors import RecbenchError
from recbench.evaluation.by_user import Places
from recbench.evaluation.metrics import parse
from recbench.files import sha256
from recbench.runs import folder as layout
from recbench.runs.folder import Run

TOLERANCE = 1e-9
"""A mean added in another order moves less than this."""
FROM_RANKS = ("ranks", "counts", "valid", "test", "test_unseen", "lists", "targets")
"""Findings that follow from ``users.parquet`` and what is held against it."""
_METRICS = {"valid": ("valid", "all"), "test": ("test", "all"), "test_unseen": ("test", "unseen")}
"""Split and candidates of each group of ``Manifest.metrics``."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    holds: bool | None
    """None: it could not be looked at."""
    told: str


def verify(run: Run, datasets: Path) -> list[Finding]:
    """Everything a finished run states that follows from its files.

    Args:
        run: the run.
        datasets: home of prepared datasets; one that is not there is said to be unchecked.
    """
    found = [_finished(run), *_files(run)]
    frame = _read_ranks(run)
    if frame is None:
        return [*found, Finding("ranks", False, f"{layout.USERS} cannot be read, so no number can be derived.")]
    found += [_counts(run, frame), *_numbers(run), _lists(run, frame), _config(run), _best_epoch(run)]
    return [*found, *_dataset(run, frame, datasets)]


def _finished(run: Run) -> Finding:
    status = run.manifest.status
    return Finding("status", status == "finished", status)


def _files(run: Run) -> Iterator[Finding]:
    stated = run.manifest.files
    for name in layout.EVIDENCE:
        path = run.folder / name
        if name not in stated:
            if path.exists():
                yield Finding(name, None, "run.json states no sha256")
        elif not path.exists():
            yield Finding(name, False, "missing")
        else:
            actual = sha256(path)
            same = actual == stated[name]
            yield Finding(name, same, f"sha256 {actual[:12]}" + ("" if same else f", stated {stated[name][:12]}"))


def _read_ranks(run: Run) -> pd.DataFrame | None:
    """All ranks, damaged or not: what is wrong with them is to be told, not refused."""
    try:
        frame = pq.read_table(run.folder / layout.USERS).to_pandas()
    except (OSError, pa.ArrowException):
        return None
    return frame if set(columns.RANKS) <= set(frame.columns) else None


def _successive(run: Run) -> bool:
    """Is every event of a window asked for in its turn, so that a user has many queries, the same item perhaps twice?"""
    split = run.manifest.protocol.get("split")
    return isinstance(split, Mapping) and split.get("target") == "successive"


def _counts(run: Run, frame: pd.DataFrame) -> Finding:
    """Counts that can be counts: none below 0, none beyond the catalogue, no query twice."""
    items = run.manifest.dataset.get("items") or np.inf
    above, tied = frame[columns.ABOVE], frame[columns.TIED]
    rules = {
        "a count is negative": (frame[[*columns.RANKS[3:]]] < 0).any(axis=1),
        "more rivals than items": above + tied > items - 1,
        "more unseen rivals than items": frame[columns.ABOVE_UNSEEN] + frame[columns.TIED_UNSEEN] > items,
    }
    if not _successive(run):
        rules["a query stands twice"] = frame.duplicated([columns.SPLIT, columns.USER, columns.TARGET])
    broken = [f"{why} ({int(rows.sum())} rows)" for why, rows in rules.items() if rows.any()]
    told = "; ".join(broken) if broken else f"{len(frame)} rows, every count possible"
    return Finding("counts", not broken, told)


def _numbers(run: Run) -> Iterator[Finding]:
    """Every reported metric, from the counts."""
    for group, stated in run.manifest.metrics.items():
        if group not in _METRICS:
            yield Finding(group, None, f"recbench does not know what {group} means")
            continue
        split, candidates = _METRICS[group]
        try:
            places = Places.of(run, split)
            derived = _derived(places, candidates, list(stated))
        except RecbenchError as error:
            yield Finding(group, False, f"{error.what} {error.why}".rstrip("."))
            continue
        wrong = [
            f"{name} is {derived[name]:.6f}, stated {value:.6f}"
            for name, value in stated.items()
            if not abs(derived[name] - value) <= TOLERANCE
        ]
        told = "; ".join(wrong) if wrong else f"{len(stated)} metrics over {len(places.users)} users"
        yield Finding(group, not wrong, told)


def _derived(places: Places, candidates: str, names: list[str]) -> dict[str, float]:
    """Means over users; NaN, which equals nothing, where there are none."""
    if not len(places.users):
        return dict.fromkeys(names, float("nan"))
    return {name: float(places.values(parse(name), candidates, "expected").mean()) for name in names}


def _lists(run: Run, frame: pd.DataFrame) -> Finding:
    """A target that its list holds at place p has at most p - 1 items above it, and no fewer with its ties."""
    path = run.folder / layout.TOPK
    if not path.exists():
        return Finding("lists", None, f"{layout.TOPK} is not there")
    try:
        top = pq.read_table(path).to_pandas()
    except (OSError, pa.ArrowException) as error:
        return Finding("lists", False, f"{layout.TOPK}: {error}")
    test = frame[frame[columns.SPLIT] == "test"]
    if _successive(run):
        test = test.drop_duplicates(columns.USER, keep="last")  # the one list of a user is that of the last query
    named = top.rename(columns={columns.ITEM: columns.TARGET})
    found = test.merge(named, on=[columns.USER, columns.TARGET], how="left")
    place = found[columns.POSITION]
    listed = place.notna()
    least, most = found[columns.ABOVE] + 1, found[columns.ABOVE] + found[columns.TIED] + 1
    depth = int(top[columns.POSITION].max()) if len(top) else 0
    wrong = (listed & ((place < least) | (place > most))) | (~listed & (most <= depth))
    told = f"{int(wrong.sum())} of {len(found)} targets stand elsewhere in {layout.TOPK} than their counts say"
    return Finding("lists", not wrong.any(), told if wrong.any() else f"{int(listed.sum())} listed targets agree")


def _config(run: Run) -> Finding:
    try:
        table = read_toml(run.folder / layout.CONFIG)
    except RecbenchError as error:
        return Finding("settings", False, error.what.rstrip("."))
    made = system_digest(table, run.manifest.started_from.get("config_sha256"))
    seed, name = table.get("seed"), table.get("dataset")
    wrong = []
    if made != run.manifest.config_sha256:
        wrong.append(f"its hash is {made[:12]}, stated {run.manifest.config_sha256[:12]}")
    if seed != run.manifest.seed:
        wrong.append(f"its seed is {seed}, stated {run.manifest.seed}")
    if name != run.manifest.dataset.get("name"):
        wrong.append(f"its dataset is {name}, stated {run.manifest.dataset.get('name')}")
    return Finding("settings", not wrong, "; ".join(wrong) or f"hash {made[:12]}, seed {seed}")


def _best_epoch(run: Run) -> Finding:
    """The kept weights are those the log calls best on validation; nothing else may have picked them."""
    path = run.folder / layout.LOG
    if run.manifest.best_epoch is None:
        return Finding("best epoch", None, "nothing was trained by epochs")
    if not path.exists():
        return Finding("best epoch", None, f"{layout.LOG} is not here")
    try:
        epochs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        return Finding("best epoch", False, f"{layout.LOG}: {error}")
    return _picked(run, epochs)


def _picked(run: Run, epochs: list[dict[str, Any]]) -> Finding:
    best = [line for line in epochs if line.get("best")]
    if not best and run.manifest.started_from and run.manifest.best_epoch == 0:
        return Finding("best epoch", True, "no epoch was better than the run it began with, whose weights it kept")
    if not best:
        return Finding("best epoch", False, f"{layout.LOG} calls no epoch the best")
    m, picked = run.manifest, best[-1]
    if m.best_stage is None:  # a run of before the stage was told
        logged, stated = str(picked.get("epoch")), str(m.best_epoch)
    else:
        logged = f"{picked.get('stage')} {picked.get('epoch')}"
        stated = f"{m.best_stage} {m.best_epoch}"
    trained = dict(Counter(str(line.get("stage")) for line in epochs))
    if m.stage_epochs and trained != m.stage_epochs:
        return Finding("best epoch", False, f"log has epochs {_by_stage(trained)}, stated {_by_stage(m.stage_epochs)}")
    return Finding("best epoch", logged == stated, f"log {logged}, stated {stated}")


def _by_stage(epochs: Mapping[str, int]) -> str:
    return ", ".join(f"{stage} {n}" for stage, n in epochs.items())


def _dataset(run: Run, frame: pd.DataFrame, datasets: Path) -> Iterator[Finding]:
    """The data is the one stated, and the targets are its test targets."""
    folder = datasets / str(run.manifest.dataset.get("name"))
    if not (folder / "card.json").exists():
        yield Finding("dataset", None, f"{folder} is not here, so its targets are not compared")
        return
    try:
        dataset = Dataset(folder)
        dataset.refuse_changed()
        queries = dataset.queries("test")
    except RecbenchError as error:
        yield Finding("dataset", False, f"{error.what} {error.why}")
        return
    stated, there = str(run.manifest.dataset.get("fingerprint")), dataset.card.fingerprint
    yield Finding("dataset", stated == there, f"fingerprint {there[:12]}, stated {stated[:12]}")
    test = frame[frame[columns.SPLIT] == "test"]
    ranked = np.sort(test[columns.USER].to_numpy(np.int64) << 32 | test[columns.TARGET].to_numpy(np.int64))
    asked = np.sort(queries.histories.users.astype(np.int64) << 32 | queries.targets.astype(np.int64))
    same = np.array_equal(ranked, asked)
    told = f"{len(asked)} test targets" + (", all ranked" if same else f", {len(ranked)} ranked, not the same")
    yield Finding("targets", same, told)
