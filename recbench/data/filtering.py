"""Which events stay: rating, de-duplication, iterated k-core. Source order is kept; what is dropped is counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from recbench.data.card import Step
from recbench.data.catalog import DUPLICATES
from recbench.data.sources.base import Events
from recbench.errors import Exit, RecbenchError, meant

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What to keep, as asked for."""

    core: int = 0
    """Every user and item left has at least this many events; 0: no such filter."""
    min_rating: float | None = None
    """Events rated lower, or not rated, go; None: no such filter."""
    duplicates: str = "keep"
    """One of ``keep``, ``first``, ``last``."""
    since: str | None = None
    """Earlier events go: a date (from its first moment) or a date and time, UTC; None: no such filter."""
    until: str | None = None
    """Later events go: a date (to its last moment) or a date and time, that moment included."""

    def __post_init__(self) -> None:
        if self.core < 0:
            raise RecbenchError(
                f"--core {self.core} is below 0.",
                why="It is the number of events a user or item needs.",
                fix="--core 5, or 0",
            )
        if self.min_rating is not None and not math.isfinite(self.min_rating):
            raise RecbenchError(
                f"--min-rating {self.min_rating:g} is no rating.", why="It is a finite number.", fix="--min-rating 4"
            )
        if self.duplicates not in DUPLICATES:
            raise RecbenchError(
                f"Unknown policy --duplicates {self.duplicates!r}.",
                why=f"It is one of: {', '.join(DUPLICATES)}.",
                fix=meant(self.duplicates, DUPLICATES) or "--duplicates keep",
            )
        moments = {name: moment(name, text) for name in ("since", "until") if (text := getattr(self, name))}
        if len(moments) == 2 and moments["since"] > moments["until"]:
            raise RecbenchError(
                f"--since {self.since} is later than --until {self.until}.",
                why="No event lies between them.",
                fix="Swap them, or leave one out.",
            )


def apply(events: Events, filters: Filters) -> tuple[np.ndarray, tuple[Step, ...]]:
    """Rows of the events that stay, in source order, and the counts after each step.

    Raises:
        RecbenchError: there is no event, or a step leaves none.
    """
    rows = places(len(events))
    steps = [_counted("read", events, rows)]
    if not len(rows):
        raise RecbenchError(
            "The source holds no event.",
            why="It was read to its end, and there was none.",
            fix="--source PATH",
            code=Exit.DATA,
        )
    for name, option, kept in _filtered(events, rows, filters):
        steps.append(_counted(name, events, kept))
        if not len(kept):
            before = steps[-2]
            raise RecbenchError(
                f"Nothing is left after the filter {name!r}.",
                why=f"Before it there were {before.users:,} users, {before.items:,} items and "
                f"{before.interactions:,} interactions.",
                fix=f"A weaker filter: {option}",
                code=Exit.DATA,
            )
        rows = kept
    return rows, tuple(steps)


def _filtered(events: Events, rows: np.ndarray, filters: Filters) -> Iterator[tuple[str, str, np.ndarray]]:
    """What stays after each filter that is on, with its name and the option that weakens it."""
    if filters.since or filters.until:
        rows = rows[in_window(events, filters.since, filters.until)]
        said = " and ".join(f"{name} {text}" for name in ("since", "until") if (text := getattr(filters, name)))
        yield said, "an earlier --since or a later --until", rows
    if filters.min_rating is not None:
        rows = rows[rated_at_least(events.rating, filters.min_rating)]
        yield f"rating >= {filters.min_rating:g}", f"--min-rating below {filters.min_rating:g}", rows
    if filters.duplicates != "keep":
        time = None if events.timestamp is None else taken(events.timestamp, rows)
        rows = rows[one_of_each(taken(events.user, rows), taken(events.item, rows), time, filters.duplicates)]
        yield f"{filters.duplicates} of each user and item", "--duplicates keep", rows
    if filters.core > 1:
        before = rows
        kept, rounds = k_core(taken(events.user, rows), taken(events.item, rows), filters.core)
        rows = rows[kept] if rounds else rows
        said = f"{rounds} round{'s' if rounds != 1 else ''}" if rounds else "nothing to drop"
        weaker = "" if len(rows) else _weaker(events, before, filters.core)
        yield f"{filters.core}-core, {said}", weaker, rows


