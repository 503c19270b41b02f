"""Item descriptions that are no lines of records: MovieLens movies, RecBole's ``.item``, S3-Rec's attributes."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from recbench.data.sources.bad import BadRow, BadRows
from recbench.data.sources.base import Progress
from recbench.data.sources.places import File
from recbench.data.sources.reading import blocks, lines, shown
from recbench.errors import Exit, RecbenchError

GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical "
)
GENRES_100K = (f"{GENRES}Mystery Romance Sci-Fi Thriller War Western").split()
"""In the order of the columns of ``u.item`` (``u.genre``)."""
NO_GENRE = "(no genres listed)"
ATTRIBUTES = re.compile(rb'\s*\{\s*"\d+"\s*:\s*\[\s*\d')
TITLES = ("title", "item_name", "movie_title", "name", "product_name")
BRANDS = ("brand", "store", "sales_type", "developer")
CATEGORIES = ("categories", "category", "class", "genre", "genres", "tags")


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What is known of one item."""

    raw: str
    title: str | None = None
    brand: str | None = None
    categories: tuple[str, ...] = ()
    price: float | None = None
    text: str | None = None


Reader = Callable[[File, Progress, BadRows], Iterator[Described]]


def reader_of(head: bytes) -> Reader | None:
    """Who reads a file that begins so; None for lines of records."""
    text = head.removeprefix(b"\xef\xbb\xbf")
    first = text.partition(b"\n")[0].strip()
    if first.lower().startswith(b"movieid,title"):
        return _movies_csv
    if re.match(rb"\d+::", first):
        return _movies_dat
    if re.match(rb"\d+\|[^|]*\|[^|]*\|", first):
        return _u_item
    if re.match(rb"[^\t:]+:token(\t|$)", first):
        return _recbole
    return _attributes if ATTRIBUTES.match(text) else None


def _movies_csv(file: File, progress: Progress, bad: BadRows) -> Iterator[Described]:
    for number, text in _texts(file, progress, "utf-8-sig"):
        try:
            row = next(csv.reader([text]), [])
        except csv.Error:
            row = []
        if number == 1:
            continue
        if len(row) == 3:
            yield Described(raw=row[0], title=row[1] or None, categories=_genres(row[2]))
        else:
            _bad(bad, file, number, text, 3)


def _movies_dat(file: File, progress: Progress, bad: BadRows) -> Iterator[Described]:
    for number, text in _texts(file, progress, "iso-8859-1"):
        row = text.split("::")
        if len(row) == 3:
            yield Described(raw=row[0], title=row[1] or None, categories=_genres(row[2]))
        else:
            _bad(bad, file, number, text, 3)


def _u_item(file: File, progress: Progress, bad: BadRows) -> Iterator[Described]:
    for number, text in _texts(file, progress, "iso-8859-1"):
        row = text.split("|")
        if len(row) == 5 + len(GENRES_100K):
            names = tuple(name for name, mark in zip(GENRES_100K, row[5:], strict=True) if mark == "1")
            yield Described(raw=row[0], title=row[1] or None, categories=names)
        else:
            _bad(bad, file, number, text, 5 + len(GENRES_100K))


def _recbole(file: File, progress: Progress, bad: BadRows) -> Iterator[Described]:
    names: list[str] = []

    def cell(row: list[str], known: tuple[str, ...]) -> str | None:
        return next((row[names.index(name)] for name in known if name in names and row[names.index(name)]), None)

    for number, text in _texts(file, progress, "utf-8-sig"):
        row = text.split("\t")
        if not names:
            names = [name.partition(":")[0].lower() for name in row]
            continue
        if len(row) != len(names):
            _bad(bad, file, number, text, len(names))
            continue
        price = cell(row, ("price",))
        listed = cell(row, CATEGORIES) or ""
        quoted = re.findall(r"'([^']+)'", listed)
        yield Described(
            raw=row[0],
            title=cell(row, TITLES),
            brand=cell(row, BRANDS),
            categories=tuple(quoted or listed.split()),
            price=float(price) if price and re.fullmatch(r"\d{1,12}(\.\d+)?", price) else None,
        )


def _bad(bad: BadRows, file: File, number: int, text: str, n_columns: int) -> None:
    why = f"Every row of this file describes an item in {n_columns} columns."
    what = f"is no row of {n_columns} columns: {shown(text.encode('utf-8', 'replace'))}"
    bad.add(BadRow(file=str(file), line=number, what=what, why=why))


def _attributes(file: File, progress: Progress, bad: BadRows) -> Iterator[Described]:
    """S3-Rec: item -> attribute numbers. Their names are in no file, so that a number is all there is to show."""
    del bad  # one JSON object has no rows: it is whole or it is nothing
    try:
        held = json.loads(b"".join(blocks(file, progress)).decode("utf-8-sig"))
        for raw, numbers in held.items():
            yield Described(raw=str(raw), categories=tuple(f"attribute {int(number)}" for number in numbers))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RecbenchError(
            f"{file} cannot be read as attributes of items.",
            why=f"It should map an item to a list of numbers: {error}.",
            fix="Get the file again, or leave --metadata out.",
            code=Exit.DATA,
        ) from error


def _genres(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split("|") if name and name != NO_GENRE)


def _texts(file: File, progress: Progress, encoding: str) -> Iterator[tuple[int, str]]:
    """Lines as text with their number, blank ones left out; a byte that is no text becomes the sign for that."""
    number = 0
    for batch in lines(file, progress):
        for line in batch:
            number += 1
            if text := line.decode(encoding, "replace").rstrip("\r"):
                yield number, text
