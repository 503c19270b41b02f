"""`recbench evaluate`: rank again from the stored weights, also with other numbers of reasoning steps or wider searches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recbench.cli import options, render
from recbench.errors import Exit, RecbenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas import DataFrame

    from recbench.evaluation.evaluate import Ranks
    from recbench.runs.folder import Run

TOLD = ("hr@10", "ndcg@10")
HEADINGS = (
    "valid NDCG@10  ",
    "test HR@10",
    "test NDCG@10",
    "unseen HR@10",
    "unseen NDCG@10",
    "ms a user",
    "one at a time",
    "256 at once",
)
YIELDING = ("256 at once", "unseen HR@10", "ms a user", "test HR@10", "unseen NDCG@10", "one at a time")
"""Columns that a narrow terminal goes without, the first first."""
EXACT = "exact"


def evaluate(
    run: options.RunPath,
    steps: Annotated[
        str | None,
        typer.Option("--steps", help="Numbers of reasoning steps, for example 1,2,4,8: quality and time of each."),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option("--draws", help="Rank so often with dropout on: what the best of several gains by chance alone."),
    ] = None,
    beams: Annotated[
        str | None,
        typer.Option(
            "--beams", help="Widths of a generator's search, for example 10,20,50,exact: quality and time of each."
        ),
    ] = None,
    device: options.Device = "auto",
    datasets: options.Datasets = Path("datasets"),
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Rank every test user again from the stored weights, and say whether the stored ranks agree."""
    from recbench.runs.folder import Run

    opened = Run.open(run)
    asked = [name for name, value in (("--steps", steps), ("--draws", draws), ("--beams", beams)) if value is not None]
    if len(asked) > 1:
        raise RecbenchError(
            f"{' and '.join(asked)} cannot be used together.",
            why="Each changes one thing and leaves the others as the run has them.",
            fix="Run the command once for each.",
        )
    if steps is not None:
        _at_steps(opened, _numbers(steps), device, datasets, as_json=as_json, quiet=quiet)
        return
    if draws is not None:
        _with_dropout(opened, draws, device, datasets, as_json=as_json, quiet=quiet)
        return
    if beams is not None:
        _by_beams(opened, _widths(beams), device, datasets, as_json=as_json, quiet=quiet)
        return

    from recbench.experiment import METRICS
    from recbench.trained import pick_device, rank_again

    ranks, differing = rank_again(opened, datasets, pick_device(device))
    metrics = {"test": ranks.means(METRICS), "test_unseen": ranks.means(METRICS, unseen=True)}
    if as_json:
        render.show_json({"folder": str(run), "users": len(ranks.users), "differing": differing, "metrics": metrics})
    elif not quiet:
        names = ("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20")
        rows = [
            [rule, *(f"{metrics[key][name]:.4f}" for name in names)]
            for rule, key in (("all items", "test"), ("unseen items", "test_unseen"))
        ]
        render.out.print(render.table(_title(opened), ["candidates", *(name.upper() for name in names)], rows))
        users = render.count(len(ranks.users))
        told = f"{differing or users} ranks {'differ from' if differing else 'equal'} the stored ones."
        if differing is None:
            told = f"{run / 'users.parquet'} was not there and is written again."
        render.out.print(f"{users} users ranked in {render.duration(ranks.seconds)}; {told}", markup=False)
    if differing:
        raise RecbenchError(
            f"{differing} of the ranks differ from {run / 'users.parquet'}.",
            why="Other hardware or library versions can move near-ties; more than a handful means that something changed.",
            fix=f"recbench show {run} tells the versions it was made with",
            code=Exit.RUN,
        )


def _at_steps(run: Run, steps: list[int], device: str, datasets: Path, *, as_json: bool, quiet: bool) -> None:
    """Quality and cost of one trained model at each number of steps, as a table and in the run folder."""
    from recbench import columns
    from recbench.runs.folder import STEPS, STEPS_TABLE
    from recbench.trained import pick_device, rank_at_steps, table_of

    found = rank_at_steps(run, steps, datasets, pick_device(device))
    table, ceiling = table_of(found, columns.STEPS), _best_for_each([at.test for at in found])
    if as_json:
        render.show_json({"folder": str(run.folder), "steps": table.to_dict("records"), "best_for_each_user": ceiling})
        return
    if quiet:
        return
    rows = _rows(table, [str(at.at) for at in found])
    if len(found) > 1:
        rows.append(["best for each", "", *_told(ceiling), "", "", ""])
    render.show_table(
        _title(run), ["steps", *HEADINGS], rows, yielding=YIELDING, else_in=f"{run.folder / STEPS_TABLE} has"
    )
    render.out.print(
        "* best on validation, the number to choose by; times are wall milliseconds a user.\n"
        "best for each: if every user got the best of these, picked by the answer. Chance has such a ceiling, too: --draws\n"
        f"Ranks of every user at every number of steps: {run.folder / STEPS}; this table: {run.folder / STEPS_TABLE}"
    )


