"""Parts of the test queries: by how popular the target is, how long the history, or a column of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbench import columns
from recbench.data.dataset import Dataset
from recbench.errors import Exit, RecbenchError, nearest
from recbench.evaluation.beyond import LENGTH_BANDS, TrainingCounts
from recbench.evaluation.beyond import slices as known_slices
from recbench.evaluation.by_user import Places
from recbench.runs.sources import ids, read_table

KNOWN: dict[str, tuple[str, ...]] = {
    "popularity": ("head", "tail", "cold"),
    "length": tuple(LENGTH_BANDS),
    "cold": ("cold", "warm"),
}
"""Slices that follow from the dataset, and their parts."""
MOST_PARTS = 12
QUARTERS = 4


def masks(places: Places, asked: str, home: Path) -> dict[str, np.ndarray]:
    """Rows of ``places`` that belong to each part of a slice, by the part's name; empty parts are left out.

    Args:
        places: the test rows, as every run of the table has them.
        asked: a name in ``KNOWN``, or ``FILE:COLUMN``.
        home: of prepared datasets.

    Raises:
        RecbenchError: no such slice, no such file or column, or the dataset is not there or another one.
    """
    if asked in KNOWN:
        found = _of_dataset(places, home)
        found["warm"] = ~found["cold"]
        chosen: Mapping[str, np.ndarray] = {name: found[name] for name in KNOWN[asked]}
    elif ":" in asked:
        path, _, column = asked.rpartition(":")
        chosen = _of_column(places, Path(path), column)
    else:
        near = nearest(asked, list(KNOWN))
        raise RecbenchError(
            f"Unknown slice {asked!r}.",
            why=f"The slices are: {', '.join(KNOWN)}, and FILE:COLUMN for one of your own.",
            fix=f"--slice {near or 'popularity'}",
        )
    return {name: mask for name, mask in chosen.items() if mask.any()}


def title(asked: str) -> str:
    """As a table names it: the column of a file."""
    return asked if asked in KNOWN else asked.rpartition(":")[2]


def _of_dataset(places: Places, home: Path) -> dict[str, np.ndarray]:
    manifest = places.run.manifest
    folder = home / str(manifest.dataset.get("name"))
    if not (folder / "card.json").exists():
        raise RecbenchError(
            f"Slices need the dataset, and {folder} is none.",
            why="Popularity and history length are counted from its events.",
            fix="--datasets FOLDER, or --slice FILE:COLUMN",
            code=Exit.COMPARISON,
        )
    dataset = Dataset(folder)
    stated = manifest.dataset.get("fingerprint")
    queries = dataset.queries("test")
    order = np.lexsort((queries.targets, queries.histories.users))
    asked = np.stack([queries.histories.users[order], queries.targets[order]], axis=1)
    ranked = places.frame[[columns.USER, columns.TARGET]].to_numpy()
    if stated not in (None, dataset.card.fingerprint) or not np.array_equal(asked, ranked):
        raise RecbenchError(
            f"{folder} is not the data these runs were tested on.",
            why=f"Its fingerprint is {dataset.card.fingerprint[:12]}, that of the runs {str(stated)[:12]}."
            if stated not in (None, dataset.card.fingerprint)
            else "Its test users and targets are others.",
            fix="--datasets FOLDER with the dataset they used",
            code=Exit.COMPARISON,
        )
    counts = TrainingCounts.of(dataset.training(), dataset.n_items)
    return known_slices(queries.targets[order], queries.histories.lengths[order], counts)


def _of_column(places: Places, path: Path, column: str) -> dict[str, np.ndarray]:
    """Parts by the values of a column, joined by user or, where the file has none, by target."""
    table = _read(path)
    keys = {columns.USER: columns.USER, columns.TARGET: columns.TARGET, columns.ITEM: columns.TARGET}
    key = next((name for name in keys if name in table), None)
    if column not in table or key is None:
        raise _refusal(
            path, f"Its columns are {', '.join(map(str, table.columns))}; {column!r} and user or item are needed."
        )
    index = pd.Index(ids(table[key], path, key).astype(str))
    if not index.is_unique:
        raise _refusal(path, f"{key} {index[index.duplicated()][0]} stands there twice.")
    place = index.get_indexer(pd.Index(places.frame[keys[key]].astype(str)))
    values = table[column].to_numpy()
    parts = _parts(table[column], path, column)
    labels = np.array([*parts[: len(values)], "not in the file"], dtype=object)
    rows = labels[place]  # -1, absent, is the last
    return {str(name): rows == name for name in dict.fromkeys([*_in_order(parts), "not in the file"])}


def _parts(values: pd.Series[Any], path: Path, column: str) -> list[str]:
    """The part of each row: its value, or the quarter it lies in where numbers take many values."""
    distinct = values.dropna().unique()
    if len(distinct) <= MOST_PARTS:
        return [f"{column} {value}" if known else "none" for value, known in zip(values, values.notna(), strict=True)]
    if not pd.api.types.is_numeric_dtype(values):
        raise _refusal(path, f"{column} takes {len(distinct)} values; a slice has at most {MOST_PARTS}.")
    edges = np.unique(np.quantile(values.dropna().to_numpy(np.float64), np.linspace(0, 1, QUARTERS + 1)))
    quarter = np.clip(np.searchsorted(edges, values.to_numpy(np.float64), side="left") - 1, 0, len(edges) - 2)
    names = [f"{column} {low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
    return [names[at] if known else "none" for at, known in zip(quarter, values.notna(), strict=True)]


def _in_order(parts: list[str]) -> list[str]:
    def key(name: str) -> tuple[bool, float, str]:
        words = name.split()
        try:
            return name == "none", float(words[1]) if len(words) > 1 else 0.0, name
        except ValueError:
            return name == "none", 0.0, name

    return sorted(set(parts), key=key)


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else read_table(path)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise _refusal(path, f"{error}.") from error


def _refusal(path: Path, why: str) -> RecbenchError:
    return RecbenchError(
        f"{path} gives no slice.",
        why=why,
        fix="--slice FILE:COLUMN, a CSV or Parquet with user (or item) and that column",
        code=Exit.COMPARISON,
    )
