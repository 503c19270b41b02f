"""The folder of a prepared dataset: its Parquet files, and how a new one takes the place of an old one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recbench import columns
from recbench.data import card as cards
from recbench.data.dataset import column_bytes
from recbench.data.splitting import TEST, TRAIN, VALID, Split
from recbench.errors import Exit, RecbenchError

FINGERPRINTED = ("interactions", "train", "valid", "test")
PARTS = {"train": TRAIN, "valid": VALID, "test": TEST}
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


def event_tables(events: Mapping[str, np.ndarray | None], split: Split) -> dict[str, pa.Table]:
    """``interactions`` and its three parts. A column the source lacks is there, with nothing in it."""
    n = len(split.part)
    arrays = [
        pa.nulls(n, field.type) if (c := events[field.name]) is None else pa.array(c, field.type)
        for field in EVENT_TYPES
    ]
    tables = {"interactions": pa.Table.from_arrays(arrays, schema=EVENT_TYPES)}
    for name, part in PARTS.items():
        rows = split.part == part
        tables[name] = tables["interactions"].filter(pa.array(rows))
        if part != TRAIN:
            tables[name] = tables[name].append_column(columns.IS_TARGET, pa.array(split.is_target[rows]))
    return tables


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


def user_table(raw_ids: list[str], first_rows: np.ndarray) -> pa.Table:
    """One row a user in order of id; ``original_order`` is the row where the user first stands in the source."""
    ids = np.arange(1, len(raw_ids) + 1, dtype=np.int32)
    return pa.table(
        [pa.array(ids), pa.array(raw_ids, pa.string()), pa.array(first_rows, pa.int64())], schema=USER_TYPES
    )


def fingerprint(tables: Mapping[str, pa.Table]) -> str:
    """Hash of the columns of interactions, train, valid and test: of what they hold, not of how the file packs it."""
    digest = hashlib.sha256()
    for name in FINGERPRINTED:
        for column in tables[name].column_names:
            values = tables[name].column(column)
            if values.null_count == len(values):
                continue
            digest.update(f"{name}.{column}\0".encode())
            digest.update(column_bytes(values.to_numpy()))
    return digest.hexdigest()


def write_tables(folder: Path, tables: Mapping[str, pa.Table]) -> None:
    """One Parquet file a table."""
    for name, table in tables.items():
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


@contextlib.contextmanager
def taking_the_place_of(folder: Path) -> Iterator[Path]:
    """An empty folder to fill. It takes the place of ``folder`` when the block ends well; if not, nothing changes.

    Raises:
        RecbenchError: it cannot be written: no space, no permission.
    """
    work = folder.parent / f".{folder.name}.{os.getpid()}.part"
    new, old = work / "new", work / "old"
    try:
        new.mkdir(parents=True)
        yield new
        if folder.exists():
            folder.replace(old)
        try:
            new.replace(folder)
        except OSError:
            if old.exists():
                old.replace(folder)
            raise
    except OSError as error:
        raise RecbenchError(
            f"{folder} cannot be written.",
            why=f"{error.strerror or error}."
            + (" What was prepared before is still there." if folder.exists() else ""),
            fix="Free some space or mend the permissions, or take another place: --datasets DIR",
            code=Exit.DATA,
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _or_none(value: object) -> object:
    """The value, a list for an array of text, None for NaN."""
    if isinstance(value, list | tuple | np.ndarray):
        return [str(part) for part in value]
    return None if value is None or value != value else value  # noqa: PLR0124 NaN only
