"""The smaller tables of a comparison, as columns that a terminal and Markdown both show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recbench.comparison import Across, Row, Settings, Slice, Table
from recbench.comparison.costs import COSTS, any_known
from recbench.comparison.model import TEST_NAMES
from recbench.data.describe import count
from recbench.report import words
from recbench.report.grid import Column, aligned

_COST_HEADS = {
    "n_parameters": "parameters",
    "training_seconds": "training",
    "ms_per_user": "ms/user",
    "peak_memory_mb": "peak MiB",
    "trials": "trials",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A table with what stands above and below it."""

    title: str
    columns: list[Column]
    notes: list[str]


def blocks(table: Table, settings: Settings) -> list[Block]:
    """Sizes of the differences, further tests, costs and slices, each where there is something to show."""
    label = settings.metrics[0].label
    sizes = Block(
        f"Size of the difference on {label}",
        _sizes(table.on(settings.metrics[0])),
        words.size_caption(table, settings),
    )
    found = [sizes] if table.n_users > 1 else []
    if len(settings.tests) > 1:
        found.append(_tests(table, settings))
    if any_known(table.costs):
        found.append(_costs(table, settings))
    kinds = dict.fromkeys(part.by for part in table.slices)
    return found + [_sliced(by, [part for part in table.slices if part.by == by], settings) for by in kinds]


def _sizes(rows: Sequence[Row]) -> list[Column]:
    """How large the differences are and what could be seen, by system."""
    pairs = [(row.system.label, row.contrast) for row in rows if row.contrast is not None]
    found = [contrast for _, contrast in pairs]
    posteriors = [c.posterior for c in found]
    return [
        Column("system", tuple(label for label, _ in pairs), left=True),
        Column("relative", tuple(words.relative(c) for c in found)),
        Column("d_z", tuple(words.effect(c.d_z) for c in found)),
        Column("better", tuple(words.percent(c.better) for c in found)),
        Column("worse", tuple(words.percent(c.worse) for c in found)),
        Column("P(worse)", tuple(words.probability(p.worse) if p else "" for p in posteriors)),
        Column("P(same)", tuple(words.probability(p.rope) if p else "" for p in posteriors)),
        Column("P(better)", tuple(words.probability(p.better) if p else "" for p in posteriors)),
        Column("visible from", tuple(words.visible(c) for c in found)),
        Column("users needed", tuple(words.users_needed(c) for c in found)),
    ]


def across(found: Across, settings: Settings) -> list[Column]:
    """Mean ranks, the test against the control, and how probable a relative difference beyond the margin is."""
    by_label = {a.label: a for a in found.against}
    against = [by_label.get(label) for label in found.labels]
    return [
        Column("system", found.labels, left=True),
        Column("mean rank", tuple(f"{rank:.2f}" for rank in found.mean_ranks)),
        Column("z", tuple(f"{a.z:+.2f}" if a else "" for a in against)),
        Column("p  ", tuple(words.starred(a.p_adjusted, settings.alpha) if a else "" for a in against)),
        Column("P(worse)", tuple(words.probability(a.posterior.worse) if a else "" for a in against)),
        Column("P(same)", tuple(words.probability(a.posterior.rope) if a else "" for a in against)),
        Column("P(better)", tuple(words.probability(a.posterior.better) if a else "" for a in against)),
    ]


def _tests(table: Table, settings: Settings) -> Block:
    """Every test asked for, side by side."""
    primary = settings.metrics[0]
    found = [(row.system.label, row.contrast) for row in table.on(primary) if row.contrast is not None]
    columns = [Column("system", tuple(label for label, _ in found), left=True)]
    for place, name in enumerate(settings.tests):
        tests = [contrast.tests[place] for _, contrast in found]
        cells = [words.p_number(test.p_adjusted) + (" ?" if test.caution else "") for test in tests]
        columns.append(Column(TEST_NAMES[name], aligned(cells)))
    notes = [f"Corrected p of every test on {primary.label}; the first decides."]
    if any(test.caution for _, contrast in found for test in contrast.tests):
        notes.append("?: may reject equal means, see the warning.")
    return Block(f"Tests on {primary.label}", columns, notes)


def _costs(table: Table, settings: Settings) -> Block:
    """What is known of cost beside the primary metric."""
    known = [name for name in COSTS if any(getattr(cost, name) is not None for cost in table.costs)]
    primary = settings.metrics[0]
    means = {row.system.label: row.score.mean for row in table.on(primary)}
    columns = [
        Column("system", tuple(cost.label for cost in table.costs), left=True),
        Column(primary.label, tuple(f"{means[cost.label]:.4f}" for cost in table.costs)),
    ]
    columns += [
        Column(_COST_HEADS[name] + "  ", tuple(words.cost(cost, name) for cost in table.costs)) for name in known
    ]
    told = "^: no system here is as good at a lower cost of this kind, or better at no higher one (Pareto front)."
    return Block("Cost", columns, [told])


def _sliced(by: str, parts: Sequence[Slice], settings: Settings) -> Block:
    primary = settings.metrics[0]
    rows = {part.name: [row for row in part.rows if row.metric == primary] for part in parts}
    labels = tuple(row.system.label for row in rows[parts[0].name])
    columns = [Column("system", labels, left=True)]
    for part in parts:
        cells = tuple(f"{row.score.mean:.4f} {words.mark(row.contrast)}" for row in rows[part.name])
        columns.append(Column(f"{part.name} ({count(part.n_users)})", cells))
    return Block(f"{primary.label} by {by} (users)", columns, words.slice_caption(parts, settings))
