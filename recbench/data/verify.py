"""Is a prepared dataset still what its card says? Every file is hashed again, and what can be recounted is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recbench import columns
from recbench.data import card as cards
from recbench.data.card import Card
from recbench.data.export import sequence_sha256
from recbench.data.folder import FINGERPRINTED, Fingerprint
from recbench.files import sha256


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. ``problem`` is empty where it is as it should be."""

    what: str
    problem: str = ""


def is_dataset(folder: Path) -> bool:
    """Does the folder say that it is a prepared dataset?"""
    return (folder / cards.NAME).exists()


def verify(folder: Path) -> list[Check]:
    """Every check of a prepared dataset, the failed ones included.

    Raises:
        RecbenchError: its card cannot be read.
    """
    card = Card.read(folder)
    checks = [_file(folder / name, told) for name, told in card.files.items()]
    strange = sorted(path.name for path in folder.glob("*.parquet") if path.name not in card.files)
    checks += [Check(name, "the card knows no such file") for name in strange]
    if all(not check.problem for check in checks):
        checks += _content(folder, card)
    return [*checks, *_sources(card)]


def _sources(card: Card) -> list[Check]:
    """The raw files, where they are still at hand: a dataset is whole without them."""
    files = [card.source, card.source.get("metadata", {}), *card.source.get("beside", {}).values()]
    there = [file for file in files if "sha256" in file and Path(file["path"]).is_file()]
    return [_file(Path(file["path"]), file["sha256"], f"source {file['path']}") for file in there]


def _file(path: Path, told: str, name: str | None = None) -> Check:
    name = name or path.name
    try:
        found = sha256(path)
    except OSError as error:
        return Check(name, f"cannot be read: {error.strerror or error}")
    return Check(name, "" if found == told else f"sha256 is {found[:12]}, the card says {told[:12]}")


def _content(folder: Path, card: Card) -> list[Check]:
    """Columns, order and counts, from the files: what would show that the card itself was changed."""
    try:
        tables = {name: pq.read_table(folder / f"{name}.parquet") for name in (*FINGERPRINTED, "users", "items")}
        fingerprint = Fingerprint()
        for name in FINGERPRINTED:
            fingerprint.add(name, tables[name])
        found = {"fingerprint": fingerprint.hex(), "sequence_sha256": _sequences(tables)}
    except (OSError, pa.ArrowException, KeyError) as error:
        return [Check("content", f"cannot be read: {error}")]
    found |= {
        "users": tables["users"].num_rows,
        "items": tables["items"].num_rows,
        "interactions": tables["interactions"].num_rows,
    }
    return [
        Check(name, "" if value == getattr(card, name) else f"the files say {value}, the card {getattr(card, name)}")
        for name, value in found.items()
    ]


def _sequences(tables: dict[str, pa.Table]) -> str:
    events = tables["interactions"]
    user, item = (events.column(name).to_numpy() for name in (columns.USER, columns.ITEM))
    return sequence_sha256(user, item, tables["users"].column(columns.ORIGINAL_ORDER).to_numpy())
