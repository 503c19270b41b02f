"""A comparison as Markdown: the tests on every metric, the caption, the verdicts and the warnings."""

from __future__ import annotations

from collections.abc import Sequence

from recbench.comparison import Comparison, Settings, Table
from recbench.report import words


def render(comparison: Comparison) -> str:
    """One section a dataset."""
    sections = [_section(table, comparison.settings) for table in comparison.tables]
    return "\n".join([*sections, *_list("Warnings", comparison.warnings)])


def _section(table: Table, settings: Settings) -> str:
    level = words.percent(1 - settings.alpha, 0).replace(" ", "")
    heads, columns = ["system", "seeds"], [[s.label for s in table.systems], []]
    columns[1] = [words.seeds(row) for row in table.on(settings.metrics[0])]
    if len({row.contrast.against for row in table.rows if row.contrast}) > 1:
        heads.append("against")
        columns.append([row.contrast.against if row.contrast else "" for row in table.on(settings.metrics[0])])
    for metric in settings.metrics:
        rows = table.on(metric)
        heads += [metric.label, f"d {metric.label} [{level} CI]", "p"]
        columns.append([words.score(row) for row in rows])
        columns.append([words.difference(row.contrast) for row in rows])
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
    return "\n".join([*parts, *_list("Warnings", table.warnings)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escape(cell) for cell in cells)} |"


def _list(title: str, texts: Sequence[str]) -> list[str]:
    return [f"**{title}**", "", *[f"- {_escape(text)}" for text in texts], ""] if texts else []


def _escape(text: str) -> str:
    """Names are other people's: no pipe may end a cell, no markup may start."""
    for mark in ("\\", "|", "*", "_", "`", "<"):
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")
