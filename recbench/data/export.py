"""A prepared dataset in the formats of others: sequence text, RecBole, CSV, Amazon 2023 splits, Hugging Face."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbench import columns
from recbench.data import hugging_face
from recbench.data.dataset import PARTS, Dataset, ranges
from recbench.data.splitting import starts
from recbench.errors import Exit, RecbenchError, meant
from recbench.files import replacing

FORMATS = ("sequences", "recbole", "csv", "amazon2023", "huggingface")
FOLDERS = {"recbole": "RecBole data", "amazon2023": "An Amazon 2023 split", "huggingface": "A Hugging Face dataset"}
"""Formats of more than one file."""
USERS_A_CHUNK = 4096
ROWS_A_CHUNK = 1 << 16


def check_format(name: str) -> None:
    """Refuse a format that is not known."""
    if name not in FORMATS:
        raise RecbenchError(
            f"Unknown export format {name!r}.",
            why=f"The formats are: {', '.join(FORMATS)}.",
            fix=meant(name, FORMATS) or "--format sequences",
        )


def export(dataset: Dataset, name: str, output: Path | BinaryIO) -> tuple[str, ...]:
    """Write ``dataset`` in format ``name`` to a file, a folder (``FOLDERS``) or a stream; says what a user should know.

    Raises:
        RecbenchError: no such format, or the place cannot be written.
    """
    check_format(name)
    if name in FOLDERS:
        if not isinstance(output, Path):
            raise RecbenchError(
                f"{FOLDERS[name]} is a folder.",
                why="It has more than one file, so it cannot go to stdout.",
                fix="--output FOLDER",
            )
        write = {"recbole": _recbole, "amazon2023": _amazon2023, "huggingface": hugging_face.write}[name]
        return _written(output, lambda: write(dataset, output))
    chunks = sequences_of(dataset) if name == "sequences" else _csv(dataset)
    if not isinstance(output, Path):
        output.writelines(chunks)
        return ()
    return _written(output, lambda: _whole(output, chunks))


def sequence_text(user: np.ndarray, item: np.ndarray, user_order: np.ndarray) -> Iterator[bytes]:
    """``user item item ...`` lines of the research world, in chunks.

    Args:
        user: (E,) sorted; the events of a user in sequence order.
        item: (E,).
        user_order: (U,) where each user, in order of ``user``, first stood in the source. The lines come in that order;
            users and items are numbered from 1 by first appearance as they are written.
    """
    first = starts(user)
    lines = np.argsort(user_order, kind="stable")
    lengths = np.diff(np.r_[first, len(user)])[lines]
    number, n = np.zeros(int(item.max(initial=0)) + 1, dtype=np.int32), 0
    for begin in range(0, len(lines), USERS_A_CHUNK):
        chosen = slice(begin, begin + USERS_A_CHUNK)
        written = item[ranges(first[lines[chosen]], lengths[chosen])]
        n += _number_new(number, written, n)
        ends = np.cumsum(lengths[chosen])
        heads = np.arange(begin + 1, begin + 1 + len(ends))
        words = np.insert(number[written], ends - lengths[chosen], heads)  # each line begins with its user
        offsets = np.r_[0, ends + np.arange(1, len(ends) + 1)].astype(np.int32)
        listed = pa.ListArray.from_arrays(pa.array(offsets), pa.array(words).cast(pa.string()))
        yield "".join(f"{line}\n" for line in pc.binary_join(listed, " ").to_pylist()).encode()


def _number_new(number: np.ndarray, written: np.ndarray, n: int) -> int:
    """Number the items that have none yet, from ``n`` + 1 in order of first appearance; how many they are."""
    new, first = np.unique(written[number[written] == 0], return_index=True)
    number[new[np.argsort(first)]] = np.arange(n + 1, n + 1 + len(new))
    return len(new)


def sequence_sha256(user: np.ndarray, item: np.ndarray, user_order: np.ndarray) -> str:
    """Hash of the sequence text."""
    digest = hashlib.sha256()
    for chunk in sequence_text(user, item, user_order):
        digest.update(chunk)
    return digest.hexdigest()


def sequences_of(dataset: Dataset) -> Iterator[bytes]:
    """The sequence text of a prepared dataset."""
    events = dataset.interactions()
    order = dataset.users()[columns.ORIGINAL_ORDER].to_numpy()
    return sequence_text(events[columns.USER].to_numpy(), events[columns.ITEM].to_numpy(), order)


def increasing(user: np.ndarray, time: np.ndarray | None) -> tuple[np.ndarray, int]:
    """Times that strictly increase within a user, as float64, and the most that one was moved.

    RecBole sorts by a float32 time, which at today's dates cannot tell 128 seconds apart. Times that stay apart as
    float32 are left alone; else all are put on a grid that float32 holds, and those that meet are pushed on by one.
    Without times, positions from 1.
    """
    first = starts(user)
    position = np.arange(len(user)) - np.repeat(first, np.diff(np.r_[first, len(user)]))
    if time is None:
        return (position + 1).astype(np.float64), 0
    rough = time.astype(np.float32)
    if ((rough[1:] > rough[:-1]) | (user[1:] != user[:-1])).all():
        return time.astype(np.float64), 0
    step = _grid(time, int(position.max(initial=0)) + 1)
    # The last place used may not be taken again: with g - position the pushed places are a running maximum.
    lifted = time // step - position
    span = int(lifted.max() - lifted.min()) + 1
    rank = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(user)]))
    pushed = np.maximum.accumulate(lifted + rank * span) - rank * span + position
    moved = pushed * step
    return moved.astype(np.float64), int(np.abs(moved - time).max())


def _grid(time: np.ndarray, longest: int) -> int:
    """The step that float32 can hold up to the latest time and a whole list pushed on behind it."""
    step = 1
    while (int(np.abs(time).max()) // step + longest + 1) >= 1 << 24:
        step *= 2
    return step


def _recbole(dataset: Dataset, folder: Path) -> tuple[str, ...]:
    """``<name>.inter`` and, where there is metadata, ``<name>.item`` with RecBole's typed headers."""
    events, users, items = dataset.interactions(), dataset.users(), dataset.items()
    why = "RecBole files are tab-separated and know no quotes."
    _refuse([*users[columns.RAW_ID], *items[columns.RAW_ID]], "\t\n", "a tab or a line end", why)
    folder.mkdir(parents=True, exist_ok=True)
    timed = dataset.card.time_unit is not None
    times = events[columns.TIMESTAMP].to_numpy() if timed else None
    written, moved = increasing(events[columns.USER].to_numpy(), times)
    cells = {"user_id:token": _raw(users, events[columns.USER]), "item_id:token": _raw(items, events[columns.ITEM])}
    if events[columns.RATING].notna().any():
        cells["rating:float"] = _numbers(events[columns.RATING].to_numpy())
    cells["timestamp:float"] = _numbers(written.astype(np.int64))
    _whole(folder / f"{dataset.name}.inter", _delimited(cells, "\t"))
    described = items[columns.TITLE].notna().any() or items[columns.CATEGORIES].notna().any()
    if described:
        _whole(folder / f"{dataset.name}.item", _delimited(_item_cells(items), "\t"))
    if not timed:
        said = "The source has no times: timestamp holds the position in the list, from 1."
    elif moved:
        said = (
            "RecBole sorts by a float32 time, which cannot hold this order: timestamps were moved by up to "
            f"{moved:,} {dataset.card.time_unit}, so that they strictly increase for each user."
        )
    else:
        said = "Timestamps are the source's own; they strictly increase for each user."
    return (said,)


