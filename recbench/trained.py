"""What can be done with a finished run: load it, rank again with any number of steps, recommend."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import nn

from recbench import columns
from recbench.data.batching import query_batches
from recbench.data.dataset import Dataset, Histories, open_dataset
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.evaluate import Ranks, evaluate, seen_of
from recbench.evaluation.latency import latency
from recbench.files import replacing, sha256
from recbench.generators.base import table_in
from recbench.generators.spelling import LEAST_BEAM
from recbench.kernels.dropout import dropout_at
from recbench.recommender import Ask, GeneratorRecommender, Reasoned, Recommender, Trainable, build
from recbench.runs import folder as layout
from recbench.runs.folder import Run
from recbench.semantic_ids.build import semantic_ids
from recbench.semantic_ids.table import SemanticIds
from recbench.settings import IDS, Resolved, resolve
from recbench.training.checkpoint import read_tensors

LATENCY_BATCHES = (1, 256)
"""Users ranked at once when the time of one is measured."""
MOST_STEPS = 1000
"""Reasoning steps at test; far above what any head is trained with, and minutes of work, not days."""
MOST_DRAWS = 100
"""Rankings with dropout."""


def ids_of(resolved: Resolved, dataset: Dataset) -> tuple[SemanticIds, Path, bool] | None:
    """The table of ids that a system spells by, its folder, and whether it was there already; None if it does not spell.

    It follows from the dataset and the settings alone, so that all seeds of a system spell alike.
    """
    return None if resolved.ids is None else semantic_ids(dataset, resolved.ids)


def new_model(
    resolved: Resolved, dataset: Dataset, device: torch.device, table: SemanticIds | None = None
) -> Recommender:
    """The untrained system of a config.

    Args:
        table: what it spells by; None: as its settings have it.
    """
    torch.backends.cudnn.allow_tf32 = False  # by torch's default GRUs keep 10 of float32's 23 bits on a GPU
    r = resolved
    if table is None and (found := ids_of(resolved, dataset)) is not None:
        table = found[0]
    model = build(r.backbone, r.backbone_config, r.head, r.head_config, dataset.n_items, r.loss, r.loss_config, table)
    return model.to(device) if isinstance(model, Trainable) else model


def load(run: Run, datasets: Path, device: torch.device) -> tuple[Recommender, Dataset]:
    """The trained system of a finished run, and the dataset it was trained on.

    Raises:
        RecbenchError: the run is not finished, or the dataset is not the one it was trained on.
    """
    finished(run)
    dataset = open_dataset(run.manifest.dataset["name"], datasets)
    if dataset.card.fingerprint != run.manifest.dataset["fingerprint"]:
        raise RecbenchError(
            f"{run.folder} was trained on another {dataset.name}.",
            why=f"Dataset fingerprints: the run's {run.manifest.dataset['fingerprint'][:12]}, "
            f"the prepared one's {dataset.card.fingerprint[:12]}.",
            fix="Prepare the dataset as it was (run.json has its counts, split and hashes), or name its home: --datasets DIR",
            code=Exit.RUN,
        )
    resolved = resolve(system_table(run), dataset.card.family)
    torch.set_num_threads(threads(resolved))
    tensors = weights(run)
    model = new_model(resolved, dataset, device, table_in(tensors) if resolved.ids is not None else None)
    model.restore(tensors)
    return model, dataset


def weights(run: Run) -> dict[str, torch.Tensor]:
    """What ``model.safetensors`` of a finished run holds.

    Raises:
        RecbenchError: it is gone, damaged, or another than the run states.
    """
    path = run.folder / layout.MODEL
    if run.changed(layout.MODEL):
        raise RecbenchError(
            f"{path} is changed.",
            why="run.json states its sha256, and it does not agree: these are not the weights of this run.",
            fix="Copy the whole run folder again, or train it again into another: --runs DIR",
            code=Exit.RUN,
        )
    return read_tensors(path)


def system_table(run: Run) -> dict[str, object]:
    """What of a run's config makes the system. Settings that are younger than the run are left to their defaults."""
    table = run.config()
    return {key: table[key] for key in ("backbone", "head", "loss", "train", *IDS) if key in table}


