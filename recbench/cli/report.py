"""`recbench report`: run folders in, one page out that a reviewer can read anywhere."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recbench.cli import options, render
from recbench.cli.compare import refuse_unwritable, write_result
from recbench.cli.comparing import Asked, asks
from recbench.errors import RecbenchError

if TYPE_CHECKING:
    from recbench.report.blocks import Page


@asks
def report(
    asked: Asked,
    output: Annotated[Path, typer.Option(help="The page: one HTML file that needs no network.")] = Path("report.html"),
    figures: Annotated[
        Path | None,
        typer.Option(help="Also write every figure here as PNG, SVG and PDF.", show_default=False),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """One page about runs: verdict in words, tables, figures, data audit and the origin of every number.

    Slices are by popularity and length unless --slice asks for others.
    """
    from recbench.report.extra import require

    require("jinja2", "matplotlib")
    if output.suffix.lower() not in ("", ".html", ".htm"):
        raise RecbenchError(
            f"{output} cannot be the page.",
            why=f"The page is HTML, and {output.suffix} is the name of something else.",
            fix=f"--output {shlex.quote(str(output.with_suffix('.html')))}; figures as PDF: --figures DIR",
        )
    refuse_unwritable(output, "report.html")
    if figures is not None and figures.exists() and not figures.is_dir():
        raise RecbenchError(f"{figures} is a file.", why="Figures go into a folder.", fix="--figures DIR")
    from recbench.report import html
    from recbench.report.gather import gather
    from recbench.report.page import assemble

    settings = asked.settings()
    command = ("recbench", *sys.argv[1:])
    page = assemble(gather(asked.runs(), settings, asked.datasets, command))
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
