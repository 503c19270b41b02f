"""``recbench verify``: does a run hold what it states?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recbench.cli import options, render
from recbench.errors import Exit, RecbenchError

if TYPE_CHECKING:
    from recbench.evaluation.verify import Finding

_WORDS = {True: "ok", False: "WRONG", None: "not checked"}


def verify(
    paths: Annotated[list[Path], typer.Argument(help="Run folders, or folders of them.", show_default=False)],
    datasets: options.Datasets = Path("datasets"),
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Derive every reported number again from the stored ranks, and check every hash. Exit 0: all holds; 4: not."""
    from recbench.evaluation.verify import verify as verify_run
    from recbench.runs.folder import find

    found = {str(run.folder): verify_run(run, datasets) for run in find(paths)}
    wrong = {folder: [f for f in findings if f.holds is False] for folder, findings in found.items()}
    if as_json:
        render.show_json([_tree(folder, findings) for folder, findings in found.items()])
    elif not quiet:
        for folder, findings in found.items():
            _show(folder, findings)
    bad = {folder: findings for folder, findings in wrong.items() if findings}
    if bad:
        folder, findings = next(iter(bad.items()))
        raise RecbenchError(
            f"{len(bad)} of {len(found)} runs do not hold what they state."
            if len(found) > 1
            else f"{folder} does not hold what it states.",
            why="; ".join(f"{f.what}: {f.told}" for f in findings) + ("" if len(bad) == 1 else f" (in {folder})") + ".",
            fix=f"recbench evaluate {folder} ranks again from its weights; or train it again",
            code=Exit.RUN,
        )


def _show(folder: str, findings: list[Finding]) -> None:
    rows = [[f.what, _WORDS[f.holds], f.told] for f in findings]
    width = max(len(row[0]) for row in rows)
    render.out.print(folder, markup=False, emoji=False)
    for what, word, told in rows:
        render.out.print(f"  {what:<{width}}  {word:<11}  {told}", markup=False, emoji=False)


def _tree(folder: str, findings: list[Finding]) -> dict[str, Any]:
    return {
        "folder": folder,
        "holds": all(f.holds is not False for f in findings),
        "findings": [asdict(f) for f in findings],
    }
