"""Going on from a finished run (``--from``): whose weights, and whether they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbench.config import differences, in_words, typed
from recbench.errors import RecbenchError
from recbench.files import sha256
from recbench.recommender import Trainable
from recbench.registry import HEADS
from recbench.runs import folder as layout
from recbench.runs.folder import Run
from recbench.settings import IDS, Resolved, resolve
from recbench.trained import finished, system_table, weights
from recbench.training.loop import Start


def start_of(resolved: Resolved, seed: int, fingerprint: str) -> tuple[Start | None, dict[str, Any]]:
    """The weights to go on from, with the stages their run has gone through, and what ``run.json`` says of that run.

    Args:
        resolved: the system to train; None and nothing where it begins anew.
        fingerprint: of the dataset to train on.

    Raises:
        RecbenchError: the run is not finished, or is of another dataset or system, or no stage is left.
    """
    if resolved.start is None:
        return None, {}
    run = Run.open(start_folder(resolved.start, seed))
    return _start(run, resolved, fingerprint), {
        "folder": str(run.folder),
        "model_sha256": sha256(run.folder / layout.MODEL),
        "config_sha256": run.manifest.config_sha256,
        "training_seconds": run.manifest.training_seconds,
    }


def start_folder(start: str, seed: int) -> Path:
    """The run folder that ``--from`` means for a seed."""
    return Path(start.replace("{seed}", str(seed)))


def _start(run: Run, resolved: Resolved, fingerprint: str) -> Start:
    finished(run)
    m, stages = run.manifest, resolved.stages
    if m.dataset["fingerprint"] != fingerprint:
        raise RecbenchError(
            f"--from {run.folder} was trained on another dataset.",
            why=f"Its data: {m.dataset['name']}, fingerprint {m.dataset['fingerprint'][:12]}; here {fingerprint[:12]}. "
            "Item ids mean other items there.",
            fix="Name a run of the same prepared dataset: recbench list runs",
        )
    begins_as = HEADS.load(resolved.head).begins_as(resolved.head_config)
    plain = m.head != resolved.head and m.head in begins_as
    _refuse_another_system(run, resolved, m.head == resolved.head or plain, stages[0])
    done = tuple(begins_as[m.head]) if plain else tuple(m.stages)
    if done != tuple(stages[: len(done)]) or len(done) == len(stages):
        raise RecbenchError(
            f"--from {run.folder} leaves no stage to train.",
            why=f"It has gone through {', '.join(done) or 'none'}; asked for: {', '.join(stages)}.",
            fix="Name a run that stopped earlier (--until), or leave --from out.",
        )
    return Start(
        weights(run),
        done,
        backbone_only=plain,
        told_words=bool(m.inputs.get("text")),
        kept=None if plain else m.best_stage,
    )


def _refuse_another_system(run: Run, resolved: Resolved, same_head: bool, first: str) -> None:
    """A stage goes on with the backbone, the loss and the ids that the stages before it had.

    Raises:
        RecbenchError: one of them is another, or the head is and does not begin as that of the run.
    """
    parts = ("backbone", "loss", *IDS)
    before = resolve(system_table(run), run.manifest.dataset["family"])
    there, here = ({name: one.table[name] for name in parts if name in one.table} for one in (before, resolved))
    if before.head == resolved.head:
        lasting = HEADS.load(resolved.head).lasting
        there["head"], here["head"] = (
            {name: one.table["head"][name] for name in lasting} for one in (before, resolved)
        )
    differ = differences(there, here)
    if same_head and not differ:
        return
    fix = f"Train one to start from: recbench train --backbone {resolved.backbone} --reason {resolved.head} --until {first}"
    if same_head and run.manifest.backbone == resolved.backbone:
        fix = _with_its_settings(differ)
    raise RecbenchError(
        f"--from {run.folder} holds another system: {run.manifest.system}.",
        why=in_words(differ) if same_head else f"Its head is {run.manifest.head}, here it is {resolved.head}.",
        fix=fix,
    )


def refuse_other_tensors(start: Start, model: Trainable, resolved: Resolved, seed: int) -> None:
    """A head may go on with other settings, but not with some that decide which tensors it has.

    Raises:
        RecbenchError: the weights are not those of a model with these settings.
    """
    there, here = ({name: list(t.shape) for name, t in tensors.items()} for tensors in (start.tensors, model.tensors()))
    if start.backbone_only or there == here:
        return
    run = Run.open(start_folder(str(resolved.start), seed))
    before = resolve(system_table(run), run.manifest.dataset["family"])
    differ = differences({"head": before.table["head"]}, {"head": resolved.table["head"]})
    raise RecbenchError(
        f"--from {run.folder} holds weights that do not fit these settings.",
        why=in_words(differ or differences(there, here)),
        fix=_with_its_settings(differ) if differ else "Train it again.",
    )


def _with_its_settings(differ: list[tuple[str, Any, Any]]) -> str:
    """What to type to go on as a run began, whose settings ``differ`` (``config.differences``, its own first)."""
    given = [f"--set {name}={typed(old)}" for name, old, _ in differ if old is not None]
    unset = [name for name, old, _ in differ if old is None]
    return f"Go on with its settings: {' '.join([*given, *(['without', ', '.join(unset)] if unset else [])])}"
