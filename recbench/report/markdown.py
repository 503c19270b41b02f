"""A comparison as Markdown: the tests on every metric, captions, verdicts, sizes, costs, slices and warnings."""

from __future__ import annotations

import re
from collections.abc import Sequence

from recbench.comparison import Comparison, Settings, Table
from recbench.report import tables, words
from recbench.report.grid import Column

_MARKUP = re.compile(r"[\\|*_`<~$]|\](?=[(\[])|&(?=#?\w+;)")


def render(comparison: Comparison) -> str:
    """One section a dataset."""
    settings = comparison.settings
    sections = [_section(table, settings) for table in comparison.tables]
    for across in comparison.across:
        title = f"## {across.metric.label} over {len(across.datasets)} datasets, by rank"
        notes = [_escape(line) for line in words.across_caption(across, settings)]
        sections.append("\n".join([title, "", *_grid(tables.across(across, settings)), "", *notes, ""]))
    if comparison.across_refused:
        sections.append(_escape(f"Not tested over datasets: {comparison.across_refused}") + "\n")
    return "\n".join([*sections, *_list("Warnings", comparison.warnings)])


def _section(table: Table, settings: Settings) -> str:
    level = words.chosen(1 - settings.alpha).replace(" ", "")
    heads, columns = ["system", "seeds"], [[s.label for s in table.systems], []]
    columns[1] = [words.seeds(row) for row in table.on(settings.metrics[0])]
    if len({row.contrast.against for row in table.rows if row.contrast}) > 1:
        heads.append("against")
        columns.append([row.contrast.against if row.contrast else "" for row in table.on(settings.metrics[0])])
    for metric in settings.metrics:
        rows = table.on(metric)
        heads += [metric.label, f"d {metric.label} [{level} CI]", "p"]
        columns.append([words.score(row) for row in rows])
        columns.append([words.difference(row.contrast, settings.interval) for row in rows])
        columns.append([words.p_value(row.contrast).strip() for row in rows])
    lines = [_row(heads), _row(["---" if head in ("system", "against") else "---:" for head in heads])]
    lines += [_row(cells) for cells in zip(*columns, strict=True)]
    if table.oracle:
        best = {
            metric.label: f"{table.oracle[str(metric)]:.4f}"
            for metric in settings.metrics
            if str(metric) in table.oracle
        }
        lines.append(_row([words.ORACLE, *[best.get(head, "") for head in heads[1:]]]))
    notes = [_escape(line) for line in words.caption(table, settings)]
    parts = [f"## {_escape(words.title(table))}", "", *lines, "", *notes, ""]
    for metric in settings.metrics:
        parts += _list(f"On {metric.label}", words.sentences(table, settings, metric))
    return "\n".join([*parts, *_more(table, settings), *_list("Warnings", table.warnings)])


def _more(table: Table, settings: Settings) -> list[str]:
    """Sizes, further tests, costs and slices, each with a title and its caption."""
    lines = []
    for block in tables.blocks(table, settings):
        notes = [_escape(note) for note in block.notes]
        lines += [f"### {_escape(block.title)}", "", *_grid(block.columns), "", *notes, ""]
    return lines


def _grid(columns: Sequence[Column]) -> list[str]:
    """The columns of a terminal's table as Markdown."""
    lines = [_row([column.head.strip() for column in columns])]
    lines.append(_row(["---" if column.left else "---:" for column in columns]))
    cells = zip(*(column.cells for column in columns), strict=True)
    return [*lines, *[_row([cell.strip() for cell in row]) for row in cells]]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escape(cell) for cell in cells)} |"


def _list(title: str, texts: Sequence[str]) -> list[str]:
    return [f"**{title}**", "", *[f"- {_escape(text)}" for text in texts], ""] if texts else []


def _escape(text: str) -> str:
    """Names are other people's: no pipe may end a cell, no markup, link, formula or entity may start."""
    return _MARKUP.sub(r"\\\g<0>", text).replace("\n", " ")
