"""Systems over several datasets: ranks, never an average of raw scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbench.comparison import Across, Settings
from recbench.report import words
from recbench.report.blocks import Block, Cell, Grid, Panel, Section, number, slug
from recbench.report.figures.drawing import Drawing
from recbench.report.figures.shapes import Ranks
from recbench.report.material import Material

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_JOINED = (
    "Systems joined by a thick bar are not told apart. Which datasets were chosen can change the order, so "
    "all are listed."
)
_POSTERIOR = (
    "P: Bayesian signed-rank posterior over the relative differences of the datasets. "
    "Last columns: relative difference to the control on each dataset."
)


def section(material: Material) -> Section:
    """A block a metric; the reason where several datasets were not tested together."""
    comparison = material.comparison
    blocks: list[Block] = []
    if comparison is not None:
        if comparison.across_refused:
            blocks.append(Block(lead=(comparison.across_refused,)))
        blocks += [_block(across, material.settings) for across in comparison.across]
    return Section(name="over-datasets", title="Over datasets", blocks=tuple(blocks))


def _block(across: Across, settings: Settings) -> Block:
    ranked = f"Ranks by {across.metric.label}; 1 is best, equal scores share a rank. Raw scores are never averaged."
    told = words.across_caption(across, settings)
    return Block(title=across.metric.label, lead=(ranked, *told), panels=(_panel(across),), grids=_against(across))


def _panel(across: Across) -> Panel:
    at = {label: place for place, label in enumerate(across.labels)}
    cliques = tuple((at[clique[0]], at[clique[-1]]) for clique in across.cliques)
    ranks = Ranks(
        labels=across.labels, mean_ranks=across.mean_ranks, critical=across.critical_difference, cliques=cliques
    )

    def draw() -> Figure:
        from recbench.report.figures.ranks import critical_difference

        return critical_difference(ranks)

    metric = across.metric.label
    told = ", ".join(f"{label} {mean:.2f}" for label, mean in zip(across.labels, across.mean_ranks, strict=True))
    joined = "; ".join(", ".join(clique) for clique in across.cliques)
    alike = f"Not told apart: {joined}." if joined else "All are told apart."
    return Panel(
        drawing=Drawing(
            slug("critical-difference", str(across.metric)),
            f"Mean ranks by {metric} over {len(across.datasets)} datasets",
            f"Mean ranks, best first: {told}. {alike}",
            draw,
        ),
        numbers=Grid(
            name=slug("ranks-numbers", str(across.metric)),
            caption=f"Mean rank by {metric}, and the rank on each dataset",
            heads=("system", "mean rank", *across.datasets),
            rows=tuple(
                (Cell(label), number(across.mean_ranks[i], 2), *(number(ranks[i], 1) for ranks in across.ranks))
                for i, label in enumerate(across.labels)
            ),
        ),
        notes=(_JOINED,),
    )


def _against(across: Across) -> tuple[Grid, ...]:
    if not across.against:
        return ()
    rows = tuple(
        (
            Cell(a.label),
            number(a.z, 2),
            Cell(words.p_number(a.p_adjusted), sort=a.p_adjusted),
            *(
                Cell(words.probability(share), sort=share)
                for share in (a.posterior.worse, a.posterior.rope, a.posterior.better)
            ),
            *(Cell(f"{100 * d:+.1f} %", sort=d) for d in a.differences),
        )
        for a in across.against
    )
    return (
        Grid(
            name=slug("against-control", str(across.metric)),
            caption=f"Every system against {across.control} over datasets, by {across.metric.label}",
            heads=("system", "z of ranks", "p (Holm)", "P(worse)", "P(same)", "P(better)", *across.datasets),
            rows=rows,
            notes=(_POSTERIOR,),
            interactive=True,
        ),
    )
