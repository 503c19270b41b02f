r"""A comparison as LaTeX: a booktabs table a dataset, and one of ranks over datasets. Needs ``\usepackage{booktabs}``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from recbench.comparison import Across, Comparison, Row, Settings, Table, Verdict
from recbench.report import words
from recbench.report.blocks import Mark, slug
from recbench.report.marks import marks

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "`": r"\symbol{96}",
    "'": "'",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
}
_ACCENTED = "\N{LATIN CAPITAL LETTER A WITH GRAVE}", "\N{LATIN SMALL LETTER Y WITH DIAERESIS}"
_BARE = (
    "\N{LATIN CAPITAL LETTER ETH}\N{LATIN CAPITAL LETTER THORN}\N{LATIN SMALL LETTER ETH}"
    "\N{LATIN SMALL LETTER THORN}\N{DIVISION SIGN}"
)
"""Accented letters and signs that the default fonts of LaTeX lack."""
_SIGNIFICANT = {
    Verdict.BETTER: r"$^{\ast}$",
    Verdict.BETTER_BUT_SMALL: r"$^{\ast}$",
    Verdict.WORSE: r"$^{\dagger}$",
    Verdict.WORSE_BUT_SMALL: r"$^{\dagger}$",
    Verdict.EQUIVALENT: r"$^{\approx}$",
}
_HEADER = r"% Needs \usepackage{booktabs}. Made by: recbench compare --format latex"


def render(comparison: Comparison) -> str:
    """The tables, one below the other, ready for ``\\input``."""
    tables = [_table(table, comparison.settings) for table in comparison.tables]
    tables += [_ranks(across, comparison.settings) for across in comparison.across]
    warnings = [f"% warning: {' '.join(text.split())}" for text in _warnings(comparison)]
    return "\n".join([_HEADER, *warnings, "", *tables])


def _warnings(comparison: Comparison) -> list[str]:
    return [*comparison.warnings, *[text for table in comparison.tables for text in table.warnings]]


def _table(table: Table, settings: Settings) -> str:
    primary = settings.metrics[0]
    first = table.on(primary)
    several = len({row.contrast.against for row in first if row.contrast}) > 1
    level = words.chosen(1 - settings.alpha)
    heads = ["system", "seeds", *(["against"] if several else []), *(m.label for m in settings.metrics)]
    heads += [f"difference [{level} CI]", "p"]
    columns = [[escape(row.system.label) for row in first], [words.seeds(row).replace("-", "--") for row in first]]
    if several:
        columns.append([escape(row.contrast.against if row.contrast else "") for row in first])
    columns += [_scores(table.on(metric)) for metric in settings.metrics]
    columns += [[_number(words.difference(row.contrast, settings.interval)) for row in first]]
    columns += [["" if row.contrast is None else _number(words.p_number(row.contrast.p_adjusted)) for row in first]]
    foot = _oracle(table, settings, len(heads), several)
    text_columns = 3 if several else 2
    align = "l" + ("rl" if several else "r") + "r" * (len(heads) - text_columns)
    caption = f"{_words(words.title(table))}. {' '.join(_words(line) for line in _caption(table, settings))}"
    return _environment(align, heads, list(zip(*columns, strict=True)), caption, f"tab:{slug(table.dataset)}", foot)


def _scores(rows: Sequence[Row]) -> list[str]:
    ranked = zip(rows, marks([row.score.mean for row in rows]), strict=True)
    return [_marked(f"{row.score.mean:.4f}", mark) + _spread(row) + _significance(row) for row, mark in ranked]


def _marked(text: str, mark: Mark) -> str:
    return {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}"}.get(mark, text)


def _spread(row: Row) -> str:
    return "" if row.score.sd is None else rf" {{\scriptsize$\pm${row.score.sd:.4f}}}"


def _significance(row: Row) -> str:
    return "" if row.contrast is None else _SIGNIFICANT.get(row.contrast.verdict, "")


def _caption(table: Table, settings: Settings) -> list[str]:
    """What a reader needs beside the numbers: n, seeds, test, family, correction, marks."""
    lines = words.caption(table, settings)
    primary, *others = [metric.label for metric in settings.metrics]
    lines.append(f"Difference and p: {primary}.")
    if others:
        lines.append(f"Marks on {', '.join(others)}: the same test, each metric a family of its own.")
    spread = " +- sd over seeds." if any(row.score.sd is not None for row in table.rows) else ""
    verdicts = {row.contrast.verdict for row in table.rows if row.contrast is not None}
    lines.append(f"Bold: best, underlined: second best.{spread}")
    if verdicts & {Verdict.WORSE, Verdict.WORSE_BUT_SMALL}:
        lines.append("+: decided, and worse.")
    if Verdict.EQUIVALENT in verdicts:
        lines.append(f"~: equivalent, within +-{words.chosen(settings.rope)} of the control.")
    return lines


def _oracle(table: Table, settings: Settings, width: int, several: bool) -> list[str]:
    if not table.oracle:
        return []
    cells = [escape(words.ORACLE), *[""] * (width - 1)]
    for place, metric in enumerate(settings.metrics):
        if str(metric) in table.oracle:
            cells[2 + several + place] = f"{table.oracle[str(metric)]:.4f}"
    return cells


def _ranks(across: Across, settings: Settings) -> str:
    best = marks([-rank for rank in across.mean_ranks])
    rows = [
        (escape(label), *(f"{ranks[i]:.1f}" for ranks in across.ranks), _marked(f"{across.mean_ranks[i]:.2f}", best[i]))
        for i, label in enumerate(across.labels)
    ]
    level = _words(words.chosen(settings.alpha))
    caption = (
        f"Ranks by {_words(across.metric.label)} over {len(across.datasets)} datasets, 1 is best. "
        f"{_friedman(across)}"
        rf"Nemenyi: mean ranks differ when they are further apart than {across.critical_difference:.2f} ({level}). "
        "Bold: best, underlined: second best."
    )
    heads = ["system", *across.datasets, "mean rank"]
    return _environment("l" + "r" * (len(heads) - 1), heads, rows, caption, f"tab:ranks-{slug(str(across.metric))}", [])


def _friedman(across: Across) -> str:
    """Nothing with two systems: there is no such test."""
    if across.friedman is None:
        return ""
    return f"Friedman with the F of Iman and Davenport: p {_number(words.p_number(across.friedman.f_p))}. "


def _environment(
    align: str, heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str, label: str, foot: Sequence[str]
) -> str:
    last = [r"\midrule", _line(foot)] if foot else []
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            r"\setlength{\belowcaptionskip}{4pt}",
            rf"\caption{{{caption}}}",
            rf"\label{{{label}}}",
            r"\small",
            r"\setlength{\tabcolsep}{4pt}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            _line([_words(head) for head in heads]),
            r"\midrule",
            *[_line(row) for row in rows],
            *last,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _line(cells: Sequence[str]) -> str:
    r"""A row. What ends the line before would take a ``[`` or ``*`` at its start for an argument."""
    start = "{}" if cells[0].startswith(("[", "*")) else ""
    return f"{start}{' & '.join(cells)} \\\\"


def escape(text: str) -> str:
    """A text of somebody else, as LaTeX prints it. Letters beyond Western European are named by their number."""
    return "".join(_letter(c) for c in " ".join(text.split()))


def _letter(c: str) -> str:
    if c in _SPECIAL:
        return _SPECIAL[c]
    if c.isascii():
        return c if c.isprintable() else ""
    kept = _ACCENTED[0] <= c <= _ACCENTED[1] and c not in _BARE
    return c if kept else f"[U+{ord(c):04X}]"


def _number(text: str) -> str:
    """Signs and relations as mathematics sets them."""
    return re.sub(r"<(?=\d)", "$<$", re.sub(r"(?<!\w)([+-])(?=\d)", r"$\1$", text))


def _words(text: str) -> str:
    """A sentence of ours, with other people's names in it."""
    escaped = re.sub(r"(^|[\s(])\+-\s?(?=\d|sd)", r"\1$\\pm$", escape(text))
    escaped = re.sub(r"(?<=\d) (?=\d{3}\b|\\%)", r"\\,", escaped)
    for ours, sign in _SIGNS.items():
        escaped = escaped.replace(ours, sign)
    return escaped


_SIGNS = {
    r"\textasciitilde{}: equivalent": r"$\approx$: equivalent",
    "*: decided": r"$\ast$: decided",
    "+: decided": r"$\dagger$: decided",
}
"""Marks of a table, as its caption explains them in plain text and in LaTeX."""
