"""Every dataset that can be prepared by name: the cards that come with recbench, and a user's own.

The shipped cards stand in ``cards/<family>.toml``. One file holds a family, not one dataset: the 24 Amazon categories
differ in a name and three counts, and mirrors, licence and citation said once cannot drift apart. Keys above the first
``[[datasets]]`` hold for every entry of the file, an entry may override them, and ``{name}``, ``{category}`` and
``{short}`` (the category as written in names) are filled in.

A user's own card is one dataset in ``<home>/<name>.toml``, with the fields of :class:`DatasetCard` as keys; the file
name is the dataset's name, and only ``format`` is needed. It adds a dataset, it never replaces one that comes with
recbench.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from recbench.errors import Exit, RecbenchError, meant, nearest
from recbench.registry import SOURCES

DUPLICATES = ("keep", "first", "last")
"""What can become of a user's second event with an item: it stays, goes, or replaces the earlier one."""
PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]*", re.IGNORECASE)
"""What a dataset's name may be: it becomes the name of a folder."""
HEX = re.compile(r"[0-9a-f]{64}")
MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How large a prepared dataset is."""

    users: int
    items: int
    interactions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetCard:
    """What is known of a dataset before it is prepared."""

    name: str
    """Also the name of the folder it is prepared in."""
    format: str
    """A name in ``recbench.registry.SOURCES``."""
    title: str = ""
    family: str = "generic"
    """Which shipped recipes fit."""
    aliases: tuple[str, ...] = ()
    """Other names it is found by, for example ``amazon2014/Beauty``."""
    urls: tuple[str, ...] = ()
    """Mirrors of one file, tried in this order. Empty: the file cannot be downloaded, or nothing needs to be."""
    sha256: str | None = None
    """Of the file as downloaded."""
    md5: str | None = None
    """Of the file as downloaded, where its publisher gives that and no sha256."""
    bytes: int | None = None
    """Length of the file as downloaded."""
    sha256_confirmed: bool = True
    """False: ``sha256`` and ``bytes`` come from one source only, so a difference is a warning, not a refusal."""
    metadata_urls: tuple[str, ...] = ()
    """Mirrors of the file that describes the items, where that is another one; fetched with the events."""
    metadata_sha256: str | None = None
    """Of that file as downloaded; ``sha256_confirmed`` is about both."""
    metadata_bytes: int | None = None
    core: int | None = None
    """The k of the k-core that the published counts hold for, 0 for none; None: nothing is published, so the default."""
    counts: Counts | None = None
    """Published counts after preparation with ``core``."""
    sequence_sha256: str | None = None
    """Hash of ``export --format sequences`` where the canonical order is known."""
    size: str = ""
    """Users, items and events in rounded numbers, where exact counts are not published: ``94.8K / 25.6K / 814.6K``."""
    duplicates: str = "keep"
    """What becomes of a user's repeated events with one item, as published: ``keep``, ``first`` or ``last``."""
    since: str | None = None
    """The published set has no earlier events: a date, or a date and time, UTC."""
    until: str | None = None
    cause: str = ""
    """Why a preparation most likely differs from the published counts, where the set has a cause of its own."""
    terms: str = ""
    """The licence in a few words, for lists."""
    licence: str = ""
    citation: str = ""
    how_to_get: str = ""
    """A sentence for those who must fetch the file themselves."""


def check_of(card: DatasetCard) -> str:
    """How a download of the card is checked, in a word or two."""
    if card.sha256:
        return "sha256" if card.sha256_confirmed else "unconfirmed"
    if card.md5:
        return "md5"
    return "none published"


def find(name: str, home: Path) -> DatasetCard | None:
    """The card of ``name`` or of one of its aliases; None if there is none.

    Raises:
        RecbenchError: ``<home>/<name>.toml`` is there, but is no card or has the name of a shipped one.
    """
    path = home / f"{name}.toml"
    if PLAIN.fullmatch(name) and path.is_file():
        return _own(path)
    return next((card for card in _shipped() if name == card.name or name in card.aliases), None)


def require(name: str, home: Path) -> DatasetCard:
    """The card of ``name``.

    Raises:
        RecbenchError: there is none, with the nearest name, or it cannot be read.
    """
    card = find(name, home)
    if card is not None:
        return card
    known, near = names(home), like(name, home)
    raise RecbenchError(
        f"Unknown dataset {name!r}.",
        why=f"{len(known)} datasets are known by name, {', '.join(known[:3])} among them: recbench list datasets",
        fix=f"{f'Did you mean {near}? Or a' if near else 'A'} file of your own: recbench prepare NAME --source PATH",
    )


def like(name: str, home: Path) -> str | None:
    """The name or alias of a dataset that a user most likely meant."""
    return nearest(name, [*names(home), *(alias for card in _shipped() for alias in card.aliases)])


def names(home: Path) -> list[str]:
    """Names of every dataset: those that come with recbench first, then a user's own."""
    return list(dict.fromkeys([*(card.name for card in _shipped()), *(path.stem for path in _own_paths(home))]))


def cards(home: Path) -> list[DatasetCard]:
    """Every card, in the order of :func:`names`.

    Raises:
        RecbenchError: one of the user's own cards cannot be read.
    """
    return [*_shipped(), *(_own(path) for path in _own_paths(home))]


@cache
def _shipped() -> tuple[DatasetCard, ...]:
    """The cards that come with recbench, file by file."""
    found = []
    for file in sorted(resources.files("recbench.data").joinpath("cards").iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".toml"):
            found += _family(tomllib.loads(file.read_text(encoding="utf-8")))
    return tuple(found)


