"""`recbench train`: one run folder a seed."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from recbench.cli import completing, options, render
from recbench.errors import Exit, RecbenchError

if TYPE_CHECKING:
    from recbench.runs.folder import Run
    from recbench.semantic_ids.table import SemanticIds


def train(
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            help="How a history becomes states: recbench list backbones.",
            autocompletion=completing.backbones,
        ),
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option(
            "--reason", help="Reasoning head: recbench list heads. Default: none.", autocompletion=completing.heads
        ),
    ] = None,
    dataset: options.DatasetName = None,
    seed: Annotated[int | None, typer.Option("--seed", help="One seed. Default: 0.")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Several, for example 0,1,2: one run each.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="TOML file of settings, as any run's config.toml; or a shipped one: recbench list configs."
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="One setting, for example train.epochs=50; recbench show NAME lists them. Repeatable.",
            autocompletion=completing.settings,
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            help="Stop after this stage of training, for example spt of lares.",
            autocompletion=completing.stages,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Go on from a finished run that stopped earlier; {seed} in it stands for the seed.",
        ),
    ] = None,
    tuned: Annotated[
        int | None,
        typer.Option(
            "--tuned",
            min=1,
            metavar="TRIALS",
            help="How many settings of this system were tried on validation, these included; compare shows it.",
            show_default=False,
        ),
    ] = None,
    device: options.Device = "auto",
    runs: options.Runs = Path("runs"),
    datasets: options.Datasets = Path("datasets"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run from its last epoch.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a backbone, with or without a reasoning head, and rank every test user's true item."""
    from recbench.config import parse_assignments
    from recbench.settings import Asked

    table = Asked(backbone, reason, dataset, config, parse_assignments(assignments or []), until, start).table()
    chosen = _seeds(seed, seeds, table.get("seed", 0))
    finished = train_seeds(
        table, chosen, device, runs, datasets, resume=resume, quiet=quiet, named=dataset is not None, trials=tuned
    )
    if as_json:
        from recbench.experiment import summary

        render.show_json([summary(run) for run in finished])
    elif not quiet:
        render.out.print(runs_table(finished))
        for run in finished:
            for warning in run.manifest.warnings:
                render.warn(f"{run.folder.name}: {warning}")


def train_seeds(
    table: dict[str, Any],
    seeds: list[int],
    device: str,
    runs: Path,
    datasets: Path,
    *,
    resume: bool,
    quiet: bool,
    named: bool = True,
    trials: int | None = None,
) -> list[Run]:
    """The runs of one system, one a seed, with a bar while each is on its way."""
    from recbench.conditions import without_effect
    from recbench.data.dataset import open_dataset
    from recbench.settings import held_back, resolve

    prepared = open_dataset(table.get("dataset"), datasets)
    resolved = resolve(table, prepared.card.family)

    from recbench.experiment import Order, refuse_early, run  # torch: only once the command line is known to make sense
    from recbench.trained import ids_of, pick_device

    chosen = pick_device(device)
    if not named and not quiet:
        render.say(f"dataset: {prepared.name} (in {prepared.folder})")
    if (ids := ids_of(resolved, prepared)) is not None and not quiet:
        render.say(_spelled(*ids))
    orders = [Order(prepared, resolved, seed, runs, chosen, resume, trials) for seed in seeds]
    for order in orders:
        refuse_early(order)
    for told in [] if quiet else [*held_back(table, resolved), *without_effect(table, resolved.parts)]:
        render.say(told)
    finished = []
    with _stoppable():
        for order in orders:
            with watching(order.folder.name, quiet) as watcher:
                done, was_there = run(order, watcher)
            if was_there and not quiet:
                but = "" if trials is None else f" but to state {trials} settings tried"
                render.say(f"{order.folder} is finished already, with the same settings: nothing to do{but}.")
            finished.append(done)
    return finished


def _spelled(table: SemanticIds, folder: Path, was_there: bool) -> str:
    """How items are spelled, in a line."""
    card = table.card
    features = card["features"]
    why = f" ({features['why']})" if "why" in features else ""
    sizes = " x ".join(map(str, table.level_sizes))
    return (
        f"ids: {card['settings']['method']['name']} of {sizes} codes, features: {features['source']}{why}, "
        f"{'in' if was_there else 'written to'} {folder}"
    )


