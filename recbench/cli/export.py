"""``recbench export``: a prepared dataset in a format other tools read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from recbench.cli import completing, options, render


def export(
    name: Annotated[
        str | None,
        typer.Argument(help="A prepared dataset; left out: the one prepared last.", autocompletion=completing.prepared),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="File to write, folder for recbole, amazon2023 and huggingface; - for stdout.")
    ] = ...,  # type: ignore[assignment]  # typer: required
    file_format: Annotated[
        str, typer.Option("--format", help="sequences, recbole, csv, amazon2023 or huggingface.")
    ] = "sequences",
    datasets: options.Datasets = Path("datasets"),
    quiet: options.Quiet = False,
) -> None:
    """Write a prepared dataset for other tools."""
    from recbench.data import export as exporting
    from recbench.data.dataset import open_dataset

    exporting.check_format(file_format)
    dataset = open_dataset(name, datasets)
    to_stdout = str(output) == "-"
    said = exporting.export(dataset, file_format, sys.stdout.buffer if to_stdout else output)
    if quiet:
        return
    if not to_stdout:
        render.say(f"{dataset.name}: {render.count(dataset.card.interactions)} interactions written to {output}")
    for line in said:
        render.say(line)
