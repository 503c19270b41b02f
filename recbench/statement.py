"""What a run says of itself in ``run.json``: what it is as it begins, and what only the trained system knows."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import torch

from recbench.data.card import Card
from recbench.data.dataset import Dataset, Queries
from recbench.data.vectors import WORDS
from recbench.evaluation.evaluate import Ranks
from recbench.evaluation.thinking import depths, thinking
from recbench.recommender import GeneratorRecommender, Recommender
from recbench.runs import machine
from recbench.runs.manifest import Manifest
from recbench.semantic_ids.build import facts
from recbench.settings import Resolved
from recbench.trained import LATENCY_BATCHES, threads


def begun(
    dataset: Dataset,
    resolved: Resolved,
    seed: int,
    device: torch.device,
    model: Recommender,
    origin: dict[str, Any],
    trials: int | None,
) -> Manifest:
    """The manifest of a run that begins.

    Args:
        model: untrained.
        origin: of the run it goes on from; empty where it begins anew.
        trials: settings of this system that were tried on validation; None: unsaid.
    """
    card = dataset.card
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
        backbone=resolved.backbone,
        head=resolved.head,
        seed=seed,
        loss=model.loss_name,
        inputs={"history": model.max_length or "all", "timestamps": _timestamps(card, model), "text": _text(model)},
        tuning={} if trials is None else {"trials": trials, "selected_on": "valid"},
        argv=sys.argv,
        versions=machine.versions(),
        git=machine.git(),
        hardware=machine.hardware() | {"device": _device_name(device), "threads": threads(resolved)},
        config_sha256=resolved.sha256(origin.get("config_sha256")),
        rank_cutoff=model.rank_cutoff,
        started_from=origin,
        n_parameters=model.n_parameters,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def found_out(model: Recommender, queries: Queries, ranks: tuple[Ranks, Ranks], device: torch.device) -> dict[str, Any]:
    """Facts of the trained system: how it spells and what its search lost, how long it thinks; nothing of one that does neither.

    Args:
        queries: of the test part.
        ranks: of validation, and of the test part.
    """
    return _spelling(model, ranks[1]) | _thinking(model, queries, ranks, device)


def _spelling(model: Recommender, test: Ranks) -> dict[str, Any]:
    """What a reader should know of a system that spells: its ids, and what the search lost."""
    if not isinstance(model, GeneratorRecommender):
        return {}
    told: dict[str, Any] = {"ids": facts(model.backbone.table), **model.backbone.facts()}
    if test.n_lost is not None:
        told["search"] = {"beam": model.rank_cutoff, "lost": test.n_lost, "of": len(test.targets)}
    return told


def _thinking(model: Recommender, queries: Queries, ranks: tuple[Ranks, Ranks], device: torch.device) -> dict[str, Any]:
    """What a reader should know of a system that decides how long it thinks: on test, and how long on validation."""
    valid, test = ranks
    found = thinking(model, queries, test, LATENCY_BATCHES, device)
    if found is None or valid.steps is None:
        return {}
    return {"thinking": found | {"valid": depths(valid.steps)}}


def _timestamps(card: Card, model: Recommender) -> str | bool:
    """Whose event times the system saw; False if it looks at none, or the dataset has none."""
    return model.times_seen if card.time_unit and model.times_seen != "none" else False


def _text(model: Recommender) -> bool:
    """Does the system know anything of what stands in the items' texts, before it is trained?"""
    if not isinstance(model, GeneratorRecommender):
        return False
    return bool(model.backbone.table.card.get("features", {}).get("source") in WORDS)


def _oracle(known: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Metrics of the best possible ranking under the names of ``Manifest.metrics``; empty for data nobody generated."""
    if "test" not in known:
        return {}
    return {"test": known["test"]["all"], "test_unseen": known["test"]["unseen"]}


def rank_warnings(test: Ranks) -> list[str]:
    """What a reader of its ranks should know."""
    warnings = []
    if test.n_nan:
        warnings.append(f"diverged: {test.n_nan} test targets have a NaN score and count as last")
    tied = float((test.tied > 0).mean()) if len(test.users) else 0.0
    if tied > 0.01:
        warnings.append(f"{100 * tied:.1f} % of test targets tie with another item: the tie rule matters")
    return warnings


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held so far, of the GPU where there is one, in MiB."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else machine.peak_memory_mb()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
