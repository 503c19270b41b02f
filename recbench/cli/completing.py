"""What a shell completes besides options: names of what there is, and the settings of what a line names so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from recbench.errors import RecbenchError

Offered = list[tuple[str, str]]
"""What may be typed, and what that is."""
TABLES = ("train", "backbone", "head", "loss")
"""Tables of settings that every line of ``train`` takes."""
IDS = ("features", "method", "ids")
"""The same of ``ids``."""


def backbones() -> Offered:
    """Every backbone."""
    return _registered("backbone")


def heads() -> Offered:
    """Every reasoning head."""
    return _registered("head")


def losses() -> Offered:
    """Every loss."""
    return _registered("loss")


def tokenisers() -> Offered:
    """Every method of semantic ids."""
    return _registered("method of semantic ids")


def formats() -> Offered:
    """Every format of a source."""
    return _registered("source format")


def prepared(ctx: typer.Context) -> Offered:
    """Datasets at hand."""
    from recbench.data.dataset import prepared

    return [(name, "prepared") for name in prepared(_home(ctx, "datasets"))]


def known(ctx: typer.Context) -> Offered:
    """Datasets that can be prepared by name."""
    from recbench.data import catalog

    try:
        return [(card.name, card.terms) for card in catalog.cards(_home(ctx, "datasets"))]
    except RecbenchError:  # a card of the user's own is broken; the command itself will say so
        return []


def shown(ctx: typer.Context) -> Offered:
    """What ``show`` knows: runs, datasets and parts with settings."""
    runs = [(str(path.parent), "run") for path in sorted(Path("runs").glob("*/run.json"))]
    tables = [(name, "settings") for name in ("train", "features", "ids")]
    return [*runs, *prepared(ctx), *backbones(), *heads(), *losses(), *tokenisers(), *tables]


def settings(ctx: typer.Context, incomplete: str) -> Offered:
    """What ``--set`` of ``train`` takes: tables first, then the settings of one."""
    named, given = "loss.name=", ctx.params
    loss = next((text.removeprefix(named) for text in given.get("assignments") or [] if text.startswith(named)), None)
    if incomplete.startswith("loss.") and loss is None:
        return [("loss.name", "recbench list losses")]
    parts = {"train": "train", "backbone": given.get("backbone"), "head": given.get("reason"), "loss": loss}
    return _of_tables(parts, TABLES, incomplete)


def id_settings(ctx: typer.Context, incomplete: str) -> Offered:
    """What ``--set`` of ``ids`` takes."""
    parts = {"features": "features", "ids": "ids", "method": ctx.params.get("method") or "rkmeans"}
    return _of_tables(parts, IDS, incomplete)


def stages(ctx: typer.Context) -> Offered:
    """Stages of training of the head that the line names."""
    from recbench.reference import part

    head = ctx.params.get("reason")
    return [(stage, "stage") for stage in part(head).stages] if head in dict(heads()) else []


def _of_tables(parts: dict[str, Any], tables: tuple[str, ...], incomplete: str) -> Offered:
    table, dot, _ = incomplete.partition(".")
    if not dot:
        return [(f"{name}.", f"settings of {parts.get(name) or name}") for name in tables]
    from recbench.reference import names, part

    name = parts.get(table)
    return [(one.name, one.meaning) for one in part(name).settings] if name in names() else []


def _registered(kind: str) -> Offered:
    from recbench.registry import BACKBONES, HEADS, LOSSES, SOURCES, TOKENISERS

    table = next(t for t in (BACKBONES, HEADS, LOSSES, SOURCES, TOKENISERS) if t.kind == kind)
    return [(name, entry.summary) for name, entry in table.entries().items()]


def _home(ctx: typer.Context, name: str) -> Path:
    return Path(ctx.params.get(name) or name)
