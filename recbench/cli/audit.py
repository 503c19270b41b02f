"""``recbench audit``: what to know before believing a number on a dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from recbench.cli import options, render

if TYPE_CHECKING:
    from recbench.data.card import Card


def audit(
    name: Annotated[str | None, typer.Argument(help="A prepared dataset; left out: the one prepared last.")] = None,
    seeds: Annotated[int, typer.Option(min=2, help="How often equal times are shuffled.")] = 5,
    datasets: options.Datasets = Path("datasets"),
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Ties, duplicates, leaks of time and drift of a dataset; kept in its card."""
    from recbench.data.dataset import open_dataset
    from recbench.data.describe import markdown
    from recbench.data.prepare import README
    from recbench.evaluation.sensitivity import sensitivity
    from recbench.files import write_text

    dataset = open_dataset(name, datasets)
    if not quiet and render.err.is_terminal:
        render.say(f"ranking {dataset.name} with two baselines and {seeds} orders of equal times ...")
    found = sensitivity(dataset, range(seeds))
    card = replace(dataset.card, audit={**dataset.card.audit, "tie_sensitivity": found})
    try:
        card.write(dataset.folder)
        write_text(dataset.folder / README, markdown(card))
    except OSError as error:
        render.warn(f"The card of {dataset.name} could not keep this: {error.strerror or error}.")
    if as_json:
        render.show_json({"name": card.name, "split": card.split, "tie_rule": card.tie_rule, "audit": card.audit})
    elif not quiet:
        show_audit(card)


def show_audit(card: Card) -> None:
    """The audit in sentences, then what shuffled ties do to the baselines."""
    from recbench.cli.prepared import show_facts
    from recbench.data.describe import split_name

    render.out.print(f"[bold]{escape(card.name)}[/]  {escape(split_name(card.split))}")
    show_facts(card)
    found: dict[str, Any] = card.audit.get("tie_sensitivity", {})
    if not found:
        render.out.print("\nThe source has no times: no order of ties can be tried.")
        return
    rows = []
    for baseline in (key for key in found if key != "seeds"):
        for metric, value in found[baseline]["as_prepared"].items():
            shuffled = found[baseline]["shuffled"][metric]
            mean = sum(shuffled) / len(shuffled)
            change = f"{100 * (mean / value - 1):+.1f} %" if value else ""
            spread = f"{min(shuffled):.4f} to {max(shuffled):.4f}"
            rows.append([baseline, metric.upper(), f"{value:.4f}", f"{mean:.4f}", spread, change])
    headings = ("baseline", "metric", "as prepared", "ties shuffled", "range", "change")
    render.out.print()
    render.out.print(render.table("what the order of equal times is worth", headings, rows, left=2))
    n = len(found["seeds"])
    render.out.print(f"Test, all items; mean and range over {n} seeds of --ties hash. Training is shuffled, too.")
