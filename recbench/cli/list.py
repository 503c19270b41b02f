"""`recbench list`: what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from recbench.cli import options, render
from recbench.errors import RecbenchError, nearest

KINDS = ("backbones", "heads", "losses", "configs", "datasets", "runs", "formats")


def list(  # noqa: A001 - it is the command's name
    kind: Annotated[
        str | None,
        typer.Argument(help="backbones, heads, losses, configs, datasets, runs or formats. Default: all but formats."),
    ] = None,
    datasets: options.Datasets = Path("datasets"),
    runs: options.Runs = Path("runs"),
    as_json: options.Json = False,
) -> None:
    """Backbones, heads, losses, shipped configs, datasets and runs at hand."""
    if kind is not None and kind not in KINDS:
        near = nearest(kind, [*KINDS])
        raise RecbenchError(
            f"Nothing to list under {kind!r}.",
            why=f"There are: {', '.join(KINDS)}.",
            fix=f"Did you mean {near}?" if near else "recbench list",
        )
    makers = {
        "backbones": lambda: _registered("backbones"),
        "heads": lambda: _registered("heads"),
        "losses": lambda: _registered("losses"),
        "configs": lambda: _configs(),  # noqa: PLW0108 as the others, for one type
        "formats": lambda: _registered("formats"),
        "datasets": lambda: _datasets(datasets),
        "runs": lambda: _runs(runs),
    }
    wanted = [kind] if kind else [name for name in KINDS if name != "formats"]
    found = {name: makers[name]() for name in wanted}
    if as_json:
        render.show_json(found[kind] if kind else found)
        return
    for name, rows in found.items():
        if rows:
            cells = [[_text(value) for value in row.values()] for row in rows]
            left = len(rows[0]) if "what it is" in rows[0] else 2
            render.out.print(render.table(name, [*rows[0]], cells, left=left))
        else:
            render.out.print(f"{name}: none yet")


def _registered(plural: str) -> Any:
    from recbench.registry import BACKBONES, HEADS, LOSSES, SOURCES

    table = {"backbones": BACKBONES, "heads": HEADS, "losses": LOSSES, "formats": SOURCES}[plural]
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

    here = {name: Card.read(home / name) for name in prepared(home)}
    rows = [
        {
            "name": name,
            "here": "prepared",
            "users": c.users,
            "items": c.items,
            "events": c.interactions,
            "split": split_name(c.split),
        }
        for name, c in here.items()
    ]
    for card in catalog.cards(home):
        if card.name not in here:
            c = card.counts
            sizes = (c.users, c.items, c.interactions) if c else ("", "", "")
            rows.append(
                {"name": card.name, "here": "", "users": sizes[0], "items": sizes[1], "events": sizes[2], "split": ""}
            )
    return rows


def _runs(home: Path) -> Any:
    from recbench.runs.folder import find

    rows = []
    for run in find([home]) if any(home.glob("*/run.json")) else []:
        m = run.manifest
        test = m.metrics.get("test", {})
        rows.append(
            {
                "run": run.folder.name,
                "status": m.status,
                "HR@10": f"{test['hr@10']:.4f}" if test else "",
                "NDCG@10": f"{test['ndcg@10']:.4f}" if test else "",
                "epochs": m.epochs or "",
                "time": render.duration(sum(m.seconds.values())) if m.seconds else "",
                "started": m.started[:16].replace("T", " "),
            }
        )
    return rows


def _text(value: object) -> str:
    return render.count(value) if isinstance(value, int) else str(value)
