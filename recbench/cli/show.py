"""`recbench show`: one run or dataset, for a person."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from recbench.cli import completing, options, render
from recbench.config import as_typed, flat
from recbench.errors import Exit, RecbenchError, meant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recbench.reference import Setting
    from recbench.runs.folder import Run
    from recbench.runs.manifest import Manifest


LABEL = 13


def show(
    path: Annotated[
        Path,
        typer.Argument(
            help="A run folder; a prepared dataset, its folder or its name; or something with settings: a backbone, a head, a "
            "loss, a tokeniser, train, features, ids.",
            autocompletion=completing.shown,
        ),
    ],
    datasets: options.Datasets = Path("datasets"),
    as_json: options.Json = False,
) -> None:
    """What a run or a dataset is, and how it came to be; or what can be set of a part."""
    from dataclasses import asdict

    folder = path if path.exists() else datasets / path
    if (folder / "card.json").exists():
        from recbench.cli.prepared import show_card, show_histograms
        from recbench.data.card import Card

        card = Card.read(folder)
        if as_json:
            render.show_json(asdict(card))
        else:
            show_card(card, folder)
            show_histograms(card)
        return
    if not folder.exists() or not (folder / "run.json").exists():
        _show_part(str(path), as_json)
        return
    from recbench.runs.folder import Run

    run = Run.open(folder)
    if as_json:
        render.show_json({"folder": str(folder), **asdict(run.manifest)})
        return
    _show_run(run)


def _show_part(name: str, as_json: bool) -> None:
    """What can be set of it, what that means, and what recipes and stages set.

    Raises:
        RecbenchError: there is nothing of that name.
    """
    from dataclasses import asdict

    from recbench.reference import names, part

    if name not in names():
        raise RecbenchError(
            f"{name} is neither a run, a prepared dataset nor a part with settings.",
            why=f"A run folder holds run.json, a prepared dataset card.json; parts are {', '.join(names())}.",
            fix=meant(name, names(), "recbench show {}") or "recbench list",
            code=Exit.RUN,
        )
    found = part(name)
    if as_json:
        render.show_json(asdict(found))
        return
    render.out.print(f"[bold]{escape(found.name)}[/]  {escape(found.kind)}: {escape(found.summary)}")
    stages = {f"stage {stage}": flat({"train": {stage: own}}) for stage, own in found.stages.items() if own}
    recipes = {f"recipe {of}": flat(values) for of, values in found.recipes.items()}
    for label, values in (stages | recipes).items():
        told = ", ".join(f"{key}={as_typed(value)}" for key, value in values.items())
        for place, line in enumerate(render.folded(told, 4)):
            if place == 0:
                render.out.print(f"  {escape(label)}")
            render.out.print(f"    {escape(line)}")
    if not found.settings:
        render.out.print("nothing to set")
        return
    rows = [[one.name, one.default, _meaning(one)] for one in found.settings]
    render.show_table(None, ["--set", "default", "what it is"], rows, left=3)


def _meaning(setting: Setting) -> str:
    words = f"{' | '.join(setting.words)}. " if setting.words else ""
    only_with = f" Only where {setting.only_with}." if setting.only_with else ""
    return f"{words}{setting.meaning}{only_with}"


def _show_run(run: Run) -> None:
    from recbench.data.describe import split_name

    m = run.manifest
    render.out.print(f"[bold]{escape(run.folder.name)}[/]  {m.status}")
    facts = {
        "system": f"{m.system}, {f'{render.count(m.n_parameters)} parameters, ' if m.n_parameters else ''}seed {m.seed}",
        "loss": m.loss,
        "sees": _sees(m.inputs),
        "dataset": f"{m.dataset['name']}, {render.count(m.dataset['users'])} users, {render.count(m.dataset['items'])} items "
        f"(fingerprint {m.dataset['fingerprint'][:12]})",
        "split": split_name(m.protocol["split"]),
        "ties in time": m.protocol["tie_rule"],
        "trained": _trained(run),
        "ranking": _speed(m),
        "memory": f"{m.peak_memory_mb:.0f} MiB at most" if m.peak_memory_mb else "unknown",
        "machine": f"{m.hardware['cpu']}, {m.hardware['cores']} cores; {m.hardware['device']}, threads: {m.hardware['threads']}",
        "made with": ", ".join(f"{name} {version}" for name, version in m.versions.items()),
        "commit": f"{m.git['commit'][:12]}{' with uncommitted changes' if m.git['dirty'] else ''}"
        if m.git
        else "installed copy",
        "command": m.command,
        "started": m.started,
    }
    for name, value in facts.items():
        lines = [value] if name == "command" else render.folded(value, LABEL + 3)  # a command is to be copied
        for place, line in enumerate(lines or [""]):
            render.out.print(f"  {name if place == 0 else '':<{LABEL}} {escape(line)}")
    if m.metrics:
        names = ("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20")
        rules = {"valid": "valid, all items", "test": "test, all items", "test_unseen": "test, unseen items"}
        rows = [[text, *(f"{m.metrics[key][name]:.4f}" for name in names)] for key, text in rules.items()]
        render.out.print(render.table(None, ["", *(name.upper() for name in names)], rows))
    _show_epochs(run)
    _show_diagnostics(run)
    for warning in m.warnings:
        render.out.print(f"[yellow]warning:[/] {escape(warning)}")
    for name, text in m.error.items():
        render.out.print(f"[bold]{name}:[/] {escape(text)}")


def _speed(m: Manifest) -> str:
    if m.ms_per_user is None:
        return "not yet"
    latency = [f"{ms:.2f} ms a user, {size} at a time" for size, ms in m.latency_ms.items()]
    return "; ".join([f"{m.ms_per_user:.2f} ms a user over the test part", *latency])


def _sees(inputs: Mapping[str, Any]) -> str:
    """``inputs`` of a run in words."""
    from recbench.data.describe import number_of

    last = inputs["history"]
    history = "whole histories" if last == "all" else f"the last {number_of(last, 'event') if last > 1 else 'event'}"
    if not (times := inputs.get("timestamps")):
        return history
    return f"{history}, and their times" + ("" if times == "history" else " and the target's")


def _trained(run: Run) -> str:
    from recbench.data.describe import number_of

    m = run.manifest
    if not m.seconds:
        done = len(_log(run))
        return f"{number_of(done, 'epoch')} so far" if done else "not yet"
    stages = ", ".join(f"{name} {render.duration(seconds)}" for name, seconds in m.seconds.items())
    return f"best: {m.kept}; {stages}" if m.kept else stages


def _log(run: Run) -> list[dict[str, Any]]:
    """The epochs so far. A kill, or a full disk, may have cut the last line: what is behind the first such line is left out."""
    log = run.folder / "log.jsonl"
    lines: list[dict[str, Any]] = []
    with contextlib.suppress(FileNotFoundError, ValueError):
        lines.extend(json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    return lines


def _show_epochs(run: Run) -> None:
    """The learning curve: every loss term and the validation metric, at most twelve epochs."""
    lines = _log(run)
    if not lines:
        return
    every = max(1, len(lines) // 12)
    shown = [line for place, line in enumerate(lines) if place % every == 0 or line["best"] or place == len(lines) - 1][
        -24:
    ]
    terms = list(dict.fromkeys(name for line in shown for name in line["losses"] if name != "total"))
    rows = [
        [
            line["stage"],
            str(line["epoch"]),
            *(f"{line['losses'][term]:.4f}" if term in line["losses"] else "" for term in terms),
            _metric(line, "hr@10"),
            _metric(line, "ndcg@10") + (" *" if line["best"] else "  "),
            f"{line['users_per_second']:.0f}",
        ]
        for line in shown
    ]
    headings = ["stage", "epoch", *terms, "valid HR@10", "NDCG@10  ", "users/s"]
    yielding = ["users/s", "valid HR@10", *reversed(terms)]
    render.show_table(None, headings, rows, yielding=yielding, else_in=f"{run.folder / 'log.jsonl'} has")
    render.out.print("* best so far" + (f"; {len(lines)} epochs, not all shown" if len(shown) < len(lines) else ""))


def _metric(line: dict[str, Any], name: str) -> str:
    """A validation metric of an epoch; nothing where it was not validated."""
    return f"{line['valid'][name]:.4f}" if "valid" in line else ""


def _show_diagnostics(run: Run) -> None:
    """What a head logged of its thoughts and rewards, stage by stage: at the first, the best and the last epoch."""
    lines = _log(run)
    for stage in dict.fromkeys(line["stage"] for line in lines):
        own = [line for line in lines if line["stage"] == stage]
        best = [line for line in own if line["best"]][-1:]
        shown = {line["epoch"]: line for line in [own[0], *best, own[-1]] if line.get("diagnostics")}
        names = sorted({name for line in shown.values() for name in line["diagnostics"]}, key=_in_order)
        if not names:
            continue
        rows = [[name, *(_noted(line["diagnostics"].get(name)) for line in shown.values())] for name in names]
        headings = [f"epoch {epoch}{' (best)' if best and epoch == best[0]['epoch'] else ''}" for epoch in shown]
        render.out.print(render.table(f"diagnostics, stage {stage}", ["", *headings], rows))
    _show_facts(run, {line["stage"] for line in lines})


def _show_facts(run: Run, stages: set[str]) -> None:
    """What stages and the whole run found out, a fact that several stages share once."""
    found: dict[str, list[str]] = {}
    for about, facts in run.manifest.facts.items():
        for name, fact in facts.items():
            found.setdefault(render.fact(name, fact), []).append(about)
    for told, abouts in found.items():
        kind = "" if abouts[0] not in stages else "stage " if len(abouts) == 1 else "stages "
        first, *others = render.folded(f"{kind}{' and '.join(abouts)}, {told}", 4)
        render.out.print(escape("\n".join([f"  {first}", *(f"    {line}" for line in others)])))


def _noted(value: float | None) -> str:
    """Nothing where an epoch noted none, or drew none."""
    return "" if value is None or math.isnan(value) else f"{value:.4g}"


def _in_order(name: str) -> tuple[str, int]:
    """``similarity@10`` behind ``similarity@9``, and ``similarity`` before both."""
    text, _, number = name.partition("@")
    return text, int(number) if number.isdecimal() else -1
