"""What is learnt from and what is asked: leave-one-out by user, or one cut in time for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recbench.errors import Exit, RecbenchError, nearest

TRAIN, VALID, TEST = 0, 1, 2
SPLITS = ("leave-one-out", "temporal")
QUANTILE = 0.9
MIN_EVENTS = 3
"""Leave-one-out needs a test target, a validation target and something before it."""


@dataclass(frozen=True, slots=True)
class Split:
    """``part`` (E,) int8: TRAIN, VALID or TEST; ``is_target`` (E,): is the event predicted? ``facts``: for the card."""

    part: np.ndarray
    is_target: np.ndarray
    facts: dict[str, Any]


def check(name: str) -> None:
    """Refuse a split that is not known."""
    if name not in SPLITS:
        near = nearest(name, list(SPLITS))
        raise RecbenchError(
            f"Unknown split {name!r}.",
            why=f"The splits are: {', '.join(SPLITS)}.",
            fix=f"Did you mean --split {near}?" if near else "--split leave-one-out",
        )


def split(name: str, user: np.ndarray, time: np.ndarray | None) -> Split:
    """The split ``name`` of events sorted by user and then in sequence order.

    Raises:
        RecbenchError: no such split; it needs times and there are none; nobody is left to evaluate.
    """
    check(name)
    if name == "leave-one-out":
        made = leave_one_out(user)
        fix = "A weaker filter, or a source with longer histories"
    elif time is None:
        raise RecbenchError(
            "A temporal split needs times.",
            why="The source has none, only an order within each user.",
            fix="--split leave-one-out",
        )
    else:
        made = temporal(user, time)
        fix = "--split leave-one-out"
    for part in ("n_valid", "n_test"):
        if not made.facts[part]:
            raise RecbenchError(
                f"The {name} split leaves nobody to evaluate.",
                why=f"{part} would be 0: of {len(np.unique(user)):,} users none has what it needs.",
                fix=fix,
                code=Exit.DATA,
            )
    return made


def leave_one_out(user: np.ndarray) -> Split:
    """The last event of each user is the test target, the one before it the validation target. Protocol 1.1."""
    from_end = _from_end(user)
    long_enough = _counts(user) >= MIN_EVENTS
    part = np.full(len(user), TRAIN, dtype=np.int8)
    part[long_enough & (from_end == 1)] = VALID
    part[long_enough & (from_end == 0)] = TEST
    n_evaluated = int((part == TEST).sum())
    facts = {
        "name": "leave-one-out",
        "n_train": int((part == TRAIN).sum()),
        "n_valid": n_evaluated,
        "n_test": n_evaluated,
        "not_evaluated": {
            f"users with fewer than {MIN_EVENTS} events, kept in training": len(np.unique(user)) - n_evaluated
        },
    }
    return Split(part, part != TRAIN, facts)


def temporal(user: np.ndarray, time: np.ndarray, q: float = QUANTILE) -> Split:
    """Two cuts in time for all users; the target is a user's last event in a window. Protocol 1.1."""
    test_from = quantile(time, q)
    valid_from = quantile(time[time <= test_from], q)
    part = np.full(len(user), TRAIN, dtype=np.int8)
    part[time > valid_from] = VALID
    part[time > test_from] = TEST
    is_target = np.zeros(len(user), dtype=bool)
    not_evaluated = {}
    for window, name in ((VALID, "validation"), (TEST, "test")):
        last = np.flatnonzero((part == window) & ends(user, part))
        asked = _from_start(user)[last] > 0
        is_target[last[asked]] = True
        not_evaluated[f"{name} users with nothing before their target"] = int((~asked).sum())
    asked_of = user[is_target & (part == TEST)]
    facts = {
        "name": "temporal",
        "quantile": q,
        "target": "last",
        "valid_after": valid_from,
        "test_after": test_from,
        "n_train": int((part == TRAIN).sum()),
        "n_valid_events": int((part == VALID).sum()),
        "n_test_events": int((part == TEST).sum()),
        "n_valid": int((is_target & (part == VALID)).sum()),
        "n_test": len(asked_of),
        "n_test_new_users": int((~np.isin(asked_of, user[time <= test_from])).sum()),
        "not_evaluated": not_evaluated,
    }
    return Split(part, is_target, facts)


def quantile(time: np.ndarray, q: float) -> int:
    """The element ``floor(q (n - 1))`` of the sorted times: an observed time, never interpolated."""
    place = int(np.floor(q * (len(time) - 1)))
    return int(np.partition(time, place)[place])


def starts(user: np.ndarray) -> np.ndarray:
    """Where each user's events begin in events sorted by user, (U,)."""
    return np.flatnonzero(np.r_[True, user[1:] != user[:-1]]) if len(user) else np.empty(0, dtype=np.int64)


def ends(user: np.ndarray, part: np.ndarray) -> np.ndarray:
    """True at the last event of a user in a part."""
    return np.r_[(user[1:] != user[:-1]) | (part[1:] != part[:-1]), True]


def _counts(user: np.ndarray) -> np.ndarray:
    """Events of the user of each event, (E,)."""
    first = starts(user)
    counts = np.diff(np.r_[first, len(user)])
    return np.repeat(counts, counts)


def _from_start(user: np.ndarray) -> np.ndarray:
    """How many events of the same user stand before each event, (E,)."""
    first = starts(user)
    return np.arange(len(user)) - np.repeat(first, np.diff(np.r_[first, len(user)]))


def _from_end(user: np.ndarray) -> np.ndarray:
    """How many events of the same user stand behind each event, (E,)."""
    return _counts(user) - 1 - _from_start(user)