def rank_again(run: Run, datasets: Path, device: torch.device) -> tuple[Ranks, int | None]:
    """Test ranks from the stored weights, and how many rows differ from the stored ones; None where ``users.parquet`` was gone
    and is written again.

    Raises:
        RecbenchError: see ``load``; or the stored ranks are there and cannot be read.
    """
    model, dataset = load(run, datasets, device)
    ranks = {split: evaluate(model, dataset.queries(split), device) for split in ("valid", "test")}
    fresh = pd.concat([ranks[split].frame() for split in ("valid", "test")], ignore_index=True)
    path = run.folder / layout.USERS
    if not path.exists():
        write_parquet(fresh, path)
        replace(run.manifest, files=run.manifest.files | {layout.USERS: sha256(path)}).write(run.folder)
        return ranks["test"], None
    try:
        stored = pd.read_parquet(path)
    except (OSError, pa.ArrowException) as error:
        raise RecbenchError(
            f"{path} cannot be read, so there is nothing to hold the ranks against.",
            why=f"{error}",
            fix=f"rm {shlex.quote(str(path))}, then the same command writes it again",
            code=Exit.RUN,
        ) from error
    same = stored.shape == fresh.shape and (stored.to_numpy() == fresh.to_numpy()).all(axis=1)
    return ranks["test"], len(fresh) - int(np.sum(same))


@dataclass(frozen=True, slots=True)
class Again:
    """One model ranked in one of several ways."""

    at: int
    """The number of reasoning steps, or the width of the beam."""
    valid: Ranks
    test: Ranks
    latency_ms: dict[int, float]
    """Milliseconds a user, by the number of users ranked at once."""

    @property
    def ms_per_user(self) -> float:
        """Of the whole test part, ranked in batches, metrics' counts included."""
        return 1000 * self.test.seconds / max(1, len(self.test.users))


def rank_at_steps(run: Run, steps: Sequence[int], datasets: Path, device: torch.device) -> list[Again]:
    """The run's model with each number of reasoning steps; also written to the run folder.

    ``steps.parquet`` has the counts of ``users.parquet`` for each number of steps, ``steps.csv`` one line each.

    Raises:
        RecbenchError: the system does not reason, a number is below 1, above ``MOST_STEPS`` or there twice, or the folder may not
            be written to.
    """
    if min(steps) < 1 or max(steps) > MOST_STEPS or len(set(steps)) < len(steps):
        raise RecbenchError(
            f"--steps {','.join(map(str, steps))} cannot be used.",
            why=f"Numbers of steps differ and lie between 1 and {MOST_STEPS:,}; 0 would be another system, --reason none.",
            fix="--steps 1,2,4,8",
        )
    _refuse_closed(run, layout.STEPS, layout.STEPS_TABLE)
    model, dataset = load(run, datasets, device)
    if not isinstance(model, Reasoned) or not model.head.scalable:
        raise RecbenchError(
            f"{run.manifest.system} takes no number of reasoning steps.",
            why=f"Head {run.manifest.head} does not reason, or was trained without a step."
            if isinstance(model, Reasoned)
            else f"{run.manifest.backbone} has no reasoning head.",
            fix="Name a run with a reasoning head: recbench list runs",
        )
    found = [_ranked(model, dataset, device, k, steps=k) for k in steps]
    _keep(found, columns.STEPS, run.folder / layout.STEPS, run.folder / layout.STEPS_TABLE)
    return found