def _family(raw: dict[str, Any]) -> list[DatasetCard]:
    """The cards of one shipped file: shared keys, overridden by each entry, names filled in."""
    entries = raw.pop("datasets")
    return [_card(_filled({**raw, **entry})) for entry in entries]


def _filled(raw: dict[str, Any]) -> dict[str, Any]:
    """``raw`` without ``category`` and ``short``, and with them and the name put where the text asks for them."""
    names = {"name": raw["name"], "category": raw.pop("category", raw["name"]), "short": raw.pop("short", raw["name"])}

    def fill(value: Any) -> Any:
        if isinstance(value, list):
            return [fill(part) for part in value]
        return value.format(**names) if isinstance(value, str) else value

    return {key: fill(value) for key, value in raw.items()}


def _own_paths(home: Path) -> list[Path]:
    """The card files in ``home``, sorted by name."""
    return sorted(path for path in home.glob("*.toml") if PLAIN.fullmatch(path.stem)) if home.is_dir() else []


def _own(path: Path) -> DatasetCard:
    """The card a user wrote, checked.

    Raises:
        RecbenchError: what is wrong with it, and what would be right.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _refusal(path, "is not readable TOML", f"{error}.", "Mend or remove the file.") from error
    if any(path.stem == card.name for card in _shipped()):
        raise _refusal(
            path,
            f"has the name of {path.stem!r}, which comes with recbench",
            "Two datasets of one name could not be told apart in a result.",
            f"Rename the file, for example to my-{path.name}",
        )
    known = [field.name for field in fields(DatasetCard)]
    for key in raw:
        if key not in known:
            raise _refusal(
                path,
                f"has an unknown key {key!r}",
                f"A card takes: {', '.join(known)}.",
                meant(key, known) or f"Remove {key}.",
            )
    if raw.setdefault("name", path.stem) != path.stem:
        raise _refusal(
            path,
            f"says that its name is {raw['name']!r}",
            f"A card is found by its file name, and that is {path.stem!r}.",
            "Rename the file, or leave the name out.",
        )
    for key, value in raw.items():
        if complaint := _complaint(key, value):
            raise _refusal(path, f"has a bad value for {key}: {value!r}", complaint, f"Edit {key} in {path}")
    if "format" not in raw:
        raise _refusal(
            path, "names no format", f"The formats are: {', '.join(SOURCES.entries())}.", 'Add a line: format = "table"'
        )
    return _card(raw)


def _refusal(path: Path, what: str, why: str, fix: str) -> RecbenchError:
    """The error for a card that cannot be used."""
    return RecbenchError(f"The dataset card {path} {what}.", why=why, fix=fix, code=Exit.DATA)


def _card(raw: dict[str, Any]) -> DatasetCard:
    """A card from checked TOML."""
    raw = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    if "counts" in raw:
        raw["counts"] = Counts(**raw["counts"])
    return DatasetCard(**raw)


def _complaint(key: str, value: Any) -> str | None:
    """What is wrong with the value of a known key, or None."""
    return _CHECKS.get(key, _text)(value)


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else "It must be text in quotes."


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "It must be true or false."


def _whole(value: Any) -> str | None:
    good = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return None if good else "It must be a whole number above 0."


def _core(value: Any) -> str | None:
    good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return None if good else "It must be a whole number, 0 for no k-core."


def _hash(value: Any) -> str | None:
    good = isinstance(value, str) and HEX.fullmatch(value)
    return None if good else "A sha256 is 64 characters from 0-9 and a-f."


def _md5(value: Any) -> str | None:
    return None if isinstance(value, str) and MD5.fullmatch(value) else "An md5 is 32 characters from 0-9 and a-f."


def _duplicates(value: Any) -> str | None:
    return None if value in DUPLICATES else f"It is one of: {', '.join(DUPLICATES)}."


def _moment(value: Any) -> str | None:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return 'It is a date in quotes: "2019-01-01", or "2019-01-01 00:00:00".'
    return None


def _format(value: Any) -> str | None:
    known = list(SOURCES.entries())
    if value in known:
        return None
    near = nearest(str(value), known)
    return f"The formats are: {', '.join(known)}." + (f" Did you mean {near}?" if near else "")


def _texts(value: Any) -> str | None:
    good = isinstance(value, list) and all(isinstance(part, str) for part in value)
    return None if good else 'It must be a list of texts: ["...", "..."].'


def _urls(value: Any) -> str | None:
    if complaint := _texts(value):
        return complaint
    for url in value:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or Path(unquote(parts.path)).name in {"", ".."}:
            return f"{url!r} is not the http(s) address of a file. For a file on this machine: --source PATH"
    return None


def _counts(value: Any) -> str | None:
    known = [field.name for field in fields(Counts)]
    if not isinstance(value, dict) or sorted(value) != sorted(known):
        return f"It must be a table with exactly: {', '.join(known)}."
    return next((f"{key}: {said}" for key, count in value.items() if (said := _whole(count))), None)


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "format": _format,
    "aliases": _texts,
    "urls": _urls,
    "metadata_urls": _urls,
    "metadata_sha256": _hash,
    "metadata_bytes": _whole,
    "sha256": _hash,
    "sequence_sha256": _hash,
    "sha256_confirmed": _flag,
    "md5": _md5,
    "duplicates": _duplicates,
    "since": _moment,
    "until": _moment,
    "bytes": _whole,
    "core": _core,
    "counts": _counts,
}
