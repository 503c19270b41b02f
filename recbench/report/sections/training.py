"""Learning curves, quality by number of reasoning steps, and how long was thought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from recbench.report.blocks import Block, Cell, Grid, Panel, Section, number, slug
from recbench.report.evidence import Epoch, Evidence
from recbench.report.figures.drawing import Drawing
from recbench.report.figures.shapes import Histogram, Line
from recbench.report.material import Material

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ROWS = 400
"""Longer tables of epochs show every n-th, and say so."""

_CURVES = (
    "Large marker: the epoch whose weights were kept. Runs of one system that differ in their seed share a "
    "colour. A dotted upright line: another stage of training begins."
)


def learning(material: Material) -> Section:
    """Validation metric by epoch, a panel a dataset."""
    metric = _logged(material)
    panels = []
    for dataset in material.datasets:
        curves = [(e, line) for e in material.of(dataset) if (line := _curve(e, metric)) is not None]
        if curves:
            panels.append(_learning_panel(material, dataset, curves, metric))
    lead = ("Validation, all items, by epoch. The test part plays no role here.",)
    return Section(name="learning", title="Learning curves", lead=lead, blocks=_together(panels))


def _together(panels: list[Panel]) -> tuple[Block, ...]:
    """One block, so that the datasets stand side by side."""
    return (Block(panels=tuple(panels)),) if panels else ()


def _logged(material: Material) -> str:
    """The primary metric where runs logged it, else NDCG@10."""
    primary = str(material.settings.metrics[0])
    logged = {name for e in material.evidence for epoch in e.epochs for name in epoch.valid}
    return primary if primary in logged else "ndcg@10"


def _curve(e: Evidence, metric: str) -> Line | None:
    """Epochs counted through all stages, so that a later stage stands behind an earlier one."""
    points = [(place, epoch.valid[metric]) for place, epoch in enumerate(e.epochs, 1) if metric in epoch.valid]
    if not points:
        return None
    best = [place for place, epoch in enumerate(e.epochs, 1) if epoch.best]
    x, y = zip(*points, strict=True)
    picked = x.index(best[-1]) if best and best[-1] in x else None
    return Line(label=e.label, x=x, y=y, picked=picked, breaks=_breaks(e.epochs))


def _breaks(epochs: Sequence[Epoch]) -> tuple[float, ...]:
    return tuple(place + 0.5 for place in range(1, len(epochs)) if epochs[place].stage != epochs[place - 1].stage)


def _learning_panel(material: Material, dataset: str, curves: list[tuple[Evidence, Line]], metric: str) -> Panel:
    lines = [line for _, line in curves]
    name = metric.upper()

    def draw() -> Figure:
        from recbench.report.figures.lines import curves as drawn

        return drawn(lines, material.styles, ("epoch", f"validation {name}"))

    told = ", ".join(f"{line.label} {max(line.y):.4f} of {len(line.x)} epochs" for line in lines[:8])
    return Panel(
        drawing=Drawing(
            slug("learning", dataset),
            f"{dataset}: validation {name} by epoch",
            f"A line a run; the large marker is the epoch whose weights were kept. Best values: {told}.",
            draw,
        ),
        numbers=_epochs_grid(dataset, [e for e, _ in curves], metric),
        notes=(_CURVES,),
    )


def _epochs_grid(dataset: str, evidence: list[Evidence], metric: str) -> Grid:
    total = sum(len(e.epochs) for e in evidence)
    every = -(-total // _MOST_ROWS)
    rows = []
    for e in evidence:
        for place, epoch in enumerate(e.epochs):
            if place % every and not epoch.best and place != len(e.epochs) - 1:
                continue
            rows.append(
                (
                    Cell(e.label),
                    Cell(str(e.run.manifest.seed)),
                    Cell(epoch.stage),
                    Cell(str(epoch.epoch)),
                    number(epoch.losses.get("total")),
                    Cell(
                        f"{epoch.valid[metric]:.4f}" if metric in epoch.valid else "", mark="best" if epoch.best else ""
                    ),
                    number(epoch.seconds, 1),
                )
            )
    notes = ["Bold: best so far of its run."]
    if every > 1:
        notes.append(
            f"{total} epochs in all: shown are every {every}th, those that were best so far, and the last of each run."
        )
    return Grid(
        name=slug("learning-numbers", dataset),
        caption=f"{dataset}: epochs in numbers",
        heads=("system", "seed", "stage", "epoch", "loss", f"validation {metric.upper()}", "seconds"),
        rows=tuple(rows),
        notes=tuple(notes),
        texts=frozenset({2}),
    )


def steps(material: Material) -> Section:
    """Quality by number of reasoning steps of one trained model."""
    panels = []
    for dataset in material.datasets:
        runs = [e for e in material.of(dataset) if e.steps]
        if runs:
            panels.append(_steps_panel(material, dataset, runs))
    lead = (
        "The same weights ranked with other numbers of steps. Choose by validation; the test curve is for reading.",
    )
    return Section(name="steps", title="Reasoning steps at test", lead=lead, blocks=_together(panels))


def _steps_panel(material: Material, dataset: str, runs: list[Evidence]) -> Panel:
    part = "test_" if material.settings.candidates == "all" else "test_unseen_"
    asked = part + str(material.settings.metrics[0])
    column = asked if all(asked in row for e in runs for row in e.steps) else f"{part}ndcg@10"
    name, of = column.removeprefix(part).upper(), "" if material.settings.candidates == "all" else " of unseen items"
    lines = [_steps_line(e, column) for e in runs]

    def draw() -> Figure:
        from recbench.report.figures.lines import curves as drawn

        return drawn(lines, material.styles, ("reasoning steps at test", f"test {name}{of}"))

    told = "; ".join(
        f"{line.label}: " + ", ".join(f"{x:g} steps {y:.4f}" for x, y in zip(line.x, line.y, strict=True))
        for line in lines[:6]
    )
    return Panel(
        drawing=Drawing(
            slug("steps", dataset), f"{dataset}: test {name}{of} by reasoning steps", f"A line a run. {told}.", draw
        ),
        numbers=_ways(
            slug("steps-numbers", dataset),
            f"{dataset}: steps at test in numbers",
            "steps",
            [(e, e.steps) for e in runs],
        ),
        notes=("Large marker: the number of steps that is best on validation.",),
    )


def _ways(
    name: str,
    caption: str,
    first: str,
    ways: Sequence[tuple[Evidence, Sequence[Mapping[str, float]]]],
    notes: tuple[str, ...] = (),
) -> Grid:
    """Runs that were ranked in several ways, a row a run and way, which column ``first`` names."""
    names = [c for c in dict.fromkeys(c for _, lines in ways for line in lines for c in line) if c != first]
    rows = tuple(
        (
            Cell(e.label),
            Cell(str(e.run.manifest.seed)),
            Cell(f"{line[first]:.0f}"),
            *(number(line.get(c), 4 if "@" in c or c == "lost" else 2) for c in names),
        )
        for e, lines in ways
        for line in lines
    )
    heads = ("system", "seed", first, *(c.replace("_", " ") for c in names))
    return Grid(name=name, caption=caption, heads=heads, rows=rows, notes=notes)


def _steps_line(e: Evidence, column: str) -> Line:
    valid = f"valid_{column.rpartition('_')[2]}"
    points = [row for row in e.steps if column in row]
    judged = [row.get(valid) for row in points]
    known = [v for v in judged if v is not None]
    picked = judged.index(max(known)) if known else None
    return Line(
        label=e.label, x=tuple(row["steps"] for row in points), y=tuple(row[column] for row in points), picked=picked
    )


def beams(material: Material) -> Section:
    """What searches of several widths find of one trained model that spells, and what they lose."""
    grids = [
        _ways(
            slug("beams", dataset),
            f"{dataset}: one trained model by searches of each width",
            "beam",
            ways,
            ("lost: share of test targets that the search missed though they beat the last item it found.",),
        )
        for dataset in material.datasets
        if (ways := [(e, e.beams) for e in material.of(dataset) if e.beams])
    ]
    lead = (
        "Models that spell items find them by a beam. One as wide as the catalogue scores every item; narrower is cheaper.",
    )
    blocks = (Block(grids=tuple(grids)),) if grids else ()
    return Section(name="beams", title="Width of the search", lead=lead, blocks=blocks)


def depth(material: Material) -> Section:
    """How many steps were thought, where heads choose it and say so."""
    panels = []
    for dataset in material.datasets:
        found = {
            label: histogram
            for label, runs in material.systems(dataset).items()
            if (histogram := _histogram(label, [dict(e.depths) for e in runs if e.depths])) is not None
        }
        if found:
            panels.append(_depth_panel(dataset, list(found.values())))
    lead = (
        "Share of test queries by number of reasoning steps (where a run does not say it, of its best epoch); mean over seeds.",
    )
    return Section(name="depth", title="Depth", lead=lead, blocks=_together(panels))


def _histogram(label: str, told: list[dict[int, float]]) -> Histogram | None:
    if not told:
        return None
    at = sorted({k for shares in told for k in shares})
    return Histogram(label=label, at=tuple(at), shares=tuple(fmean(s.get(k, 0.0) for s in told) for k in at))


def _depth_panel(dataset: str, histograms: list[Histogram]) -> Panel:
    def draw() -> Figure:
        from recbench.report.figures.bars import depths

        return depths(histograms)

    at = sorted({k for h in histograms for k in h.at})
    rows = []
    for h in histograms:
        shares = dict(zip(h.at, h.shares, strict=True))
        mean = sum(k * share for k, share in shares.items()) / max(sum(shares.values()), 1e-12)
        cells = [Cell(f"{100 * shares.get(k, 0.0):.1f} %", sort=shares.get(k, 0.0)) for k in at]
        rows.append((Cell(h.label), number(mean, 2), *cells))
    told = ", ".join(f"{row[0].text} {row[1].text} on average" for row in rows)
    return Panel(
        drawing=Drawing(slug("depth", dataset), f"{dataset}: reasoning steps", f"A histogram a system: {told}.", draw),
        numbers=Grid(
            name=slug("depth-numbers", dataset),
            caption=f"{dataset}: share by number of reasoning steps",
            heads=("system", "mean", *(str(k) for k in at)),
            rows=tuple(rows),
        ),
    )
