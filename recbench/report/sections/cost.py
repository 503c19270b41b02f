"""What quality costs: parameters, training, ranking, memory, tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbench.comparison import Cost, Table
from recbench.report import words
from recbench.report.blocks import Block, Cell, Grid, Panel, Section, number, slug
from recbench.report.figures.drawing import Drawing
from recbench.report.figures.shapes import Point
from recbench.report.material import Material

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = {
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
    blocks = [_block(material, table) for table in tables if table.costs]
    lead = ("Times are those of the machine each run names below; compare only what ran on the same one.",)
    return Section(name="cost", title="Quality and cost", lead=lead, blocks=tuple(blocks))


def _block(material: Material, table: Table) -> Block:
    panels = [panel for name in COSTS if (panel := _panel(material, table, name)) is not None]
    return Block(title=table.dataset, grids=(_grid(material, table),), panels=tuple(panels))


def _quality(material: Material, table: Table, label: str) -> float:
    return table.row(label, material.settings.metrics[0]).score.mean


def _panel(material: Material, table: Table, name: str) -> Panel | None:
    points = [_point(material, table, cost, name) for cost in table.costs if getattr(cost, name) is not None]
    if len(points) < _LEAST:
        return None
    metric = material.settings.metrics[0].label

    def draw() -> Figure:
        from recbench.report.figures.pareto import pareto

        return pareto(points, material.styles, (COSTS[name], metric))

    best = [p.label for p in sorted(points, key=lambda p: p.cost) if p.front]
    rows = tuple(
        (Cell(p.label), _cost(name, p.cost), number(p.quality), Cell("on the front" if p.front else ""))
        for p in sorted(points, key=lambda p: p.cost)
    )
    return Panel(
        drawing=Drawing(
            slug("pareto", table.dataset, name),
            f"{table.dataset}: {metric} against {COSTS[name]}",
            f"A marker a system; on the front, cheapest first: {', '.join(best)}.",
            draw,
        ),
        numbers=Grid(
            name=slug("pareto-numbers", table.dataset, name),
            caption=f"{table.dataset}: {metric} against {COSTS[name]} in numbers",
            heads=("system", COSTS[name], metric, "front"),
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


def _cost(name: str, value: float | None) -> Cell:
    if value is None:
        return Cell("")
    decimals = {"ms_per_user": 2, "training_seconds": 1}.get(name, 0)
    text = f"{value:.{decimals}f}" if decimals else words.count(round(value))
    return Cell(text, sort=value)


def _grid(material: Material, table: Table) -> Grid:
    metric = material.settings.metrics[0]
    names = ("n_parameters", "training_seconds", "ms_per_user", "peak_memory_mb", "trials")
    rows = tuple(
        (
            Cell(cost.label),
            number(_quality(material, table, cost.label)),
            *(_cost(name, getattr(cost, name)) for name in names),
            Cell(", ".join(_FRONTS[name] for name, on in cost.on_front.items() if on and name in _FRONTS)),
        )
        for cost in table.costs
    )
    heads = ("system", metric.label, "parameters", "training s", "ms a user", "peak MiB", "settings tried")
    return Grid(
        name=slug("cost", table.dataset),
        caption=f"{table.dataset}: what each system costs",
        heads=(*heads, "on the front of"),
        rows=rows,
        texts=frozenset({7}),
        notes=("Means over seeds; memory is the most. An empty cell: the run does not say.",),
        interactive=True,
    )


_FRONTS = {
    "n_parameters": "parameters",
    "training_seconds": "training",
    "ms_per_user": "ranking",
    "peak_memory_mb": "memory",
    "trials": "tuning",
}
