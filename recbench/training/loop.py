"""The one training loop: stages in order, each from the best weights so far, early stopping on validation."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import torch
from torch import Tensor

from recbench.data.batching import TrainingRows
from recbench.data.dataset import Histories, Queries
from recbench.data.describe import number_of
from recbench.data.knowledge import ItemKnowledge
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.evaluate import Ranks, evaluate
from recbench.evaluation.metrics import parse
from recbench.kernels.dropout import dropout_at
from recbench.reasoning.base import Context, Reasoner, Stage
from recbench.recommender import Trainable
from recbench.training.average import Average
from recbench.training.checkpoint import (
    WEIGHTS,
    Progress,
    Store,
    optimizer_tensors,
    restore_optimizer,
)
from recbench.training.optimizer import optimizer_of, set_rate
from recbench.training.precision import stepping
from recbench.training.seeding import epoch_generators, step_generator
from recbench.training.settings import Settings

LOGGED = ("ndcg@10", "hr@10", "mrr@10")


class Watcher:
    """What training tells whoever watches. Does nothing; the command line draws a bar."""

    def stage(self, name: str, epochs: int) -> None:
        """A stage begins."""

    def found(self, stage: str, facts: dict[str, Any]) -> None:
        """What a stage found out as it began."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """A step is over."""

    def epoch(self, line: dict[str, Any]) -> None:
        """An epoch is over; ``line`` is what ``log.jsonl`` gets."""

    def ranking(self, what: str, done: int, users: int) -> None:
        """``done`` of ``users`` are ranked."""


@dataclass(frozen=True, slots=True)
class Start:
    """A trained model of the same kind, to go on from."""

    tensors: dict[str, Tensor]
    stages: tuple[str, ...]
    """The stages it has gone through."""
    backbone_only: bool = False
    """It is of a head without parameters: those of this one are still untrained."""
    told_words: bool = False
    """Has it learnt from what stands in words of items?"""
    kept: str | None = None
    """The stage whose weights these are; None: the last of ``stages``."""


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
    start: Start | None = None
    """Weights to go on from; None: from the first stage."""
    until: str | None = None
    """Last stage to run; None: all."""
    items: ItemKnowledge | None = None
    """What heads may know of the items besides their ids."""


def fit(model: Trainable, job: Job, store: Store) -> Progress:
    """Train ``model`` in place until its last stage is over, and leave it with the best weights.

    Picks up from ``store`` if there is a state, and then ends with the numbers of an uninterrupted run.

    Raises:
        RecbenchError: no user has two training events, or a loss or a score of a validation target is not finite.
    """
    if not (job.train.lengths > 1).any():
        raise RecbenchError(
            "The training part has nothing to learn from.",
            why=f"None of its {len(job.train):,} users has two events in it, and a target needs one before it.",
            fix="Prepare a source with longer histories, or another split: recbench prepare NAME --source PATH",
            code=Exit.DATA,
        )
    progress = store.load() or _first(model, job, store)
    _cut_log(job, progress)
    names = [stage.name for stage in model.stages]
    last = names.index(job.until) if job.until else len(names) - 1
    for number, stage in enumerate(model.stages[: last + 1]):
        if number >= progress.stage and not progress.finished:
            _run_stage(model, job, store, progress, number, stage)
            progress.finished = number == last
    if progress.best_file:
        model.restore(store.tensors(progress.best_file))
    return progress


def _first(model: Trainable, job: Job, store: Store) -> Progress:
    """Where training stands before its first epoch: nowhere, or behind the stages of ``job.start``, which are its first best."""
    progress = Progress()
    if job.start is not None:
        names, gone = [stage.name for stage in model.stages], list(job.start.stages)
        if gone != names[: len(gone)] or len(gone) == len(names):
            raise ValueError(
                f"a start has gone through the first of the stages {names}, not all; this one through {gone}"
            )
        progress.stage, progress.told_words = len(gone), job.start.told_words
        model.restore(model.tensors() | job.start.tensors if job.start.backbone_only else job.start.tensors)
        _, progress.best = _validated(model, job, job.settings[model.stages[progress.stage].name])
        kept = job.start.kept
        progress.best_epoch, progress.best_stage = 0, progress.stage - 1 if kept is None else names.index(kept)
        store.save(progress, None, model.tensors())
    return progress


def _run_stage(model: Trainable, job: Job, store: Store, progress: Progress, number: int, stage: Stage) -> None:
    settings = job.settings[stage.name]
    if number and not settings.epochs:
        progress.stage = number + 1
        return
    names = [one.name for one in model.stages]
    if stage.needs in names and progress.best_stage < names.index(stage.needs):
        progress.warnings.append(f"{stage.name}: left out, as the weights of {stage.needs} were not kept")
        progress.stage = number + 1
        return
    if progress.stage != number or not progress.current:
        progress.began_file = progress.best_file
    if progress.began_file:
        model.restore(store.tensors(progress.began_file))
    rows = TrainingRows(
        job.train,
        max_length=model.max_length or int(job.train.lengths.max()),
        window=settings.window,
        every_position=model.every_position,
        closed=model.closed,
        blanked=model.blanked,
    )
    context = Context(
        stage=stage.name,
        generator=epoch_generators(job.seed, number, 0, job.device)[1],
        train=rows,
        reference=cast("Reasoner", copy.deepcopy(model).eval().requires_grad_(False)) if number else None,
        epochs=settings.epochs,
        items=job.items,
    )
    optimizer = optimizer_of(model, settings)
    left_out, of = rows.left_out()
    if left_out:
        context.facts["targets"] = {"never_trained_on": left_out, "of": of}
    model.begin(context)
    progress.told_words |= job.items is not None and job.items.told_words
    context.steps = (context.train or rows).steps(settings.batch_size)
    if context.facts:
        progress.facts[stage.name] = context.facts
        job.watcher.found(stage.name, context.facts)
    average = Average(model, settings.ema) if settings.ema else None
    if progress.stage == number and progress.current:
        saved = store.tensors(progress.current)
        model.restore({name.removeprefix(WEIGHTS): t for name, t in saved.items() if name.startswith(WEIGHTS)})
        restore_optimizer(optimizer, saved)
        if average is not None:
            average.restore(saved)
    job.watcher.stage(stage.name, settings.epochs)
    with dropout_at(model, settings.dropout):
        while progress.epoch < settings.epochs and progress.waited < settings.patience:
            _run_epoch(_Training(model, optimizer, average, context), job, store, progress)
    own = "train.epochs" if stage.name == "train" else f"train.{stage.name}.epochs"
    progress.warnings += _doubts(progress, settings, number, stage, own)
    progress.stage, progress.epoch, progress.waited, progress.losses, progress.current = number + 1, 0, 0, [], ""
    progress.stage_best = None


@dataclass(frozen=True, slots=True)
class _Training:
    """What one stage trains, and with what."""

    model: Trainable
    optimizer: torch.optim.Optimizer
    average: Average | None
    context: Context


def _run_epoch(training: _Training, job: Job, store: Store, progress: Progress) -> None:
    model, context = training.model, training.context
    began = perf_counter()
    settings = job.settings[context.stage]
    context.epoch = progress.epoch + 1
    losses = _train_epoch(training, job, progress.stage)
    trained = perf_counter() - began
    said, best = _judge(training, job, progress) if settings.judged(context.epoch) else ({}, None)
    line: dict[str, Any] = {"stage": context.stage, "epoch": context.epoch, "losses": losses}
    if settings.scheduled:
        line["learning_rate"] = training.optimizer.param_groups[0]["lr"]
    if noted := context.noted():
        line["diagnostics"] = noted
    line |= said | {
        "best": best is not None,
        "users_per_second": len(job.train) / trained,
        "targets_per_second": 0 if context.train is None else context.train.n_targets / trained,
        "seconds": perf_counter() - began,
    }

    progress.epoch += 1
    progress.epochs += 1
    progress.stage_epochs[context.stage] = context.epoch
    progress.losses.append(losses["total"])
    progress.seconds[context.stage] = progress.seconds.get(context.stage, 0.0) + line["seconds"]
    progress.log_bytes = _log(job, line)
    current = {WEIGHTS + name: tensor for name, tensor in model.tensors().items()}
    current |= optimizer_tensors(training.optimizer) | (training.average.tensors() if training.average else {})
    store.save(progress, current, best)
    job.watcher.epoch(line)


def _judge(training: _Training, job: Job, progress: Progress) -> tuple[dict[str, Any], dict[str, Tensor] | None]:
    """Validate this epoch's weights and count patience: what ``log.jsonl`` gets of it, and the weights if none were better.

    Raises:
        RecbenchError: the weights score a validation target as NaN, as behind a last step whose gradient was not finite.
    """
    model, context, best = training.model, training.context, None
    settings = job.settings[context.stage]
    with training.average.in_place() if training.average else contextlib.nullcontext():
        ranks, value = _validated(model, job, settings)
        if ranks.n_nan:
            raise _diverged(
                f"{ranks.n_nan} validation targets have a NaN score.", f"stage {context.stage}, epoch {context.epoch}"
            )
        if value is not None and (progress.best is None or value > progress.best):
            best = {name: tensor.clone() for name, tensor in model.tensors().items()}
            progress.best, progress.best_epoch, progress.best_stage = value, context.epoch, progress.stage
    climbed = value is not None and (progress.stage_best is None or value > progress.stage_best)
    progress.waited = 0 if climbed else progress.waited + settings.judged(context.epoch)
    progress.stage_best = value if climbed else progress.stage_best
    said = {"valid": ranks.means(LOGGED), "valid_unseen": ranks.means(LOGGED, unseen=True), "monitor": value}
    return said, best


def _validated(model: Trainable, job: Job, settings: Settings) -> tuple[Ranks, float | None]:
    """Ranks of the validation targets, and the metric that picks weights; None if it is NaN."""
    within = max(parse(name).k for name in (*LOGGED, settings.monitor))
    ranks = evaluate(model, job.valid, job.device, within=within, tell=_ranked(job))
    value = ranks.means([settings.monitor], unseen=settings.monitor_candidates == "unseen")[settings.monitor]
    return ranks, None if math.isnan(value) else value


def _train_epoch(training: _Training, job: Job, stage: int) -> dict[str, float]:
    """One pass over the training rows; the mean of each loss over its steps, and of their sum as ``total``."""
    model, optimizer, context = training.model, training.optimizer, training.context
    settings = job.settings[context.stage]
    order, context.generator = epoch_generators(job.seed, stage, context.epoch, job.device)
    model.train()
    sums: dict[str, float] = {"total": 0.0}
    steps = 0
    rows = context.train
    if rows is None:
        raise ValueError("training needs rows")
    for number, batch in enumerate(rows.batches(settings.batch_size, order, job.device)):
        context.step = (context.epoch - 1) * context.steps + number + 1
        context.negatives = step_generator(job.seed, stage, context.epoch, number, job.device)
        with stepping(settings, job.device):
            losses = model.losses(batch, context)
        if not losses:  # nothing of this batch is trained on in this stage
            continue
        total = torch.stack(list(losses.values())).sum() if len(losses) > 1 else next(iter(losses.values()))
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        if settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        _refuse_divergence(total, losses, context, steps)
        set_rate(optimizer, settings, context.step, context.epochs * context.steps)
        optimizer.step()
        if training.average is not None:
            training.average.step()
        for name, value in {**losses, "total": total}.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        steps += 1
        job.watcher.step(steps, context.steps, sums["total"] / steps)
    return {name: value / max(1, steps) for name, value in sums.items()}


def _refuse_divergence(total: Tensor, losses: dict[str, Tensor], context: Context, step: int) -> None:
    if not math.isfinite(total.item()):
        named = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
        place = f"stage {context.stage}, epoch {context.epoch}, step {step + 1} of {context.steps}"
        raise _diverged(f"The loss is not finite: {named}.", place)


def _diverged(what: str, place: str) -> RecbenchError:
    return RecbenchError(
        what,
        why=f"Training diverged in {place}.",
        fix="Lower the step: --set train.learning_rate=0.0003, or clip it: --set train.clip_norm=1.0",
        code=Exit.RUN,
    )


def _doubts(progress: Progress, settings: Settings, number: int, stage: Stage, own: str) -> list[str]:
    """What a reader should know before believing this stage. ``own``: the setting that says how many epochs it has."""
    if not settings.epochs:
        return [f"{stage.name}: no epoch was trained ({own}=0): what is ranked are weights before any training"]
    doubts = []
    mine = progress.best_stage == number
    if mine and progress.best_epoch is not None and progress.best_epoch == progress.epoch:
        doubts.append(f"{stage.name}: the best epoch is the last ({progress.epoch}): more epochs may be better ({own})")
    elif progress.waited < settings.patience:
        doubts.append(f"{stage.name}: patience never ran out in {number_of(progress.epoch, 'epoch')}")
    if number and not mine:
        doubts.append(f"{stage.name}: no epoch was better than the stage before; its weights are not kept")
    if len(progress.losses) > 1 and progress.losses[-1] - progress.losses[-2] > 0.05 * abs(progress.losses[-2]):
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
