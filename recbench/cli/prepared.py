"""How the card of a prepared dataset looks in a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from recbench.cli import render
from recbench.cli.render import count

if TYPE_CHECKING:
    from recbench.data.card import Card

LABEL = 10
KEPT = re.compile(r"(?<=\d) (?=[\d%])")
"""The blanks inside a number and before a percent sign: no line is broken there."""


def show_card(card: Card, folder: Path, *, replaced: bool = False) -> None:
    """The card on stdout: counts step by step, split, order, audit, notes, where it is, what to type next."""
    render.out.print(f"[bold]{escape(card.name)}[/]")
    steps = [[s.step, count(s.users), count(s.items), count(s.interactions)] for s in card.steps]
    render.out.print(render.table(None, ("step", "users", "items", "interactions"), steps))
    before = None
    written = ("written", f"{folder}/{', in place of the one before' if replaced else ''}")
    for label, text in (*facts(card), written):
        _show(label if label != before else "", text)
        before = label
    render.out.print(f"\nnext: recbench train --backbone sasrec --dataset {escape(card.name)}")


def _show(label: str, text: str) -> None:
    """A label and a sentence, broken at the width of a terminal with what follows set under the sentence."""
    width = max(render.out.width - LABEL - 2, 30) if render.out.is_terminal else 10_000
    lines = textwrap.wrap(KEPT.sub("\N{NO-BREAK SPACE}", text), width, break_long_words=False, break_on_hyphens=False)
    for place, line in enumerate(lines):
        shown = label if place == 0 else ""
        render.out.print(f" [bold]{shown:<{LABEL}}[/] {escape(line.replace(chr(160), ' '))}")


def facts(card: Card) -> Iterator[tuple[str, str]]:
    """The card in sentences, each with a label; a label may come again."""
    yield "source", _source(card.source)
    yield "filters", _filters(card.filters)
    density = card.interactions / (card.users * card.items)
    yield "size", f"{card.interactions / card.users:.2f} events a user, density {_percent(density, 4)}"
    yield "split", _split(card.split)
    for why, n in card.split["not_evaluated"].items():
        if n:
            yield "split", f"not evaluated: {count(n)} {why}"
    yield "order", card.tie_rule
    for line in _audit(card):
        yield "audit", line
    if "test" in card.oracle:
        best = ", ".join(f"{name.upper()} {value:.4f}" for name, value in card.oracle["test"]["unseen"].items())
        yield "best", f"{best}: the most any ranking of unseen items can be expected to reach"
    for note in card.notes:
        yield "notes", note


def _source(source: dict[str, Any]) -> str:
    where = source.get("path", "generated")
    size = f", {source['bytes'] / 1e6:.1f} MB, sha256 {source['sha256'][:12]}" if "bytes" in source else ""
    return f"{where} ({source['format']}{size})"


def _filters(filters: dict[str, Any]) -> str:
    core = f"{filters['core']}-core" if filters["core"] else "no k-core"
    rating = f"rating >= {filters['min_rating']:g}" if filters["min_rating"] is not None else "any rating"
    repeats = {"keep": "repeats stay", "first": "first of repeats", "last": "last of repeats"}[filters["duplicates"]]
    return f"{rating}, {repeats}, {core} ({filters['core_from']})"


def _split(split: dict[str, Any]) -> str:
    if split["name"] == "temporal":
        return (
            f"temporal: train {count(split['n_train'])}, valid {count(split['n_valid_events'])}, "
            f"test {count(split['n_test_events'])} events; {count(split['n_valid'])} users asked in valid, "
            f"{count(split['n_test'])} in test, {count(split['n_test_new_users'])} of them new"
        )
    sizes = ", ".join(f"{part} {count(split[f'n_{part}'])}" for part in ("train", "valid", "test"))
    return f"{split['name']}: {sizes} events"


def _audit(card: Card) -> Iterator[str]:
    """The audit in sentences; shares beside the counts they come from."""
    facts = card.audit
    targets = facts["test_targets"]
    unseen = facts["test_targets_unseen_in_training"]
    repeats = facts["repeated_user_item_events"]
    yield from _times(facts, targets)
    if unseen:
        yield f"{_number(unseen, 'test target')} ({_share(unseen, targets)}) not seen in training"
    else:
        yield "every test target occurs in training"
    if repeats:
        again = facts["test_targets_repeated_from_history"]
        yield (
            f"{_number(repeats, 'event')} repeating a user and item, {count(facts['repeated_user_item_time_events'])} "
            f"at an equal time; {_number(again, 'test target')} ({_share(again, targets)}) already in the history"
        )
    else:
        yield "no user has an item twice"
    if "items_with_title" in facts:
        yield f"titles for {count(facts['items_with_title'])} of {count(card.items)} items"


def _times(facts: dict[str, Any], targets: int) -> Iterator[str]:
    """Ties, and what of training lies in the future of the test."""
    tied = facts.get("users_with_tied_times")
    if tied:
        last = facts["test_targets_tied_with_event_before"]
        yield f"{_number(tied, 'user')} ({_share(tied, facts['users'])}) with events at equal times"
        yield f"{_number(last, 'test target')} ({_share(last, targets)}) as old as the event before: file order decides"
    elif tied == 0:
        yield "no user has two events at one time"
    older = facts.get("share_of_test_targets_older_than_newest_training_event")
    if older:
        after = facts["mean_share_of_training_events_after_test_target"]
        yield (
            f"{_percent(older, 2)} of test targets are older than the newest training event; "
            f"{_percent(after, 0)} of training comes after a test target, on average"
        )
    elif older == 0:
        yield "all of training is older than any test target"


def _number(n: int, thing: str) -> str:
    return f"{count(n)} {thing}{'' if n == 1 else 's'}"


def _share(part: int, whole: int) -> str:
    return _percent(part / whole, 1) if whole else "none"


def _percent(share: float, digits: int) -> str:
    return f"{100 * share:.{digits}f} %"
