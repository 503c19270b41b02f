"""What is known of the items a dataset holds: title, brand, categories, price and text, from a file beside the events.

The format is found from the content: Amazon metadata (2014 as Python-dict text, 2018, 2023), Yelp businesses and Steam
games as lines of records; MovieLens movies, RecBole's ``.item`` and S3-Rec's attributes as in :mod:`item_files`.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from recbench import columns
from recbench.data.sources.bad import BadRow, BadRows
from recbench.data.sources.base import Progress
from recbench.data.sources.item_files import Described, reader_of
from recbench.data.sources.places import File
from recbench.data.sources.reading import cut_line, head_of, shown
from recbench.data.sources.records import UnreadableError, batches, parse
from recbench.errors import Exit, RecbenchError

ID = re.compile(rb"""["'](?:asin|parent_asin|business_id|id)["']\s*:\s*[uU]?["']([^"'\\]+)["']""")
IDS = ("parent_asin", "asin", "business_id", "id")
PRICE = re.compile(r"\$?\s*(\d[\d,]*(?:\.\d+)?)")
BLANKS = re.compile(r"\s+")
TAG = re.compile(r"<[^<>]{0,2000}>")
FIELDS = (columns.RAW_ID, columns.TITLE, columns.BRAND, columns.CATEGORIES, columns.PRICE, columns.TEXT)
LONGEST_TEXT = 4_000
"""Characters of an item's text that are kept."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """``items``: one row of ``FIELDS`` an item; ``facts`` for the card; ``notes`` for whoever reads it."""

    items: pd.DataFrame
    facts: dict[str, Any]
    notes: tuple[str, ...]


def read_metadata(file: File, wanted: Collection[str], progress: Progress, bad: BadRows | None = None) -> Metadata:
    """Metadata of the ``wanted`` raw ids that the file knows; where an item stands twice, its first row.

    Args:
        file: in any of the formats this module names.
        wanted: raw ids of the items to keep; other lines are not even parsed where that can be seen.
        bad: counts bad rows.

    Raises:
        RecbenchError: too many lines cannot be read, or no line describes a wanted item.
    """
    wanted, bad = frozenset(wanted), BadRows() if bad is None else bad
    rows = reader_of(head_of(file))
    found: dict[str, Described] = {}
    n = n_again = n_other = 0
    passed: Counter[str] = Counter()
    for item in rows(file, progress, bad) if rows else _records(file, wanted, progress, bad, passed):
        n += 1
        if item.raw not in wanted:
            continue
        if item.raw in found:
            n_again += 1
            n_other += item != found[item.raw]
        else:
            found[item.raw] = item
    bad.check(n + bad.n + passed["lines"])
    if not found:
        raise RecbenchError(
            f"{file} describes none of the items.",
            why=f"None of the items it names is among the {len(wanted):,} of this dataset.",
            fix="--metadata the file of the same category and edition, or --no-metadata",
            code=Exit.DATA,
        )
    titled = sum(item.title is not None for item in found.values())
    facts = {"described": len(found), "with_title": titled, "not_described": len(wanted) - len(found), "repeated": n_again,
             "repeated_and_different": n_other, "bad_rows": bad.facts()}  # fmt: skip
    return Metadata(
        pd.DataFrame([as_row(item) for item in found.values()], columns=list(FIELDS)), facts, _notes(facts, bad)
    )


def _notes(facts: dict[str, Any], bad: BadRows) -> tuple[str, ...]:
    n = facts["described"] + facts["not_described"]
    found = [
        f"{facts['described']:,} of {n:,} items are described by the metadata, {facts['with_title']:,} with a title."
    ]
    if facts["repeated"]:
        found.append(
            f"{facts['repeated']:,} rows of the metadata repeat an item; the first row of each is used "
            f"({facts['repeated_and_different']:,} of the others differ from it)."
        )
    return (*found, *bad.notes())


def _records(
    file: File, wanted: Collection[str], progress: Progress, bad: BadRows, passed: Counter[str]
) -> Iterator[Described]:
    """Every record of a wanted item; ``passed`` counts the lines that are not looked into."""
    for number, text, last in batches(file, progress):
        lines = text.lines.split(b"\n")
        for at, line in enumerate(lines, start=number):
            ids = {match.decode("utf-8", "replace") for match in ID.findall(line)}
            if (ids and ids.isdisjoint(wanted)) or not line.strip():
                passed["lines"] += 1
                continue
            try:
                record = parse(line)
            except UnreadableError as error:
                if last and line is lines[-1] and not line.rstrip().endswith(b"}"):
                    raise cut_line(file, at, line) from error
                what = f"is neither JSON nor Python-dict text: {shown(line)}"
                bad.add(BadRow(file=str(file), line=at, what=what, why=f"{str(error)[:1].upper()}{str(error)[1:]}."))
                continue
            yield described(raw_id(record), record)


def raw_id(record: dict[str, Any]) -> str:
    """The id of the item that a record describes; empty where it has none."""
    return next((str(record[name]) for name in IDS if record.get(name)), "")


def described(raw: str, record: dict[str, Any]) -> Described:
    """What a record says of its item."""
    return Described(
        raw=raw,
        title=clean(_first(record, "title", "name", "app_name")),
        brand=clean(_first(record, "brand", "store", "developer")),
        categories=tuple(_categories(record)),
        price=_price(record.get("price")),
        text=_text(record),
    )


def as_row(item: Described) -> tuple[Any, ...]:
    """One item's row of ``FIELDS``."""
    return item.raw, item.title, item.brand, list(item.categories), item.price, item.text


def _first(record: dict[str, Any], *names: str) -> Any:
    return next((record[name] for name in names if record.get(name)), None)


def clean(text: Any) -> str | None:
    """Text without HTML entities and stray blanks; None where nothing is left."""
    if not isinstance(text, str):
        return None
    return BLANKS.sub(" ", html.unescape(text)).strip() or None


def _categories(record: dict[str, Any]) -> list[str]:
    """Names on the item's category paths, each once, broad to narrow (2014: several paths; 2018 and 2023: one list)."""
    raw = _first(record, "categories", "category", "genres", "tags") or []
    if isinstance(raw, str) and "business_id" in record:
        raw = raw.split(", ")  # Yelp: one text
    paths = raw if isinstance(raw, list) else [raw]
    names = [name for path in paths for name in (path if isinstance(path, list) else [path])]
    return list(dict.fromkeys(name for name in map(clean, names) if name))


def _price(raw: Any) -> float | None:
    """A number, or text such as ``$25.00``; None for empty text and HTML."""
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw)
    match = PRICE.fullmatch(raw.strip()) if isinstance(raw, str) else None
    return float(match[1].replace(",", "")) if match else None


def _text(record: dict[str, Any]) -> str | None:
    """Features and description without HTML, cut to ``LONGEST_TEXT``."""
    parts: list[Any] = []
    for name in ("feature", "features", "description"):
        held = record.get(name)
        parts += held if isinstance(held, list) else [held]
    text = " ".join(TAG.sub(" ", html.unescape(part)) for part in parts if isinstance(part, str))
    text = BLANKS.sub(" ", text[: 4 * LONGEST_TEXT]).strip()
    return text[:LONGEST_TEXT] or None