def _amazon2023(dataset: Dataset, folder: Path) -> tuple[str, ...]:
    """``<name>.{train,valid,test}.csv`` as in the benchmark folders of Amazon 2023, ``last_out_w_his``.

    Users in the order of the source, their events oldest first, each with all that its user did before.
    """
    events, users, items = dataset.interactions(), dataset.users(), dataset.items()
    _refuse([*items[columns.RAW_ID]], " ", "a blank", "A history is a list of items with blanks between them.")
    folder.mkdir(parents=True, exist_ok=True)
    part = dataset.events().part
    raw_user, raw_item = _raw(users, events[columns.USER]), _raw(items, events[columns.ITEM])
    rating = _numbers(events[columns.RATING].to_numpy())
    timed = dataset.card.time_unit is not None
    time = _numbers(events[columns.TIMESTAMP].to_numpy()) if timed else [""] * len(events)
    user = events[columns.USER].to_numpy()
    first = starts(user)
    stops = np.r_[first[1:], len(user)]
    in_order = np.argsort(users[columns.ORIGINAL_ORDER].to_numpy(), kind="stable")

    def rows(which: int) -> Iterator[bytes]:
        yield b"user_id,parent_asin,rating,timestamp,history\n"
        for chunk in np.array_split(in_order, max(1, len(in_order) // USERS_A_CHUNK)):
            buffer = io.StringIO(newline="")
            writer = csv.writer(buffer, lineterminator="\n")
            for u in chunk.tolist():
                begin = int(first[u])
                for at in (begin + np.flatnonzero(part[begin : stops[u]] == which)).tolist():
                    writer.writerow([raw_user[at], raw_item[at], rating[at], time[at], " ".join(raw_item[begin:at])])
            yield buffer.getvalue().encode()

    for which, name in enumerate(PARTS):
        _whole(folder / f"{dataset.name}.{name}.csv", rows(which))
    return ()


def _item_cells(items: pd.DataFrame) -> dict[str, list[str]]:
    cells = {"item_id:token": [*items[columns.RAW_ID]]}
    cells["title:token_seq"] = [_one_line(text) for text in items[columns.TITLE]]
    cells["brand:token"] = [_one_line(text) for text in items[columns.BRAND]]
    cells["categories:token_seq"] = [
        " ".join(_one_line(name).replace(" ", "_") for name in names) if names is not None else ""
        for names in items[columns.CATEGORIES]
    ]
    cells["price:float"] = _numbers(items[columns.PRICE].to_numpy(dtype=np.float64))
    return cells


def _csv(dataset: Dataset) -> Iterator[bytes]:
    """``user,item,rating,timestamp`` with raw ids. Preparing it again, as it is, gives the same sequences.

    The rows stand in source order where that is so; else user by user, in the order of the sequences.
    """
    events, users = dataset.interactions(), dataset.users()
    events = events.iloc[
        _rows(events, users[columns.ORIGINAL_ORDER].to_numpy(), timed=dataset.card.time_unit is not None)
    ]
    cells = {
        columns.USER: _raw(users, events[columns.USER]),
        columns.ITEM: _raw(dataset.items(), events[columns.ITEM]),
    }
    if events[columns.RATING].notna().any():
        cells[columns.RATING] = _numbers(events[columns.RATING].to_numpy())
    if dataset.card.time_unit is not None:
        cells[columns.TIMESTAMP] = _numbers(events[columns.TIMESTAMP].to_numpy())
    return _delimited(cells, ",")


def _rows(events: pd.DataFrame, user_order: np.ndarray, *, timed: bool) -> np.ndarray:
    """In which order events, sorted by user and then in sequence order, are read back as they are."""
    user, order = events[columns.USER].to_numpy(), events[columns.ORIGINAL_ORDER].to_numpy()
    first = starts(user)
    in_order = (user[1:] != user[:-1]) | (order[1:] > order[:-1])
    if timed:
        time = events[columns.TIMESTAMP].to_numpy()
        in_order |= time[1:] > time[:-1]
    lines = np.argsort(user_order, kind="stable")
    appear = np.argsort(
        np.minimum.reduceat(order, first), kind="stable"
    )  # a filter may have dropped a user's first event
    if in_order.all() and (appear == lines).all():
        return np.argsort(order, kind="stable")
    return ranges(first[lines], np.diff(np.r_[first, len(user)])[lines])


def _delimited(cells: dict[str, list[str]], separator: str) -> Iterator[bytes]:
    """Header and rows; tab-separated text is never quoted, RecBole would read the quotes."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=separator, lineterminator="\n")
    rows = zip(*cells.values(), strict=True)
    plain = separator == "\t"
    yield (separator.join(cells) + "\n").encode()
    n_rows = len(next(iter(cells.values())))
    for _ in range(0, n_rows, ROWS_A_CHUNK):
        chunk = list(islice(rows, ROWS_A_CHUNK))
        if plain:
            yield "".join("\t".join(row) + "\n" for row in chunk).encode()
            continue
        writer.writerows(chunk)
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()


def _raw(table: pd.DataFrame, ids: pd.Series[int]) -> list[str]:
    return table[columns.RAW_ID].to_numpy(dtype=object)[ids.to_numpy() - 1].tolist()


def _numbers(values: np.ndarray) -> list[str]:
    """Shortest text of each number, nothing for a missing one."""
    distinct, which = np.unique(values, return_inverse=True)
    texts = np.array(["" if value != value else str(value) for value in distinct], dtype=object)  # noqa: PLR0124 NaN only
    return texts[which].tolist()


def _one_line(text: object) -> str:
    return re.sub(r"\s+", " ", text).strip() if isinstance(text, str) else ""


def _refuse(ids: list[str], marks: str, named: str, why: str) -> None:
    """Refuse ids that the format could not hold."""
    for raw in ids:
        if any(mark in raw for mark in marks):
            raise RecbenchError(f"The id {raw!r} holds {named}.", why=why, fix="--format csv", code=Exit.DATA)


def _whole(path: Path, chunks: Iterator[bytes]) -> tuple[str, ...]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside, beside.open("wb") as handle:
        handle.writelines(chunks)
    return ()


def _written(output: Path, write: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    try:
        return write()
    except OSError as error:
        raise RecbenchError(
            f"{output} cannot be written.",
            why=f"{error.strerror or error}.",
            fix="--output another place, or free some space",
        ) from error