def _by_beams(run: Run, widths: list[int | None], device: str, datasets: Path, *, as_json: bool, quiet: bool) -> None:
    """What searches of each width find and cost, as a table and in the run folder."""
    from recbench import columns
    from recbench.runs.folder import BEAMS, BEAMS_TABLE
    from recbench.trained import pick_device, rank_by_beams, table_of

    found = rank_by_beams(run, widths, datasets, pick_device(device))
    table = table_of(found, columns.BEAM)
    if as_json:
        render.show_json({"folder": str(run.folder), "beams": table.to_dict("records")})
        return
    if quiet:
        return
    names = [EXACT if width is None else str(width) for width in widths]
    lost = [f"{100 * share:.1f} %" for share in table.get("lost", [0.0] * len(table))]
    rows = [[*row, share] for row, share in zip(_rows(table, names, mark=False), lost, strict=True)]
    render.show_table(
        _title(run), ["beam", *HEADINGS, "lost"], rows, yielding=YIELDING, else_in=f"{run.folder / BEAMS_TABLE} has"
    )
    render.out.print(
        "lost: test targets that a search missed though they beat the last item it found; times are wall milliseconds a user.\n"
        f"{EXACT}: every item is scored, which is what the widths are held against.\n"
        f"Ranks of every user by every width: {run.folder / BEAMS}; this table: {run.folder / BEAMS_TABLE}"
    )


def _rows(table: DataFrame, names: list[str], *, mark: bool = True) -> list[list[str]]:
    """A row for each line of a table of ``trained.table_of``; * where validation is best."""
    best = table["valid_ndcg@10"].idxmax()
    metrics = ("test_hr@10", "test_ndcg@10", "test_unseen_hr@10", "test_unseen_ndcg@10")
    return [
        [
            name,
            f"{line['valid_ndcg@10']:.4f}" + (" *" if mark and place == best else "  "),
            *(f"{line[metric]:.4f}" for metric in metrics),
            *(f"{line[time]:.2f}" for time in ("ms_per_user", "latency_ms_batch_1", "latency_ms_batch_256")),
        ]
        for name, (place, line) in zip(names, table.iterrows(), strict=True)
    ]


def _with_dropout(run: Run, draws: int, device: str, datasets: Path, *, as_json: bool, quiet: bool) -> None:
    """Several rankings that differ by dropout alone, and the best of them for each user."""
    from recbench.trained import pick_device, rank_with_dropout

    found = rank_with_dropout(run, draws, datasets, pick_device(device))
    each, ceiling = [_best_for_each([ranks]) for ranks in found], _best_for_each(found)
    if as_json:
        render.show_json({"folder": str(run.folder), "draws": each, "best_for_each_user": ceiling})
        return
    if quiet:
        return
    rows = [[str(draw), *_told(means)] for draw, means in enumerate(each)]
    headings = ["draw", "test HR@10", "NDCG@10", "unseen HR@10", "NDCG@10"]
    render.out.print(render.table(_title(run), headings, [*rows, ["best for each", *_told(ceiling)]]))
    stored = run.manifest.metrics["test"]["ndcg@10"]
    render.out.print(
        f"Ranked with dropout, as in training; without it test NDCG@10 is {stored:.4f}.\n"
        "best for each: if every user got the best of these, picked by the answer. A ceiling over steps means something above this."
    )


def _best_for_each(several: Sequence[Ranks]) -> dict[str, dict[str, float]]:
    from recbench.evaluation.evaluate import best_for_each

    return {"test": best_for_each(several, TOLD), "test_unseen": best_for_each(several, TOLD, unseen=True)}


def _told(means: dict[str, dict[str, float]]) -> list[str]:
    return [f"{means[rule][name]:.4f}" for rule in ("test", "test_unseen") for name in TOLD]


def _title(run: Run) -> str:
    m = run.manifest
    return f"{m.system} on {m.dataset['name']}, seed {m.seed}"


def _numbers(steps: str) -> list[int]:
    try:
        return [int(part) for part in steps.split(",")]
    except ValueError as error:
        raise RecbenchError(
            f"--steps {steps!r} cannot be read.",
            why="It is whole numbers with commas between them.",
            fix="--steps 1,2,4,8",
        ) from error


def _widths(beams: str) -> list[int | None]:
    """Widths; None: every item."""
    try:
        return [None if part.strip() == EXACT else int(part) for part in beams.split(",")]
    except ValueError as error:
        raise RecbenchError(
            f"--beams {beams!r} cannot be read.",
            why=f"It is whole numbers and {EXACT}, with commas between them.",
            fix="--beams 10,20,50,exact",
        ) from error
