"""From a config to a finished run: the job, in order."""

from __future__ import annotations

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
import torch

from recbench.config import differences, in_words, write_toml
from recbench.data.dataset import Dataset
from recbench.data.knowledge import ItemKnowledge
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.evaluate import Ranks, evaluate
from recbench.evaluation.latency import latency
from recbench.evaluation.metrics import parse
from recbench.files import sha256, write_text
from recbench.recommender import BaselineRecommender, Recommender, Trainable
from recbench.runs import folder as layout
from recbench.runs import machine
from recbench.runs.folder import Run, folder_name
from recbench.runs.manifest import NAME as MANIFEST
from recbench.runs.manifest import Manifest
from recbench.settings import Resolved
from recbench.start import refuse_other_tensors, start_folder, start_of
from recbench.statement import begun, found_out, peak_memory_mb, rank_warnings
from recbench.trained import LATENCY_BATCHES, new_model, threads, write_parquet
from recbench.training.checkpoint import Progress, Store, write_tensors
from recbench.training.loop import Job, Start, Watcher, fit
from recbench.training.precision import refuse_unfit
from recbench.training.seeding import seed_everything
from recbench.training.settings import refuse_two_measures

METRICS = tuple(f"{family}@{k}" for k in (5, 10, 20) for family in ("hr", "ndcg", "mrr"))
TOP = 50
BEFORE_TEST = ("train.parquet", "valid.parquet", "items.parquet", "users.parquet")
"""Files of a dataset that are hashed as a run begins; that of the test targets is first opened once training is over."""


@dataclass(frozen=True, slots=True)
class Order:
    """One run that was asked for."""

    dataset: Dataset
    resolved: Resolved
    seed: int
    runs: Path
    device: torch.device
    resume: bool = False
    trials: int | None = None
    """Settings of this system that were tried on validation, these included, as its user says; None: unsaid."""

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        r = self.resolved
        return self.runs / folder_name(self.dataset.name, r.backbone, r.head, self.seed, r.until)


def refuse_early(order: Order) -> None:
    """Look for what can be known to be wrong before anything is trained, so that no seed is trained before another is refused.

    Raises:
        RecbenchError: the folder is taken, or the run to go on from is not there or does not do.
    """
    if _already_there(order) is None:
        start_of(order.resolved, order.seed, order.dataset.card.fingerprint)


def run(order: Order, watcher: Watcher) -> tuple[Run, bool]:
    """Do one run, or find it done. Returns it and whether it was there already.

    Raises:
        RecbenchError: the folder is taken, training diverged, disk or memory is full ... The folder then says ``failed``.
        KeyboardInterrupt: passed on, after the folder says ``interrupted``.
    """
    if (done := _already_there(order)) is not None:
        return _stating(done, order.trials), True
    order.dataset.refuse_changed(BEFORE_TEST)
    refuse_unfit(order.resolved.train, order.device)
    refuse_two_measures(order.resolved.train)
    start, origin = start_of(order.resolved, order.seed, order.dataset.card.fingerprint)
    with _own(order.folder), _told_in_words(order.folder):
        seed_everything(order.seed)
        model = new_model(order.resolved, order.dataset, order.device)
        _refuse_short(order, model)
        _refuse_window(order, model)
        if start is not None and isinstance(model, Trainable):
            refuse_other_tensors(start, model, order.resolved, order.seed)
        manifest = begun(order.dataset, order.resolved, order.seed, order.device, model, origin, order.trials)
        if (before := _gone_on_with(order.folder)) is not None:
            manifest = replace(manifest, started=before.started, tuning=manifest.tuning or before.tuning)
        try:
            write_text(order.folder / layout.CONFIG, write_toml(order.resolved.full(order.dataset.name, order.seed)))
            manifest.write(order.folder)
            manifest = _work(order, model, manifest, start, watcher)
        except KeyboardInterrupt:
            replace(manifest, status="interrupted").write(order.folder)
            raise
        except Exception as error:
            told = _told(error, order.folder)
            _best_effort(replace(manifest, status="failed", error=_in_words(told)), order.folder)
            raise
        Store(order.folder / layout.STATE).clear()
    return Run(order.folder, manifest), False


def _gone_on_with(folder: Path) -> Manifest | None:
    """What the run said of itself that is gone on with; None where it begins."""
    return Manifest.read(folder) if (folder / MANIFEST).exists() else None