def runs_table(runs: list[Run]) -> Any:
    """Test metrics of the seeds of one system, both candidate rules, and their mean and sd."""
    from statistics import mean, stdev

    names = ("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20")
    first = runs[0].manifest
    rows = []
    for rule, key in (("all items", "test"), ("unseen items", "test_unseen")):
        for place, run in enumerate(runs):
            values = run.manifest.metrics[key]
            seed = f"seed {run.manifest.seed}"
            rows.append(["" if place else rule, seed, *(f"{values[name]:.4f}" for name in names)])
        if len(runs) > 1:
            columns = [[run.manifest.metrics[key][name] for run in runs] for name in names]
            rows.append(["", "mean", *(f"{mean(c):.4f}" for c in columns)])
            rows.append(["", "sd", *(f"{stdev(c):.4f}" for c in columns)])
    headings = ["candidates", "", *(name.upper() for name in names)]
    table = render.table(f"{first.system} on {first.dataset['name']}", headings, rows, left=2)
    table.caption = escape("\n".join(_cost(run) for run in runs))
    table.caption_justify = "left"
    return table


def _cost(run: Run) -> str:
    m = run.manifest
    seconds = sum(m.seconds.values())
    epochs = f"best: {m.kept}, " if m.kept else ""
    per_user = f", {m.ms_per_user:.2f} ms a user" if m.ms_per_user is not None else ""
    return f"{run.folder}: {epochs}{render.duration(seconds)}{per_user}, {m.peak_memory_mb or 0:.0f} MiB"


def _seeds(seed: int | None, seeds: str | None, from_config: Any) -> list[int]:
    if seed is not None and seeds is not None:
        raise RecbenchError("Both --seed and --seeds are given.", why="Only one can count.", fix="--seeds 0,1,2")
    if seeds is not None:
        return parse_seeds(seeds)
    one = from_config if seed is None else seed
    if type(one) is not int or one < 0:  # True is an int, too
        raise RecbenchError(f"The seed {one!r} cannot be used.", why="A seed is a whole number from 0.", fix="--seed 0")
    return [one]


def parse_seeds(seeds: str) -> list[int]:
    """``0,1,2`` as numbers.

    Raises:
        RecbenchError: no numbers, negative ones, or one twice.
    """
    try:
        chosen = [int(part) for part in seeds.split(",")]
    except ValueError as error:
        raise RecbenchError(
            f"--seeds {seeds!r} cannot be read.",
            why="It is whole numbers with commas between them.",
            fix="--seeds 0,1,2",
        ) from error
    if len(set(chosen)) < len(chosen) or min(chosen) < 0:
        raise RecbenchError(
            f"--seeds {seeds!r} cannot be used.", why="Seeds differ and are not negative.", fix="--seeds 0,1,2"
        )
    return chosen


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """A polite kill (SIGTERM, as schedulers send) stops a run the way Ctrl-C does: marked interrupted, resumable."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread: leave signals alone
        yield
        return
    try:
        yield
    except KeyboardInterrupt:
        render.err.print(
            "stopped: the run is marked interrupted; the same command with --resume goes on from its last epoch"
        )
        raise typer.Exit(int(Exit.STOPPED)) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def watching(name: str, quiet: bool) -> Iterator[Any]:
    """A bar on stderr, gone when done, where that is a terminal; and what stages find out as they begin."""
    from recbench.training.loop import Watcher

    class Telling(Watcher):
        def __init__(self) -> None:
            self.said: set[str] = set()

        def found(self, stage: str, facts: dict[str, Any]) -> None:
            for told in (render.fact(about, value) for about, value in facts.items()):
                if told not in self.said:  # by a stage before
                    render.say(f"{name}: {stage}, {told}")
                self.said.add(told)

    if quiet or not render.err.is_terminal:
        yield Watcher() if quiet else Telling()
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=render.err, transient=True) as bar:
        task = bar.add_task(escape(name), total=None, note="")

        class Bar(Telling):
            best = 0.0
            epochs = 0
            now = 1

            def stage(self, name: str, epochs: int) -> None:
                self.stage_name, self.epochs, self.now, self.began = name, epochs, 1, perf_counter()

            def step(self, step: int, steps: int, loss: float) -> None:
                note = f"{self.stage_name} {self.now}/{self.epochs}  loss {loss:.3f}  best NDCG@10 {self.best:.4f}"
                note += f"  {render.duration(perf_counter() - self.began)}"
                bar.update(task, completed=step, total=steps, note=note)

            def epoch(self, line: dict[str, Any]) -> None:
                self.now = line["epoch"] + 1
                self.best = max(self.best, line.get("valid", {}).get("ndcg@10", 0.0))

        yield Bar()
