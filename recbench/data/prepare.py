"""From a raw file to a prepared dataset: read, filter, number, order, split, audit, write. The whole job, in order."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

import recbench
from recbench import columns
from recbench.data import (
    about_items,
    audit,
    canonical,
    catalog,
    describe,
    download,
    filtering,
    folder,
    replacement,
    splitting,
    ties,
)
from recbench.data.about_items import Items
from recbench.data.card import Card
from recbench.data.dataset import HOME, Dataset, mark_last
from recbench.data.detect import BUILT_IN, check_readable, file_of, open_source
from recbench.data.export import sequence_sha256
from recbench.data.filtering import Filters, places, taken
from recbench.data.progress import Report, counting
from recbench.data.sources.bad import parse_limit
from recbench.data.sources.base import Events
from recbench.data.sources.coding import RawIds
from recbench.errors import RecbenchError, meant
from recbench.files import file_facts, sha256, write_text
from recbench.registry import SOURCES

DEFAULT_CORE = 5
SEED = 0
"""Of the order of ids. One for all: another seed would be another dataset."""
ID_RULE = f"integers from 1 in a random order (sha256 of raw ids, seed {SEED}); 0 is padding"
TIE_RULES = {
    "source": "stable sort by time within each user; equal times keep source-file order",
    "hash": "sort by time within each user; equal times in the order of a hash of user, item and seed {seed}",
}
"""By tie policy. Part of every run's protocol."""
README = "README.md"
"""The card for a person; ``card.json`` is the one that counts."""
ORACLE = "oracle.parquet"
"""Where the best possible ranking puts each target; generated data only."""
LIST_RULE = "the order of the source's lists; the source has no times"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to prepare, and how."""

    name: str
    """Of the dataset: one of the catalogue, or any plain folder name for a source of one's own."""
    home: Path = HOME
    """Where prepared datasets live."""
    source: Path | None = None
    """The raw file, or a folder that stands for one; None: the catalogue says where it is."""
    source_format: str | None = None
    """A name in the table of sources; None: found from the content."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """For the source: ``columns`` of a table, settings of synthetic data."""
    metadata: Path | None = None
    """A file that describes the items; None: the one beside the source, else the one the catalogue has an address of."""
    no_metadata: bool = False
    """Neither read nor fetch what is known of the items."""
    split: str = "leave-one-out"
    target: str | None = None
    quantile: float | None = None
    valid_from: str | None = None
    test_from: str | None = None
    """These four as in :class:`recbench.data.splitting.Plan`."""
    ties: str = "source"
    """A key of ``TIE_RULES``: in which order a user's events of one time stand."""
    tie_seed: int = 0
    """Of ``hash``."""
    core: int | None = None
    """k of the k-core, 0 for none; None: that of the catalogue, else 5 (0 for synthetic data)."""
    min_rating: float | None = None
    duplicates: str | None = None
    """What becomes of repeats; None: as the catalogue says, else they stay."""
    since: str | None = None
    """Earlier events go; None: as the catalogue says, else none."""
    until: str | None = None
    max_bad_rows: str | None = None
    """How many bad rows may be left out: a number or a share such as ``0.5%``; None: ten, and 1 % of the rows."""
    accept_changed: bool = False
    """Take a download that differs from the one downloaded first."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """Events that stay, by prepared user id and then in sequence order. ``user`` and ``item`` count from 1."""

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray | None
    timestamp: np.ndarray | None
    order: np.ndarray
    """Row of the source, from 0."""
    user_ids: RawIds
    item_ids: RawIds
    first_rows: np.ndarray
    """Row of the source where each user first stands, before any filter."""


def prepare(
    request: Request,
    report: Report = lambda _stage, _done, _total: None,
    say: Callable[[str], None] = lambda _line: None,
) -> Card:
    """Prepare a dataset and return its card. An older one of that name is replaced once this one is whole.

    Args:
        request: what and how.
        report: told how far the job is.
        say: told what a user should know on the way, for example a mirror that failed.

    Raises:
        RecbenchError: the source is missing, damaged or unknown, or nothing is left of it.
    """
    known = catalog.find(request.name, request.home)
    name = known.name if known else _plain(request)
    plan = _plan(request)
    place = request.home / name
    replacement.mend(place)
    folder.check_replaceable(place)
    path, source_format = _input(request, known, report, say)
    described = about_items.named_or_fetched(request, known, report, say)
    source_format, source = open_source(path, source_format, request.options, parse_limit(request.max_bad_rows))
    core, core_from = _core(request, known, source_format)
    filters = _filters(request, known, core)
    events = source.read(counting("reading", path, report))
    if events.timestamp is None and not (request.since or request.until):
        filters = replace(filters, since=None, until=None)  # the catalogue's window: lists were cut by who made them
    report("filtering", 0, None)
    rows, steps = filtering.apply(events, filters)
    ordered = order(events, rows, tie_seed=request.tie_seed if request.ties == "hash" else None)
    events = _without_columns(events)  # they are a copy of everything
    del rows
    split = splitting.split(plan, ordered.user, ordered.item, ordered.timestamp, events.time_unit)
    metadata = about_items.read(described, source, ordered.item_ids, report, say)
    if metadata is None:
        metadata = Items(None if request.no_metadata else events.items)
    report("writing", 0, None)
    facts = audit.audit(
        ordered.user,
        ordered.item,
        ordered.timestamp,
        audit.raw_places([*ordered.item_ids])[ordered.item - 1],
        split,
        events.time_unit,
    )
    sequences = sequence_sha256(ordered.user, ordered.item, ordered.first_rows)
    verdict = canonical.verdict(known, steps[-1], sequences, filters)
    tables = _tables(ordered, split, metadata.items)
    card = Card(
        name=name,
        family=_family(known, source_format),
        source=_source_facts(request, path, source_format, known)
        | about_items.files_read(described, source)
        | {"bad_rows": source.bad.facts(), **metadata.facts},
        filters=asdict(filters) | {"core_from": core_from},
        steps=steps,
        split=split.facts,
        tie_rule=LIST_RULE if ordered.timestamp is None else TIE_RULES[request.ties].format(seed=request.tie_seed),
        time_unit=events.time_unit,
        users=len(ordered.user_ids),
        items=len(ordered.item_ids),
        interactions=len(ordered.user),
        sequence_sha256=sequences,
        fingerprint="",
        files={},
        audit=facts,
        recbench=recbench.__version__,
        id_rule=ID_RULE,
        notes=(
            *([verdict] if verdict else []),
            *events.notes,
            *described.notes,
            *metadata.notes,
            *audit.warnings(facts),
        ),
    )
    return _write(place, card, tables, events)


def order(events: Events, rows: np.ndarray, tie_seed: int | None = None) -> Ordered:
    """The events of ``rows`` under their prepared ids, by user and then in sequence order.

    An id depends on which raw ids are left and on nothing else: first appearance would tell a model what comes next.

    Args:
        events: as read.
        rows: of the events that stay, in source order.
        tie_seed: equal times of a user stand in the order of a hash with this seed; None: in source order.

    Raises:
        RecbenchError: a hash is asked for, and the source has no times.
    """
    users, user_ids, left = _numbered(taken(events.user, rows), events.user_ids, kind=columns.USER)
    items, item_ids, _ = _numbered(taken(events.item, rows), events.item_ids, kind=columns.ITEM)
    first = np.empty(len(events.user_ids), dtype=np.int64)
    first[events.user[::-1]] = places(len(events))[::-1]  # of equal codes the last one written stays: the first row
    time = None if events.timestamp is None else taken(events.timestamp, rows)
    sequence = np.lexsort((users,) if time is None else (time, users))  # stable: equal keys keep source order
    if tie_seed is not None:
        if time is None:
            raise RecbenchError(
                "--ties hash needs times.",
                why="The source has none, only an order within each user: nothing is tied.",
                fix="--ties source",
            )
        ids = [*user_ids], [*item_ids]
        sequence = sequence[ties.hashed(users[sequence], items[sequence], time[sequence], tie_seed, *ids)]
    rows = rows[sequence]
    users, items = users[sequence], items[sequence]
    if time is not None:
        time = time[sequence]
    del sequence  # before the ratings are copied: this is where preparation needs most memory
    return Ordered(
        user=users,
        item=items,
        rating=None if events.rating is None else events.rating[rows],
        timestamp=time,
        order=rows,
        user_ids=user_ids,
        item_ids=item_ids,
        first_rows=first[left],
    )


def _without_columns(events: Events) -> Events:
    """What else the source said: notes, metadata, the unit of time."""
    none = np.empty(0, dtype=np.int32)
    return replace(events, user=none, item=none, rating=None, timestamp=None, user_ids=[], item_ids=[])


def _numbered(codes: np.ndarray, raw_ids: Sequence[str], *, kind: str) -> tuple[np.ndarray, RawIds, np.ndarray]:
    """Prepared ids of the codes, the raw ids in their order, and the codes in that order.

    The order is that of a keyed hash, which no library version changes.
    """
    left = np.flatnonzero(np.bincount(codes))
    ids = RawIds.made(raw_ids).take(left)
    key = f"{SEED} {kind} "
    digests = bytearray()
    for raw in ids:
        digests += hashlib.sha256((key + raw).encode()).digest()
    words = np.frombuffer(digests, dtype=">u8").reshape(-1, 4)
    order = np.lexsort(words.T[::-1])  # as bytes compare: the first word decides, then the second
    left = left[order]
    number = np.zeros(len(raw_ids), dtype=np.int32)
    number[left] = np.arange(1, len(left) + 1)
    return number[codes], ids.take(order), left


def _plan(request: Request) -> splitting.Plan:
    """The split that is asked for; tie options that cannot be are refused here, too, before anything is read."""
    if request.ties not in TIE_RULES:
        raise RecbenchError(
            f"Unknown tie policy {request.ties!r}.",
            why=f"The policies are: {', '.join(TIE_RULES)}.",
            fix=meant(request.ties, TIE_RULES, "--ties {}") or "--ties source",
        )
    if request.ties != "hash" and request.tie_seed:
        raise RecbenchError(
            f"--tie-seed {request.tie_seed} does not go with --ties {request.ties}.",
            why="Only a hash has a seed; the order of the source has none.",
            fix=f"--ties hash --tie-seed {request.tie_seed}, or leave it out",
        )
    return splitting.Plan(
        name=request.split,
        target=request.target,
        quantile=request.quantile,
        valid_from=request.valid_from,
        test_from=request.test_from,
    )


def _plain(request: Request) -> str:
    name = request.name
    if not catalog.PLAIN.fullmatch(name):
        near = catalog.like(name, request.home)
        raise RecbenchError(
            f"{name!r} cannot be the name of a dataset.",
            why="It becomes the name of a folder: letters, digits, '.', '_' and '-', beginning with a letter or digit.",
            fix=f"Did you mean {near}? A source of your own: recbench prepare my-data --source PATH"
            if near
            else "recbench prepare my-data --source PATH",
        )
    return name


def _input(
    request: Request, known: catalog.DatasetCard | None, report: Report, say: Callable[[str], None]
) -> tuple[Path | None, str | None]:
    """The file to read, downloaded if need be, and its format if that is given."""
    if request.source_format is not None:
        SOURCES.entry(request.source_format)
    if request.metadata is not None and request.no_metadata:
        raise RecbenchError(
            f"--metadata {request.metadata} and --no-metadata do not go together.",
            why="One names a file of items, the other leaves such files out.",
            fix="Leave one out.",
        )
    if request.metadata is not None:
        check_readable(request.metadata, "--metadata")
    if request.source is not None:
        _refuse_generated(request, known)
        return file_of(request.source, request.source_format, known.format if known else None), request.source_format
    if request.source_format == BUILT_IN or (known and known.format == BUILT_IN and request.source_format is None):
        return None, BUILT_IN
    card = known or catalog.require(request.name, request.home)
    path = download.fetch(
        card,
        request.home,
        lambda done, total: report("downloading", done, total),
        accept_changed=request.accept_changed,
        say=say,
    )
    return path, request.source_format or card.format


def _refuse_generated(request: Request, known: catalog.DatasetCard | None) -> None:
    """What is generated reads no file, and a file under its name would take its place.

    Raises:
        RecbenchError: both are asked for.
    """
    if BUILT_IN in (request.source_format, known.format if known else ""):
        raise RecbenchError(
            f"{request.name} is generated, so --source {request.source} cannot be its source.",
            why="A file under that name would take the place of the generated data.",
            fix=f"Another name: recbench prepare my-data --source {shlex.quote(str(request.source))}",
        )


def _core(request: Request, known: catalog.DatasetCard | None, source_format: str) -> tuple[int, str]:
    """k of the k-core, and who said so."""
    if request.core is not None:
        return request.core, "asked for"
    if known is not None and known.core is not None:
        return known.core, "as published"
    return (0 if source_format == BUILT_IN else DEFAULT_CORE), "the default"


def _family(known: catalog.DatasetCard | None, source_format: str) -> str:
    if source_format == BUILT_IN:
        return BUILT_IN
    return known.family if known else SOURCES.load(source_format).family


def _filters(request: Request, known: catalog.DatasetCard | None, core: int) -> Filters:
    """As asked for, else as the catalogue says."""
    return Filters(
        core=core,
        min_rating=request.min_rating,
        duplicates=request.duplicates or (known.duplicates if known else "keep"),
        since=request.since or (known.since if known else None),
        until=request.until or (known.until if known else None),
    )


def _source_facts(
    request: Request, path: Path | None, source_format: str, known: catalog.DatasetCard | None
) -> dict[str, Any]:
    facts: dict[str, Any] = {"format": source_format}
    if path is not None:
        facts |= file_facts(path)
    if path is not None and request.source is None and known is not None:
        facts["urls"] = list(known.urls)
    if request.options:
        facts["options"] = dict(request.options)
    if request.no_metadata:
        facts["no_metadata"] = True
    return facts


def _tables(ordered: Ordered, split: splitting.Split, metadata: pd.DataFrame | None) -> Iterator[tuple[str, pa.Table]]:
    """Every table by name, one at a time."""
    events = {
        columns.USER: ordered.user,
        columns.ITEM: ordered.item,
        columns.RATING: ordered.rating,
        columns.TIMESTAMP: ordered.timestamp,
        columns.ORIGINAL_ORDER: ordered.order,
    }
    yield from folder.event_tables(events, split)
    yield "items", folder.item_table([*ordered.item_ids], metadata)
    yield "users", folder.user_table(ordered.user_ids.text, ordered.first_rows)


def _write(place: Path, card: Card, tables: Iterable[tuple[str, pa.Table]], events: Events) -> Card:
    """Write all of it, the card last, and put it in its place once it is whole."""
    fingerprint, files = folder.Fingerprint(), {}
    with replacement.taking_the_place_of(place) as new:
        for name, table in tables:
            folder.write_table(new, name, table)
            fingerprint.add(name, table)
            files[f"{name}.parquet"] = sha256(new / f"{name}.parquet")
        card = replace(card, files=files, fingerprint=fingerprint.hex())
        card.write(new)
        if "oracle" in events.extra:
            card = _with_oracle(card, new, events)
            card.write(new)
        write_text(new / README, describe.markdown(card))
    mark_last(card.name, place.parent)
    return card


def _with_oracle(card: Card, place: Path, events: Events) -> Card:
    """The card with the metrics of the best possible ranking, whose counts go to ``oracle.parquet``.

    Only where no event was dropped: a history with holes is not one the generator speaks of.
    """
    unknown = ""
    if card.interactions < card.steps[0].interactions:
        unknown = "the filters dropped events, and it needs whole histories"
    elif card.split.get("target") in ("all", "successive"):
        unknown = "it speaks of one target a user"
    if unknown:
        return replace(card, notes=(*card.notes, f"The best possible ranking is not known: {unknown}."))
    from recbench.data.oracle import oracle_table

    dataset = Dataset(place)
    queries = [dataset.queries("valid"), dataset.queries("test")]
    table, facts = oracle_table(events.extra["oracle"], queries, dataset.items()[columns.RAW_ID].tolist())
    table.to_parquet(place / ORACLE, index=False)
    return replace(card, oracle=facts, files={**card.files, ORACLE: sha256(place / ORACLE)})
