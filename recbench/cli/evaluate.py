"""`recbench evaluate`: rank again from the stored weights, also with other numbers of reasoning steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recbench.cli import options, render
from recbench.errors import Exit, RecbenchError

if TYPE_CHECKING:
    from recbench.runs.folder import Run


def evaluate(
    run: options.RunPath,
    steps: Annotated[
        str | None,
        typer.Option("--steps", help="Numbers of reasoning steps, for example 1,2,4,8: quality and time of each."),
    ] = None,
    device: options.Device = "auto",
    datasets: options.Datasets = Path("datasets"),
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Rank every test user again from the stored weights, and say whether the stored ranks agree."""
    from recbench.runs.folder import Run

    opened = Run.open(run)
    if steps is not None:
        _at_steps(opened, _numbers(steps), device, datasets, as_json=as_json, quiet=quiet)
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
        render.out.print(
            f"{users} users ranked in {render.duration(ranks.seconds)}; {differing or users} ranks "
            f"{'equal the stored ones' if not differing else 'differ from the stored ones'}."
        )
    if differing:
        raise RecbenchError(
            f"{differing} of the ranks differ from {run / 'users.parquet'}.",
            why="Other hardware or library versions can move near-ties; more than a handful means that something changed.",
            fix=f"recbench show {run} tells the versions it was made with",
            code=Exit.RUN,
        )


def _at_steps(run: Run, steps: list[int], device: str, datasets: Path, *, as_json: bool, quiet: bool) -> None:
    """Quality and cost of one trained model at each number of steps, as a table and in the run folder."""
    from recbench.trained import pick_device, rank_at_steps, steps_table

    table = steps_table(rank_at_steps(run, steps, datasets, pick_device(device)))
    if as_json:
        render.show_json({"folder": str(run.folder), "steps": table.to_dict("records")})
        return
    if quiet:
        return
    best = table["valid_ndcg@10"].idxmax()
    rows = [
        [
            str(int(line["steps"])),
            f"{line['valid_ndcg@10']:.4f}" + (" *" if place == best else "  "),
            *(
                f"{line[name]:.4f}"
                for name in ("test_hr@10", "test_ndcg@10", "test_unseen_hr@10", "test_unseen_ndcg@10")
            ),
            *(f"{line[name]:.2f}" for name in ("ms_per_user", "latency_ms_batch_1", "latency_ms_batch_256")),
        ]
        for place, (_, line) in enumerate(table.iterrows())
    ]
    headings = [
        "steps",
        "valid NDCG@10  ",
        "test HR@10",
        "NDCG@10",
        "unseen HR@10",
        "NDCG@10",
        "ms a user",
        "one at a time",
        "256 at once",
    ]
    render.out.print(render.table(_title(run), headings, rows))
    render.out.print(
        "* best on validation, the number to choose by; times are wall milliseconds a user.\n"
        f"Ranks of every user at every number of steps: {run.folder / 'steps.parquet'}; this table: {run.folder / 'steps.csv'}"
    )


def _title(run: Run) -> str:
    m = run.manifest
    return f"{m.system} on {m.dataset['name']}, seed {m.seed}"


def _numbers(steps: str) -> list[int]:
    try:
        return [int(part) for part in steps.split(",")]
    except ValueError as error:
        raise RecbenchError(f"--steps {steps!r} cannot be read.", why=str(error), fix="--steps 1,2,4,8") from error
