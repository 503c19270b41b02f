"""``recbench compare``: run folders and result tables in, an honest table out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from recbench.cli import options, render
from recbench.errors import Exit, RecbenchError, nearest

if TYPE_CHECKING:
    from recbench.comparison import Comparison
    from recbench.comparison.model import Test
    from recbench.runs.folder import Run


Format = Literal["table", "markdown", "csv", "json", "latex"]
_SUFFIXES: dict[str, Format] = {".md": "markdown", ".csv": "csv", ".json": "json", ".tex": "latex"}


def compare(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Run folders, result tables, TREC runs, folders of them, or patterns. Left out: runs/.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Such as ndcg@10, mrr@5; several by commas. The first carries the verdict. Default: ndcg@10,hr@10.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="System all others are held against. Left out: the same backbone with head none.", show_default=False
        ),
    ] = None,
    correction: Annotated[
        Literal["holm", "bonferroni", "bh", "by"], typer.Option(help="Of p, over the systems of a table.")
    ] = "holm",
    test: Annotated[
        list[str] | None,
        typer.Option(
            help="t, bootstrap, randomisation, wilcoxon, sign, mcnemar; several by commas. The first decides. Default: t.",
            show_default=False,
        ),
    ] = None,
    claim: Annotated[
        Literal["difference", "superiority", "equivalence", "non-inferiority"],
        typer.Option(help="What is to be shown."),
    ] = "difference",
    margin: Annotated[
        str, typer.Option(help="Smallest difference of interest, as a share of the control's mean: 0.01 or 1%.")
    ] = "1%",
    wish: Annotated[
        str | None,
        typer.Option(
            help="Difference to plan for: how many users would show it. Default: --margin.", show_default=False
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(min=0.0001, max=0.5, help="Level of the tests and intervals.")] = 0.05,
    resamples: Annotated[int, typer.Option(min=99, help="Of bootstrap and randomisation.")] = 9_999,
    seed: Annotated[int, typer.Option(min=0, help="Of bootstrap and randomisation.")] = 0,
    candidates: Annotated[
        Literal["all", "unseen"], typer.Option(help="Rank among all items, or those the user has not seen.")
    ] = "all",
    ties: Annotated[
        Literal["expected", "mid", "pess", "opt"],
        typer.Option(help="Where a target stands among items of equal score."),
    ] = "expected",
    slice_: Annotated[
        list[str] | None,
        typer.Option(
            "--slice",
            help="popularity, length, cold, or FILE:COLUMN; repeat or use commas.",
            show_default=False,
        ),
    ] = None,
    qrels: Annotated[
        Path | None,
        typer.Option(help="What is relevant, for TREC runs.", show_default=False, exists=True, dir_okay=False),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Name of the data, for files that do not say.", show_default=False)
    ] = None,
    datasets: options.Datasets = Path("datasets"),
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="Left out: by the suffix of --output, else table.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the result here instead of printing it.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No warnings.")] = False,
) -> None:
    """Compare finished runs: difference to the baseline, interval, corrected p, effect size and a verdict in words."""
    chosen = _format(format_, json, output)
    if output is not None:
        refuse_unwritable(output)
    from recbench.comparison import Settings
    from recbench.comparison import compare as compare_runs

    settings = Settings(
        baseline=baseline,
        correction=correction,
        candidates=candidates,
        ties=ties,
        tests=_tests(test),
        claim=claim,
        rope=_share(margin, "--margin"),
        wish=None if wish is None else _share(wish, "--wish"),
        alpha=alpha,
        resamples=resamples,
        seed=seed,
        slices=tuple(dict.fromkeys(split_names(slice_))),
        **metric_settings(metric),
    )
    comparison = compare_runs(find_runs(paths, qrels, dataset), settings, datasets=datasets)
    text = _rendered(comparison, chosen, None if output else render.out.width)
    if not quiet:
        for told in (*comparison.warnings, *[text for table in comparison.tables for text in table.warnings]):
            render.warn(told)
    if output is None:
        render.out.print(text.rstrip("\n"), markup=False, emoji=False)
    else:
        write_result(output, text)
        if not quiet:
            render.say(f"wrote {output}")


def _format(asked: Format | None, json: bool, output: Path | None) -> Format:
    if json and asked not in (None, "json"):
        raise RecbenchError(
            f"--json and --format {asked} are both given.",
            why="Only one of them could be used.",
            fix="Leave out one of them.",
        )
    if json:
        return "json"
    return asked or _SUFFIXES.get(output.suffix.lower() if output else "", "table")


def metric_settings(names: list[str] | None) -> dict[str, Any]:
    """The metrics as settings, each once; nothing where the defaults are meant."""
    from recbench.evaluation.metrics import parse

    return {"metrics": tuple(dict.fromkeys(map(parse, split_names(names))))} if names else {}


def split_names(texts: list[str] | None) -> list[str]:
    """What a repeatable option with commas names."""
    return [part.strip() for text in texts or [] for part in text.split(",") if part.strip()]


def _tests(names: list[str] | None) -> tuple[Test, ...]:
    from recbench.comparison.model import TEST_NAMES

    chosen: list[Test] = []
    for name in split_names(names) or ["t"]:
        known = next((test for test in TEST_NAMES if test == name.lower()), None)
        if known is None:
            near = nearest(name, list(TEST_NAMES))
            raise RecbenchError(
                f"Unknown test {name!r}.",
                why=f"The tests are: {', '.join(TEST_NAMES)}.",
                fix=f"Did you mean --test {near}?" if near else "--test t",
            )
        chosen.append(known)
    return tuple(dict.fromkeys(chosen))


def _share(text: str, option: str) -> float:
    """``0.01`` and ``1%`` are the same."""
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise RecbenchError(
            f"{option} {text!r} cannot be used.",
            why="It is a share between 0 and 1.",
            fix=f"{option} 0.01, or {option} 1%",
        )
    return share


def find_runs(paths: list[str] | None, qrels: Path | None, dataset: str | None) -> list[Run]:
    """The runs and tables that were named, or all of ``runs/``; refused in words where there are none."""
    from recbench.runs.folder import HOME
    from recbench.runs.sources import read

    given = _expanded(paths) if paths else [HOME] if any(HOME.glob("*/run.json")) else []
    found = read(given, qrels=qrels, dataset=dataset) if given else []
    if not found:
        raise RecbenchError(
            f"There are no runs in {HOME}/.",
            why="No path was given, and this is where runs are looked for.",
            fix="recbench train --backbone markov, or name the run folders: recbench compare PATH...",
            code=Exit.RUN,
        )
    return found


def _expanded(paths: list[str]) -> list[Path]:
    """Paths as given; a pattern that the shell left alone is expanded here."""
    found: list[Path] = []
    for text in paths:
        matches = _matches(text) if any(mark in text for mark in "*?[") and not Path(text).exists() else [Path(text)]
        if not matches:
            raise RecbenchError(
                f"Nothing matches {text}.",
                why="The pattern names no file or folder.",
                fix="recbench list runs",
                code=Exit.RUN,
            )
        found += matches
    return found


def _matches(pattern: str) -> list[Path]:
    path = Path(pattern)
    return sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))


def _rendered(comparison: Comparison, chosen: Format, width: int | None) -> str:
    """The text; a table at the width of the terminal, if it goes there."""
    from importlib import import_module

    module = {"table": "text", "markdown": "markdown", "csv": "tabular", "json": "machine", "latex": "latex"}[chosen]
    arguments = (width,) if chosen == "table" and width is not None else ()
    return str(import_module(f"recbench.report.{module}").render(comparison, *arguments))


def refuse_unwritable(output: Path, usual: str = "comparison.md") -> None:
    """Say so before the work, not after."""
    if output.is_dir():
        raise _unwritable(output, "It is a folder.", f"--output {output / usual}")
    if not output.parent.is_dir():
        raise _unwritable(output, f"{output.parent} is not a folder.", f"mkdir -p {output.parent}")
    if not os.access(output.parent, os.W_OK):
        raise _unwritable(output, f"{output.parent} may not be written to.", "Name another place: --output FILE")


def write_result(output: Path, text: str) -> None:
    """Write it whole, or say why not."""
    from recbench.files import write_text

    try:
        write_text(output, text)
    except OSError as error:
        raise _unwritable(output, f"{error.strerror or error}.", "Name another place: --output FILE") from error


def _unwritable(output: Path, why: str, fix: str) -> RecbenchError:
    return RecbenchError(f"{output} cannot be written.", why=why, fix=fix)
