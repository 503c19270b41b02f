"""`recbench verify-model`: does a shipped config come out where independent sources say it must?"""

from __future__ import annotations

from pathlib import Path
from statistics import stdev
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recbench.cli import completing, options, render
from recbench.errors import Exit, RecbenchError

if TYPE_CHECKING:
    from recbench.bands import Band, Held
    from recbench.data.dataset import Dataset
    from recbench.runs.folder import Run
    from recbench.settings import Resolved

CLOSED_FORM = "closed form"
RULES = {"all": "all items", "unseen": "unseen items"}


def verify_model(
    backbone: Annotated[
        str,
        typer.Argument(
            help="A backbone: recbench list backbones.", show_default=False, autocompletion=completing.backbones
        ),
    ],
    dataset: options.DatasetName = None,
    seeds: Annotated[
        str, typer.Option("--seeds", help="One run each; their mean is held against the bands.")
    ] = "0,1,2",
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss", help="Another loss than the shipped one: recbench list losses.", autocompletion=completing.losses
        ),
    ] = None,
    bands: Annotated[
        Path | None, typer.Option("--bands", help="TOML file of bands. Default: those that are shipped.")
    ] = None,
    device: options.Device = "auto",
    runs: options.Runs = Path("runs"),
    datasets: options.Datasets = Path("datasets"),
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a shipped config, or take its finished runs, and say pass or fail against the reference bands and their sources."""
    from recbench.bands import Bands, verdict
    from recbench.cli.train import parse_seeds
    from recbench.data.dataset import open_dataset
    from recbench.settings import Asked, resolve

    chosen = parse_seeds(seeds)
    known = Bands.read(bands)
    prepared = open_dataset(dataset, datasets)
    card = prepared.card
    reference = known.reference(prepared.name, card.sequence_sha256, str(card.split["name"]))
    asked = Asked(backbone, "none", prepared.name, None, {"loss": {"name": loss}} if loss else None).table()
    resolved = resolve(asked, card.family)
    wanted = known.of(reference, backbone, _loss_name(resolved, prepared))
    taken = _runs(asked, resolved, prepared, chosen if resolved.train else chosen[:1], device, runs, datasets, quiet)
    held = [_held(band, taken) for band in wanted]
    outcome = verdict(held)
    if as_json:
        render.show_json(_machine(outcome, reference.name, taken, held))
    elif not quiet:
        _show(outcome, reference.title, taken, held)
    if outcome == "fail":
        failed = "; ".join(_sentence(one) for one in held if one.failed)
        raise RecbenchError(
            f"{backbone} does not come out where it must on {prepared.name}.",
            why=f"{failed}.",
            fix=f"Look for the bug before writing the result; recbench show {taken[0].folder} tells what was run.",
            code=Exit.RUN,
        )


def _loss_name(resolved: Resolved, dataset: Dataset) -> str:
    from recbench.trained import new_model, pick_device

    return new_model(resolved, dataset, pick_device("cpu")).loss_name


def _runs(
    asked: dict[str, Any],
    resolved: Resolved,
    dataset: Dataset,
    seeds: list[int],
    device: str,
    home: Path,
    datasets: Path,
    quiet: bool,
) -> list[Run]:
    """The runs of the config, one a seed: finished ones that lie in ``home``, under whatever name, and new ones."""
    from recbench.cli.train import train_seeds
    from recbench.runs.folder import find

    there = find([home]) if any(home.glob("*/run.json")) else []
    taken: dict[int, Run] = {}
    for run in there:
        m = run.manifest
        if (
            m.status == "finished"
            and m.seed in seeds
            and m.config_sha256 == resolved.sha256()
            and m.dataset.get("fingerprint") == dataset.card.fingerprint
        ):
            taken.setdefault(m.seed, run)
    if taken and not quiet:
        render.say(f"taken as they are: {', '.join(str(taken[seed].folder) for seed in sorted(taken))}")
    missing = [seed for seed in seeds if seed not in taken]
    if missing:
        trained = train_seeds(asked, missing, device, home, datasets, resume=True, quiet=quiet)
        taken |= {run.manifest.seed: run for run in trained}
    return [taken[seed] for seed in seeds]


def _held(band: Band, runs: list[Run]) -> Held:
    """A band and the metric of each run, made from the stored counts."""
    from recbench import columns
    from recbench.bands import Held
    from recbench.evaluation.metrics import metric

    above, tied = {
        "all": (columns.ABOVE, columns.TIED),
        "unseen": (columns.ABOVE_UNSEEN, columns.TIED_UNSEEN),
    }[band.candidates]
    ranks = [run.ranks() for run in runs]
    values = [float(metric(band.metric, r[above].to_numpy(), r[tied].to_numpy()).mean()) for r in ranks]
    return Held(band, tuple(values))


def _show(outcome: str, title: str, runs: list[Run], held: list[Held]) -> None:
    m = runs[0].manifest
    spread = ("mean", "sd") if len(runs) > 1 else ()
    seeds = [f"seed {run.manifest.seed}" for run in runs]
    names = ("candidates", "metric", *seeds, *spread, "band", "gate", "lies")
    rows = [
        [
            RULES[one.band.candidates],
            one.band.metric.upper(),
            *(_digits(value, one.band) for value in one.values),
            *((_digits(one.mean, one.band), f"{stdev(one.values):.4f}") if spread else ()),
            _span(one.band),
            one.band.gate,
            one.place,
        ]
        for one in held
    ]
    head, yielding = f"{m.system} on {m.dataset['name']}, loss: {m.loss}", [*(seeds[::-1] if spread else ()), "sd"]
    render.show_table(head, names, rows, left=2, yielding=yielding)
    told = "One run: noise of training is not covered" if len(runs) == 1 else f"The mean over {len(runs)} seeds counts"
    lines = [f"{title}.", *([] if m.loss == CLOSED_FORM else [f"{told}."])]
    for rule in dict.fromkeys(one.band.candidates for one in held):
        source = next(one.band.source for one in held if one.band.candidates == rule)
        lines.append(f"Source, {RULES[rule]}: {source}.")
    words = {
        "pass": "pass: every gated value lies in its band",
        "fail": f"fail: {'; '.join(_sentence(one) for one in held if one.failed)}",
        "no gate": "no gate: these bands are told, not enforced; there are too few independent sources",
    }
    lines.append(f"{words[outcome]}.")
    render.out.print("\n".join(lines), markup=False)


def _sentence(one: Held) -> str:
    band = one.band
    return (
        f"{band.metric.upper()} among {RULES[band.candidates]} is {_digits(one.mean, band)}, {one.place} {_span(band)}"
    )


def _span(band: Band) -> str:
    return f"{_digits(band.low, band)}-{_digits(band.high, band)}"


def _digits(value: float, band: Band) -> str:
    """Four decimals, or seven where the band is narrower than that shows."""
    return f"{value:.4f}" if band.high - band.low >= 1e-3 else f"{value:.7f}"


def _machine(outcome: str, reference: str, runs: list[Run], held: list[Held]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "verdict": outcome,
        "reference": reference,
        "system": runs[0].manifest.system,
        "loss": runs[0].manifest.loss,
        "runs": [str(run.folder) for run in runs],
        "bands": [
            asdict(one.band) | {"values": list(one.values), "mean": one.mean, "place": one.place, "failed": one.failed}
            for one in held
        ],
    }
