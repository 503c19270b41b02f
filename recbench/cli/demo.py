"""`recbench demo`: the whole job on generated data, in some minutes."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer
from rich.markup import escape

from recbench.cli import options, render

PLAIN = ("popularity", "markov", "sasrec")
"""Backbones that the demo trains without a head, cheapest first. Heads stand on the last."""
DEFAULT_HEADS = "lares,diffuse"


def demo(
    home: Annotated[Path, typer.Option("--home", help="Where the demo puts its dataset and runs.")] = Path("demo"),
    device: options.Device = "auto",
    heads: Annotated[
        str, typer.Option("--heads", help="Reasoning heads to train, by commas: recbench list heads shows them.")
    ] = DEFAULT_HEADS,
) -> None:
    """Prepare generated data, train some systems on it, and compare them with the best any ranking could do."""
    from recbench.cli.compare import compare
    from recbench.cli.prepare import prepare
    from recbench.cli.train import runs_table, train_seeds

    began = perf_counter()
    systems = _systems(heads)
    datasets, runs = home / "datasets", home / "runs"
    _heading(1, "prepare: generated sequences, checked and split", f"recbench prepare synthetic --datasets {datasets}")
    prepare("synthetic", datasets=datasets)
    for number, (backbone, head) in enumerate(systems, 2):
        table, command = _asked(backbone, head, datasets, runs)
        _heading(number, f"train: {backbone}, head {head}" if head != "none" else f"train: {backbone}", command)
        finished = train_seeds(table, [0], device, runs, datasets, resume=True, quiet=False)
        render.out.print(runs_table(finished))
    _heading(len(systems) + 2, "compare", f"recbench compare {runs}")
    compare(paths=[str(runs)], baseline="sasrec", datasets=datasets, quiet=True)
    page = home / "report.html"
    _heading(len(systems) + 3, "report: the same as a page", f"recbench report {runs} --output {page}")
    _report(runs, datasets, page)
    render.out.print(
        f"\nDone in {render.duration(perf_counter() - began)}. Every number above is in {escape(str(runs))}: look with "
        f"recbench show {escape(str(runs))}/synthetic-sasrec-none-s0"
    )


def _systems(heads: str) -> list[tuple[str, str]]:
    """Backbone and head of what the demo trains."""
    from recbench.registry import HEADS

    named = [name.strip() for name in heads.split(",") if name.strip()]
    for name in named:
        HEADS.entry(name)
    return [*((backbone, "none") for backbone in PLAIN), *((PLAIN[-1], name) for name in named if name != "none")]


def _asked(backbone: str, head: str, datasets: Path, runs: Path) -> tuple[dict[str, object], str]:
    """What to train, and the command that does the same. A head that may begin with the plain run does."""
    from recbench.registry import HEADS

    table: dict[str, object] = {"dataset": "synthetic", "backbone": {"name": backbone}, "head": {"name": head}}
    command = f"recbench train --backbone {backbone} --reason {head} --datasets {datasets} --runs {runs}"
    chosen = HEADS.load(head)
    if "none" in chosen.begins_as(chosen.Config()):
        plain = f"{runs}/synthetic-{backbone}-none-s0"
        return table | {"from": plain}, f"{command} --from {plain}"
    return table, command


def _report(runs: Path, datasets: Path, page: Path) -> None:
    """The page, or how to get it where its libraries are missing."""
    from recbench.cli.report import report
    from recbench.errors import RecbenchError

    try:
        report(paths=[str(runs)], baseline="sasrec", datasets=datasets, output=page)
    except RecbenchError as error:
        render.say(f"no page: {error.what} {error.fix}")


def _heading(number: int, what: str, command: str) -> None:
    render.out.print(f"\n[bold]{number}. {escape(what)}[/]\n[dim]$ {escape(command)}[/]")
