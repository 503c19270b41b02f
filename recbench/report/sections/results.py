"""The main table of each dataset, its forest plot, and the primary metric by slice of users."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from recbench.comparison import Contrast, Row, Settings, Slice, Table
from recbench.comparison.model import Shown
from recbench.data.describe import count, number_of
from recbench.evaluation.by_user import Places
from recbench.evaluation.metrics import Metric, parse
from recbench.report import words
from recbench.report.blocks import Block, Cell, Grid, Panel, Section, number, slug
from recbench.report.figures.drawing import Drawing
from recbench.report.figures.shapes import Bars, Effect
from recbench.report.marks import marks
from recbench.report.material import Material
from recbench.report.sections.verdict import KINDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = "Bold: best of the column; underlined: second best. Systems that print the same number share the mark."
SLICES = {
    "popularity": ("head: the fifth of the items with most training events; tail: the rest; cold: never in training.",),
    "length": ("length: events in the history the query is made of.",),
    "cold": ("cold: the target never occurs in training.",),
}
SIGNS = (
    "Behind a difference, the verdict: a triangle up better, down worse, a square equivalent, a diamond not worse, "
    "a ring undecided."
)


def section(material: Material) -> Section:
    """A block a dataset."""
    tables = {} if material.comparison is None else {t.dataset: t for t in material.comparison.tables}
    blocks = []
    for dataset in material.datasets:
        if (table := tables.get(dataset)) is not None:
            panels = [_forest(material, table)]
            panels += _slices(material, table)
            grid = _grid(table, material.settings)
            blocks.append(Block(title=words.title(table), grids=(grid,), panels=tuple(panels)))
        else:
            blocks.append(Block(title=dataset, grids=(_alone(material, dataset),)))
    return Section(name="results", title="Results", blocks=tuple(blocks))


def _grid(table: Table, settings: Settings) -> Grid:
    several = len({row.contrast.against for row in table.rows if row.contrast}) > 1
    level = words.chosen(1 - settings.alpha)
    first = table.on(settings.metrics[0])
    heads = ["system", "seeds", *(["against"] if several else [])]
    columns: list[list[Cell]] = [
        [Cell(row.system.label) for row in first],
        [Cell(words.seeds(row), sort=float(len(row.system.seeds))) for row in first],
    ]
    if several:
        columns.append([Cell(row.contrast.against if row.contrast else "") for row in first])
    for metric in settings.metrics:
        rows = table.on(metric)
        heads += [metric.label, f"d {metric.label} [{level} CI]", f"p, {metric.label}"]
        ranked = zip(rows, marks([row.score.mean for row in rows]), strict=True)
        columns.append([Cell(words.score(row), sort=row.score.mean, mark=mark) for row, mark in ranked])
        columns.append([_difference(row.contrast, settings.interval) for row in rows])
        columns.append([_p(row.contrast) for row in rows])
    notes = [*words.caption(table, settings), MARKS, SIGNS]
    return Grid(
        name=slug("table", table.dataset),
        caption=f"{table.dataset}: every system on every metric, against its baseline",
        heads=tuple(heads),
        rows=tuple(zip(*columns, strict=True)),
        foot=_oracle(table, settings, len(heads), several),
        notes=tuple(notes),
        texts=frozenset({2} if several else ()),
        interactive=True,
    )


def _difference(contrast: Contrast | None, kind: Shown) -> Cell:
    if contrast is None:
        return Cell("")
    return Cell(words.difference(contrast, kind), sort=contrast.mean, note=KINDS[contrast.verdict])


def _p(contrast: Contrast | None) -> Cell:
    return Cell("") if contrast is None else Cell(words.p_value(contrast).strip(), sort=contrast.p_adjusted)


def _oracle(table: Table, settings: Settings, width: int, several: bool) -> tuple[tuple[Cell, ...], ...]:
    if not table.oracle:
        return ()
    cells = [Cell(words.ORACLE), *[Cell("")] * (width - 1)]
    for place, metric in enumerate(settings.metrics):
        if str(metric) in table.oracle:
            cells[2 + several + 3 * place] = number(table.oracle[str(metric)])
    return (tuple(cells),)


def _forest(material: Material, table: Table) -> Panel:
    metric = material.settings.metrics[0]
    rows = [row for row in table.on(metric) if row.contrast is not None]
    effects = [_effect(row, row.contrast, material.settings.interval) for row in rows if row.contrast is not None]

    def draw() -> Figure:
        from recbench.report.figures.forest import forest

        return forest(effects, metric.label, words.chosen(1 - material.settings.alpha))

    counts = ", ".join(f"{e.label} {words.signed(e.mean)} ({e.kind})" for e in effects[:12])
    more = "" if len(effects) <= 12 else f" and {len(effects) - 12} more, in the table below"
    title = f"{table.dataset}: differences in {metric.label}"
    return Panel(
        drawing=Drawing(
            slug("forest", table.dataset),
            title,
            f"A row a system: its difference to its baseline in {metric.label} with an interval, over a band of "
            f"differences that are practically equal. {counts}{more}.",
            draw,
        ),
        numbers=_effects_grid(table, rows, material.settings),
        notes=(_reading(material.settings),),
    )


def _reading(settings: Settings) -> str:
    """How the lines and the band go with the verdicts, which they alone do not give."""
    level, inner = words.chosen(1 - settings.alpha), words.chosen(1 - 2 * settings.alpha)
    return (
        f"Marker: the verdict, by the corrected p. Line: the {level} interval, not corrected, so that it may leave out 0 "
        "where nothing is decided. Band: differences below the smallest effect of interest; equivalent is what has its "
        f"{inner} interval inside."
    )


def _effect(row: Row, contrast: Contrast, kind: Shown) -> Effect:
    shown = contrast.shown(kind)
    return Effect(
        label=row.system.label,
        against=contrast.against,
        mean=contrast.mean,
        low=shown.low,
        high=shown.high,
        rope=contrast.rope,
        kind=KINDS[contrast.verdict],
    )


def _effects_grid(table: Table, rows: list[Row], settings: Settings) -> Grid:
    metric = settings.metrics[0]
    body = [_effect_row(row, row.contrast, settings.interval) for row in rows if row.contrast is not None]
    heads = ["system", "against", "difference", "relative", "CI low", "CI high", "practically equal", "d_z"]
    heads += [
        "better for",
        "worse for",
        "P(worse)",
        "P(same)",
        "P(better)",
        "visible from",
        "users needed",
        "p",
        "verdict",
    ]
    return Grid(
        name=slug("forest-numbers", table.dataset),
        caption=f"{table.dataset}: differences in {metric.label} in numbers",
        heads=tuple(heads),
        rows=tuple(body),
        texts=frozenset({1, len(heads) - 1}),
        notes=tuple(words.size_caption(table, settings)),
    )


def _effect_row(row: Row, c: Contrast, kind: Shown) -> tuple[Cell, ...]:
    shown = c.shown(kind)
    return (
        Cell(row.system.label),
        Cell(c.against),
        Cell(words.signed(c.mean)),
        Cell(words.relative(c)),
        Cell(words.signed(shown.low)),
        Cell(words.signed(shown.high)),
        Cell(f"+-{c.rope:.4f}"),
        Cell(words.effect(c.d_z)),
        Cell(words.percent(c.better)),
        Cell(words.percent(c.worse)),
        *_posterior(c),
        Cell(words.visible(c)),
        Cell(words.users_needed(c)),
        Cell(words.p_number(c.p_adjusted)),
        Cell(str(c.verdict)),
    )


def _posterior(c: Contrast) -> tuple[Cell, ...]:
    if c.posterior is None:
        return (Cell(""),) * 3
    return tuple(Cell(words.probability(p)) for p in (c.posterior.worse, c.posterior.rope, c.posterior.better))


def _slices(material: Material, table: Table) -> list[Panel]:
    """A panel a way of slicing."""
    metric = material.settings.metrics[0]
    panels = []
    for by in dict.fromkeys(part.by for part in table.slices):
        parts = [part for part in table.slices if part.by == by]
        panels.append(_slice_panel(material, table, by, parts, metric))
    return panels


def _slice_panel(material: Material, table: Table, by: str, parts: list[Slice], metric: Metric) -> Panel:
    values = {s.label: tuple(_mean(part, s.label, metric) for part in parts) for s in table.systems}
    names, sizes = tuple(part.name for part in parts), tuple(part.n_users for part in parts)
    bars = Bars(groups=names, sizes=sizes, values=values)

    def draw() -> Figure:
        from recbench.report.figures.bars import by_group

        return by_group(bars, material.styles, metric.label)

    told = ", ".join(f"{name} ({number_of(n, 'user')})" for name, n in zip(names, sizes, strict=True))
    return Panel(
        drawing=Drawing(
            slug("slices", table.dataset, by),
            f"{table.dataset}: {metric.label} by {by}",
            f"{metric.label} of each system within parts of the users: {told}.",
            draw,
        ),
        numbers=_slices_grid(table, by, parts, material.settings),
        notes=tuple(SLICES[by]) if by in SLICES else (),
    )


def _mean(part: Slice, label: str, metric: Metric) -> float | None:
    found = [row.score.mean for row in part.rows if row.system.label == label and row.metric == metric]
    return found[0] if found and isfinite(found[0]) else None


def _slices_grid(table: Table, by: str, parts: list[Slice], settings: Settings) -> Grid:
    """A row a part and system."""
    metric = settings.metrics[0]
    rows = []
    for part in parts:
        own = [row for row in part.rows if row.metric == metric]
        for row, mark in zip(own, marks([row.score.mean for row in own]), strict=True):
            size = Cell(count(part.n_users), sort=float(part.n_users))
            difference, p = _difference(row.contrast, settings.interval), _p(row.contrast)
            mean = Cell(words.score(row), sort=row.score.mean, mark=mark)
            rows.append((Cell(part.name), size, Cell(row.system.label), mean, difference, p))
    return Grid(
        name=slug("slices-numbers", table.dataset, by),
        caption=f"{table.dataset}: {metric.label} by {by} in numbers",
        heads=("part", "users", "system", metric.label, "d [CI]", "p"),
        rows=tuple(rows),
        texts=frozenset({2}),
        notes=(MARKS.replace("of the column", "of its part"), *_slice_notes(parts, settings)),
    )


def _slice_notes(parts: list[Slice], settings: Settings) -> list[str]:
    few = words.too_few(parts)
    told = [f"p: {words.slice_family(parts, settings)}."]
    return [*told, f"Too few users for a verdict: {', '.join(few)}."] if few else told


def _alone(material: Material, dataset: str) -> Grid:
    """The metrics of runs that are compared with nothing, from their ranks.

    Raises:
        RecbenchError: a run has none, or others than it states.
    """
    names = ("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20")
    s = material.settings
    part = "test" if s.candidates == "all" else "test_unseen"
    rows = []
    for e in material.of(dataset):
        places, known = Places.of(e.run, "test"), e.run.manifest.metrics.get(part, {})
        values = {
            name: float(places.values(parse(name), s.candidates, s.ties).mean()) for name in names if name in known
        }
        cells = [number(values.get(name)) for name in names]
        rows.append((Cell(e.label), Cell(str(e.run.manifest.seed), sort=float(e.run.manifest.seed)), *cells))
    return Grid(
        name=slug("table", dataset),
        caption=f"{dataset}: what each run says of itself; nothing is compared",
        heads=("system", "seed", *(parse(name).label for name in names)),
        rows=tuple(rows),
        notes=("Add a baseline and run this again: recbench train --backbone markov",),
        interactive=True,
    )
