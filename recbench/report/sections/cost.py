"""What quality costs: parameters, training, ranking, memory, tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbench.comparison import Cost, Table
from recbench.comparison.costs import COSTS, any_known
from recbench.report import words
from recbench.report.blocks import Block, Cell, Grid, Panel, Section, number, slug
from recbench.report.figures.drawing import Drawing
from recbench.report.figures.shapes import Point
from recbench.report.material import Material

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN = {
    "ms_per_user": "milliseconds to rank a user",
    "n_parameters": "parameters",
    "training_seconds": "seconds of training",
}
"""Fields of ``Cost`` that are drawn, and their axis."""
_LEAST = 2
"""A front needs two systems whose cost is known."""

_FRONT = (
    "Filled marker: on the front, that is, no other system is as good and cheaper, or better at no higher "
    "cost. Hollow: some other is. Differences that are not decided above are not decided here either."
)


def section(material: Material) -> Section:
    """A block a dataset whose systems say what they cost."""
    tables = material.comparison.tables if material.comparison else ()
    blocks = [_block(material, table) for table in tables if any_known(table.costs)]
    lead = ("Times are those of the machine each run names below; compare only what ran on the same one.",)
    return Section(name="cost", title="Quality and cost", lead=lead, blocks=tuple(blocks))


def _block(material: Material, table: Table) -> Block:
    panels = [panel for name in DRAWN if (panel := _panel(material, table, name)) is not None]
    return Block(title=table.dataset, grids=(_grid(material, table),), panels=tuple(panels))


def _quality(material: Material, table: Table, label: str) -> float:
    return table.row(label, material.settings.metrics[0]).score.mean


def _panel(material: Material, table: Table, name: str) -> Panel | None:
    known = [cost for cost in table.costs if getattr(cost, name) is not None]
    points = [_point(material, table, cost, name) for cost in known]
    if len(points) < _LEAST:
        return None
    metric = material.settings.metrics[0].label

    def draw() -> Figure:
        from recbench.report.figures.pareto import pareto

        return pareto(points, material.styles, (DRAWN[name], metric))

    best = [p.label for p in sorted(points, key=lambda p: p.cost) if p.front]
    rows = tuple(
        (Cell(p.label), _cost(cost, name), number(p.quality), Cell("on the front" if p.front else ""))
        for cost, p in sorted(zip(known, points, strict=True), key=lambda pair: pair[1].cost)
    )
    return Panel(
        drawing=Drawing(
            slug("pareto", table.dataset, name),
            f"{table.dataset}: {metric} against {DRAWN[name]}",
            f"A marker a system; on the front, cheapest first: {', '.join(best)}.",
            draw,
        ),
        numbers=Grid(
            name=slug("pareto-numbers", table.dataset, name),
            caption=f"{table.dataset}: {metric} against {DRAWN[name]} in numbers",
            heads=("system", DRAWN[name], metric, "front"),
            rows=rows,
            texts=frozenset({3}),
        ),
        notes=(_FRONT,),
    )


def _point(material: Material, table: Table, cost: Cost, name: str) -> Point:
    return Point(
        label=cost.label,
        cost=float(getattr(cost, name)),
        quality=_quality(material, table, cost.label),
        front=cost.on_front.get(name, False),
    )


def _cost(cost: Cost, name: str) -> Cell:
    value = getattr(cost, name)
    return Cell("") if value is None else Cell(words.cost(cost, name).rstrip("^ "), sort=float(value))


def _grid(material: Material, table: Table) -> Grid:
    metric = material.settings.metrics[0]
    rows = tuple(
        (
            Cell(cost.label),
            number(_quality(material, table, cost.label)),
            *(_cost(cost, name) for name in COSTS),
            Cell(", ".join(_FRONTS[name] for name, on in cost.on_front.items() if on and name in _FRONTS)),
        )
        for cost in table.costs
    )
    heads = ("system", metric.label, "parameters", "training", "ms a user", "peak MiB", "settings tried")
    return Grid(
        name=slug("cost", table.dataset),
        caption=f"{table.dataset}: what each system costs",
        heads=(*heads, "on the front of"),
        rows=rows,
        texts=frozenset({7}),
        notes=(
            "Means over seeds; memory is the most; training counts the runs that a run went on from.",
            "An empty cell: the run does not say; closed form trains no parameters.",
        ),
        interactive=True,
    )


_FRONTS = {
    "n_parameters": "parameters",
    "training_seconds": "training",
    "ms_per_user": "ranking",
    "peak_memory_mb": "memory",
    "trials": "tuning",
}