def rank_by_beams(run: Run, widths: Sequence[int | None], datasets: Path, device: torch.device) -> list[Again]:
    """The run's model by searches of each width; also written to the run folder, as ``rank_at_steps`` does.

    Args:
        widths: None: every item is scored, which is a beam as wide as the catalogue.

    Raises:
        RecbenchError: the system does not search, a width is below ``LEAST_BEAM`` or there twice, or the folder may not be
            written to.
    """
    if any(width is not None and width < LEAST_BEAM for width in widths) or len(set(widths)) < len(widths):
        raise RecbenchError(
            f"--beams {','.join('exact' if width is None else str(width) for width in widths)} cannot be used.",
            why=f"Widths differ, and are at least {LEAST_BEAM}: the metrics told here look that far down a list.",
            fix="--beams 10,20,50,exact",
        )
    _refuse_closed(run, layout.BEAMS, layout.BEAMS_TABLE)
    model, dataset = load(run, datasets, device)
    if not isinstance(model, GeneratorRecommender):
        raise RecbenchError(
            f"{run.manifest.system} searches nothing.",
            why=f"{run.manifest.backbone} scores every item; beams are of models that spell items code by code.",
            fix=f"Leave --beams out: recbench evaluate {shlex.quote(str(run.folder))}",
        )
    every = [dataset.n_items if width is None else width for width in widths]
    found = [_ranked(model.with_beam(width), dataset, device, width) for width in every]
    _keep(found, columns.BEAM, run.folder / layout.BEAMS, run.folder / layout.BEAMS_TABLE)
    return found


def _refuse_closed(run: Run, *names: str) -> None:
    """Refuse a folder that these files could not be written to: before the work, not after."""
    if not os.access(run.folder, os.W_OK):
        raise RecbenchError(
            f"{run.folder} may not be written to.",
            why=f"{' and '.join(names)} are kept there.",
            fix=f"Copy it to a place of your own: cp -r {shlex.quote(str(run.folder))} .",
            code=Exit.RUN,
        )


def _ranked(model: Recommender, dataset: Dataset, device: torch.device, at: int, *, steps: int | None = None) -> Again:
    valid, test = (evaluate(model, dataset.queries(split), device, steps=steps) for split in ("valid", "test"))
    times = {size: latency(model, dataset.queries("test"), size, device, steps=steps) for size in LATENCY_BATCHES}
    return Again(at, valid, test, times)


def _keep(found: Sequence[Again], column: str, ranks: Path, table: Path) -> None:
    """Counts as in ``users.parquet`` for each way, and a table of one line each."""
    frames = [part.frame().assign(**{column: one.at}) for one in found for part in (one.valid, one.test)]
    write_parquet(pd.concat(frames, ignore_index=True), ranks)
    with replacing(table) as beside:
        table_of(found, column).to_csv(beside, index=False)


def rank_with_dropout(run: Run, draws: int, datasets: Path, device: torch.device) -> list[Ranks]:
    """The test part ranked that often with dropout as in the stage whose weights were kept, by seeds 0, 1, ..: what chance alone
    changes.

    Raises:
        RecbenchError: fewer than two draws, or too many; a system that has no dropout.
    """
    if not 2 <= draws <= MOST_DRAWS:
        raise RecbenchError(
            f"--draws {draws} cannot be used.",
            why=f"Draws are held against each other: 2 to {MOST_DRAWS} of them.",
            fix="--draws 3",
        )
    model, dataset = load(run, datasets, device)
    with dropout_at(model, _rate(run)) if isinstance(model, nn.Module) else contextlib.nullcontext():
        if not isinstance(model, nn.Module) or not any(m.p for m in model.modules() if isinstance(m, nn.Dropout)):
            raise RecbenchError(
                f"{run.manifest.system} draws nothing.",
                why="It has no dropout, or was trained without it, so that all rankings would be the same.",
                fix=f"Leave --draws out: recbench evaluate {shlex.quote(str(run.folder))}",
            )
        found = []
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for draw in range(draws):
                torch.manual_seed(draw)
                found.append(evaluate(model, dataset.queries("test"), device, dropout=True))
    return found


