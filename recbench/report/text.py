"""A comparison as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from recbench.comparison import Across, Comparison, Row, Settings, Slice, Table
from recbench.comparison.costs import COSTS
from recbench.comparison.model import TEST_NAMES
from recbench.report import words
from recbench.report.grid import LEAST_WIDTH, Column, aligned, lines, wrapped

WIDTH = 100
_ORACLE = "oracle"
"""Short, so that the table stays narrow; the caption says what it is."""
_COST_HEADS = {
    "n_parameters": "parameters",
    "training_seconds": "training",
    "ms_per_user": "ms/user",
    "peak_memory_mb": "MiB",
    "trials": "trials",
}


def render(comparison: Comparison, width: int = WIDTH) -> str:
    """Each dataset's tables, captions and verdicts, then what holds over datasets. Warnings are left to the caller.

    Args:
        comparison: what to show.
        width: columns of the terminal.
    """
    width, settings = max(width, LEAST_WIDTH), comparison.settings
    parts = [_table(table, settings, width) for table in comparison.tables]
    parts += [_across(across, settings, width) for across in comparison.across]
    if comparison.across_refused:
        parts.append([*wrapped([f"Not tested over datasets: {comparison.across_refused}"], width), ""])
    return "\n".join(line for part in parts for line in part)


def _table(table: Table, settings: Settings, width: int) -> list[str]:
    parts = [
        *[[text] for text in wrapped([words.title(table)], width)],
        lines(_main(table, settings), width),
        wrapped([*words.caption(table, settings), *_notes(table, settings)], width),
        [""],
        wrapped(words.sentences(table, settings), width),
        [""],
        [f"Size of the difference on {settings.metrics[0].label}"],
        lines(_sizes(table.on(settings.metrics[0])), width),
        wrapped(words.size_caption(table, settings), width),
        [""],
        *[[*part, ""] for part in (_tests(table, settings, width), _costs(table, settings, width)) if part],
    ]
    for by in dict.fromkeys(part.by for part in table.slices):
        parts += [_sliced(by, [part for part in table.slices if part.by == by], settings, width), [""]]
    return [line for part in parts for line in part]


def _main(table: Table, settings: Settings) -> list[Column]:
    primary, *others = settings.metrics
    rows = table.on(primary)
    blank = ("",) * (1 if table.oracle else 0)
    level = words.percent(1 - settings.alpha, 0).replace(" ", "")
    columns = [
        Column("system", tuple(row.system.label for row in rows) + (_ORACLE,) * len(blank), left=True),
        Column("seeds", tuple(words.seeds(row) for row in rows) + blank),
        Column(primary.label, _scores(table, rows, str(primary))),
    ]
    if len({row.contrast.against for row in rows if row.contrast}) > 1:
        columns.append(
            Column("against", tuple(row.contrast.against if row.contrast else "" for row in rows) + blank, left=True)
        )

    def tested(of: Sequence[Row], label: str, *, optional: bool) -> list[Column]:
        differences = tuple(words.difference(row.contrast) for row in of) + blank
        ps = tuple(words.p_value(row.contrast) for row in of) + blank
        return [Column(f"d {label} [{level} CI]", differences, optional=optional), Column("p  ", ps, optional=optional)]

    columns += tested(rows, primary.label, optional=False)
    for metric in others:
        of = table.on(metric)
        columns.append(Column(metric.label, _scores(table, of, str(metric))))
        columns += tested(of, metric.label, optional=True)
    return columns


def _scores(table: Table, rows: Sequence[Row], metric: str) -> tuple[str, ...]:
    """Means aligned at their decimals, whether or not a +- follows."""
    cells = [words.score(row) for row in rows]
    if table.oracle:
        cells.append(f"{table.oracle[metric]:.4f}" if metric in table.oracle else "")
    return aligned(cells)


def _notes(table: Table, settings: Settings) -> list[str]:
    others = [metric.label for metric in settings.metrics[1:]]
    oracle = [f"{_ORACLE}: the best reachable score, known because the data was generated."] if table.oracle else []
    told = f"Tests on {', '.join(others)}, where the page has no room for them: --format markdown, csv or json."
    return [*oracle, *([told] if others else [])]


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


def _tests(table: Table, settings: Settings, width: int) -> list[str]:
    """Every test asked for, side by side; nothing where there is only one."""
    if len(settings.tests) < 2:
        return []
    primary = settings.metrics[0]
    found = [(row.system.label, row.contrast) for row in table.on(primary) if row.contrast is not None]
    columns = [Column("system", tuple(label for label, _ in found), left=True)]
    for place, name in enumerate(settings.tests):
        tests = [contrast.tests[place] for _, contrast in found]
        doubt = any(test.caution for test in tests)
        cells = tuple(words.p_number(test.p_adjusted) + (" ?" if test.caution else "") for test in tests)
        columns.append(Column(TEST_NAMES[name], aligned(cells) if doubt else cells))
    told = f"Corrected p of every test on {primary.label}; the first decides."
    if any(test.caution for _, contrast in found for test in contrast.tests):
        told += " ?: may reject equal means, see the warning."
    return [*wrapped([f"Tests on {primary.label}"], width), *lines(columns, width), *wrapped([told], width)]


def _costs(table: Table, settings: Settings, width: int) -> list[str]:
    """What is known of cost beside the primary metric; nothing where nothing is known."""
    known = [name for name in COSTS if any(getattr(cost, name) is not None for cost in table.costs)]
    if not known:
        return []
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
    return ["Cost", *lines(columns, width), *wrapped([told], width)]


def _sliced(by: str, parts: Sequence[Slice], settings: Settings, width: int) -> list[str]:
    primary = settings.metrics[0]
    rows = {part.name: [row for row in part.rows if row.metric == primary] for part in parts}
    labels = tuple(row.system.label for row in rows[parts[0].name])
    columns = [Column("system", labels, left=True)]
    for part in parts:
        cells = tuple(f"{row.score.mean:.4f} {words.mark(row.contrast)}" for row in rows[part.name])
        columns.append(Column(f"{part.name} ({words.count(part.n_users)})", cells))
    return [
        *wrapped([f"{primary.label} by {by} (users)"], width),
        *lines(columns, width),
        *wrapped(words.slice_caption(parts, settings), width),
    ]


def _across(across: Across, settings: Settings, width: int) -> list[str]:
    against = {a.label: a for a in across.against}
    found = [against.get(label) for label in across.labels]
    columns = [
        Column("system", across.labels, left=True),
        Column("mean rank", tuple(f"{rank:.2f}" for rank in across.mean_ranks)),
        Column("z", tuple(f"{a.z:+.2f}" if a else "" for a in found)),
        Column("p  ", tuple(words.starred(a.p_adjusted, settings.alpha) if a else "" for a in found)),
        Column("P(worse)", tuple(words.probability(a.posterior.worse) if a else "" for a in found)),
        Column("P(same)", tuple(words.probability(a.posterior.rope) if a else "" for a in found)),
        Column("P(better)", tuple(words.probability(a.posterior.better) if a else "" for a in found)),
    ]
    return [
        *wrapped([f"{across.metric.label} over {len(across.datasets)} datasets, by rank"], width),
        *lines(columns, width),
        *wrapped(words.across_caption(across, settings), width),
        "",
    ]
