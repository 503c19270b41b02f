"""What may be compared and how, asked the same way by every command that compares: declared once, read once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Literal, ParamSpec, get_type_hints

import typer

from recbench.cli import options
from recbench.errors import Exit, RecbenchError, meant

if TYPE_CHECKING:
    from recbench.comparison import Settings
    from recbench.comparison.model import Test
    from recbench.runs.folder import Run

P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The runs and the settings of a comparison, as typed."""

    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Run folders, result tables, TREC runs, folders of them, or patterns. Left out: runs/.",
            show_default=False,
        ),
    ] = None
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Such as ndcg@10, mrr@5; several by commas. The first carries the verdict. Default: ndcg@10,hr@10.",
            show_default=False,
        ),
    ] = None
    baseline: Annotated[
        str | None,
        typer.Option(
            help="System all others are held against. Left out: the same backbone with head none.", show_default=False
        ),
    ] = None
    correction: Annotated[
        Literal["holm", "bonferroni", "bh", "by"], typer.Option(help="Of p, over the systems of a table.")
    ] = "holm"
    test: Annotated[
        list[str] | None,
        typer.Option(
            help="t, bootstrap, randomisation, wilcoxon, sign, mcnemar; several by commas. The first decides. Default: t.",
            show_default=False,
        ),
    ] = None
    interval: Annotated[
        Literal["t", "percentile", "bca", "two-way"],
        typer.Option(
            help="Shown beside a difference: t, or a bootstrap over users (percentile, bca) or users and runs (two-way)."
        ),
    ] = "t"
    claim: Annotated[
        Literal["difference", "superiority", "equivalence", "non-inferiority"],
        typer.Option(help="What is to be shown."),
    ] = "difference"
    margin: Annotated[
        str, typer.Option(help="Smallest difference of interest, as a share of the control's mean: 0.01 or 1%.")
    ] = "1%"
    wish: Annotated[
        str | None,
        typer.Option(
            help="Difference to plan for: how many users would show it. Default: --margin.", show_default=False
        ),
    ] = None
    alpha: Annotated[float, typer.Option(min=0.0001, max=0.5, help="Level of the tests and intervals.")] = 0.05
    resamples: Annotated[int, typer.Option(min=99, help="Of bootstrap and randomisation.")] = 9_999
    seed: Annotated[int, typer.Option(min=0, help="Of bootstrap and randomisation.")] = 0
    candidates: Annotated[
        Literal["all", "unseen"], typer.Option(help="Rank among all items, or those the user has not seen.")
    ] = "all"
    ties: Annotated[
        Literal["expected", "mid", "pess", "opt"],
        typer.Option(help="Where a target stands among items of equal score."),
    ] = "expected"
    slice_: Annotated[
        list[str] | None,
        typer.Option(
            "--slice",
            help="popularity, length, cold, or FILE:COLUMN; repeat or use commas.",
            show_default=False,
        ),
    ] = None
    qrels: Annotated[
        Path | None,
        typer.Option(help="What is relevant, for TREC runs.", show_default=False, exists=True, dir_okay=False),
    ] = None
    dataset: Annotated[
        str | None, typer.Option(help="Name of the data, for files that do not say.", show_default=False)
    ] = None
    datasets: options.Datasets = Path("datasets")

    def settings(self) -> Settings:
        """How runs are compared.

        Raises:
            RecbenchError: a metric, test, claim or share that cannot be.
        """
        from recbench.comparison import Settings

        return Settings(
            baseline=self.baseline,
            correction=self.correction,
            candidates=self.candidates,
            ties=self.ties,
            tests=_tests(self.test),
            interval=self.interval,
            claim=self.claim,
            rope=_share(self.margin, "--margin"),
            wish=None if self.wish is None else _share(self.wish, "--wish"),
            alpha=self.alpha,
            resamples=self.resamples,
            seed=self.seed,
            slices=tuple(dict.fromkeys(_split(self.slice_))),
            **_metrics(self.metric),
        )

    def runs(self) -> list[Run]:
        """The runs and tables that were named, or all of ``runs/``.

        Raises:
            RecbenchError: there are none.
        """
        from recbench.runs.folder import HOME
        from recbench.runs.sources import read

        given = _expanded(self.paths) if self.paths else [HOME] if any(HOME.glob("*/run.json")) else []
        found = read(given, qrels=self.qrels, dataset=self.dataset) if given else []
        if not found:
            raise RecbenchError(
                f"There are no runs in {HOME}/.",
                why="No path was given, and this is where runs are looked for.",
                fix="recbench train --backbone markov, or name the run folders: recbench compare PATH...",
                code=Exit.RUN,
            )
        return found


def asks(command: Callable[Concatenate[Asked, P], None]) -> Callable[..., None]:
    """Put the fields of ``Asked`` in place of a command's first parameter, as arguments and options of its own."""
    names = [f.name for f in fields(Asked)]

    @wraps(command)
    def whole(**given: Any) -> None:
        asked = Asked(**{name: given.pop(name) for name in names if name in given})
        command(asked, **given)  # type: ignore[call-arg] # the rest of its parameters, all by name

    hints = get_type_hints(Asked, include_extras=True)
    shared = [_by_name(f.name, f.default, hints[f.name]) for f in fields(Asked)]
    typed = get_type_hints(command, include_extras=True)
    _, *own = inspect.signature(command).parameters.values()
    parameters = [*shared, *[_by_name(p.name, p.default, typed[p.name]) for p in own]]
    whole.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    whole.__annotations__ = {p.name: p.annotation for p in parameters}
    return whole


def _by_name(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _metrics(names: list[str] | None) -> dict[str, Any]:
    """The metrics as settings, each once; nothing where the defaults are meant."""
    from recbench.evaluation.metrics import parse

    return {"metrics": tuple(dict.fromkeys(map(parse, _split(names))))} if names else {}


def _split(texts: list[str] | None) -> list[str]:
    """What a repeatable option with commas names."""
    return [part.strip() for text in texts or [] for part in text.split(",") if part.strip()]


def _tests(names: list[str] | None) -> tuple[Test, ...]:
    from recbench.comparison.model import TEST_NAMES

    chosen: list[Test] = []
    for name in _split(names) or ["t"]:
        known = next((test for test in TEST_NAMES if test == name.lower()), None)
        if known is None:
            raise RecbenchError(
                f"Unknown test {name!r}.",
                why=f"The tests are: {', '.join(TEST_NAMES)}.",
                fix=meant(name, TEST_NAMES, "--test {}") or "--test t",
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
