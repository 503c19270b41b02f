"""``recbench audit``: what to know before believing a number on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from recbench.cli import completing, options, render

if TYPE_CHECKING:
    from recbench.data.card import Card
    from recbench.data.dataset import Dataset


def audit(
    name: Annotated[
        str | None,
        typer.Argument(help="A prepared dataset; left out: the one prepared last.", autocompletion=completing.prepared),
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="How often equal times are shuffled.")] = 5,
    datasets: options.Datasets = Path("datasets"),
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Ties, duplicates, leaks of time and drift of a dataset; kept in its card."""
    from recbench.data.dataset import open_dataset

    card = measured(open_dataset(name, datasets), seeds, quiet=quiet)
    if as_json:
        render.show_json({"name": card.name, "split": card.split, "tie_rule": card.tie_rule, "audit": card.audit})
    elif not quiet:
        show_audit(card)


def measured(dataset: Dataset, seeds: int, *, quiet: bool) -> Card:
    """The card with what the order of ties is worth, kept in the folder where that can be written."""
    from recbench.evaluation.sensitivity import keep, measure

    if not quiet and render.err.is_terminal:
        render.say(f"ranking {dataset.name} with two baselines and {seeds} orders of equal times ...")
    card = measure(dataset, seeds)
    try:
        keep(card, dataset.folder)
    except OSError as error:
        render.warn(f"The card of {dataset.name} could not keep this: {error.strerror or error}.")
    return card


def show_audit(card: Card) -> None:
    """The audit in sentences, then what shuffled ties do to the baselines."""
    from recbench.cli.prepared import show_facts, show_reordered
    from recbench.data.describe import split_name

    render.out.print(f"[bold]{escape(card.name)}[/]  {escape(split_name(card.split))}")
    show_facts(card)
    render.out.print()
    if not show_reordered(card):
        why = "No user has two events at one time" if card.time_unit else "The source has no times"
        render.out.print(f"{why}: no order of ties can be tried.")
