"""``recbench verify``: does a run, or a prepared dataset, hold what it states?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recbench.cli import options, render
from recbench.errors import Exit, RecbenchError

if TYPE_CHECKING:
    from recbench.data.verify import Check
    from recbench.evaluation.verify import Finding
    from recbench.runs.folder import Run

_WORDS = {True: "ok", False: "WRONG", None: "not checked"}


def verify(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, folders of them, or prepared datasets by name or folder.", show_default=False
        ),
    ],
    datasets: options.Datasets = Path("datasets"),
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Derive every reported number again from what is stored, and check every hash. Exit 0: all holds; 3: data, 4: runs do not."""
    homes = {path: home for path in paths if (home := _dataset(path, datasets)) is not None}
    runs = [path for path in paths if path not in homes]
    told: list[Any] = []
    problems: list[RecbenchError] = []
    for home in homes.values():
        _dataset_holds(home, told, problems, quiet=quiet or as_json)
    if runs:
        _runs_hold(runs, datasets, told, problems, quiet=quiet or as_json)
    if as_json:
        render.show_json(told)
    if problems:
        raise problems[0]


def _dataset(path: Path, datasets: Path) -> Path | None:
    """The folder of the prepared dataset that is meant, or None if it is runs that are."""
    from recbench.data.verify import is_dataset

    named = datasets / path
    if not path.exists() and not named.exists():
        raise RecbenchError(
            f"There is no run and no prepared dataset {path}.",
            why=f"Neither {path} nor {named} is there.",
            fix="recbench list runs, or recbench list datasets",
            code=Exit.RUN,
        )
    return next((folder for folder in (path, named) if is_dataset(folder)), None)


def _dataset_holds(folder: Path, told: list[Any], problems: list[RecbenchError], *, quiet: bool) -> None:
    from recbench.data.again import same
    from recbench.data.card import Card
    from recbench.data.verify import verify as verified

    checks: list[Check] = verified(folder)
    failed = [check for check in checks if check.problem]
    told.append({"folder": str(folder), "holds": not failed, "findings": [_of_check(check) for check in checks]})
    if not quiet:
        _show(str(folder), [(check.what, not check.problem, check.problem or "as written") for check in checks])
    if failed:
        problems.append(
            RecbenchError(
                f"{folder} is not what was written: {len(failed)} of {len(checks)} checks failed.",
                why="; ".join(f"{check.what}: {check.problem}" for check in failed[:3]) + ".",
                fix=same(Card.read(folder), folder),
                code=Exit.DATA,
            )
        )


def _runs_hold(
    paths: list[Path], datasets: Path, told: list[Any], problems: list[RecbenchError], *, quiet: bool
) -> None:
    from recbench.evaluation.verify import verify as verified
    from recbench.runs.folder import find

    runs = {str(run.folder): run for run in find(paths)}
    found: dict[str, list[Finding]] = {folder: verified(run, datasets) for folder, run in runs.items()}
    for folder, findings in found.items():
        told.append(
            {
                "folder": folder,
                "holds": all(f.holds is not False for f in findings),
                "findings": [asdict(f) for f in findings],
            }
        )
        if not quiet:
            _show(folder, [(f.what, f.holds, f.told) for f in findings])
    bad = {folder: wrong for folder, all_ in found.items() if (wrong := [f for f in all_ if f.holds is False])}
    if bad:
        folder, wrong = next(iter(bad.items()))
        problems.append(
            RecbenchError(
                f"{len(bad)} of {len(found)} runs do not hold what they state."
                if len(found) > 1
                else f"{folder} does not hold what it states.",
                why="; ".join(f"{f.what}: {f.told.rstrip('.')}" for f in wrong)
                + ("" if len(bad) == 1 else f" (in {folder})")
                + ".",
                fix=_mending(runs[folder], {f.what for f in wrong}),
                code=Exit.RUN,
            )
        )


def _mending(run: Run, wrong: set[str]) -> str:
    """What to do about a run, from what of it does not hold."""
    from recbench.comparison.checks import finishing
    from recbench.evaluation.verify import FROM_RANKS
    from recbench.runs.folder import USERS

    if "status" in wrong:
        return finishing(run)
    if wrong <= {"dataset", "targets"}:
        return "Prepare the dataset as it was (run.json has its counts, split and hashes), or name its home: --datasets DIR"
    if USERS in wrong <= {USERS, *FROM_RANKS}:
        return f"{run.ranking_again}, which ranks again from its weights; or train it again"
    return "Copy the whole run folder again, or train it again into another: --runs DIR"


def _of_check(check: Check) -> dict[str, Any]:
    return {"what": check.what, "holds": not check.problem, "told": check.problem or "as written"}


def _show(folder: str, rows: list[tuple[str, bool | None, str]]) -> None:
    width = max(len(what) for what, _, _ in rows)
    render.out.print(folder, markup=False)
    for what, holds, told in rows:
        render.out.print(f"  {what:<{width}}  {_WORDS[holds]:<11}  {told}", markup=False)
