"""The one training loop: stages in order, each from the best weights so far, early stopping on validation."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from recbench.data.batching import TrainingRows
from recbench.data.dataset import Histories, Queries
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.evaluate import evaluate
from recbench.reasoning.base import Context, Stage
from recbench.recommender import Trainable
from recbench.training.checkpoint import (
    WEIGHTS,
    Progress,
    Store,
    optimizer_tensors,
    restore_optimizer,
)
from recbench.training.seeding import epoch_generators
from recbench.training.settings import Settings

LOGGED = ("ndcg@10", "hr@10", "mrr@10")


class Watcher:
    """What training tells whoever watches. Does nothing; the command line draws a bar."""

    def stage(self, name: str, epochs: int) -> None:
        """A stage begins."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """A step is over."""

    def epoch(self, line: dict[str, Any]) -> None:
        """An epoch is over; ``line`` is what ``log.jsonl`` gets."""

    def ranking(self, what: str, done: int, users: int) -> None:
        """``done`` of ``users`` are ranked."""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything training is given."""

    train: Histories
    valid: Queries
    settings: dict[str, Settings]
    """By stage name."""
    seed: int
    device: torch.device
    folder: Path
    """The run folder: ``log.jsonl`` and ``state/`` are written here."""
    watcher: Watcher


def fit(model: Trainable, job: Job, store: Store) -> Progress:
    """Train ``model`` in place until its last stage is over, and leave it with the best weights.

    Picks up from ``store`` if there is a state, and then ends with the numbers of an uninterrupted run.

    Raises:
        RecbenchError: the loss is not finite.
    """
    progress = store.load() or Progress()
    _cut_log(job, progress)
    for number, stage in enumerate(model.stages):
        if number >= progress.stage and not progress.finished:
            _run_stage(model, job, store, progress, number, stage)
    if progress.best_file:
        model.restore(store.tensors(progress.best_file))
    return progress


def _run_stage(model: Trainable, job: Job, store: Store, progress: Progress, number: int, stage: Stage) -> None:
    settings = job.settings[stage.name]
    if progress.best_file:
        model.restore(store.tensors(progress.best_file))
    rows = TrainingRows(
        job.train,
        max_length=model.max_length or int(job.train.lengths.max()),
        window=settings.window,
        every_position=model.every_position,
    )
    context = Context(
        stage=stage.name,
        generator=torch.Generator(device=job.device),
        train=rows,
        reference=copy.deepcopy(model).eval().requires_grad_(False) if number else None,
        epochs=settings.epochs,
        steps=rows.steps(settings.batch_size),
        step=progress.epoch * rows.steps(settings.batch_size),
    )
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=job.device.type != "mps",
    )
    model.begin(context)
    if progress.stage == number and progress.current:
        saved = store.tensors(progress.current)
        model.restore({name.removeprefix(WEIGHTS): t for name, t in saved.items() if name.startswith(WEIGHTS)})
        restore_optimizer(optimizer, saved)
    job.watcher.stage(stage.name, settings.epochs)
    while progress.epoch < settings.epochs and progress.waited < settings.patience:
        _run_epoch(model, optimizer, job, store, progress, context)
    progress.warnings += _doubts(progress, settings, number, stage)
    progress.stage, progress.epoch, progress.waited, progress.losses, progress.current = number + 1, 0, 0, [], ""
    progress.finished = number + 1 == len(model.stages)