def _rate(run: Run) -> float | None:
    """``train.dropout`` of the stage whose weights were kept, of the last one where the run is too old to say."""
    m = run.manifest
    train = resolve(system_table(run), m.dataset["family"]).train
    return train[m.best_stage or m.stages[-1]].dropout


def table_of(found: Sequence[Again], column: str, names: Sequence[str] = ("hr@10", "ndcg@10")) -> pd.DataFrame:
    """One line a way: validation and test metrics, the share of test targets that a search lost, and what a user costs.

    Args:
        column: what names the ways.
    """
    searched = any(one.test.n_lost is not None for one in found)
    return pd.DataFrame(
        [
            {
                column: one.at,
                **{f"valid_{name}": value for name, value in one.valid.means(names).items()},
                **{f"test_{name}": value for name, value in one.test.means(names).items()},
                **{f"test_unseen_{name}": value for name, value in one.test.means(names, unseen=True).items()},
                **({"lost": (one.test.n_lost or 0) / max(1, len(one.test.users))} if searched else {}),
                "ms_per_user": one.ms_per_user,
                **{f"latency_ms_batch_{size}": value for size, value in one.latency_ms.items()},
            }
            for one in found
        ]
    )


def finished(run: Run) -> None:
    """Refuse a run without final weights.

    Raises:
        RecbenchError: the run is not finished.
    """
    if run.manifest.status != "finished":
        raise RecbenchError(
            f"{run.folder} is {run.manifest.status}, not finished.",
            why="Only a finished run has final weights.",
            fix="Run the same recbench train command again with --resume.",
            code=Exit.RUN,
        )


def recommend(
    model: Recommender,
    items: np.ndarray,
    user: int,
    top: int,
    device: torch.device,
    *,
    unseen: bool,
    times: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best ``top`` items after a history of item ids, and their scores.

    Args:
        times: when each event of the history happened, in seconds; None: not known.
    """
    history = Histories(
        np.array([user], dtype=np.int32), items.astype(np.int32), times, np.array([0]), np.array([len(items)])
    )
    if isinstance(model, Trainable):
        model.eval()
    _, batch = next(query_batches(history, model.max_length, 1, device, closed=model.closed))
    seen = seen_of(history, np.array([0]), device)
    ranked = model.ranks(batch, Ask(seen, top, top_unseen=unseen))
    if ranked.top_items_BK is None or ranked.top_scores_BK is None:
        raise ValueError("lists were asked for")
    found = ranked.top_items_BK[0].cpu().numpy()
    return found[found > 0], ranked.top_scores_BK[0].cpu().numpy()[found > 0]


def pick_device(name: str) -> torch.device:
    """``auto``: the GPU if there is one, else the CPU.

    Apple's GPUs (``mps``) are left alone: they have no float64, in which losses and diagnostics are summed.

    Raises:
        RecbenchError: the named device is not here, or cannot be used.
    """
    here = {"cpu": True, "cuda": torch.cuda.is_available()}
    if name == "auto":
        return torch.device("cuda" if here["cuda"] else "cpu")
    kind, colon, number = name.partition(":")
    if kind == "mps":
        raise RecbenchError(
            "Device mps cannot be used.",
            why="Losses and diagnostics are summed in float64, and Apple's GPUs have none.",
            fix="--device cpu",
        )
    if not here.get(kind, False) or (colon and not number.isdecimal()):
        raise RecbenchError(
            f"Device {name!r} is not here.",
            why=f"Available: {', '.join(kind for kind, there in here.items() if there)}.",
            fix="--device auto",
        )
    return torch.device(name)


def threads(resolved: Resolved) -> int:
    """CPU threads of one operation that the config asks for."""
    return max((s.threads for s in resolved.train.values()), default=0) or torch.get_num_threads()


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """A Parquet file, whole or not at all."""
    with replacing(path) as beside:
        frame.to_parquet(beside, index=False, compression="zstd")
