"""Any table with a user and an item column: CSV, TSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, final

import pyarrow as pa
import pyarrow.parquet as pq

from recbench.data.sources.base import Events, Progress, Source
from recbench.data.sources.building import Builder
from recbench.data.sources.delimited import Layout, first_row, read_delimited
from recbench.data.sources.places import File
from recbench.data.sources.reading import head_of
from recbench.errors import Exit, RecbenchError, meant

PARQUET = b"PAR1"
KNOWN = {
    "user": ("user", "user_id", "userid", "reviewerid", "uid", "visitorid", "customer_id", "session_id"),
    "item": ("item", "item_id", "itemid", "parent_asin", "asin", "iid", "movieid", "product_id", "business_id"),
    "rating": ("rating", "overall", "stars", "score"),
    "timestamp": ("timestamp", "time", "unixreviewtime", "date", "datetime", "ts"),
}
"""Column names taken without asking, best first; letter case and a typed suffix (``user_id:token``) do not matter."""


@final
class Table(Source):
    """Columns user, item, and timestamp and rating where there are some.

    Option ``columns``: role -> name of its column, or its number from 1; a first line with a known name is a header all the same.
    """

    files: ClassVar[tuple[str, ...]] = ("*.parquet",)
    takes: ClassVar[tuple[str, ...]] = ("columns",)

    @classmethod
    def recognises(cls, path: File, head: bytes) -> bool:
        del path  # the content decides
        if head.startswith(PARQUET):
            return True
        if b"\0" in head or head.lstrip()[:1] in (b"{", b"["):
            return False
        _, cells = first_row(head)
        return len(cells) >= 2

    def read(self, progress: Progress) -> Events:
        head = head_of(self.file)
        asked = dict(self.options.get("columns") or {})
        if head.startswith(PARQUET):
            return self._parquet(self.file, asked, progress)
        separator, cells = first_row(head)
        if asked and all(str(name).isdigit() for name in asked.values()):
            place = _numbered(self.file, len(cells), asked)
            header = any(_plain(cells[place[role]]) in KNOWN[role] for role in ("user", "item"))
        else:
            place, header = _places(self.file, cells, asked), True
        layout = Layout(separator=separator, header=cells if header else None, n_columns=len(cells), place=place)
        return read_delimited(self.file, layout, progress, self.bad, notes=_said(cells, place, header))

    def _parquet(self, file: File, asked: dict[str, str], progress: Progress) -> Events:
        if not isinstance(file, Path):
            raise RecbenchError(
                f"{file} is Parquet inside an archive.",
                why="Parquet is read from its end, so it must stand on the disk.",
                fix="Unpack it and name the file inside: --source FILE.parquet",
                code=Exit.DATA,
            )
        try:
            opened = pq.ParquetFile(file)
            names = opened.schema_arrow.names
            place = _places(file, names, asked)
            builder, row = Builder(file, self.bad), 1
            for columns in _batches(file, opened, names, place, progress):
                n = len(columns["user"])
                builder.add(columns, range(row, row + n))
                row += n
            return builder.finish(_said(names, place, True))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise RecbenchError(
                f"{file} cannot be read as Parquet.",
                why=str(error).partition("\n")[0],
                fix="Get or write the file again.",
                code=Exit.DATA,
            ) from error


def _batches(
    path: Path, file: pq.ParquetFile, names: list[str], place: dict[str, int], progress: Progress
) -> Iterator[dict[str, pa.Array]]:
    wanted = {role: names[at] for role, at in place.items()}
    size, rows = path.stat().st_size, max(file.metadata.num_rows, 1)
    for batch in file.iter_batches(columns=list(wanted.values())):
        progress(round(size * len(batch) / rows))
        columns: dict[str, Any] = {role: _decoded(batch[name]) for role, name in wanted.items()}
        for role in ("user", "item"):
            columns[role] = _as_text(path, wanted[role], columns[role])
        yield columns


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _as_text(path: Path, name: str, column: pa.Array) -> pa.Array:
    if pa.types.is_floating(column.type):
        raise RecbenchError(
            f"Column {name} of {path} holds decimal numbers, not ids.",
            why="Ids are text; whatever wrote this file has already changed them (0205616461 became 205616461.0).",
            fix="Write the column again as text, from the original ids.",
            code=Exit.DATA,
        )
    return column.cast(pa.string())


def _places(path: File, cells: list[str], asked: dict[str, str]) -> dict[str, int]:
    """Role -> column: as asked for, or by a well-known name."""
    place: dict[str, int] = {}
    lowered = [cell.lower() for cell in cells]
    for role, name in asked.items():
        if name in cells:
            place[role] = cells.index(name)
        elif lowered.count(name.lower()) == 1:
            place[role] = lowered.index(name.lower())
        else:
            raise _wrong_columns(path, cells, f"has no column {name!r}", meant(name, cells, f"{role}={{}}"))
    plain = [_plain(cell) for cell in cells]
    for role, names in KNOWN.items():
        found = [plain.index(name) for name in names if name in plain]
        if found and role not in place and (not asked or role in ("user", "item")):
            place[role] = found[0]
    missing = [role for role in ("user", "item") if role not in place]
    if missing:
        raise _wrong_columns(path, cells, f"has no column that is known to be the {' or the '.join(missing)}", None)
    if len(set(place.values())) < len(place):
        raise _wrong_columns(path, cells, "would give one column two roles", None)
    twice = [cells[at] for at in place.values() if cells.count(cells[at]) > 1]
    if twice:
        fix = "Rename or remove one of them in the first line."
        raise _wrong_columns(path, cells, f"has {cells.count(twice[0])} columns named {twice[0]!r}", fix)
    return place


def _plain(cell: str) -> str:
    """A column's name as ``KNOWN`` writes it."""
    return cell.partition(":")[0].strip().lower()


def _numbered(path: File, n_columns: int, asked: dict[str, str]) -> dict[str, int]:
    place = {role: int(number) - 1 for role, number in asked.items()}
    wrong = [role for role, at in place.items() if not 0 <= at < n_columns]
    if wrong or not {"user", "item"} <= set(place) or len(set(place.values())) < len(place):
        raise RecbenchError(
            f"--columns does not fit {path}.",
            why=f"It has columns 1 to {n_columns}; user and item are needed, each from its own column.",
            fix="--columns user=1,item=2,timestamp=3",
        )
    return place


def _wrong_columns(path: File, cells: list[str], what: str, fix: str | None) -> RecbenchError:
    example = cells[0] if cells else "..."
    return RecbenchError(
        f"{path} {what}.",
        why=f"Its first line reads: {', '.join(cells)[:200]}.",
        fix=fix or f"--columns user={example},item=...,timestamp=...; without a header: --columns user=1,item=2,...",
        code=Exit.DATA,
    )


def _said(cells: list[str], place: dict[str, int], header: bool) -> tuple[str, ...]:
    named = [f"{role} = {cells[at] if header else f'column {at + 1}'}" for role, at in place.items()]
    plainly = header and all(cells[at] == role for role, at in place.items())
    said = [] if plainly else [f"Columns read: {', '.join(named)}."]
    time = next((cell for cell in cells if header and _plain(cell) in KNOWN["timestamp"]), None)
    if time is not None and "timestamp" not in place:
        said.append(
            f"Column {time} is not read: rows are taken to be in order. As their time: --columns ...,timestamp={time}"
        )
    return tuple(said)
