"""``recbench verify``: is what was written still what is there?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recbench.cli import options, render
from recbench.errors import Exit, RecbenchError


def verify(
    path: Annotated[Path, typer.Argument(help="A prepared dataset: its folder or its name.", show_default=False)],
    datasets: options.Datasets = Path("datasets"),
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Hash every file again and compare with what was written down."""
    from recbench.data.verify import is_dataset

    folder = path if path.is_dir() else datasets / path
    if not is_dataset(folder):
        raise RecbenchError(
            f"{path} is no prepared dataset.",
            why=f"There is no card.json in {folder}.",
            fix="recbench list datasets",
            code=Exit.DATA,
        )
    _verify_dataset(folder, as_json=as_json, quiet=quiet)


def _verify_dataset(folder: Path, *, as_json: bool, quiet: bool) -> None:
    from dataclasses import asdict

    from recbench.data.verify import verify as verified

    checks = verified(folder)
    failed = [check for check in checks if check.problem]
    if as_json:
        render.show_json({"path": str(folder), "ok": not failed, "checks": [asdict(check) for check in checks]})
    elif not quiet:
        rows = [[check.what, check.problem or "as written"] for check in checks]
        render.out.print(render.table(None, ("checked", ""), rows, left=2))
    if failed:
        raise RecbenchError(
            f"{folder} is not what was written: {len(failed)} of {len(checks)} checks failed.",
            why="; ".join(f"{check.what}: {check.problem}" for check in failed[:3]) + ".",
            fix=f"Prepare it again: recbench prepare {folder.name}",
            code=Exit.DATA,
        )
