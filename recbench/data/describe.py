"""What a card says, in sentences, bars and Markdown. The terminal and the data card say the same words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbench.data.card import Card

WIDTH = 40
"""Characters of the longest bar."""
HISTOGRAMS = {
    "events_per_user": ("Length", "events a user", "users"),
    "events_per_item": ("Popularity", "events an item", "items"),
    "events_by_time": ("Time", "from", "events"),
}
"""Of the audit's histograms: a title, what the rows are, what is counted."""
TIE_SENSITIVITY = "tie_sensitivity"
"""Where the audit of a card keeps what another order of equal times does to baselines."""
REORDERED = ("baseline", "metric", "as prepared", "ties shuffled", "range", "change")
REORDERED_TITLE = "What the order of equal times is worth"
TARGETS = {
    "last": "the last event of a user in the window",
    "first": "the first event of a user in the window",
    "all": "the items of a user in the window, as one set",
    "successive": "each event of a user in the window, after all before it",
}


def count(number: int) -> str:
    """A whole number with thin groups: 198 502."""
    return f"{number:,}".replace(",", " ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reordered:
    """A metric of a baseline as prepared, and with equal times shuffled."""

    baseline: str
    metric: str
    """As a table prints it."""
    as_prepared: float
    shuffled: tuple[float, ...]
    """A value an order."""

    @property
    def mean(self) -> float:
        """Over the orders."""
        return sum(self.shuffled) / len(self.shuffled)

    @property
    def change(self) -> float | None:
        """Of the mean, as a share of the value as prepared; None where that is 0."""
        return self.mean / self.as_prepared - 1 if self.as_prepared else None

    def texts(self) -> tuple[str, ...]:
        """One for each of ``REORDERED``."""
        spread = f"{min(self.shuffled):.4f} to {max(self.shuffled):.4f}"
        change = "" if self.change is None else f"{100 * self.change:+.1f} %"
        return self.baseline, self.metric, f"{self.as_prepared:.4f}", f"{self.mean:.4f}", spread, change


def reordered(card: Card) -> list[Reordered]:
    """What another order of equal times does to the baselines; empty where nothing is tied or nobody looked."""
    found: dict[str, Any] = card.audit.get(TIE_SENSITIVITY, {})
    return [
        Reordered(
            baseline=baseline,
            metric=metric.upper(),
            as_prepared=value,
            shuffled=tuple(found[baseline]["shuffled"][metric]),
        )
        for baseline in found
        if baseline != "seeds"
        for metric, value in found[baseline]["as_prepared"].items()
    ]


def reordered_note(card: Card) -> str:
    """What the numbers of ``reordered`` are."""
    n = len(card.audit[TIE_SENSITIVITY]["seeds"])
    return f"Test, all items; mean and range over {number_of(n, 'seed')} of --ties hash. Training is shuffled, too."


def split_name(split: Mapping[str, Any]) -> str:
    """A split in a word or two: leave-one-out; temporal, last."""
    return ", ".join(split[key] for key in ("name", "target") if key in split)


def markdown(card: Card) -> str:
    """The data card for a person, ``README.md`` of a prepared dataset."""
    lines = [f"# {card.name}", "", "| step | users | items | interactions |", "|---|---:|---:|---:|"]
    lines += [
        f"| {_cell(s.step)} | {count(s.users)} | {count(s.items)} | {count(s.interactions)} |" for s in card.steps
    ]
    before = ""
    for label, text in facts(passed_on(card)):
        if label != before:
            lines += ["", f"## {label.capitalize()}", ""]
        lines.append(f"* {text}")
        before = label
    lines += _reordered_table(card)
    for title, bars in histograms(card):
        lines += ["", f"## {title}", "", "```", *bars, "```"]
    lines += ["", "## Identity", "", f"* fingerprint {card.fingerprint}", f"* sequences {card.sequence_sha256}"]
    lines += [
        f"* ids: {card.id_rule}",
        f"* prepared by recbench {card.recbench}; `card.json` says the same to machines",
        "",
    ]
    return "\n".join(lines)


def _reordered_table(card: Card) -> list[str]:
    rows = reordered(card)
    if not rows:
        return []
    table = [f"| {' | '.join(REORDERED)} |", "|---|---|---:|---:|---|---:|"]
    table += [f"| {' | '.join(row.texts())} |" for row in rows]
    return ["", f"## {REORDERED_TITLE}", "", *table, "", reordered_note(card)]


def histograms(card: Card) -> Iterator[tuple[str, list[str]]]:
    """A title and the lines of each histogram; nothing for a card without."""
    found = card.audit.get("histograms", {})
    for key, (title, rows, counted) in HISTOGRAMS.items():
        if found.get(key):
            yield title, _bars(found[key], rows, counted)


def _bars(bins: list[list[Any]], rows: str, counted: str) -> list[str]:
    """Name, count and bar of each bin, under a heading."""
    numbers = [count(n) for _, n in bins]
    left = max(len(rows), *(len(str(name)) for name, _ in bins))
    right = max(len(counted), *(len(number) for number in numbers))
    most = max(n for _, n in bins) or 1
    lines = [f"{rows:>{left}}  {counted:>{right}}"]
    for (name, n), number in zip(bins, numbers, strict=True):
        bar = "#" * (max(1, round(WIDTH * n / most)) if n else 0)
        lines.append(f"{name:>{left}}  {number:>{right}}  {bar}".rstrip())
    return lines


def passed_on(card: Card) -> Card:
    """A card that others may read: where the file lay is nobody's business."""
    if "path" not in card.source:
        return card
    return replace(card, source={**card.source, "path": Path(card.source["path"]).name})


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def facts(card: Card) -> Iterator[tuple[str, str]]:
    """All that a card says, as a label and a sentence each."""
    yield "source", _source(card.source)
    yield "filters", _filters(card.filters)
    pairs = card.interactions - card.audit["repeated_user_item_events"]
    density = pairs / (card.users * card.items)
    yield "size", f"{card.interactions / card.users:.2f} events a user, density {_percent(density, 4)}"
    yield from exam(card)
    if "test" in card.oracle:
        test = card.oracle["test"]
        best, here = (
            ", ".join(f"{name.upper()} {value:.4f}" for name, value in test[key].items())
            for key in ("expected", "unseen")
        )
        yield "best", f"{best}: the most any ranking of unseen items can be expected to reach; of these targets, {here}"
    for note in card.notes:
        yield "notes", note


def exam(card: Card) -> Iterator[tuple[str, str]]:
    """What is asked, in which order the events stand, and what is odd about it."""
    for line in _split(card.split):
        yield "split", line
    for why, n in card.split["not_evaluated"].items():
        if n:
            yield "split", f"not evaluated: {count(n)} {why}"
    yield "order", card.tie_rule
    for line in _audit(card):
        yield "audit", line


def _source(source: dict[str, Any]) -> str:
    where = source.get("path", "generated")
    size = f", {source['bytes'] / 1e6:.1f} MB, sha256 {source['sha256'][:12]}" if "bytes" in source else ""
    return f"{where} ({source['format']}{size})"


def _filters(filters: dict[str, Any]) -> str:
    core = f"{filters['core']}-core" if filters["core"] else "no k-core"
    rating = f"rating >= {filters['min_rating']:g}" if filters["min_rating"] is not None else "any rating"
    repeats = {"keep": "repeats stay", "first": "first of repeats", "last": "last of repeats"}[filters["duplicates"]]
    return f"{rating}, {repeats}, {core} ({filters['core_from']})"


def _split(split: dict[str, Any]) -> Iterator[str]:
    sizes = [
        f"{part} {count(split.get(f'n_{part}_events', split[f'n_{part}']))}" for part in ("train", "valid", "test")
    ]
    yield f"{split['name']}: {', '.join(sizes)} events"
    if split["name"] != "temporal":
        return
    asked = TARGETS[split["target"]]
    new = f", {count(split['n_test_new_users'])} of them new" if split["n_test_new_users"] else ""
    yield f"asked: {asked}; {count(split['n_valid'])} users in valid, {count(split['n_test'])} in test{new}"
    if "n_test_targets" in split:
        yield f"{count(split['n_valid_targets'])} targets in valid, {count(split['n_test_targets'])} in test"


def _audit(card: Card) -> Iterator[str]:
    """The audit in sentences; shares beside the counts they come from."""
    facts = card.audit
    targets = facts["test_targets"]
    ascending = facts["users_with_ascending_lists"]
    unseen = facts["test_targets_unseen_in_training"]
    repeats = facts["repeated_user_item_events"]
    yield from _times(facts, targets)
    if unseen:
        yield f"{number_of(unseen, 'test target')} ({_share(unseen, targets)}) not seen in training"
    else:
        yield "every test target occurs in training"
    if repeats:
        again = facts["test_targets_repeated_from_history"]
        yield (
            f"{number_of(repeats, 'event')} repeating a user and item, {count(facts['repeated_user_item_time_events'])} "
            f"at an equal time; {number_of(again, 'test target')} ({_share(again, targets)}) already in the history"
        )
    else:
        yield "no user has an item twice"
    yield f"{number_of(ascending, 'user')} ({_share(ascending, facts['users'])}) with items in ascending order of id"
    if "items_with_title" in facts:
        yield f"titles for {count(facts['items_with_title'])} of {count(card.items)} items"


def _times(facts: dict[str, Any], targets: int) -> Iterator[str]:
    """Ties, and what of training lies in the future of the test."""
    tied = facts.get("users_with_tied_times")
    if tied:
        last = facts["test_targets_tied_with_event_before"]
        yield f"{number_of(tied, 'user')} ({_share(tied, facts['users'])}) with events at equal times"
        changed = facts.get("test_targets_changed_by_shuffled_ties")
        told = (
            ""
            if changed is None
            else f"; {count(changed)} ({_share(changed, targets)}) are another item if ties are shuffled"
        )
        yield f"{number_of(last, 'test target')} ({_share(last, targets)}) as old as the event before{told}"
        if TIE_SENSITIVITY not in facts:
            yield "what the order of equal times is worth to a baseline is not measured yet: recbench audit"
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
    if "popularity_drift" in facts:
        kept, top = facts["top_items_of_older_half_kept_in_newer"], facts["top_items"]
        yield (
            f"popularity drift {facts['popularity_drift']:.2f} between older and newer half "
            f"({facts['popularity_drift_by_chance']:.2f} by chance); {kept} of the top {top} items stay there"
        )


def number_of(n: int, thing: str) -> str:
    """``1 user``, ``4 905 users``."""
    return f"{count(n)} {thing}{'' if n == 1 else 's'}"


def _share(part: int, whole: int) -> str:
    return _percent(part / whole, 1) if whole else "none"


def _percent(share: float, digits: int) -> str:
    return f"{100 * share:.{digits}f} %"
