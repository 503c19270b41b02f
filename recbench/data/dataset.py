"""A prepared dataset: ragged histories in memory, Parquet on disk. Nothing here is ever padded."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recbench import columns
from recbench.data.card import Card
from recbench.data.replacement import mend_all
from recbench.errors import Exit, RecbenchError, meant
from recbench.files import sha256

Split = Literal["valid", "test"]
PARTS = ("train", "valid", "test")
"""In order of time for each user. ``splitting`` numbers them alike."""
HOME = Path("datasets")
LAST = ".last"
"""Name of the file in the home of datasets that says which one was prepared last."""


@dataclass(frozen=True, slots=True)
class Histories:
    """Ragged histories: row r is ``items[starts[r]:stops[r]]``, oldest first. Rows may overlap; nothing is copied.

    ``users`` (R,) int32, ``items`` (E,) int32, ``times`` (E,) int64 in seconds or None, ``starts`` and ``stops`` (R,) int64.
    """

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray | None
    starts: np.ndarray
    stops: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> np.ndarray:
        """Events in each row, (R,)."""
        return self.stops - self.starts

    def row(self, r: int) -> np.ndarray:
        """Items of row ``r``, oldest first."""
        return self.items[self.starts[r] : self.stops[r]]

    def only(self, rows: np.ndarray) -> Histories:
        """The histories of some rows; their events are not copied."""
        return Histories(self.users[rows], self.items, self.times, self.starts[rows], self.stops[rows])


@dataclass(frozen=True, slots=True)
class Queries:
    """What evaluation asks: after ``histories`` row q, where is ``targets[q]`` ranked?

    A user may have several rows. Each is a question of its own (``successive``), unless ``together`` says that the rows
    of a user are one question with a set of targets (``all``): their histories are then the same events.
    """

    split: Split
    histories: Histories
    targets: np.ndarray
    times: np.ndarray | None = None
    """When each row is asked, in seconds: at its target, or where the targets of a user are one question, at the first event of
    the window. What asks for a recommendation at a known moment may use it."""
    together: bool = False

    def __len__(self) -> int:
        return len(self.targets)

    def only(self, rows: np.ndarray) -> Queries:
        """Some of the queries."""
        times = None if self.times is None else self.times[rows]
        return Queries(self.split, self.histories.only(rows), self.targets[rows], times, self.together)


@dataclass(frozen=True, slots=True)
class Events:
    """Events of a dataset with the part each belongs to.

    ``histories`` a row a user, no gaps; ``user`` (E,); ``part`` (E,) place in ``PARTS``; ``is_target`` (E,).
    """

    histories: Histories
    user: np.ndarray
    part: np.ndarray
    is_target: np.ndarray


class Dataset:
    """A prepared folder. Each file is opened when it is asked for, so that training never opens ``test.parquet``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.card = Card.read(folder)

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.card.name

    @property
    def n_items(self) -> int:
        """Catalogue size; ids run from 1 to this."""
        return self.card.items

    def refuse_changed(self, names: Collection[str] | None = None) -> None:
        """Hash files that the card knows.

        Args:
            names: of some of them; None: all.

        Raises:
            RecbenchError: one is gone, or another than was prepared.
        """
        for name, told in self.card.files.items():
            if names is not None and name not in names:
                continue
            path = self.folder / name
            if not path.is_file() or sha256(path) != told:
                raise RecbenchError(
                    f"{path} is not what was prepared.",
                    why="It is gone." if not path.is_file() else "Its sha256 is not the one in card.json.",
                    fix=f"recbench verify {self.name} says what else is changed; prepare it again, or put the file back",
                    code=Exit.DATA,
                )

    def training(self) -> Histories:
        """The training part of every user who has one. Opens ``train.parquet`` only."""
        events = self._events("train")
        return histories_of(events[columns.USER], events[columns.ITEM], events.get(columns.TIMESTAMP))

    def queries(self, split: Split) -> Queries:
        """The queries of ``split``: each target with all that its user did before it. Opens no later file than that.

        Where the targets of a user are one set, with all that its user did before the window instead.
        """
        events = self.events(PARTS[:2] if split == "valid" else PARTS)
        in_window = events.part == PARTS.index(split)
        return queries_of(events.histories, events.is_target & in_window, in_window, split, together=self.together)

    def events(self, parts: tuple[str, ...] = PARTS) -> Events:
        """The events of some parts, earliest part first, by user and then in sequence order. Opens no other part."""
        tables = [self._events(part) for part in parts]
        user = np.concatenate([table[columns.USER] for table in tables])
        order = np.argsort(user, kind="stable")  # parts are in time order, so each user's events are too
        columns_ = {
            name: np.concatenate([table[name] for table in tables])[order]
            for name in (columns.ITEM, columns.TIMESTAMP)
            if name in tables[0]
        }
        asked = [t.get(columns.IS_TARGET, np.zeros(len(t[columns.USER]), dtype=bool)) for t in tables]
        part = np.repeat(np.arange(len(parts), dtype=np.int8), [len(t[columns.USER]) for t in tables])
        histories = histories_of(user[order], columns_[columns.ITEM], columns_.get(columns.TIMESTAMP))
        return Events(histories, user[order], part[order], np.concatenate(asked)[order])

    @property
    def together(self) -> bool:
        """Are the targets of a user one set, asked for at once? Else each is a question of its own."""
        return self.card.split.get("target") == "all"

    def items(self) -> pd.DataFrame:
        """Item metadata, one row an item, in order of id."""
        return self.table("items").to_pandas()

    def users(self) -> pd.DataFrame:
        """Raw ids of the users, in order of id."""
        return self.table("users").to_pandas()

    def interactions(self) -> pd.DataFrame:
        """Every event, by user and then in sequence order."""
        return self.table("interactions").to_pandas()

    def table(self, part: str) -> pa.Table:
        """One of the Parquet files, whole, by the name it has without its suffix."""
        path = self.folder / f"{part}.parquet"
        try:
            return pq.read_table(path, memory_map=True)
        except (OSError, pa.ArrowInvalid) as error:
            from recbench.data.again import same  # needs what reads datasets

            raise RecbenchError(
                f"{path} cannot be read.",
                why=str(error) if path.exists() else "It is not there.",
                fix=same(self.card, self.folder),
                code=Exit.DATA,
            ) from error

    def _events(self, part: str) -> dict[str, np.ndarray]:
        table = self.table(part)
        wanted = [columns.USER, columns.ITEM, columns.TIMESTAMP, columns.IS_TARGET]
        present = [name for name in wanted if name in table.column_names]
        if self.card.time_unit is None:
            present.remove(columns.TIMESTAMP)
        found = {name: table.column(name).to_numpy() for name in present}
        if columns.TIMESTAMP in found:
            found[columns.TIMESTAMP] = self.seconds(found[columns.TIMESTAMP])
        return found

    def seconds(self, timestamps: np.ndarray) -> np.ndarray:
        """A column of the files' timestamps in seconds, whatever unit the source has."""
        return timestamps // 1000 if self.card.time_unit == "ms" else timestamps


