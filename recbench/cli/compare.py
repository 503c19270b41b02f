"""``recbench compare``: run folders and result tables in, an honest table out."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from recbench.cli import render
from recbench.cli.comparing import Asked, asks
from recbench.errors import RecbenchError

if TYPE_CHECKING:
    from recbench.comparison import Comparison


Format = Literal["table", "markdown", "csv", "json", "latex"]
_SUFFIXES: dict[str, Format] = {".md": "markdown", ".csv": "csv", ".json": "json", ".tex": "latex"}


@asks
def compare(
    asked: Asked,
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="Left out: by the suffix of --output, else table.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the result here instead of printing it.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No warnings.")] = False,
) -> None:
    """Compare finished runs: difference to the baseline, interval, corrected p, effect size and a verdict in words."""
    chosen = _format(format_, json, output)
    if output is not None:
        refuse_unwritable(output)
    from recbench.comparison import compare as compare_runs

    settings = asked.settings()
    comparison = compare_runs(asked.runs(), settings, datasets=asked.datasets)
    text = _rendered(comparison, chosen, None if output else render.out.width)
    if not quiet:
        for told in (*comparison.warnings, *[text for table in comparison.tables for text in table.warnings]):
            render.warn(told)
    if output is None:
        render.out.print(text.rstrip("\n"), markup=False)
    else:
        write_result(output, text)
        if not quiet:
            render.say(f"wrote {output}")


def _format(asked: Format | None, json: bool, output: Path | None) -> Format:
    if json and asked not in (None, "json"):
        raise RecbenchError(
            f"--json and --format {asked} are both given.",
            why="Only one of them could be used.",
            fix="Leave out one of them.",
        )
    if json:
        return "json"
    if asked is None and output is not None and output.suffix.lower() not in ("", ".txt", *_SUFFIXES):
        known = ", ".join(f"{suffix} ({name})" for suffix, name in _SUFFIXES.items())
        raise RecbenchError(
            f"{output} does not say which format it is to have.",
            why=f"{output.suffix} is none of: .txt (table), {known}.",
            fix=f"--output {shlex.quote(str(output.with_suffix('.md')))}, or say it: --format table",
        )
    return asked or _SUFFIXES.get(output.suffix.lower() if output else "", "table")


def _rendered(comparison: Comparison, chosen: Format, width: int | None) -> str:
    """The text; a table at the width of the terminal, if it goes there."""
    from importlib import import_module

    module = {"table": "text", "markdown": "markdown", "csv": "tabular", "json": "machine", "latex": "latex"}[chosen]
    arguments = (width,) if chosen == "table" and width is not None else ()
    return str(import_module(f"recbench.report.{module}").render(comparison, *arguments))


def refuse_unwritable(output: Path, usual: str = "comparison.md") -> None:
    """Say so before the work, not after."""
    if output.is_dir():
        raise _unwritable(output, "It is a folder.", f"--output {output / usual}")
    if not output.parent.is_dir():
        raise _unwritable(output, f"{output.parent} is not a folder.", f"mkdir -p {output.parent}")
    if not os.access(output.parent, os.W_OK):
        raise _unwritable(output, f"{output.parent} may not be written to.", "Name another place: --output FILE")


def write_result(output: Path, text: str) -> None:
    """Write it whole, or say why not."""
    from recbench.files import write_text

    try:
        write_text(output, text)
    except OSError as error:
        raise _unwritable(output, f"{error.strerror or error}.", "Name another place: --output FILE") from error


def _unwritable(output: Path, why: str, fix: str) -> RecbenchError:
    return RecbenchError(f"{output} cannot be written.", why=why, fix=fix)
