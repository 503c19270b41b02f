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

import numpy as np
import pandas as pd
import torch

from recbench.config import differences, write_toml
from recbench.data.dataset import Dataset, Histories, open_dataset
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.evaluate import Ranks, evaluate, seen_of
from recbench.files import replacing, sha256, write_text
from recbench.recommender import Ask, BaselineRecommender, Recommender, Trainable, build
from recbench.runs import folder as layout
from recbench.runs import machine
from recbench.runs.folder import Run, folder_name
from recbench.runs.manifest import Manifest
from recbench.settings import Resolved, resolve
from recbench.training.checkpoint import Progress, Store, read_tensors, write_tensors
from recbench.training.loop import Job, Watcher, fit
from recbench.training.seeding import seed_everything

METRICS = tuple(f"{family}@{k}" for k in (5, 10, 20) for family in ("hr", "ndcg", "mrr"))
TOP = 50
TIE_SEED = 0


@dataclass(frozen=True, slots=True)
class Order:
    """One run that was asked for."""

    dataset: Dataset
    resolved: Resolved
    seed: int
    runs: Path
    device: torch.device
    resume: bool = False

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        return self.runs / folder_name(self.dataset.name, self.resolved.backbone, self.resolved.head, self.seed)


def run(order: Order, watcher: Watcher) -> tuple[Run, bool]:
    """Do one run, or find it done. Returns it and whether it was there already.

    Raises:
        RecbenchError: the folder is taken, training diverged, the disk is full ... The folder then says ``failed``.
        KeyboardInterrupt: passed on, after the folder says ``interrupted``.
    """
    if (done := _already_there(order)) is not None:
        return done, True
    with _own(order.folder):
        seed_everything(order.seed)
        model = new_model(order.resolved, order.dataset, order.device)
        manifest = _manifest(order, model)
        try:
            write_text(order.folder / layout.CONFIG, write_toml(order.resolved.full(order.dataset.name, order.seed)))
            manifest.write(order.folder)
            manifest = _work(order, model, manifest, watcher)
        except KeyboardInterrupt:
            replace(manifest, status="interrupted").write(order.folder)
            raise
        except Exception as error:
            told = _os_error(error, order.folder) if isinstance(error, OSError) else error
            _best_effort(replace(manifest, status="failed", error=_in_words(told)), order.folder)
            if told is error:
                raise
            raise told from error
        Store(order.folder / layout.STATE).clear()
    return Run(order.folder, manifest), False


def _work(order: Order, model: Recommender, manifest: Manifest, watcher: Watcher) -> Manifest:
    """Train, rank, write the evidence."""
    machine.forget_peak_memory()
    torch.set_num_threads(_threads(order.resolved))
    if order.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(order.device)
    progress = _fit(model, order, watcher)
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


def _fit(model: Recommender, order: Order, watcher: Watcher) -> Progress:
    train = order.dataset.training()
    if isinstance(model, BaselineRecommender):
        began = perf_counter()
        model.baseline.fit(train, order.dataset.n_items)
        return Progress(finished=True, seconds={"fit": perf_counter() - began})
    if not isinstance(model, Trainable):
        raise TypeError(f"{type(model).__name__} is neither closed form nor trainable")
    valid = order.dataset.queries("valid")
    job = Job(train, valid, order.resolved.train, order.seed, order.device, order.folder, watcher)
    return fit(model, job, Store(order.folder / layout.STATE))


def new_model(resolved: Resolved, dataset: Dataset, device: torch.device) -> Recommender:
    """The untrained system of a config."""
    model = build(resolved.backbone, resolved.backbone_config, resolved.head, resolved.head_config, dataset.n_items)
    return model.to(device) if isinstance(model, Trainable) else model


def load(run: Run, datasets: Path, device: torch.device) -> tuple[Recommender, Dataset]:
    """The trained system of a finished run, and the dataset it was trained on.

    Raises:
        RecbenchError: the run is not finished, or the dataset is not the one it was trained on.
    """
    if run.manifest.status != "finished":
        raise RecbenchError(
            f"{run.folder} is {run.manifest.status}, not finished.",
            why="Only a finished run has final weights.",
            fix="Run the same recbench train command again with --resume.",
            code=Exit.RUN,
        )
    dataset = open_dataset(run.manifest.dataset["name"], datasets)
    if dataset.card.fingerprint != run.manifest.dataset["fingerprint"]:
        raise RecbenchError(
            f"{run.folder} was trained on another {dataset.name}.",
            why=f"Dataset fingerprints: the run's {run.manifest.dataset['fingerprint'][:12]}, "
            f"the prepared one's {dataset.card.fingerprint[:12]}.",
            fix="Prepare the dataset as it was (its card is in run.json), or name its home: --datasets DIR",
            code=Exit.RUN,
        )
    table = run.config()
    resolved = resolve({key: table[key] for key in ("backbone", "head", "train") if key in table}, dataset.card.family)
    torch.set_num_threads(_threads(resolved))
    model = new_model(resolved, dataset, device)
    model.restore(read_tensors(run.folder / layout.MODEL))
    return model, dataset


