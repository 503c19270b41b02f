"""`recbench report`: run folders in, one page out that a reviewer can read anywhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from recbench.cli import options, render
from recbench.cli.compare import find_runs, metric_settings, refuse_unwritable, split_names, write_result
from recbench.errors import RecbenchError

if TYPE_CHECKING:
    from recbench.report.blocks import Page


def report(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Run folders, result tables, TREC runs, folders of them, or patterns. Left out: runs/.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="The page: one HTML file that needs no network.")] = Path("report.html"),
    figures: Annotated[
        Path | None,
        typer.Option(help="Also write every figure here as PNG, SVG and PDF.", show_default=False),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Such as ndcg@10, mrr@5; several by commas. The first is drawn. Default: ndcg@10,hr@10.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="System all others are held against. Left out: the same backbone with head none.", show_default=False
        ),
    ] = None,
    correction: Annotated[
        Literal["holm", "bonferroni", "bh", "by"], typer.Option(help="Of p, over the systems of a table.")
    ] = "holm",
    candidates: Annotated[
        Literal["all", "unseen"], typer.Option(help="Rank among all items, or those the user has not seen.")
    ] = "all",
    slice_: Annotated[
        list[str] | None,
        typer.Option(
            "--slice",
            help="popularity, length, cold, or FILE:COLUMN; several by commas. Default: popularity,length.",
            show_default=False,
        ),
    ] = None,
    qrels: Annotated[
        Path | None,
        typer.Option(help="What is relevant, for TREC runs.", show_default=False, exists=True, dir_okay=False),
    ] = None,
    datasets: options.Datasets = Path("datasets"),
    quiet: options.Quiet = False,
) -> None:
    """One page about runs: verdict in words, tables, figures, data audit and the origin of every number."""
    from recbench.report.extra import require

    require("jinja2", "matplotlib")
    refuse_unwritable(output, "report.html")
    if figures is not None and figures.exists() and not figures.is_dir():
        raise RecbenchError(f"{figures} is a file.", why="Figures go into a folder.", fix="--figures DIR")
    from recbench.comparison import Settings
    from recbench.data.describe import facts
    from recbench.report import html
    from recbench.report.gather import gather
    from recbench.report.page import assemble

    settings = Settings(
        baseline=baseline,
        correction=correction,
        candidates=candidates,
        slices=tuple(dict.fromkeys(split_names(slice_))),
        **metric_settings(metric),
    )
    command = ("recbench", *sys.argv[1:])
    page = assemble(gather(find_runs(paths, qrels, None), settings, datasets, lambda card: list(facts(card)), command))
    write_result(output, html.render(page))
    written = _save(page, figures) if figures is not None else 0
    if not quiet:
        render.say(f"wrote {output}{f' and {written} figure files in {figures}' if written else ''}")


def _save(page: Page, folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return sum(len(drawing.save(folder)) for drawing in page.drawings)
    except OSError as error:
        raise RecbenchError(
            f"{folder} cannot be written.", why=f"{error.strerror or error}.", fix="Name another place: --figures DIR"
        ) from error
