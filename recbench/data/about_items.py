"""What is known of the items of a dataset in the making: from the file that was named, lies beside the source, or is fetched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from recbench.data import download
from recbench.data.progress import Report, counting
from recbench.data.sources.bad import BadRows
from recbench.data.sources.base import Source
from recbench.data.sources.places import File
from recbench.errors import RecbenchError
from recbench.files import file_facts

if TYPE_CHECKING:
    from recbench.data.catalog import DatasetCard
    from recbench.data.prepare import Request


@dataclass(frozen=True, slots=True)
class ItemFile:
    """The file that describes the items, where it was named or fetched."""

    path: Path | None = None
    beside: bool = True
    """Else the one beside the source is not read."""
    urls: tuple[str, ...] = ()
    """Of one that was fetched."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Items:
    """What is known of the items: a table or None, facts for the card, and notes."""

    items: pd.DataFrame | None
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def named_or_fetched(
    request: Request, known: DatasetCard | None, report: Report, say: Callable[[str], None]
) -> ItemFile:
    """What was named, else what the catalogue has an address of; a file that cannot be had is no reason to stop."""
    if request.metadata is not None or request.no_metadata or request.source is not None or known is None:
        return ItemFile(request.metadata, beside=request.metadata is None and not request.no_metadata)
    try:
        path = download.fetch_metadata(
            known,
            request.home,
            lambda done, total: report("downloading metadata", done, total),
            accept_changed=request.accept_changed,
            say=say,
        )
    except RecbenchError as error:
        say(f"{error.what} Items go without titles. {error.fix}")
        return ItemFile(notes=(f"Items have no titles: their metadata could not be downloaded ({error.why})",))
    return ItemFile(path, path is None, known.metadata_urls if path else ())


def read(
    file: ItemFile, source: Source, wanted: Sequence[str], report: Report, say: Callable[[str], None]
) -> Items | None:
    """What the file says of the ``wanted`` raw ids, else the one beside the source; None where there is neither.

    Raises:
        RecbenchError: it cannot be used, and somebody named it or laid it there. One that was only fetched costs the titles.
    """
    place = file.path or (source.metadata() if file.beside else None)
    if place is None:
        return None
    try:
        return _read(place, source, wanted, report)
    except RecbenchError as error:
        if not file.urls:
            raise
        say(f"{error.what} {error.why} Items go without titles.")
        return Items(None, notes=(f"Items have no titles: their metadata cannot be used ({error.what})",))


def files_read(file: ItemFile, source: Source) -> dict[str, Any]:
    """For the card: every file that was read besides the source."""
    others = source.beside()
    facts: dict[str, Any] = {}
    if not file.beside:
        others.pop("metadata", None)
    if file.path is not None:
        facts["metadata"] = file_facts(file.path) | ({"urls": list(file.urls)} if file.urls else {})
    return facts | ({"beside": {held: file_facts(path) for held, path in others.items()}} if others else {})


def _read(place: File, source: Source, wanted: Sequence[str], report: Report) -> Items:
    from recbench.data.sources.metadata import read_metadata

    bad = BadRows(limit=source.bad.limit, share=source.bad.share)
    on_disk = place if isinstance(place, Path) else place.root
    found = read_metadata(place, [*wanted], counting("reading metadata", on_disk, report), bad)
    return Items(found.items, {"metadata_rows": found.facts}, found.notes)
