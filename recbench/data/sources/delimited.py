"""Columns of text into events: CSV, TSV and other delimited files, and the part shared with Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from recbench.data.sources.base import Events, Progress
from recbench.data.sources.coding import Coder, joined
from recbench.data.sources.reading import shown, stream
from recbench.data.sources.times import Times
from recbench.errors import Exit, RecbenchError

SEPARATORS = (",", "\t", ";", "|")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things stand in a delimited file. ``place``: role (user, item, rating, timestamp) -> column from 0."""

    separator: str
    header: bool
    n_columns: int
    place: Mapping[str, int]


def first_row(head: bytes) -> tuple[str, list[str]]:
    """The separator of a delimited file and the cells of its first line, byte-order mark and quotes removed."""
    line = head.decode("utf-8-sig", errors="replace").partition("\n")[0].rstrip("\r")
    separator = max(SEPARATORS, key=line.count)
    cells = next(csv.reader(io.StringIO(line), delimiter=separator), [])
    return separator, [cell.strip() for cell in cells]


def read_delimited(path: Path, layout: Layout, progress: Progress, *, notes: tuple[str, ...] = ()) -> Events:
    """All rows as events. Ids stay text to the letter: ``0205616461`` keeps its zero, ``5E10`` is no number.

    Raises:
        RecbenchError: a row with another number of columns, a rating or time that is none, an empty id, a damaged file.
    """
    names = [f"column {place + 1}" for place in range(layout.n_columns)]
    wanted = {role: names[place] for role, place in layout.place.items()}
    types = {name: pa.float32() if role == "rating" else pa.string() for role, name in wanted.items()}
    try:
        batches = pa_csv.open_csv(
            stream(path, progress),
            read_options=pa_csv.ReadOptions(
                use_threads=False, column_names=names, skip_rows=int(layout.header), block_size=1 << 22
            ),
            parse_options=pa_csv.ParseOptions(delimiter=layout.separator),
            convert_options=pa_csv.ConvertOptions(column_types=types, include_columns=list(wanted.values())),
        )
        return collect(path, ({role: batch[name] for role, name in wanted.items()} for batch in batches), notes=notes)
    except pa.ArrowInvalid as error:
        raise _unreadable(path, layout, error) from error


def collect(path: Path, batches: Iterable[dict[str, pa.Array]], *, notes: tuple[str, ...] = ()) -> Events:
    """Events from batches of columns by role; ids are text by now, times of any kind ``Times`` knows."""
    user, item, times = Coder(), Coder(), Times(path)
    ratings: list[np.ndarray] = []
    rows = 0
    timed = False
    for batch in batches:
        for role, coder in (("user", user), ("item", item)):
            _add_ids(path, role, coder, batch[role], rows)
        if "rating" in batch:
            ratings.append(batch["rating"].cast(pa.float32()).to_numpy(zero_copy_only=False))
        if "timestamp" in batch:
            times.add(batch["timestamp"])
            timed = True
        rows += len(batch["user"])
    timestamp, unit = times.settle() if timed else (None, None)
    return Events(
        user=user.codes(),
        item=item.codes(),
        rating=joined(ratings, np.float32) if ratings else None,
        timestamp=timestamp,
        order=np.arange(rows, dtype=np.int64),
        user_ids=user.ids(),
        item_ids=item.ids(),
        time_unit=unit,
        notes=notes,
    )


def _add_ids(path: Path, role: str, coder: Coder, column: pa.Array, before: int) -> None:
    encoded = column.dictionary_encode(null_encoding="encode")
    distinct = encoded.dictionary.to_pylist()
    indices = encoded.indices.to_numpy()
    for place, raw in enumerate(distinct):
        if raw is None or not raw.strip():
            bad = np.flatnonzero(indices == place)
            raise RecbenchError(
                f"Row {before + bad[0] + 1:,} of {path} has no {role}.",
                why=f"An event needs a user and an item; the {role} is empty in {len(bad):,} rows read so far.",
                fix="Remove those rows, or name another column: --columns user=...,item=...",
                code=Exit.DATA,
            )
    coder.add_encoded(distinct, indices)


def _unreadable(path: Path, layout: Layout, error: Exception) -> RecbenchError:
    kind = "tabs" if layout.separator == "\t" else repr(layout.separator)
    return RecbenchError(
        f"{path} cannot be read as a table of {layout.n_columns} columns, separated by {kind}.",
        why=shown(str(error).encode(), 200),
        fix="Mend that row, or say what the file is: --source-format ..., --columns user=...,item=...,timestamp=...",
        code=Exit.DATA,
    )
