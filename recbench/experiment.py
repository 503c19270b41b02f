"""From a config to a finished run: the job, in order."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
import torch

from recbench.config import differences, write_toml
from recbench.data.dataset import Dataset
from recbench.data.knowledge import ItemKnowledge
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.evaluate import Ranks, evaluate
from recbench.evaluation.latency import latency
from recbench.evaluation.metrics import parse
from recbench.evaluation.thinking import thinking
from recbench.files import sha256, write_text
from recbench.recommender import BaselineRecommender, GeneratorRecommender, Recommender, Trainable
from recbench.runs import folder as layout
from recbench.runs import machine
from recbench.runs.folder import Run, folder_name
from recbench.runs.manifest import Manifest
from recbench.semantic_ids.build import facts
from recbench.settings import Resolved
from recbench.trained import LATENCY_BATCHES, TIE_SEED, new_model, start_from, threads, write_parquet
from recbench.training.checkpoint import Progress, Store, write_tensors
from recbench.training.loop import Job, Start, Watcher, fit
from recbench.training.precision import refuse_unfit
from recbench.training.seeding import seed_everything

METRICS = tuple(f"{family}@{k}" for k in (5, 10, 20) for family in ("hr", "ndcg", "mrr"))
TOP = 50


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


def run(order: Order, watcher: Watcher) -> tuple[Run, bool]:
    """Do one run, or find it done. Returns it and whether it was there already.

    Raises:
        RecbenchError: the folder is taken, training diverged, disk or memory is full ... The folder then says ``failed``.
        KeyboardInterrupt: passed on, after the folder says ``interrupted``.
    """
    if (done := _already_there(order)) is not None:
        return done, True
    refuse_unfit(order.resolved.train, order.device)
    start = _start(order)
    with _own(order.folder), _told_in_words(order.folder):
        seed_everything(order.seed)
        model = new_model(order.resolved, order.dataset, order.device)
        _refuse_short(order, model)
        manifest = _manifest(order, model, start)
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


def _work(order: Order, model: Recommender, manifest: Manifest, start: Start | None, watcher: Watcher) -> Manifest:
    """Train, rank, write the evidence."""
    machine.forget_peak_memory()
    torch.set_num_threads(threads(order.resolved))
    if order.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(order.device)
    progress = _fit(model, order, start, watcher)
    ranks = [
        evaluate(
            model, order.dataset.queries(split), order.device, top=TOP if split == "test" else 0, tie_seed=TIE_SEED
        )
        for split in ("valid", "test")
    ]
    _write_evidence(order.folder, model, ranks)
    valid, test = ranks
    finished = replace(
        manifest,
        status="finished",
        n_parameters=model.n_parameters,
        best_epoch=progress.best_epoch,
        epochs=progress.epochs,
        seconds=progress.seconds | {"test": test.seconds},
        ms_per_user=1000 * test.seconds / max(1, len(test.users)),
        latency_ms={
            str(size): latency(model, order.dataset.queries("test"), size, order.device) for size in LATENCY_BATCHES
        },
        stages=order.resolved.stages,
        facts=progress.facts | _spelling(model, test) | _thinking(model, order, test),
        peak_memory_mb=_peak_mb(order.device),
        metrics={
            "valid": valid.means(METRICS),
            "test": test.means(METRICS),
            "test_unseen": test.means(METRICS, unseen=True),
        },
        warnings=progress.warnings + _rank_warnings(test),
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
    if not (order.folder / "run.json").exists():
        return None
    there = Run.open(order.folder)
    wanted = order.resolved.full(order.dataset.name, order.seed)
    differ = differences(there.config(), wanted) if (order.folder / layout.CONFIG).exists() else []
    if there.manifest.dataset.get("fingerprint") != order.dataset.card.fingerprint:
        differ.append(
            ("dataset fingerprint", there.manifest.dataset.get("fingerprint"), order.dataset.card.fingerprint)
        )
    if differ:
        named = "; ".join(f"{name}: there {old}, now {new}" for name, old, new in differ[:3])
        raise RecbenchError(
            f"{order.folder} holds a run with other settings.",
            why=f"{named}{f' and {len(differ) - 3} more' if len(differ) > 3 else ''}.",
            fix="Keep it and write elsewhere: --runs OTHER_FOLDER. Or delete the folder.",
            code=Exit.RUN,
        )
    if there.manifest.status == "finished":
        return there
    if not order.resume:
        raise RecbenchError(
            f"{order.folder} holds an unfinished run ({there.manifest.status}).",
            why="It has the same settings and could go on from its last epoch.",
            fix="Add --resume, or delete the folder to begin anew.",
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


def _manifest(order: Order, model: Recommender, start: Start | None) -> Manifest:
    card = order.dataset.card
    origin = _origin(order, start)
    return Manifest(
        status="running",
        dataset={
            "name": card.name,
            "family": card.family,
            "users": card.users,
            "items": card.items,
            "interactions": card.interactions,
            "fingerprint": card.fingerprint,
            "sequence_sha256": card.sequence_sha256,
            "oracle": _oracle(card.oracle),
        },
        protocol={
            "split": card.split,
            "tie_rule": card.tie_rule,
            "catalogue": card.items,
            "candidates": "all items; unseen: all but those of the query",
            "metrics": "expected under random tie-breaking (McSherry and Najork, 2008)",
        },
        backbone=order.resolved.backbone,
        head=order.resolved.head,
        seed=order.seed,
        loss=model.loss_name,
        inputs={"history": model.max_length or "all", "timestamps": _timestamps(order, model), "text": _text(model)},
        tuning={} if order.trials is None else {"trials": order.trials, "selected_on": "valid"},
        argv=sys.argv,
        versions=machine.versions(),
        git=machine.git(),
        hardware=machine.hardware() | {"device": _device_name(order.device), "threads": threads(order.resolved)},
        config_sha256=order.resolved.sha256(origin.get("config_sha256")),
        rank_cutoff=model.rank_cutoff,
        started_from=origin,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


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
            fix=f"--set loss.beam={TOP}",
        )


def _spelling(model: Recommender, test: Ranks) -> dict[str, Any]:
    """What a reader should know of a system that spells: its ids, and what the search lost."""
    if not isinstance(model, GeneratorRecommender):
        return {}
    told: dict[str, Any] = {"ids": facts(model.backbone.table), **model.backbone.facts()}
    if test.n_lost is not None:
        told["search"] = {"beam": model.rank_cutoff, "lost": test.n_lost, "of": len(test.targets)}
    return told


def _thinking(model: Recommender, order: Order, test: Ranks) -> dict[str, Any]:
    """What a reader should know of a system that decides how long it thinks."""
    found = thinking(model, order.dataset.queries("test"), test, LATENCY_BATCHES, order.device)
    return {} if found is None else {"thinking": found}


def _timestamps(order: Order, model: Recommender) -> str | bool:
    """Whose event times the system saw; False if it looks at none, or the dataset has none."""
    return model.times_seen if order.dataset.card.time_unit and model.times_seen != "none" else False


def _text(model: Recommender) -> bool:
    """Does the system know anything of what stands in the items' texts?"""
    if not isinstance(model, GeneratorRecommender):
        return False
    return bool(model.backbone.table.card.get("features", {}).get("source") in ("text", "encoder"))


