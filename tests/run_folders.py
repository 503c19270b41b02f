"""Run folders for tests: a manifest and ranks, no training."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbench import columns
from recbench.files import sha256
from recbench.runs.folder import CONFIG, USERS, folder_name
from recbench.runs.manifest import Manifest

DATASET = {"name": "beauty", "family": "amazon", "items": 12_101, "fingerprint": "f" * 64, "sequence_sha256": "5" * 64}
PROTOCOL = {
    "split": {"name": "leave-one-out"},
    "tie_rule": "stable sort on time",
    "candidates": "all items; unseen: all but those of the query",
    "metrics": "expected under random tie-breaking (McSherry and Najork, 2008)",
    "catalogue": 12_101,
}
INPUTS = {"history": 50, "timestamps": False, "text": False}
CROSS_ENTROPY = "softmax over all items"
CLOSED_FORM = "closed form"


def ranks(above: Any, tied: Any = 0, above_unseen: Any = None, tied_unseen: Any = None) -> pd.DataFrame:
    """A table of test ranks of users 1, 2, ...; the unseen counts are those of all items unless given."""
    above = np.asarray(above, np.int64)
    users = np.arange(1, len(above) + 1, dtype=np.int32)
    return pd.DataFrame(
        {
            columns.SPLIT: "test",
            columns.USER: users,
            columns.TARGET: users * 7 % 101 + 1,
            columns.ABOVE: above,
            columns.TIED: tied,
            columns.ABOVE_UNSEEN: above if above_unseen is None else above_unseen,
            columns.TIED_UNSEEN: tied if tied_unseen is None else tied_unseen,
        }
    )


def make_run(
    home: Path,
    backbone: str,
    table: pd.DataFrame,
    *,
    head: str = "none",
    seed: int = 0,
    config: str = "",
    **manifest: Any,
) -> Path:
    """A finished run folder under ``home``; what is given in ``manifest`` replaces the defaults."""
    digest = hashlib.sha256(f"{backbone} {head} {config}".encode()).hexdigest()
    dataset = {**DATASET, **manifest.pop("dataset", {})}
    folder = home / (manifest.pop("folder", None) or folder_name(str(dataset["name"]), backbone, head, seed))
    folder.mkdir(parents=True)
    table.to_parquet(folder / USERS, index=False)
    (folder / CONFIG).write_text(f"seed = {seed}\n{config}", encoding="utf-8")
    trivial = backbone in ("popularity", "markov", "itemknn", "ease")
    settings: dict[str, Any] = {
        "status": "finished",
        "protocol": PROTOCOL,
        "loss": CLOSED_FORM if trivial else CROSS_ENTROPY,
        "inputs": INPUTS,
        "argv": ["recbench", "train"],
        "versions": {},
        "git": {},
        "hardware": {},
        "config_sha256": digest,
        "started": "2026-01-01T00:00:00+00:00",
        "files": {USERS: sha256(folder / USERS)},
        "best_epoch": None if trivial else 20,
        "epochs": 0 if trivial else 30,
    }
    settings |= manifest
    Manifest(dataset=dataset, backbone=backbone, head=head, seed=seed, **settings).write(folder)
    return folder