def _run_epoch(
    model: Trainable, optimizer: torch.optim.Optimizer, job: Job, store: Store, progress: Progress, context: Context
) -> None:
    began = perf_counter()
    settings = job.settings[context.stage]
    context.epoch = progress.epoch + 1
    losses = _train_epoch(model, optimizer, job, context, progress.stage)
    trained = perf_counter() - began

    ranks = evaluate(model, job.valid, job.device, tell=_ranked(job))
    line: dict[str, Any] = {"stage": context.stage, "epoch": context.epoch, "losses": losses}
    line["valid"] = ranks.means(LOGGED)
    line["valid_unseen"] = ranks.means(LOGGED, unseen=True)
    value = ranks.means([settings.monitor], unseen=settings.monitor_candidates == "unseen")[settings.monitor]
    better = not math.isnan(value) and (progress.best is None or value > progress.best)
    line |= {
        "monitor": value,
        "best": better,
        "users_per_second": len(job.train) / trained,
        "seconds": perf_counter() - began,
    }

    progress.epoch += 1
    progress.epochs += 1
    progress.losses.append(losses["total"])
    progress.waited = 0 if better else progress.waited + 1
    if better:
        progress.best, progress.best_epoch, progress.best_stage = value, context.epoch, progress.stage
    progress.seconds[context.stage] = progress.seconds.get(context.stage, 0.0) + line["seconds"]
    progress.log_bytes = _log(job, line)
    weights = model.tensors()
    current = {WEIGHTS + name: tensor for name, tensor in weights.items()} | optimizer_tensors(optimizer)
    store.save(progress, current, weights if better else None)
    job.watcher.epoch(line)


def _train_epoch(
    model: Trainable, optimizer: torch.optim.Optimizer, job: Job, context: Context, stage: int
) -> dict[str, float]:
    """One pass over the training rows; the mean of each loss over its steps, and of their sum as ``total``."""
    settings = job.settings[context.stage]
    order, context.generator = epoch_generators(job.seed, stage, context.epoch, job.device)
    model.train()
    sums: dict[str, float] = {}
    steps = 0
    rows = context.train
    if rows is None:
        raise ValueError("training needs rows")
    for batch in rows.batches(settings.batch_size, order, job.device):
        losses = model.losses(batch, context)
        total = torch.stack(list(losses.values())).sum() if len(losses) > 1 else next(iter(losses.values()))
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        if settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        _refuse_divergence(total, losses, context, steps)
        optimizer.step()
        for name, value in {**losses, "total": total}.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        steps += 1
        context.step += 1
        job.watcher.step(steps, context.steps, sums["total"] / steps)
    return {name: value / steps for name, value in sums.items()}


def _refuse_divergence(total: Tensor, losses: dict[str, Tensor], context: Context, step: int) -> None:
    if not math.isfinite(total.item()):
        named = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
        raise RecbenchError(
            f"The loss is not finite: {named}.",
            why=f"Training diverged in stage {context.stage}, epoch {context.epoch}, step {step + 1} of {context.steps}.",
            fix="Lower the step: --set train.learning_rate=0.0003, or clip it: --set train.clip_norm=1.0",
            code=Exit.RUN,
        )


def _doubts(progress: Progress, settings: Settings, number: int, stage: Stage) -> list[str]:
    """What a reader should know before believing this stage."""
    doubts = []
    mine = progress.best_stage == number
    if mine and progress.best_epoch is not None and progress.best_epoch == progress.epoch:
        doubts.append(
            f"{stage.name}: the best epoch is the last ({progress.epoch}): more epochs may be better (train.epochs)"
        )
    elif progress.waited < settings.patience and settings.epochs:
        doubts.append(f"{stage.name}: patience never ran out in {progress.epoch} epochs")
    if number and not mine:
        doubts.append(f"{stage.name}: no epoch was better than the stage before; its weights are not kept")
    if len(progress.losses) > 1 and progress.losses[-1] > progress.losses[-2] * 1.05:
        doubts.append(f"{stage.name}: the training loss rose in the last epoch")
    return doubts


def _ranked(job: Job) -> Callable[[int], None]:
    done = 0

    def tell(users: int) -> None:
        nonlocal done
        done += users
        job.watcher.ranking("valid", done, len(job.valid))

    return tell


def _cut_log(job: Job, progress: Progress) -> None:
    """Leave in ``log.jsonl`` what belongs to the state that training goes on from."""
    with (job.folder / "log.jsonl").open("ab") as log:
        log.truncate(progress.log_bytes)


def _log(job: Job, line: dict[str, Any]) -> int:
    """Append one line; returns the file's length after it."""
    with (job.folder / "log.jsonl").open("ab") as log:
        log.write((json.dumps(line) + "\n").encode())
        return log.tell()