def rank_again(run: Run, datasets: Path, device: torch.device) -> tuple[Ranks, int]:
    """Test ranks from the stored weights, and how many rows differ from the stored ones. Writes ``users.parquet`` only if gone."""
    model, dataset = load(run, datasets, device)
    ranks = {split: evaluate(model, dataset.queries(split), device) for split in ("valid", "test")}
    fresh = pd.concat([ranks[split].frame() for split in ("valid", "test")], ignore_index=True)
    path = run.folder / layout.USERS
    if not path.exists():
        _write_parquet(fresh, path)
        replace(run.manifest, files=run.manifest.files | {layout.USERS: sha256(path)}).write(run.folder)
    stored = pd.read_parquet(path)
    same = stored.shape == fresh.shape and (stored.to_numpy() == fresh.to_numpy()).all(axis=1)
    return ranks["test"], len(fresh) - int(np.sum(same))


def recommend(
    model: Recommender, items: np.ndarray, user: int, top: int, device: torch.device, *, unseen: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The best ``top`` items after a history of item ids, and their scores."""
    from recbench.data.batching import query_batches

    history = Histories(
        np.array([user], dtype=np.int32), items.astype(np.int32), None, np.array([0]), np.array([len(items)])
    )
    if isinstance(model, Trainable):
        model.eval()
    _, batch = next(query_batches(history, model.max_length, 1, device))
    seen = seen_of(history, np.array([0]), device)
    ranked = model.ranks(batch, Ask(seen, top, top_unseen=unseen, tie_seed=TIE_SEED))
    if ranked.top_items_BK is None or ranked.top_scores_BK is None:
        raise ValueError("lists were asked for")
    found = ranked.top_items_BK[0].cpu().numpy()
    return found[found > 0], ranked.top_scores_BK[0].cpu().numpy()[found > 0]


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
        yield
        (folder / ".lock").unlink(missing_ok=True)


def _manifest(order: Order, model: Recommender) -> Manifest:
    card = order.dataset.card
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
        inputs={"history": model.max_length or "all", "timestamps": False, "text": False},
        argv=sys.argv,
        versions=machine.versions(),
        git=machine.git(),
        hardware=machine.hardware() | {"device": _device_name(order.device), "threads": _threads(order.resolved)},
        config_sha256=order.resolved.sha256,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _oracle(known: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Metrics of the best possible ranking under the names of ``Manifest.metrics``; empty for data nobody generated."""
    if "test" not in known:
        return {}
    return {"test": known["test"]["all"], "test_unseen": known["test"]["unseen"]}


def _write_evidence(folder: Path, model: Recommender, ranks: list[Ranks]) -> None:
    _write_parquet(pd.concat([r.frame() for r in ranks], ignore_index=True), folder / layout.USERS)
    _write_parquet(ranks[-1].top_frame(), folder / layout.TOPK)
    write_tensors(folder / layout.MODEL, model.tensors())


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    with replacing(path) as beside:
        frame.to_parquet(beside, index=False, compression="zstd")


def _rank_warnings(test: Ranks) -> list[str]:
    warnings = []
    if test.n_nan:
        warnings.append(f"diverged: {test.n_nan} test targets have a NaN score and count as last")
    tied = float((test.tied > 0).mean()) if len(test.users) else 0.0
    if tied > 0.01:
        warnings.append(f"{tied:.1%} of test targets tie with another item: the tie rule matters")
    return warnings


def _threads(resolved: Resolved) -> int:
    return max((s.threads for s in resolved.train.values()), default=0) or torch.get_num_threads()


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


def _os_error(error: OSError, folder: Path) -> RecbenchError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what, fix = f"No space is left for {folder}.", "Free some, then the same command with --resume."
    else:
        what, fix = f"{folder} cannot be written.", "Name another folder: --runs DIR"
    return RecbenchError(what, why=str(error), fix=fix, code=Exit.RUN)


def pick_device(name: str) -> torch.device:
    """``auto``: the GPU if there is one, else the CPU.

    Raises:
        RecbenchError: the named device is not here.
    """
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if here[kind]))
    kind = name.partition(":")[0]
    if not here.get(kind, False):
        raise RecbenchError(
            f"Device {name!r} is not here.",
            why=f"Available: {', '.join(kind for kind, there in here.items() if there)}.",
            fix="--device auto",
        )
    return torch.device(name)


def summary(run: Run) -> dict[str, Any]:
    """A run for machines: its manifest and where it lies."""
    return {"folder": str(run.folder), **asdict(run.manifest)}
