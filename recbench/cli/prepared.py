"""How the card of a prepared dataset looks in a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from recbench.cli import render
from recbench.cli.render import count
from recbench.data import describe

if TYPE_CHECKING:
    from recbench.data.card import Card

LABEL = 10


def show_card(card: Card, folder: Path, *, replaced: bool = False) -> None:
    """The card on stdout: counts step by step, split, order, audit, notes, where it is, what to type next."""
    render.out.print(f"[bold]{escape(card.name)}[/]")
    steps = [[s.step, count(s.users), count(s.items), count(s.interactions)] for s in card.steps]
    render.out.print(render.table(None, ("step", "users", "items", "interactions"), steps))
    before = None
    written = f"{folder}/{', in place of the one before' if replaced else ''}"
    for label, text in [*describe.facts(card), ("written", written)]:
        _show(label if label != before else "", text)
        before = label
    if describe.reordered(card):
        render.out.print()
        show_reordered(card)
    render.out.print(f"\nnext: recbench train --backbone sasrec --dataset {escape(card.name)}")


def show_reordered(card: Card) -> bool:
    """What another order of equal times does to the baselines, as a table; False where there is nothing to show."""
    rows = [list(row.texts()) for row in describe.reordered(card)]
    if rows:
        title = describe.REORDERED_TITLE
        render.out.print(render.table(f"{title[0].lower()}{title[1:]}", describe.REORDERED, rows, left=2))
        render.out.print(describe.reordered_note(card))
    return bool(rows)


def show_facts(card: Card) -> None:
    """Split, order and audit alone."""
    before = None
    for label, text in describe.exam(card):
        _show(label if label != before else "", text)
        before = label


def _show(label: str, text: str) -> None:
    """A label and a sentence, broken at the width of a terminal with what follows set under the sentence."""
    for place, line in enumerate(render.folded(text, LABEL + 2)):
        shown = label if place == 0 else ""
        render.out.print(f" [bold]{shown:<{LABEL}}[/] {escape(line)}")


def show_histograms(card: Card) -> None:
    """Lengths, popularity and time, as bars."""
    for title, lines in describe.histograms(card):
        render.out.print(f"\n[bold]{escape(title)}[/]")
        for line in lines:
            render.out.print(f" {escape(line)}")
