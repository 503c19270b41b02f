"""The folder of a prepared dataset: its Parquet files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recbench import columns
from recbench.data import card as cards
from recbench.data.dataset import PARTS, column_view
from recbench.data.splitting import TEST, TRAIN, VALID, Split
from recbench.errors import Exit, RecbenchError

FINGERPRINTED = ("interactions", *PARTS)
EVENT_TYPES = pa.schema(
    [
        (columns.USER, pa.int32()),
        (columns.ITEM, pa.int32()),
        (columns.RATING, pa.float32()),
        (columns.TIMESTAMP, pa.int64()),
        (columns.ORIGINAL_ORDER, pa.int64()),
    ]
)
ITEM_TYPES = pa.schema(
    [
        (columns.ITEM, pa.int32()),
        (columns.RAW_ID, pa.string()),
        (columns.TITLE, pa.string()),
        (columns.BRAND, pa.string()),
        (columns.CATEGORIES, pa.list_(pa.string())),
        (columns.PRICE, pa.float64()),
        (columns.TEXT, pa.string()),
    ]
)
USER_TYPES = pa.schema(
    [(columns.USER, pa.int32()), (columns.RAW_ID, pa.string()), (columns.ORIGINAL_ORDER, pa.int64())]
)


def event_tables(events: Mapping[str, np.ndarray | None], split: Split) -> Iterator[tuple[str, pa.Table]]:
    """``interactions`` and its three parts, by name. A column the source lacks is there, with nothing in it.

    One at a time: a part is a copy, and all at once they would be another copy of everything.
    """
    n = len(split.part)
    arrays = [
        pa.nulls(n, field.type) if (c := events[field.name]) is None else pa.array(c, field.type)
        for field in EVENT_TYPES
    ]
    whole = pa.Table.from_arrays(arrays, schema=EVENT_TYPES)
    yield "interactions", whole
    for name, part in zip(PARTS, (TRAIN, VALID, TEST), strict=True):
        rows = split.part == part
        table = whole.filter(pa.array(rows))
        if part != TRAIN:
            table = table.append_column(columns.IS_TARGET, pa.array(split.is_target[rows]))
        yield name, table


def item_table(raw_ids: list[str], metadata: pd.DataFrame | None) -> pa.Table:
    """One row an item in order of id, with what the metadata knows."""
    n = len(raw_ids)
    cells = {
        columns.ITEM: pa.array(np.arange(1, n + 1, dtype=np.int32)),
        columns.RAW_ID: pa.array(raw_ids, pa.string()),
    }
    known = (
        None
        if metadata is None
        else metadata.drop_duplicates(columns.RAW_ID).set_index(columns.RAW_ID).reindex(raw_ids)
    )
    for field in ITEM_TYPES:
        if field.name in cells:
            continue
        if known is None or field.name not in known:
            cells[field.name] = pa.nulls(n, field.type)
        else:
            cells[field.name] = pa.array([_or_none(value) for value in known[field.name]], field.type)
    return pa.table([cells[field.name] for field in ITEM_TYPES], schema=ITEM_TYPES)


def user_table(raw_ids: pa.Array, first_rows: np.ndarray) -> pa.Table:
    """One row a user in order of id; ``original_order`` is the row where the user first stands in the source."""
    ids = np.arange(1, len(raw_ids) + 1, dtype=np.int32)
    return pa.table([pa.array(ids), raw_ids.cast(pa.string()), pa.array(first_rows, pa.int64())], schema=USER_TYPES)


class Fingerprint:
    """Hash of the columns of interactions, train, valid and test: of what they hold, not of how a file packs it."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, name: str, table: pa.Table) -> None:
        """The next table, in the order of ``FINGERPRINTED``; others add nothing."""
        if name not in FINGERPRINTED:
            return
        for column in table.column_names:
            values = table.column(column)
            if values.null_count == len(values):
                continue
            self._digest.update(f"{name}.{column}\0".encode())
            self._digest.update(column_view(values.to_numpy()).data)

    def hex(self) -> str:
        """Of all that was added."""
        return self._digest.hexdigest()


def write_table(folder: Path, name: str, table: pa.Table) -> None:
    """One Parquet file."""
    pq.write_table(table, folder / f"{name}.parquet", compression="zstd")


def check_replaceable(folder: Path) -> None:
    """Refuse to replace what is not a prepared dataset."""
    if not folder.exists() or (folder / cards.NAME).exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    raise RecbenchError(
        f"{folder} is there and is no prepared dataset.",
        why=f"It has no {cards.NAME}, so it is not ours to replace.",
        fix="Another NAME, another --datasets, or move it away.",
        code=Exit.DATA,
    )


def _or_none(value: object) -> object:
    """The value, a list for an array of text, None for NaN."""
    if isinstance(value, list | tuple | np.ndarray):
        return [str(part) for part in value]
    return None if value is None or value != value else value  # noqa: PLR0124 NaN only
