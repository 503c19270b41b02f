"""How each run was made, and what is not there, and why."""

from __future__ import annotations

import json
from typing import Any

from recbench.data.describe import count
from recbench.report.blocks import Block, Cell, Fold, Grid, Section
from recbench.report.evidence import Evidence
from recbench.report.material import Material, dataset_of
from recbench.runs import folder as layout

_LEAD = "Every number above follows from the files of these runs; their hashes are below."
_PRINT = "On paper stands what is unfolded when the page is printed."


def runs(material: Material) -> Section:
    """A table of all runs, then each run's settings and origin."""
    shared = _shared(material)
    blocks = [Block(grids=(_grid(material),), terms=tuple(shared.items()))] if material.evidence else []
    for dataset in material.datasets:
        folds = tuple(
            fold for label, those in material.systems(dataset).items() for fold in _folds(label, those, shared)
        )
        blocks.append(Block(title=f"Settings and origin, {dataset}", folds=folds))
    return Section(name="runs", title="Runs", lead=(_LEAD, _PRINT), blocks=tuple(blocks))


def missing(material: Material) -> Section:
    """What a reader may look for in vain."""
    if not material.missing:
        return Section(name="missing", title="What is missing")
    grid = Grid(
        name="missing-table",
        caption="What is missing, why, and how to get it",
        heads=("what", "why", "to get it"),
        rows=tuple((Cell(m.what), Cell(m.why), Cell(m.fix)) for m in material.missing),
        texts=frozenset({1, 2}),
    )
    return Section(name="missing", title="What is missing", blocks=(Block(grids=(grid,)),))


def _shared(material: Material) -> dict[str, str]:
    """What all runs have in common, said once."""
    told = [_origin(e) for e in material.evidence]
    if len(told) < 2:
        return {}
    return {name: told[0][name] for name in told[0] if all(other.get(name) == told[0][name] for other in told)}


def _origin(e: Evidence) -> dict[str, str]:
    """Where and with what a run was made."""
    m = e.run.manifest
    found = {
        "versions": ", ".join(f"{name} {version}" for name, version in m.versions.items()),
        "commit": "" if e.run.given else _commit(m.git),
        "machine": ", ".join(f"{name} {value}" for name, value in m.hardware.items()),
        "sees of a history": ", ".join(f"{name}: {_plain(value)}" for name, value in m.inputs.items()),
        "loss": m.loss,
    }
    return {name: text for name, text in found.items() if text}


def _commit(git: dict[str, Any]) -> str:
    if not git.get("commit"):
        return "installed copy"
    return f"{git['commit']}{' with uncommitted changes' if git.get('dirty') else ''}"


def _grid(material: Material) -> Grid:
    rows = []
    for e in material.evidence:
        m = e.run.manifest
        trained = sum(seconds for stage, seconds in m.seconds.items() if stage != "test")
        rows.append(
            (
                Cell(e.label),
                Cell(dataset_of(e)),
                Cell(str(m.seed), sort=float(m.seed)),
                Cell(e.run.folder.name),
                Cell(m.started[:16].replace("T", " ")),
                Cell(m.kept),
                Cell(f"{trained:.1f}" if m.seconds else "", sort=trained),
                Cell("" if e.run.given else m.config_sha256[:10]),
                Cell(m.files.get(layout.USERS, "")[:10]),
            )
        )
    return Grid(
        name="runs-table",
        caption="Every run behind this page",
        heads=("system", "dataset", "seed", "folder", "started, UTC", "best epoch", "training s", "config", "ranks"),
        rows=tuple(rows),
        notes=(
            "training s: of this run alone. config, ranks: first digits of the sha256 of the settings and of users.parquet.",
        ),
        texts=frozenset({1, 3, 4, 7, 8}),
        interactive=True,
    )


def _folds(label: str, those: list[Evidence], shared: dict[str, str]) -> list[Fold]:
    if those[0].run.given is not None:
        return [_fold(e, shared) for e in those]
    config = those[0].run.folder / layout.CONFIG
    try:
        text = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = f"{config} cannot be read."
    settings = Fold(title=f"{label}: settings (config.toml of seed {those[0].run.manifest.seed})", pre=text)
    return [settings, *[_fold(e, shared) for e in those]]


def _fold(e: Evidence, shared: dict[str, str]) -> Fold:
    m = e.run.manifest
    terms = [("read from" if e.run.given else "folder", str(e.run.folder))]
    terms += [("command", m.command)] if m.argv else []
    terms += [(name, text) for name, text in _origin(e).items() if name not in shared]
    terms += [("seconds", ", ".join(f"{stage} {s:.1f}" for stage, s in m.seconds.items()))] if m.seconds else []
    terms += [("latency", "; ".join(f"{ms:.2f} ms a user, {n} at a time" for n, ms in m.latency_ms.items()))] * bool(
        m.latency_ms
    )
    terms += [("memory", f"{m.peak_memory_mb:.0f} MiB at most")] if m.peak_memory_mb else []
    terms += [("parameters", count(m.n_parameters))] if m.n_parameters else []
    terms += [("stages", ", ".join(m.stages))] if m.stages else []
    terms += [("started from", _plain(m.started_from))] if m.started_from else []
    terms += [(f"found in {stage}", _plain(facts)) for stage, facts in m.facts.items()]
    terms += [("warning", text) for text in m.warnings]
    terms += [(f"sha256 {name}", digest) for name, digest in m.files.items()]
    return Fold(title=f"{e.label}, seed {m.seed}: origin", terms=tuple(terms))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