def _stating(run: Run, trials: int | None) -> Run:
    """A finished run, whose ``run.json`` says how many settings were tried if that is told now."""
    if trials is None or run.manifest.tuning.get("trials") == trials:
        return run
    tuning = {"selected_on": "valid"} | run.manifest.tuning | {"trials": trials}
    manifest = replace(run.manifest, tuning=tuning)
    manifest.write(run.folder)
    return Run(run.folder, manifest)


def _work(order: Order, model: Recommender, manifest: Manifest, start: Start | None, watcher: Watcher) -> Manifest:
    """Train, rank, write the evidence."""
    machine.forget_peak_memory()
    torch.set_num_threads(threads(order.resolved))
    if order.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(order.device)
    progress = _fit(model, order, start, watcher)
    order.dataset.refuse_changed(["test.parquet"])
    ranks = [
        evaluate(model, order.dataset.queries(split), order.device, top=TOP if split == "test" else 0)
        for split in ("valid", "test")
    ]
    _write_evidence(order.folder, model, ranks)
    valid, test = ranks
    finished = replace(
        manifest,
        status="finished",
        n_parameters=model.n_parameters,
        inputs=manifest.inputs | ({"text": True} if progress.told_words else {}),
        best_epoch=progress.best_epoch,
        best_stage=None if progress.best_epoch is None else order.resolved.stages[progress.best_stage],
        epochs=progress.epochs,
        stage_epochs=progress.stage_epochs,
        seconds=progress.seconds | {"test": test.seconds},
        ms_per_user=1000 * test.seconds / max(1, len(test.users)),
        latency_ms={
            str(size): latency(model, order.dataset.queries("test"), size, order.device) for size in LATENCY_BATCHES
        },
        stages=order.resolved.stages,
        facts=progress.facts | found_out(model, order.dataset.queries("test"), (valid, test), order.device),
        peak_memory_mb=peak_memory_mb(order.device),
        metrics={
            "valid": valid.means(METRICS),
            "test": test.means(METRICS),
            "test_unseen": test.means(METRICS, unseen=True),
        },
        warnings=progress.warnings + rank_warnings(test),
        files={name: sha256(order.folder / name) for name in layout.EVIDENCE if (order.folder / name).exists()},
    )
    finished.write(order.folder)
    return finished


def _fit(model: Recommender, order: Order, start: Start | None, watcher: Watcher) -> Progress:
    train = order.dataset.training()
    if isinstance(model, BaselineRecommender):
        began = perf_counter()
        model.baseline.fit(train, order.dataset.n_items)
        return Progress(finished=True, seconds={"fit": perf_counter() - began})
    if not isinstance(model, Trainable):
        raise TypeError(f"{type(model).__name__} is neither closed form nor trainable")
    valid = order.dataset.queries("valid")
    settings, until = order.resolved.train, order.resolved.until
    known = ItemKnowledge(order.dataset)
    job = Job(train, valid, settings, order.seed, order.device, order.folder, watcher, start, until, known)
    return fit(model, job, Store(order.folder / layout.STATE))


def _already_there(order: Order) -> Run | None:
    """The finished run of the same config, or None if there is work to do.

    Raises:
        RecbenchError: the folder is taken by another config, or by an unfinished run and ``--resume`` was not given.
    """
    if not (order.folder / MANIFEST).exists():
        return None
    there = Run.open(order.folder)
    wanted = order.resolved.full(order.dataset.name, order.seed)
    differ = differences(there.config(), wanted) if (order.folder / layout.CONFIG).exists() else []
    if there.manifest.dataset.get("fingerprint") != order.dataset.card.fingerprint:
        differ.append(
            ("dataset fingerprint", there.manifest.dataset.get("fingerprint"), order.dataset.card.fingerprint)
        )
    if differ:
        if order.resolved.start is not None:
            Run.open(start_folder(order.resolved.start, order.seed))  # a start that is not there is the nearer mistake
        raise RecbenchError(
            f"{order.folder} holds a run with other settings.",
            why=in_words(differ),
            fix="Keep it and write elsewhere: --runs OTHER_FOLDER. Or delete the folder.",
            code=Exit.RUN,
        )
    if there.manifest.status == "finished":
        return there
    if not order.resume:
        raise RecbenchError(
            f"{order.folder} holds an unfinished run ({there.manifest.status}).",
            why="It has the same settings and could go on from its last epoch.",
            fix=f"{'If it is at work still, let it. Else add' if there.manifest.status == 'running' else 'Add'} --resume, or "
            "delete the folder to begin anew.",
            code=Exit.RUN,
        )
    return None


