"""Options that several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recbench.cli import completing

DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset", help="A prepared dataset. Default: the one prepared last.", autocompletion=completing.prepared
    ),
]
Datasets = Annotated[Path, typer.Option("--datasets", help="Home of prepared datasets.", envvar="RECBENCH_DATASETS")]
Runs = Annotated[Path, typer.Option("--runs", help="Home of runs.", envvar="RECBENCH_RUNS")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Nothing but errors.")]
RunPath = Annotated[Path, typer.Argument(help="A run folder.", show_default=False)]