def _start(order: Order) -> Start | None:
    """The weights to go on from, if any were asked for."""
    if (origin := _origin_folder(order)) is None:
        return None
    resolved = order.resolved
    return start_from(Run.open(origin), resolved, order.dataset.card.fingerprint, resolved.stages)


def _origin_folder(order: Order) -> Path | None:
    start = order.resolved.start
    return None if start is None else Path(start.replace("{seed}", str(order.seed)))


def _origin(order: Order, start: Start | None) -> dict[str, str]:
    folder = _origin_folder(order)
    if start is None or folder is None:
        return {}
    there = Run.open(folder).manifest
    return {
        "folder": str(folder),
        "model_sha256": sha256(folder / layout.MODEL),
        "config_sha256": there.config_sha256,
    }


def _oracle(known: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Metrics of the best possible ranking under the names of ``Manifest.metrics``; empty for data nobody generated."""
    if "test" not in known:
        return {}
    return {"test": known["test"]["all"], "test_unseen": known["test"]["unseen"]}


def _write_evidence(folder: Path, model: Recommender, ranks: list[Ranks]) -> None:
    write_parquet(pd.concat([r.frame() for r in ranks], ignore_index=True), folder / layout.USERS)
    write_parquet(ranks[-1].top_frame(), folder / layout.TOPK)
    write_tensors(folder / layout.MODEL, model.tensors())


def _rank_warnings(test: Ranks) -> list[str]:
    warnings = []
    if test.n_nan:
        warnings.append(f"diverged: {test.n_nan} test targets have a NaN score and count as last")
    tied = float((test.tied > 0).mean()) if len(test.users) else 0.0
    if tied > 0.01:
        warnings.append(f"{tied:.1%} of test targets tie with another item: the tie rule matters")
    return warnings


def _peak_mb(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else machine.peak_memory_mb()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


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
            fix="Smaller steps: --set train.batch_size=256; or scores of fewer items: --set loss.name=sampled-softmax",
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