def _weaker(events: Events, rows: np.ndarray, core: int) -> str:
    """The largest core that leaves something: cores lie in one another, so it is found by halving."""
    user, item = taken(events.user, rows), taken(events.item, rows)
    low, high = 1, core
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if k_core(user, item, middle)[0].any() else (low, middle)
    return f"--core {low}, or --core 0 for none" if low > 1 else "--core 0"


def moment(option: str, text: str) -> int:
    """Milliseconds since 1970 of a date or of a date and time, UTC; a bare date for ``until`` is its last moment.

    Raises:
        RecbenchError: it is neither.
    """
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise RecbenchError(
            f"--{option} {text!r} is no date.",
            why="It is read as a date, or a date and time, in UTC.",
            fix=f"--{option} 2019-12-31, or --{option} '2019-12-31 00:00:00'",
        ) from error
    ms = round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    return ms + (DAY_MS - 1 if option == "until" and len(text.strip()) <= len("2019-12-31") else 0)


def in_window(events: Events, since: str | None, until: str | None) -> np.ndarray:
    """True for the events between two moments, both included.

    Raises:
        RecbenchError: the source has no times, or one of the two is no date.
    """
    if events.timestamp is None:
        raise RecbenchError(
            "--since and --until cannot be applied.",
            why="The source has no times, only an order within each user.",
            fix="Leave them out, or name the column: --columns ...,timestamp=...",
        )
    ms = events.timestamp * (1 if events.time_unit == "ms" else 1000)
    kept = np.ones(len(ms), dtype=bool)
    if since:
        kept &= ms >= moment("since", since)
    if until:
        kept &= ms <= moment("until", until)
    return kept


def rated_at_least(rating: np.ndarray | None, least: float) -> np.ndarray:
    """True where the rating is at least ``least``; an event without a rating is not.

    Raises:
        RecbenchError: the source has no ratings.
    """
    if rating is None:
        raise RecbenchError(
            f"--min-rating {least:g} cannot be applied.",
            why="The source has no ratings.",
            fix="Leave --min-rating out, or name the column: --columns ...,rating=...",
        )
    return rating >= least


def one_of_each(user: np.ndarray, item: np.ndarray, time: np.ndarray | None, policy: str) -> np.ndarray:
    """True for one event of each (user, item): the earliest (``first``) or the latest; source order breaks ties."""
    kept = np.ones(len(user), dtype=bool)
    key = pairs(user, item)
    rows = _with_equal(key)  # most logs have few: only those need to be put in order
    order = np.arange(len(rows)) if time is None else np.argsort(time[rows], kind="stable")
    order = order if policy == "first" else order[::-1]
    _, place = np.unique(key[rows][order], return_index=True)
    kept[rows] = False
    kept[rows[order[place]]] = True
    return kept


def _with_equal(key: np.ndarray) -> np.ndarray:
    """Rows whose key another row has, too, ascending."""
    ascending = np.sort(key)
    repeated = np.unique(ascending[1:][ascending[1:] == ascending[:-1]])
    del ascending
    if not len(repeated):
        return np.empty(0, dtype=np.int64)
    at = np.searchsorted(repeated, key)
    np.minimum(at, len(repeated) - 1, out=at)
    return np.flatnonzero(repeated[at] == key)


def k_core(user: np.ndarray, item: np.ndarray, k: int) -> tuple[np.ndarray, int]:
    """True for the events of the k-core, and the number of rounds that dropped something.

    The k-core is the largest set of events in which every user and every item has at least k. It is unique, whatever
    the order of dropping, so users and items are dropped together.
    """
    mask = np.ones(len(user), dtype=bool)
    rounds = 0
    while len(user):
        good = (np.bincount(user) >= k)[user]
        good &= (np.bincount(item) >= k)[item]
        if good.all():
            break
        mask[mask] = good
        user, item = user[good], item[good]
        rounds += 1
    return mask, rounds


def places(n: int) -> np.ndarray:
    """0 to n - 1, (n,), in as few bytes as they fit."""
    return np.arange(n, dtype=np.int32 if n <= np.iinfo(np.int32).max else np.int64)


def taken(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The values of some rows, ascending; no copy where these are all."""
    return values if len(rows) == len(values) else values[rows]


def pairs(user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """One int64 for each (user, item)."""
    width = int(item.max(initial=0)) + 1
    return user.astype(np.int64) * width + item


def _counted(name: str, events: Events, rows: np.ndarray) -> Step:
    n_users, n_items = (int(np.count_nonzero(np.bincount(taken(codes, rows)))) for codes in (events.user, events.item))
    return Step(step=name, users=n_users, items=n_items, interactions=len(rows))
