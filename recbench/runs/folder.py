"""Run folders: their names, what lies in them, and how they are found."""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recbench import columns
from recbench.errors import Exit, RecbenchError, nearest
from recbench.files import sha256
from recbench.runs.manifest import NAME as MANIFEST
from recbench.runs.manifest import Manifest

HOME = Path(os.environ.get("RECBENCH_RUNS", "runs"))
CONFIG, LOG, USERS, TOPK, MODEL, STATE = (
    "config.toml",
    "log.jsonl",
    "users.parquet",
    "topk.parquet",
    "model.safetensors",
    "state",
)
STEPS, STEPS_TABLE = "steps.parquet", "steps.csv"
"""What ``recbench evaluate --steps`` adds."""
BEAMS, BEAMS_TABLE = "beams.parquet", "beams.csv"
"""What ``recbench evaluate --beams`` adds."""
EVIDENCE = (CONFIG, LOG, USERS, TOPK, MODEL)
"""The files whose hashes a finished run states."""


def folder_name(dataset: str, backbone: str, head: str, seed: int, until: str | None = None) -> str:
    """``<dataset>-<backbone>-<reason>-s<seed>``; ``<reason>-<stage>`` where training stopped after a stage."""
    return f"{dataset}-{backbone}-{head}{f'-{until}' if until else ''}-s{seed}"


UNLISTED = 2**31 - 2
"""``above`` of a target that a list of another tool does not hold."""


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What another tool found for one system and seed."""

    frame: pd.DataFrame
    """user, target, above, tied, perhaps above_unseen and tied_unseen; or user, target and the metrics ``measured``."""
    kind: str
    """``table``, ``trec`` or ``recbole``."""
    depth: int | None = None
    """Length of the lists where they end before the catalogue does: no metric may look further."""
    candidates: str | None = None
    """``all`` or ``unseen``, where the source says."""
    several: bool = False
    """Rows of one user are the targets of one query, not queries of their own."""
    measured: tuple[str, ...] = ()
    """Metrics that came as values instead of ranks."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, read lazily; or what another tool found, then ``folder`` is the file it came from."""

    folder: Path
    manifest: Manifest
    given: Given | None = None

    @classmethod
    def open(cls, folder: Path) -> Run:
        """The run in ``folder``; see ``Manifest.read`` for errors."""
        if not (folder / MANIFEST).exists():
            siblings = [path.parent.name for path in folder.parent.glob(f"*/{MANIFEST}")]
            near = nearest(folder.name, siblings)
            raise RecbenchError(
                f"No run at {folder}.",
                why=f"A run folder holds {MANIFEST}; this one does not exist or holds none.",
                fix=f"Did you mean {folder.parent / near}?" if near else "recbench list runs",
                code=Exit.RUN,
            )
        return cls(folder, Manifest.read(folder))

    @property
    def origin(self) -> str | None:
        """Hash of the weights that training went on from, or of its own where it began anew; None where nobody says."""
        own = self.manifest.files.get(MODEL)
        return self.manifest.started_from.get("model_sha256", own)

    def config(self) -> dict[str, Any]:
        """The resolved config, every default filled in; of another tool's result nothing is known.

        Raises:
            RecbenchError: the file is absent or no TOML.
        """
        if self.given is not None:
            return {}
        path = self.folder / CONFIG
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:  # no TOML and no UTF-8 are ValueErrors
            raise RecbenchError(
                f"{path} cannot be read.",
                why=f"{error}.",
                fix="Copy the whole run folder again, or train it again into another: --runs DIR",
                code=Exit.RUN,
            ) from error

    def changed(self, name: str) -> bool:
        """Is one of ``EVIDENCE`` there, and another than the run states?"""
        path, stated = self.folder / name, self.manifest.files.get(name)
        return path.exists() and stated is not None and sha256(path) != stated

    @property
    def ranking_again(self) -> str:
        """The command that writes the ranks anew, from the weights."""
        path = self.folder / USERS
        return f"{f'rm {shlex.quote(str(path))} && ' if path.exists() else ''}recbench evaluate {shlex.quote(str(self.folder))}"

    def ranks(self, split: str = "test") -> pd.DataFrame:
        """Where each user's target was ranked: the columns of ``columns.RANKS``, by user.

        Raises:
            RecbenchError: the file is absent or damaged (its hash is not the one the run states, or no ranks are in it).
        """
        if self.given is not None:
            return self.given.frame
        path = self.folder / USERS
        if not path.exists() or self.changed(USERS):
            raise RecbenchError(
                f"{path} is {'changed' if path.exists() else 'missing'}.",
                why="run.json states its sha256, and it does not agree." if path.exists() else "The run has no ranks.",
                fix=f"{self.ranking_again}, which ranks again from the weights",
                code=Exit.RUN,
            )
        try:
            table = pq.read_table(path, filters=[(columns.SPLIT, "=", split)])
            table.select(columns.RANKS)
        except (pa.ArrowException, KeyError) as error:
            raise RecbenchError(
                f"{path} cannot be read.",
                why=f"{error}.",
                fix="Copy the whole run folder again",
                code=Exit.RUN,
            ) from error
        return table.drop_columns([columns.SPLIT]).to_pandas()


def find(paths: Iterable[Path]) -> list[Run]:
    """The runs among ``paths``: run folders, or folders of run folders; sorted, each once."""
    found: dict[Path, Run] = {}
    for path in paths:
        inside = [path] if (path / MANIFEST).exists() else sorted(p.parent for p in path.glob(f"*/{MANIFEST}"))
        for folder in inside or [path]:
            found.setdefault(folder.resolve(), Run.open(folder))
    return list(found.values())
