"""How results and errors look in a terminal: results on stdout, all else on stderr; nothing is said by colour alone."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from recbench.data import describe
from recbench.errors import RecbenchError

out = Console(highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)

count = describe.count
HASH = re.compile("[0-9a-f]{64}")
"""A sha256; a person needs its first digits."""
KEPT = re.compile(r"(?<=\d) (?=[\d%]|(?:ms|s|min|h|MiB)\b)")
"""The blanks inside a number and before its unit: no line is broken there."""


def show_error(error: RecbenchError) -> None:
    """Three lines: what, why, fix."""
    err.print(f"[bold red]error:[/] {escape(error.what)}")
    err.print(f"[bold]why:[/] {escape(error.why)}")
    err.print(f"[bold]fix:[/] {escape(error.fix)}")


def say(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    err.print(escape(text))


def fact(name: str, value: object) -> str:
    """Something a stage or a run found out, in one line."""
    return f"{name.replace('_', ' ')}: {_told(value)}"


def _told(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_told(one)}" for key, one in value.items())
    if isinstance(value, list):
        return " + ".join(map(_told, value)) or "none"
    if isinstance(value, str) and HASH.fullmatch(value):
        return value[:12]
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)


def folded(text: str, indent: int) -> list[str]:
    """Lines for stdout that start ``indent`` columns from the left; broken between words on a terminal, else one line."""
    width = max(out.width - indent, 30) if out.is_terminal else 10_000
    lines = textwrap.wrap(KEPT.sub("\N{NO-BREAK SPACE}", text), width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def warn(text: str) -> None:
    """A warning, on stderr; a terminal gets it broken between words."""
    err.print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=not err.is_terminal)


def show_json(result: Any) -> None:
    """The result for machines, on stdout."""
    out.print_json(json.dumps(result, allow_nan=False, default=str), indent=2, highlight=False)


LABEL = 16
"""Cells up to so many places are labels, not prose."""


def table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> Table:
    """A table with rules, no boxes: the first ``left`` columns to the left, numbers to the right. Cells are escaped.

    Where the terminal is narrow, prose is broken into lines; numbers, names and labels never are.
    """
    built = Table(
        title=escape(title) if title else None,
        box=box.SIMPLE,
        title_justify="left",
        pad_edge=False,
        show_header=any(columns),
    )
    for place, name in enumerate(columns):
        cells = [row[place] for row in rows]
        widest = max(map(cell_len, [name, *cells]))
        whole = place >= left or widest <= LABEL or not any(" " in cell for cell in cells)
        built.add_column(
            escape(name),
            justify="left" if place < left else "right",
            no_wrap=whole,
            min_width=widest if whole else None,
            overflow="fold",
        )
    for row in rows:
        built.add_row(*[escape(cell) for cell in row])
    return built


def show_table(
    title: str | None,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: int = 1,
    yielding: Sequence[str] = (),
    else_in: str = "--json has",
) -> None:
    """Print a table. Off a terminal, a row is a line; on one too narrow for that, columns of less weight give way.

    Args:
        yielding: columns that give way, the first one first; those that a table lacks are passed over.
        else_in: where the missing columns are, for a note on stderr.
    """
    kept = list(range(len(columns)))
    gone: list[str] = []

    def built() -> Table:
        cells = [[row[place] for place in kept] for row in rows]
        return table(title, [columns[place] for place in kept], cells, left=sum(place < left for place in kept))

    for name in [name for name in yielding if name in columns] if out.is_terminal else []:
        if natural_width(built()) <= out.width:
            break
        kept.remove(list(columns).index(name))
        gone.append(name.strip())
    shown = built()
    if not out.is_terminal:
        shown.width = natural_width(shown)
    out.print(shown)
    if gone:
        say(
            f"{f'{title}: ' if title else ''}no room for {', '.join(gone)}; {else_in} {'them' if len(gone) > 1 else 'it'}"
        )


def natural_width(built: Table) -> int:
    """Columns of a terminal that the table takes with every cell on one line."""
    return Measurement.get(out, out.options.update_width(10_000), built).maximum


def duration(seconds: float) -> str:
    """Seconds as a person says them: 0.8 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
