"""``recbench prepare``: a raw dataset into checked Parquet, and its card."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recbench.cli import completing, options, render
from recbench.errors import RecbenchError, meant

if TYPE_CHECKING:
    from recbench.data.card import Card
    from recbench.data.progress import Report

ROLES = ("user", "item", "timestamp", "rating")


def prepare(
    name: Annotated[
        str,
        typer.Argument(
            help="A known dataset (recbench list datasets), or a name for your own source.",
            autocompletion=completing.known,
        ),
    ],
    source: Annotated[
        Path | None, typer.Option(help="Read this file, archive or folder instead of downloading.")
    ] = None,
    source_format: Annotated[
        str | None, typer.Option(help="Its format; default: found from the content.", autocompletion=completing.formats)
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Columns of a table: user=...,item=...,timestamp=...,rating=...; numbers without header."),
    ] = None,
    metadata: Annotated[
        Path | None,
        typer.Option(
            help="Item metadata, e.g. meta_<Category>.json(.gz); default: a file beside the source, or a download with it."
        ),
    ] = None,
    no_metadata: Annotated[
        bool, typer.Option("--no-metadata", help="Neither read nor fetch what is known of the items.")
    ] = False,
    split: Annotated[str, typer.Option(help="leave-one-out or temporal.")] = "leave-one-out",
    target: Annotated[
        str | None, typer.Option(help="Temporal: last, first, all or successive events of a window. Default: last.")
    ] = None,
    quantile: Annotated[
        float | None, typer.Option(help="Temporal: share of events before a cut. Default: 0.9.")
    ] = None,
    valid_from: Annotated[
        str | None, typer.Option(help="Temporal: first moment of validation, a date or a time of the source.")
    ] = None,
    test_from: Annotated[str | None, typer.Option(help="Temporal: first moment of the test.")] = None,
    ties: Annotated[str, typer.Option(help="Order of a user's events at one time: source or hash.")] = "source",
    tie_seed: Annotated[int, typer.Option(help="Of --ties hash.")] = 0,
    core: Annotated[
        int | None,
        typer.Option(
            help="Users and items with fewer events go, to the fixpoint; 0: none. Default: published k, else 5."
        ),
    ] = None,
    min_rating: Annotated[float | None, typer.Option(help="Events rated lower go, and those without a rating.")] = None,
    duplicates: Annotated[
        str | None,
        typer.Option(
            help="A user's repeated events with one item: keep, first or last. Default: as published, else keep."
        ),
    ] = None,
    since: Annotated[str | None, typer.Option(help="Earlier events go: 2019-01-01, or a date and time, UTC.")] = None,
    until: Annotated[
        str | None, typer.Option(help="Later events go: a date (to its end), or a date and time, UTC.")
    ] = None,
    max_bad_rows: Annotated[
        str | None,
        typer.Option(
            help="Bad rows that may be left out: a number, or a share such as 0.5%. Default: 10, and 1 % of all."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of the synthetic data, e.g. users=2000. Repeatable.")
    ] = None,
    shuffles: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="How often equal times are shuffled to see what their order is worth; 0: not. "
            "Default: 5 up to a million events, else 0.",
        ),
    ] = None,
    datasets: options.Datasets = Path("datasets"),
    accept_changed: Annotated[
        bool, typer.Option("--accept-changed", help="Take a download that differs from the first one.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Read or download a dataset, check, filter and split it, and write it as Parquet."""
    from dataclasses import asdict

    from recbench.cli.prepared import show_card
    from recbench.data.card import NAME
    from recbench.data.prepare import Request
    from recbench.data.prepare import prepare as prepared

    settings: dict[str, Any] = _pairs(set_ or [], "--set")
    if columns is not None:
        settings["columns"] = _columns(columns)
    request = Request(
        name=name,
        home=datasets,
        source=source,
        source_format=source_format,
        options=settings,
        metadata=metadata,
        no_metadata=no_metadata,
        split=split,
        target=target,
        quantile=quantile,
        valid_from=valid_from,
        test_from=test_from,
        ties=ties,
        tie_seed=tie_seed,
        core=core,
        min_rating=min_rating,
        duplicates=duplicates,
        since=since,
        until=until,
        max_bad_rows=max_bad_rows,
        accept_changed=accept_changed,
    )
    before = {path.parent.name for path in datasets.glob(f"*/{NAME}")}
    with _progress(quiet) as report:
        card = prepared(request, report, (lambda _: None) if quiet else render.warn)
    card = _measured(card, datasets, shuffles, quiet=quiet)
    if as_json:
        render.show_json(asdict(card))
    elif not quiet:
        show_card(card, datasets / card.name, replaced=card.name in before)


def _measured(card: Card, datasets: Path, shuffles: int | None, *, quiet: bool) -> Card:
    """The card with what the order of ties is worth, where that is asked for or quick."""
    from recbench.cli.audit import measured
    from recbench.data.dataset import Dataset
    from recbench.evaluation.sensitivity import LARGEST, SEEDS

    if shuffles is None:
        shuffles = SEEDS if card.interactions <= LARGEST else 0
    return measured(Dataset(datasets / card.name), shuffles, quiet=quiet) if shuffles else card


def _columns(text: str) -> dict[str, str]:
    """``user=...,item=...`` as a table of roles."""
    asked = _pairs(text.split(","), "--columns")
    for role in asked:
        if role not in ROLES:
            raise RecbenchError(
                f"--columns knows no {role!r}.",
                why=f"It takes: {', '.join(ROLES)}, each with the name of its column.",
                fix=meant(role, ROLES, f"{{}}={asked[role]}") or "--columns user=...,item=...,timestamp=...",
            )
    return asked


def _pairs(parts: list[str], option: str) -> dict[str, str]:
    """``name=value`` texts as a table."""
    pairs: dict[str, str] = {}
    for part in parts:
        name, equals, value = (word.strip() for word in part.partition("="))
        if not name or not equals or not value:
            example = "users=2000" if option == "--set" else "user=NAME,item=NAME,timestamp=NAME"
            raise RecbenchError(
                f"{option} {part!r} is not name=value.", why="It needs a name and a value.", fix=f"{option} {example}"
            )
        if name in pairs:
            raise RecbenchError(
                f"{option} gives {name} twice.",
                why=f"{pairs[name]!r} and {value!r}: only one could be used.",
                fix="Leave one.",
            )
        pairs[name] = value
    return pairs


@contextmanager
def _progress(quiet: bool) -> Iterator[Report]:
    """A bar on stderr for what takes long; nothing where stderr is no terminal."""
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[size]}", justify="right"),
        TimeRemainingColumn(compact=True),
        console=render.err,
        transient=True,
        disable=quiet or not render.err.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int | None) -> None:
        if stage not in tasks:
            for task in tasks.values():
                bar.remove_task(task)
            tasks.clear()
            tasks[stage] = bar.add_task(stage, total=total, size="")
        size = f"{done / 1e6:.1f}{f' / {total / 1e6:.1f}' if total else ''} MB" if done else ""
        bar.update(tasks[stage], completed=done, total=total, size=size)

    with bar:
        yield report
