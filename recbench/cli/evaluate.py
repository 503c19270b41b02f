"""`recbench evaluate`: rank again from the stored weights."""

from __future__ import annotations

from pathlib import Path

from recbench.cli import options, render
from recbench.errors import Exit, RecbenchError


def evaluate(
    run: options.RunPath,
    device: options.Device = "auto",
    datasets: options.Datasets = Path("datasets"),
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Rank every test user again from the stored weights, and say whether the stored ranks agree."""
    from recbench.runs.folder import Run

    opened = Run.open(run)

    from recbench.experiment import METRICS, pick_device, rank_again

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
        title = f"{opened.manifest.system} on {opened.manifest.dataset['name']}, seed {opened.manifest.seed}"
        render.out.print(render.table(title, ["candidates", *(name.upper() for name in names)], rows))
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
