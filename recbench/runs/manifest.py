"""``run.json``: what a run is, what made it, and how it ended."""

from __future__ import annotations

import json
import shlex
import types
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from recbench.errors import Exit, RecbenchError
from recbench.files import write_text

SCHEMA = 1
NAME = "run.json"
Status = Literal["running", "finished", "failed", "interrupted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The evidence of a run, kept small enough to read. Whatever is compared later stands here or in ``users.parquet``."""

    status: Status
    dataset: dict[str, Any]
    """name, family, items, fingerprint, sequence_sha256."""
    protocol: dict[str, Any]
    """split (with its parameters), tie_rule of equal times, candidates, metric ties, catalogue: what must agree to compare."""
    backbone: str
    head: str
    seed: int
    loss: str
    """The training loss and its negatives; ``closed form`` where nothing is trained by gradient."""
    inputs: dict[str, Any]
    """What the model sees of a history: length; timestamps (False, or whose: ``history``, ``history and
    target``); text: does it, or did a stage of its training, learn from what stands in texts of the items?"""
    argv: list[str]
    versions: dict[str, str]
    git: dict[str, Any]
    """commit and dirty of the checkout recbench runs from; empty when installed from a wheel."""
    hardware: dict[str, Any]
    config_sha256: str
    """Hash of the resolved config without its seed: equal in the seeds of one system. In place of the path of a run it went
    on from stands that run's own such hash."""
    started: str
    """When, UTC; of a resumed run, the first time."""
    n_parameters: int = 0
    best_epoch: int | None = None
    """The epoch whose weights were kept, counted in its stage; 0: the weights the stage began with."""
    best_stage: str | None = None
    """Its stage; None in runs of before it was told."""
    epochs: int = 0
    """Epochs trained, over all stages."""
    stage_epochs: dict[str, int] = field(default_factory=dict)
    """Epochs trained, by stage."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds by stage, and of evaluation (``test``)."""
    ms_per_user: float | None = None
    """Ranking one test user, in batches, milliseconds."""
    latency_ms: dict[str, float] = field(default_factory=dict)
    """Ranking one user, from ids to the best ten, milliseconds, by how many are ranked at once (``1``, ``256``)."""
    stages: list[str] = field(default_factory=list)
    """Stages of training the weights have gone through, also in the run this one started from."""
    started_from: dict[str, Any] = field(default_factory=dict)
    """folder, model_sha256, config_sha256 and training_seconds of the run whose weights training went on from."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What stages of training found out as they began, by stage."""
    peak_memory_mb: float | None = None
    rank_cutoff: int | None = None
    """The rank behind which all targets are given as last: no metric may look further. None: every rank is true."""
    tuning: dict[str, Any] = field(default_factory=dict)
    """How the settings were chosen: ``trials`` tried, ``space`` searched, ``selected_on`` (valid). Empty: not tuned here."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """``valid``, ``test`` (all items) and ``test_unseen``: metric name to mean over users, expected under random ties."""
    warnings: list[str] = field(default_factory=list)
    error: dict[str, str] = field(default_factory=dict)
    """what, why and fix of a failed run."""
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of each file, once finished."""
    schema: int = SCHEMA

    @property
    def system(self) -> str:
        """Short name of the system: ``sasrec``, ``sasrec+lares``."""
        return self.backbone if self.head == "none" else f"{self.backbone}+{self.head}"

    @property
    def command(self) -> str:
        """What was typed to make it, fit to be pasted."""
        return shlex.join(["recbench", *self.argv[1:]])

    @property
    def training_seconds(self) -> float | None:
        """Wall seconds of all stages its weights have gone through, those of the runs it went on from included; None: not said."""
        if not self.seconds:
            return None
        own = sum(seconds for stage, seconds in self.seconds.items() if stage != "test")
        before = self.started_from.get("training_seconds") if self.started_from else 0.0
        return None if before is None else own + before

    @property
    def kept(self) -> str:
        """Which epoch's weights were kept: ``epoch 3 of 9``, ``rl, epoch 1 of 2``; empty where nothing was trained by epochs."""
        if self.best_epoch is None or not self.epochs:
            return ""
        if not self.best_epoch:
            return f"the weights it began with, of {self.epochs} epochs none"
        several = len(self.stages) > 1
        of = self.stage_epochs.get(self.best_stage or "", None if several else self.epochs)
        if of is None:  # a run of before the stage was told
            return f"epoch {self.best_epoch} of a stage; {self.epochs} epochs in all stages"
        return f"{f'{self.best_stage}, ' if several else ''}epoch {self.best_epoch} of {of}"

    def write(self, folder: Path) -> None:
        """Write ``run.json`` whole or not at all."""
        write_text(folder / NAME, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a run folder.

        Raises:
            RecbenchError: there is none, or this version cannot read it.
        """
        path = folder / NAME
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _unreadable(folder, f"{path}: {error}") from error
        if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
            raise _unreadable(folder, f"{path} is not of schema {SCHEMA}, the one this version reads.")
        known = {f.name for f in fields(cls)}
        unknown, missing = sorted(set(raw) - known), sorted(_required(cls) - set(raw))
        if unknown or missing:
            raise _unreadable(folder, f"{path}: unknown {unknown or 'nothing'}, missing {missing or 'nothing'}.")
        hints = get_type_hints(cls)
        if wrong := [name for name, value in raw.items() if not _fits(value, hints[name])]:
            raise _unreadable(folder, f"{path}: {wrong[0]} is {raw[wrong[0]]!r}, which recbench never writes there.")
        return cls(**raw)


def _fits(value: Any, hint: Any) -> bool:
    """Could this JSON value have been written from a field of that type?"""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if hint is Any:
        return True
    if kind in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if kind is Literal:
        return value in inner
    if kind is list:
        return isinstance(value, list) and all(_fits(one, inner[0]) for one in value)
    if kind is dict:
        return isinstance(value, dict) and all(_fits(one, inner[1]) for one in value.values())
    return type(value) is kind or (kind is float and type(value) is int)


def _required(cls: type[Manifest]) -> set[str]:
    from dataclasses import MISSING

    return {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}


def _unreadable(folder: Path, why: str) -> RecbenchError:
    return RecbenchError(f"{folder} is not a readable run folder.", why=why, fix="recbench list runs", code=Exit.RUN)
