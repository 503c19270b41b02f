"""`recbench list`: what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from recbench.cli import options, render
from recbench.errors import RecbenchError, meant

LEFT = ("name", "run", "here", "terms", "checksum", "status", "family", "what it is")
"""Columns of words. Those of numbers stand on the right."""
YIELDING = ("checksum", "terms", "users", "items", "here", "events", "started", "seconds", "epochs", "HR@10", "status")
"""Columns that give way on a narrow terminal, the first one first."""
HEADINGS = {"seconds": "time"}
"""What stands above a column whose values a person reads in another form."""
KINDS = ("backbones", "heads", "losses", "configs", "datasets", "runs", "formats", "tokenisers")
SETTABLE = {"backbones", "heads", "losses", "tokenisers"}
"""Kinds whose members have settings."""
ON_REQUEST = ("formats", "tokenisers")
"""Kinds that a plain ``list`` leaves out."""


def list(  # noqa: A001 - it is the command's name
    kind: Annotated[
        str | None,
        typer.Argument(
            help="backbones, heads, losses, configs, datasets, runs, formats (of raw data) or tokenisers (of semantic "
            "ids). Default: all but the last two.",
            autocompletion=lambda: KINDS,
        ),
    ] = None,
    datasets: options.Datasets = Path("datasets"),
    runs: options.Runs = Path("runs"),
    as_json: options.Json = False,
) -> None:
    """Backbones, heads, losses, shipped configs, datasets and runs at hand."""
    if kind is not None and kind not in KINDS:
        raise RecbenchError(
            f"Nothing to list under {kind!r}.",
            why=f"There are: {', '.join(KINDS)}.",
            fix=meant(kind, KINDS) or "recbench list",
        )
    makers = {
        "backbones": lambda: _registered("backbones"),
        "heads": lambda: _registered("heads"),
        "losses": lambda: _registered("losses"),
        "configs": lambda: _configs(),  # noqa: PLW0108 as the others, for one type
        "formats": lambda: _registered("formats"),
        "tokenisers": lambda: _registered("tokenisers"),
        "datasets": lambda: _datasets(datasets),
        "runs": lambda: _runs(runs),
    }
    wanted = [kind] if kind else [name for name in KINDS if name not in ON_REQUEST]
    found = {name: makers[name]() for name in wanted}
    if as_json:
        render.show_json(found[kind] if kind else found)
        return
    for name, rows in found.items():
        if rows:
            _show(name, rows)
        else:
            render.out.print(f"{name}: none yet")
    if render.out.is_terminal and SETTABLE & found.keys():
        render.say("what can be set of one: recbench show NAME")


def _show(kind: str, rows: Any) -> None:
    shown = [*rows[0]]
    cells = [[_text(column, row[column]) for column in shown] for row in rows]
    left = sum(column in LEFT for column in shown)
    yielding = [_heading(column) for column in YIELDING]
    render.show_table(kind, [_heading(column) for column in shown], cells, left=left, yielding=yielding)


def _registered(plural: str) -> Any:
    from recbench.registry import BACKBONES, HEADS, LOSSES, SOURCES, TOKENISERS

    tables = (BACKBONES, HEADS, LOSSES, SOURCES, TOKENISERS)
    table = next(table for table in tables if table.plural == plural)
    return [{"name": name, "family": e.family, "what it is": e.summary} for name, e in table.entries().items()]


def _configs() -> Any:
    from recbench.config import shipped_configs

    told = {name: path.read_text(encoding="utf-8").partition("\n")[0] for name, path in shipped_configs().items()}
    return [{"name": name, "what it is": line.removeprefix("# ")} for name, line in told.items()]


def _datasets(home: Path) -> Any:
    from recbench.data import catalog
    from recbench.data.card import Card
    from recbench.data.dataset import prepared
    from recbench.data.describe import split_name

    here, broken = {}, []
    for name in prepared(home):
        try:
            here[name] = Card.read(home / name)
        except RecbenchError as error:
            render.say(str(error))
            broken.append(name)
    known = {card.name: card for card in catalog.cards(home)}
    rows = []
    for name in [*here, *broken, *(name for name in known if name not in here and name not in broken)]:
        card, made = known.get(name), here.get(name)
        users, items, events = _size(card, made)
        rows.append(
            {
                "name": name,
                "here": split_name(made.split) if made else "cannot be read" if name in broken else "",
                "terms": card.terms if card else "",
                "checksum": _download(card) if card else "",
                "users": users,
                "items": items,
                "events": events,
            }
        )
    return rows


def _size(card: Any, made: Any) -> Any:
    """Users, items and events: as prepared here, else as published, exact or rounded."""
    size = made or (card.counts if card else None)
    if size:
        return size.users, size.items, size.interactions
    return card.size.split(" / ") if card and card.size else ("", "", "")


def _download(card: Any) -> str:
    """How a download is checked, or why there is none."""
    from recbench.data.catalog import check_of
    from recbench.data.detect import BUILT_IN

    if card.urls:
        return check_of(card)
    return "made here" if card.format == BUILT_IN else "own copy"


def _runs(home: Path) -> Any:
    from recbench.runs.manifest import NAME, Manifest

    rows = []
    for path in sorted(home.glob(f"*/{NAME}")):
        row: dict[str, Any] = {"run": path.parent.name, "status": "cannot be read"}
        row |= dict.fromkeys(("HR@10", "NDCG@10", "epochs", "seconds", "started"))
        rows.append(row)
        try:
            m = Manifest.read(path.parent)
        except RecbenchError as error:
            render.say(str(error))
            continue
        test = m.metrics.get("test", {})
        row |= {"status": m.status, "HR@10": test.get("hr@10"), "NDCG@10": test.get("ndcg@10"), "started": m.started}
        row |= {"epochs": m.epochs or None, "seconds": sum(m.seconds.values()) if m.seconds else None}
    return rows


def _heading(column: str) -> str:
    return HEADINGS.get(column, column)


def _text(column: str, value: Any) -> str:
    """A cell for a person; machines get the value itself: numbers, seconds, moments."""
    if value is None:
        return ""
    if column == "seconds":
        return render.duration(value)
    if column == "started":
        return str(value)[:16].replace("T", " ")
    if isinstance(value, float):
        return f"{value:.4f}"
    return render.count(value) if isinstance(value, int) else str(value)
