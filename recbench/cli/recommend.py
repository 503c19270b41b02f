"""`recbench recommend`: the best items for a user of the dataset, or after a history typed in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recbench.cli import options, render
from recbench.data.describe import number_of
from recbench.errors import RecbenchError, meant, nearest

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from recbench.data.dataset import Dataset


def recommend(
    run: options.RunPath,
    history: Annotated[
        str | None,
        typer.Option("--history", help="Items, oldest first, separated by commas: raw ids as in the source."),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", help="A user of the dataset, by raw id: their whole history.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Length of the list.")] = 10,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Items of the history may be listed, too.")
    ] = False,
    device: options.Device = "auto",
    datasets: options.Datasets = Path("datasets"),
    as_json: options.Json = False,
) -> None:
    """The best items for a user, or after a typed-in history, with their titles."""
    if (history is None) == (user is None):
        raise RecbenchError(
            f"{'Neither' if user is None else 'Both'} --user {'nor' if user is None else 'and'} --history given.",
            why="A list is made for one of them.",
            fix=f"recbench recommend {run} --history ITEM,ITEM",
        )
    from recbench.runs.folder import Run

    opened = Run.open(run)

    from recbench import trained

    chosen = trained.pick_device(device)
    model, dataset = trained.load(opened, datasets, chosen)
    catalogue = dataset.items()
    number, items, times = _of_user(dataset, user) if user is not None else (0, _typed(history or "", catalogue), None)
    found, scores = trained.recommend(model, items, number, top, chosen, unseen=not include_seen, times=times)
    listed = [_line(catalogue, int(item)) | {"score": float(score)} for item, score in zip(found, scores, strict=True)]
    past = [_line(catalogue, int(item)) for item in items]
    if times is None and opened.manifest.inputs.get("timestamps"):
        render.warn(
            "a typed-in history has no times, which this system was trained to look at: scores are made without them"
        )
    if as_json:
        render.show_json({"run": str(run), "history": past, "items": listed})
        return
    name = f"user {user}" if user is not None else "this history"
    latest = ", ".join(line["title"] or line["raw_id"] for line in past[-3:])
    render.say(f"{number_of(len(past), 'event')}, the latest: {latest}")
    has_titles = any(line["title"] for line in listed)
    rows = [
        [str(place), line["raw_id"], *([line["title"] or ""] if has_titles else []), f"{line['score']:.3f}"]
        for place, line in enumerate(listed, 1)
    ]
    title = f"{opened.manifest.system} on {dataset.name}: next for {name}"
    headings = ["", "item", *(["title"] if has_titles else []), "score"]
    render.show_table(title, headings, rows, left=len(headings) - 1)


def _of_user(dataset: Dataset, raw_id: str) -> tuple[int, np.ndarray, np.ndarray | None]:
    """The user's number, items and their times in seconds, if the dataset has times."""
    users = dataset.users()
    match = users.index[users["raw_id"] == raw_id]
    if not len(match):
        near = nearest(raw_id, users["raw_id"].head(20000).tolist())
        raise RecbenchError(
            f"No user {raw_id!r} in {dataset.name}.",
            why=f"It has {render.count(len(users))} users, named as in the source.",
            fix=f"For example --user {near or users['raw_id'].iloc[0]}",
        )
    number = int(users["user"].loc[match[0]])
    events = dataset.interactions()
    mine = events[events["user"] == number]
    times = dataset.seconds(mine["timestamp"].to_numpy()) if dataset.card.time_unit else None
    return number, mine["item"].to_numpy(), times


def _typed(history: str, catalogue: pd.DataFrame) -> np.ndarray:
    import numpy as np

    by_id = dict(zip(catalogue["raw_id"], catalogue["item"], strict=True))
    wanted = [part.strip() for part in history.split(",") if part.strip()]
    if not wanted:
        raise RecbenchError(
            "--history is empty.", why="It takes at least one item.", fix=f"--history {catalogue['raw_id'].iloc[0]}"
        )
    for raw_id in wanted:
        if raw_id not in by_id:
            raise RecbenchError(
                f"No item {raw_id!r} in the catalogue.",
                why=f"It has {render.count(len(by_id))} items, named as in the source.",
                fix=meant(raw_id, by_id) or f"For example {catalogue['raw_id'].iloc[0]}",
            )
    return np.array([by_id[raw_id] for raw_id in wanted], dtype=np.int32)


def _line(catalogue: pd.DataFrame, item: int) -> dict[str, Any]:
    row = catalogue.iloc[item - 1]
    title = row.get("title")
    return {"raw_id": row["raw_id"], "title": title if isinstance(title, str) else None}
