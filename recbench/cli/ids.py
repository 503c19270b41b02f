"""``recbench ids``: semantic ids of a prepared dataset, built or read, and how good they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from recbench.cli import completing, options, render
from recbench.errors import RecbenchError, meant

if TYPE_CHECKING:
    import pandas as pd

    from recbench.semantic_ids.table import SemanticIds

TITLE_WIDTH = 72


def ids(
    name: Annotated[
        str | None,
        typer.Argument(help="A prepared dataset; left out: the one prepared last.", autocompletion=completing.prepared),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="rkmeans, balanced or rqvae. Default: rkmeans.", autocompletion=completing.tokenisers),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of features, method or ids, e.g. ids.codes=128. Repeatable.",
            autocompletion=completing.id_settings,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML with tables features, method and ids.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of codebooks and of the order within groups.")] = 0,
    item: Annotated[
        list[str] | None, typer.Option("--item", help="Raw id of an item whose ids to show. Repeatable.")
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Compute the table even if it is there.")] = False,
    datasets: options.Datasets = Path("datasets"),
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Spell every item as a few small integers, and report how the codes are used and how often they collide."""
    from recbench.conditions import without_effect
    from recbench.config import merge, parse_assignments, read_toml
    from recbench.data.dataset import open_dataset
    from recbench.semantic_ids.build import id_settings, semantic_ids

    given = merge(read_toml(config) if config else {}, parse_assignments(set_ or []))
    settings = id_settings(given, method)
    for told in [] if quiet else without_effect(given, settings.parts):
        render.say(told)
    dataset = open_dataset(name, datasets)
    table, folder, was_there = semantic_ids(dataset, settings, seed, rebuild=rebuild)
    items = dataset.items()
    asked = [_row(items, raw) for raw in item or []]
    if as_json:
        result = {"folder": str(folder), "was_there": was_there, **table.card}
        render.show_json(result | ({"items": [_spelled(table, items, row) for row in asked]} if asked else {}))
        return
    if quiet:
        return
    _show(table, items, folder, was_there)
    if asked:
        _show_items(table, items, asked)


def _row(items: pd.DataFrame, raw: str) -> int:
    """The item of a raw id."""
    found = items.index[items["raw_id"] == raw]
    if not len(found):
        raise RecbenchError(
            f"No item {raw!r} in this dataset.",
            why="Items are named by their raw ids, the column raw_id of items.parquet.",
            fix=meant(raw, items["raw_id"], "--item {}") or f"For example --item {items['raw_id'].iloc[0]}",
        )
    return int(found[0]) + 1


def _spelled(table: SemanticIds, items: pd.DataFrame, item: int) -> dict[str, Any]:
    row = items.iloc[item - 1]
    title = row["title"] if isinstance(row["title"], str) else None
    return {"raw_id": row["raw_id"], "title": title, "codes": table.codes_VM[item].tolist()}


def _show(table: SemanticIds, items: pd.DataFrame, folder: Path, was_there: bool) -> None:
    card = table.card
    report = card["report"]
    settings = card["settings"]
    render.out.print(
        f"[bold]{escape(card['dataset']['name'])}[/]  ids by {escape(settings['method']['name'])}, seed {card['seed']}"
    )
    rows = [
        [
            str(place),
            render.count(level["codes"]),
            f"{100 * level['used'] / level['codes']:.1f} %",
            f"{level['perplexity']:.1f}",
            render.count(level["largest"]),
            render.count(level["prefixes"]),
        ]
        for place, level in enumerate(report["levels"], start=1)
    ]
    heading = ["level", "codes", "used", "perplexity", "items of the largest", "distinct prefixes"]
    render.out.print(render.table(None, heading, rows, left=0))
    for label, text in _facts(card, folder, was_there):
        render.out.print(f" [bold]{label:<10}[/] {escape(text)}")
    _show_groups(report, items)


def _facts(card: dict[str, Any], folder: Path, was_there: bool) -> list[tuple[str, str]]:
    report, features, dedup = card["report"], card["features"], card["settings"]["ids"]["dedup"]
    facts = [
        ("features", _features(features)),
        ("collisions", _collisions(report)),
    ]
    if "after_dedup" in card and dedup != "accept":
        facts.append((dedup, _collisions(card["after_dedup"])))
    if dedup == "accept":
        facts.append(("unique", "no: items on one path share its score, which ties them"))
    else:
        size = card["level_sizes"][-1]
        suffix = f"a suffix of {size} codes" if size > 1 else "no suffix was needed: it is 0 everywhere"
        facts.append(("unique", f"{render.count(card['unique'])} paths, {suffix}"))
    if "epochs" in (fit := card["fit"]):
        facts.append(
            (
                "fit",
                f"{fit['epochs']} epochs, best {fit['best_epoch']}; {render.count(fit['codes_restarted'])} codes restarted",
            )
        )
    seconds = card["seconds"]
    facts.append(("time", f"vectors {render.duration(seconds['vectors'])}, codes {render.duration(seconds['codes'])}"))
    facts.append(("there" if was_there else "written", f"{folder}/"))
    return facts


def _features(features: dict[str, Any]) -> str:
    if features["source"] == "cooc":
        why = f"; {features['why']}" if "why" in features else ""
        made = f"cooc: what stands near an item in training sequences{why}"
    elif features["source"] == "encoder":
        made = f"encoder {features['encoder']} of {', '.join(features['fields'])}"
    else:
        made = f"text: TF-IDF and SVD of {', '.join(features['fields'])}"
    unknown = features["items_unknown"]
    drawn = f"; {render.count(unknown)} items that nothing is known of have drawn codes" if unknown else ""
    return f"{made}; width {features['width']}, {features['normalise']}{drawn}"


def _collisions(report: dict[str, Any]) -> str:
    return (
        f"{100 * report['collision_rate']:.1f} % (1 - {render.count(report['paths'])} paths / "
        f"{render.count(report['items'])} items); {100 * report['items_in_groups']:.1f} % of items in "
        f"{render.count(report['groups'])} groups, the largest of {render.count(report['largest_group'])}"
    )


def _show_groups(report: dict[str, Any], items: pd.DataFrame) -> None:
    """The largest groups by the titles of their first items."""
    rows = []
    for group in report["largest_groups"][:3]:
        for place, number in enumerate(group[:3]):
            row = items.iloc[number - 1]
            title = row["title"] if isinstance(row["title"], str) else ""
            rows.append([str(len(group)) if place == 0 else "", row["raw_id"], _short(title)])
    if rows:
        render.out.print(render.table("largest groups of equal codes", ["items", "raw id", "title"], rows, left=3))


def _show_items(table: SemanticIds, items: pd.DataFrame, asked: list[int]) -> None:
    rows = []
    for number in asked:
        spelled = _spelled(table, items, number)
        codes = " ".join(map(str, spelled["codes"]))
        rows.append([spelled["raw_id"], codes, _short(spelled["title"] or "")])
        alike = (table.codes_VM[:, :2] == table.codes_VM[number, :2]).all(axis=1)
        alike[number] = False
        for other in alike.nonzero()[0][:3]:
            spelled = _spelled(table, items, int(other))
            rows.append(
                [f"  like {spelled['raw_id']}", " ".join(map(str, spelled["codes"])), _short(spelled["title"] or "")]
            )
    render.out.print(render.table("items, and others that begin alike", ["raw id", "codes", "title"], rows, left=3))


def _short(text: str) -> str:
    return text if len(text) <= TITLE_WIDTH else text[: TITLE_WIDTH - 3].rstrip() + "..."
