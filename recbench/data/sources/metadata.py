"""Amazon item metadata: title, brand, categories and price of the items a dataset holds, one line at a time."""

from __future__ import annotations

import html
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from recbench import columns
from recbench.data.sources.amazon import parse_line
from recbench.data.sources.base import Progress
from recbench.data.sources.reading import lines
from recbench.errors import Exit, RecbenchError

ASIN = re.compile(rb"""["'](?:asin|parent_asin)["']:\s*["']([^"']+)["']""")
PRICE = re.compile(r"\$?\s*(\d[\d,]*(?:\.\d+)?)")
BLANKS = re.compile(r"\s+")
FIELDS = (columns.RAW_ID, columns.TITLE, columns.BRAND, columns.CATEGORIES, columns.PRICE)


def read_metadata(path: Path, wanted: Collection[str], progress: Progress) -> pd.DataFrame:
    """Metadata of the ``wanted`` raw ids that the file knows, one row an item; where an item stands twice, the first.

    Args:
        path: ``meta_<Category>.json(.gz)``: JSON, or the Python-dict text of 2014.
        wanted: raw ids of the items to keep; other lines are not even parsed.

    Raises:
        RecbenchError: a wanted line cannot be read, or no line describes a wanted item.
    """
    wanted = frozenset(wanted)
    found: dict[str, tuple[Any, ...]] = {}
    before = 0
    for batch in lines(path, progress):
        for number, line in enumerate(batch, start=before + 1):
            ids = {match.decode("utf-8", "replace") for match in ASIN.findall(line)}
            if (ids and ids.isdisjoint(wanted)) or not line.strip():
                continue
            record = parse_line(path, number, line, last=line is batch[-1])
            raw = str(record.get("parent_asin") or record.get("asin") or "")
            if raw in wanted and raw not in found:
                found[raw] = described(raw, record)
        before += len(batch)
    if not found:
        raise RecbenchError(
            f"{path} describes none of the items.",
            why=f"None of its {before:,} lines has an asin among the {len(wanted):,} items of this dataset.",
            fix="--metadata the meta_<Category>.json.gz of the same category and year",
            code=Exit.DATA,
        )
    return pd.DataFrame(list(found.values()), columns=list(FIELDS))


def described(raw: str, record: dict[str, Any]) -> tuple[Any, ...]:
    """One item's row of ``FIELDS``."""
    return raw, _title(record), _brand(record), _categories(record), _price(record.get("price"))


def clean(text: Any) -> str | None:
    """Text without HTML entities and stray blanks; None where nothing is left."""
    if not isinstance(text, str):
        return None
    return BLANKS.sub(" ", html.unescape(text)).strip() or None


def _title(record: dict[str, Any]) -> str | None:
    return clean(record.get("title"))


def _brand(record: dict[str, Any]) -> str | None:
    return clean(record.get("brand") or record.get("store"))


def _categories(record: dict[str, Any]) -> list[str]:
    """Names on the item's category paths, each once, broad to narrow (2014: several paths; 2018 and 2023: one list)."""
    raw = record.get("categories") or record.get("category") or []
    paths = raw if isinstance(raw, list) else [raw]
    names = [name for path in paths for name in (path if isinstance(path, list) else [path])]
    return list(dict.fromkeys(name for name in map(clean, names) if name))


def _price(raw: Any) -> float | None:
    """A number, or text such as ``$25.00``; None for empty text and HTML."""
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw)
    match = PRICE.fullmatch(raw.strip()) if isinstance(raw, str) else None
    return float(match[1].replace(",", "")) if match else None