@contextlib.contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Hold a run folder: two processes in one folder would ruin both."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise _os_error(error, folder) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RecbenchError(
                f"{folder} is being written by another process.",
                why="Two runs in one folder would ruin each other.",
                fix="Wait for it, or use another --seed or --runs folder.",
                code=Exit.RUN,
            ) from error
        for left in folder.rglob(".*.part"):  # of a process that was killed while writing
            left.unlink()
        try:
            yield
        finally:
            (folder / ".lock").unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds something: a run, whole or not
                folder.rmdir()


def _refuse_short(order: Order, model: Recommender) -> None:
    """A beam must reach as far as the metrics.

    Raises:
        RecbenchError: it does not.
    """
    monitors = [settings.monitor for settings in order.resolved.train.values()]
    longest = max((*METRICS, *monitors), key=lambda name: parse(name).k)
    if model.rank_cutoff is not None and model.rank_cutoff < parse(longest).k:
        raise RecbenchError(
            f"A beam of {model.rank_cutoff} is too narrow for {longest}.",
            why="Targets outside of the beam count as last, so metrics beyond its width would be too low.",
            fix=f"--set loss.beam={max(TOP, parse(longest).k)}",
        )


def _refuse_window(order: Order, model: Recommender) -> None:
    """Cloze rows are of everybody's newest events: no other window has a meaning there.

    Raises:
        RecbenchError: another is asked for.
    """
    for settings in order.resolved.train.values():
        if isinstance(model, Trainable) and model.blanked and settings.window != "last":
            raise RecbenchError(
                f"train.window={settings.window} cannot be used with cloze rows.",
                why="They are made of each user's newest events (backbone.rows=cloze).",
                fix="--set train.window=last, or --set backbone.rows=prefix",
            )


def _write_evidence(folder: Path, model: Recommender, ranks: list[Ranks]) -> None:
    write_parquet(pd.concat([r.frame() for r in ranks], ignore_index=True), folder / layout.USERS)
    write_parquet(ranks[-1].top_frame(), folder / layout.TOPK)
    write_tensors(folder / layout.MODEL, model.tensors())


def _in_words(error: Exception) -> dict[str, str]:
    """An error as ``run.json`` keeps it; one that is a bug of ours has no advice."""
    if isinstance(error, RecbenchError):
        return {"what": error.what, "why": error.why, "fix": error.fix}
    return {"what": type(error).__name__, "why": str(error)}


def _best_effort(manifest: Manifest, folder: Path) -> None:
    with contextlib.suppress(OSError):  # the disk that failed may not take this line either
        manifest.write(folder)


@contextlib.contextmanager
def _told_in_words(folder: Path) -> Iterator[None]:
    """What the machine refuses, disk or memory, as an error that a user can mend."""
    try:
        yield
    except Exception as error:
        told = _told(error, folder)
        if told is error:
            raise
        raise told from error


def _told(error: Exception, folder: Path) -> Exception:
    if isinstance(error, OSError):
        return _os_error(error, folder)
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or _NO_MEMORY in str(error):
        return RecbenchError(
            f"Memory ran out for {folder}.",
            why=str(error).partition("\n")[0] or type(error).__name__,
            fix="Smaller steps: --set train.batch_size=256; where a model scores every item, also --set loss.name=sampled-softmax",
            code=Exit.RUN,
        )
    return error


_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
"""All that a RuntimeError of torch says of it on a CPU."""


def _os_error(error: OSError, folder: Path) -> RecbenchError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what, fix = f"No space is left for {folder}.", "Free some, then the same command with --resume."
    else:
        what, fix = f"{folder} cannot be written.", "Name another folder: --runs DIR"
    return RecbenchError(what, why=str(error), fix=fix, code=Exit.RUN)


def summary(run: Run) -> dict[str, Any]:
    """A run for machines: its manifest and where it lies."""
    return {"folder": str(run.folder), **asdict(run.manifest)}
