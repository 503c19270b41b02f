"""A comparison as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from recbench.comparison import Comparison, Row, Settings, Table
from recbench.report import tables, words
from recbench.report.grid import LEAST_WIDTH, Column, aligned, lines, wrapped
from recbench.report.tables import Block

WIDTH = 100
_ORACLE = "oracle"
"""Short, so that the table stays narrow; the caption says what it is."""


def render(comparison: Comparison, width: int = WIDTH) -> str:
    """Each dataset's tables, captions and verdicts, then what holds over datasets. Warnings are left to the caller.

    Args:
        comparison: what to show.
        width: columns of the terminal.
    """
    width, settings = max(width, LEAST_WIDTH), comparison.settings
    parts = [_table(table, settings, width) for table in comparison.tables]
    for across in comparison.across:
        title = f"{across.metric.label} over {len(across.datasets)} datasets, by rank"
        block = Block(title, tables.across(across, settings), words.across_caption(across, settings))
        parts.append(_block(block, width))
    if comparison.across_refused:
        parts.append([*wrapped([f"Not tested over datasets: {comparison.across_refused}"], width), ""])
    return "\n".join(line for part in parts for line in part)


def _table(table: Table, settings: Settings, width: int) -> list[str]:
    main = lines(_main(table, settings), width)
    absent = [m.label for m in settings.metrics if not any(f"d {m.label} [" in line for line in main)]
    parts = [
        wrapped([words.title(table)], width),
        main,
        wrapped([*words.caption(table, settings), *_notes(table, absent)], width),
        [""],
        wrapped(words.sentences(table, settings), width),
        [""],
        *[_block(block, width) for block in tables.blocks(table, settings)],
    ]
    return [line for part in parts for line in part]


def _block(block: Block, width: int) -> list[str]:
    return [*wrapped([block.title], width), *lines(block.columns, width), *wrapped(block.notes, width), ""]


def _main(table: Table, settings: Settings) -> list[Column]:
    primary, *others = settings.metrics
    rows = table.on(primary)
    blank = ("",) * (1 if table.oracle else 0)
    level = words.chosen(1 - settings.alpha).replace(" ", "")
    columns = [
        Column("system", tuple(row.system.label for row in rows) + (_ORACLE,) * len(blank), left=True),
        Column("seeds", tuple(words.seeds(row) for row in rows) + blank),
        Column(primary.label, _scores(table, rows, str(primary))),
    ]
    if len({row.contrast.against for row in rows if row.contrast}) > 1:
        columns.append(
            Column("against", tuple(row.contrast.against if row.contrast else "" for row in rows) + blank, left=True)
        )

    def tested(of: Sequence[Row], label: str, optional: str = "") -> list[Column]:
        differences = tuple(words.difference(row.contrast, settings.interval) for row in of) + blank
        ps = tuple(words.p_value(row.contrast) for row in of) + blank
        return [Column(f"d {label} [{level} CI]", differences, optional=optional), Column("p  ", ps, optional=optional)]

    columns += tested(rows, primary.label)
    for metric in others:
        of = table.on(metric)
        columns.append(Column(metric.label, _scores(table, of, str(metric))))
        columns += tested(of, metric.label, optional=metric.label)
    return columns


def _scores(table: Table, rows: Sequence[Row], metric: str) -> tuple[str, ...]:
    """Means aligned at their decimals, whether or not a +- follows."""
    cells = [words.score(row) for row in rows]
    if table.oracle:
        cells.append(f"{table.oracle[metric]:.4f}" if metric in table.oracle else "")
    return aligned(cells)


def _notes(table: Table, absent: Sequence[str]) -> list[str]:
    oracle = [f"{_ORACLE}: the best reachable score, known because the data was generated."] if table.oracle else []
    return [*oracle, *([f"Tests on {', '.join(absent)}: --format markdown, csv or json."] if absent else [])]