def histories_of(user: np.ndarray, item: np.ndarray, time: np.ndarray | None) -> Histories:
    """A row a user, from events sorted by user and then in sequence order."""
    users, starts, counts = np.unique(user, return_index=True, return_counts=True)
    starts = starts.astype(np.int64)
    return Histories(users, item, time, starts, starts + counts)


def queries_of(
    histories: Histories, is_target: np.ndarray, in_window: np.ndarray, split: Split, *, together: bool
) -> Queries:
    """A query a target, in order of the events.

    Args:
        histories: a row a user, without gaps; the last event of a row is the newest.
        is_target: (E,) which events are asked for.
        in_window: (E,) which events belong to ``split``; no event behind them is among the histories.
        split: valid or test.
        together: each query ends before the window, not before its own target.
    """
    targets = np.flatnonzero(is_target)
    row = np.searchsorted(histories.starts, targets, side="right") - 1
    stops = targets
    if together:
        first = np.flatnonzero(in_window)
        stops = first[np.searchsorted(first, histories.starts[row])]  # the user's first event of the window
    asked = Histories(
        histories.users[row], histories.items, histories.times, histories.starts[row], stops.astype(np.int64)
    )
    times = None if histories.times is None else histories.times[stops]
    return Queries(split, asked, histories.items[targets], times, together)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """``starts[0] .. starts[0] + lengths[0] - 1``, then the next range, and so on, as one array."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def prepared(home: Path) -> list[str]:
    """Names of the datasets prepared under ``home``."""
    return sorted(path.parent.name for path in home.glob("*/card.json"))


def open_dataset(name: str | None, home: Path = HOME) -> Dataset:
    """The prepared dataset ``name`` under ``home``; a path to a folder works too; None means the one prepared last.

    Raises:
        RecbenchError: there is none of that name.
    """
    mend_all(home)
    known = prepared(home)
    if name is None:
        return Dataset(home / _prepared_last(home, known))
    if "/" in name and (Path(name) / "card.json").exists():
        return Dataset(Path(name))
    if name not in known:
        from recbench.data.again import by_name  # as above

        raise RecbenchError(
            f"No prepared dataset {name!r} in {home}/.",
            why=f"Prepared here: {', '.join(known) or 'nothing yet'}.",
            fix=meant(name, known) or by_name(name, home),
            code=Exit.DATA,
        )
    return Dataset(home / name)


def mark_last(name: str, home: Path) -> None:
    """Remember that ``name`` was prepared last."""
    (home / LAST).write_text(name + "\n", encoding="utf-8")


def _prepared_last(home: Path, known: list[str]) -> str:
    last = home / LAST
    name = last.read_text(encoding="utf-8").strip() if last.exists() else ""
    if name in known:
        return name
    if len(known) == 1:
        return known[0]
    from recbench.data.again import by_name  # as above

    raise RecbenchError(
        "No dataset was named, and none was prepared last.",
        why=f"Prepared in {home}/: {', '.join(known) or 'nothing yet'}.",
        fix=f"--dataset {known[0]}" if known else by_name("synthetic", home),
        code=Exit.DATA,
    )


def column_bytes(values: Any) -> bytes:
    """The bytes of a column, whatever its file's compression: little-endian, contiguous. Fingerprints are made of these."""
    return column_view(values).tobytes()


def column_view(values: Any) -> np.ndarray:
    """The same bytes as an array of them, without a copy where the column is already so."""
    array = np.ascontiguousarray(values)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8)
