"""Real sequence files as they stand, split leave-one-out, without the code under test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbench.data.dataset import Histories, Queries


@dataclass(frozen=True)
class Sequences:
    """A file of sequences: what is trained on, and the test queries."""

    n_items: int
    train: Histories
    test: Queries


def read_sequences(shared_data: Path, name: str) -> Sequences:
    """Each line is a user, then items, oldest first. Training: all but two. Query: all but the last, the target."""
    lines = (shared_data / "amazon2014" / "s3rec" / f"{name}.txt").read_text(encoding="ascii").splitlines()
    rows = [np.array(line.split(), dtype=np.int32) for line in lines]
    users, items = np.array([row[0] for row in rows]), np.concatenate([row[1:] for row in rows])
    stops = np.cumsum([len(row) - 1 for row in rows])
    starts = np.concatenate([[0], stops[:-1]])
    train = Histories(users, items, None, starts, stops - 2)
    return Sequences(
        int(items.max()), train, Queries("test", Histories(users, items, None, starts, stops - 1), items[stops - 1])
    )
