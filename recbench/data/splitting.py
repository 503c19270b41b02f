"""What is learnt from and what is asked: leave-one-out by user, or two cuts in time for all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from recbench.errors import Exit, RecbenchError, meant

TRAIN, VALID, TEST = 0, 1, 2
WINDOWS = {"valid": VALID, "test": TEST}
SPLITS = ("leave-one-out", "temporal")
TARGETS = ("last", "first", "all", "successive")
"""What is predicted of a user's events in a window: one of them, all of them as one set, or each in its turn."""
QUANTILE = 0.9
MIN_EVENTS = 3
"""Leave-one-out needs a test target, a validation target and something before it."""
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""How many units of time a second has."""
UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


@dataclass(frozen=True, slots=True)
class Split:
    """``part`` (E,) int8: TRAIN, VALID or TEST; ``is_target`` (E,): is the event predicted? ``facts``: for the card."""

    part: np.ndarray
    is_target: np.ndarray
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The split that was asked for. All but ``name`` belong to ``temporal`` and are refused beside another split."""

    name: str = "leave-one-out"
    """One of ``SPLITS``."""
    target: str | None = None
    """One of ``TARGETS``; None: ``last``."""
    quantile: float | None = None
    """Where a cut lies among the sorted event times; None: 0.9."""
    valid_from: str | None = None
    """A date, or a time in the source's unit: the first moment of the validation window. None: by quantile."""
    test_from: str | None = None
    """The first moment of the test window. None: by quantile."""

    def __post_init__(self) -> None:
        _known("split", self.name, SPLITS)
        if self.name != "temporal":
            for option in ("target", "quantile", "valid_from", "test_from"):
                if getattr(self, option) is not None:
                    raise RecbenchError(
                        f"{_flag(option)} does not go with --split {self.name}.",
                        why="It says where a temporal split cuts or what it asks for.",
                        fix=f"--split temporal {_flag(option)} {getattr(self, option)}, or leave {_flag(option)} out",
                    )
        if self.target is not None:
            _known("target", self.target, TARGETS)
        if self.quantile is not None and not 0 < self.quantile < 1:
            raise RecbenchError(
                f"--quantile {self.quantile:g} is not between 0 and 1.",
                why="It is the share of events up to a cut; the rest is asked for.",
                fix=f"--quantile {QUANTILE}",
            )
        if self.quantile is not None and self.test_from is not None and self.valid_from is not None:
            raise RecbenchError(
                "--quantile, --valid-from and --test-from cannot all be given.",
                why="Both cuts are given as times, so there is nothing left for a quantile to say.",
                fix="Leave --quantile out",
            )


def split(plan: Plan, user: np.ndarray, item: np.ndarray, time: np.ndarray | None, unit: str | None) -> Split:
    """The split of events sorted by user and then in sequence order.

    Args:
        plan: which one.
        user: (E,) sorted.
        item: (E,); only ``all`` looks at it.
        time: (E,) or None.
        unit: of the times, a key of ``PER_SECOND``.

    Raises:
        RecbenchError: it needs times and there are none; a cut lies outside the data; nobody is left to evaluate.
    """
    if plan.name == "leave-one-out":
        made = leave_one_out(user)
        fix = "A weaker filter, or a source with longer histories"
    elif time is None:
        raise RecbenchError(
            "A temporal split needs times.",
            why="The source has none, only an order within each user.",
            fix="--split leave-one-out, or name the column: --columns ...,timestamp=...",
        )
    else:
        made = temporal(plan, user, item, time, unit or "s")
        fix = "--split leave-one-out" if plan.test_from is None else "Another --valid-from or --test-from"
    for part in ("n_valid", "n_test"):
        if not made.facts[part]:
            raise RecbenchError(
                f"The {plan.name} split leaves nobody to evaluate.",
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
            f"users with fewer than {MIN_EVENTS} events, kept in training": len(starts(user)) - n_evaluated
        },
    }
    return Split(part, part != TRAIN, facts)


def temporal(plan: Plan, user: np.ndarray, item: np.ndarray, time: np.ndarray, unit: str = "s") -> Split:
    """Two cuts in time for all users; what is asked of a user in a window is the plan's target. Protocol 1.1."""
    valid_after, test_after = _cuts(plan, time, unit)
    part = np.full(len(user), TRAIN, dtype=np.int8)
    part[time > valid_after] = VALID
    part[time > test_after] = TEST
    target = plan.target or "last"
    is_target = np.zeros(len(user), dtype=bool)
    not_evaluated: dict[str, int] = {}
    for window, name in ((VALID, "validation"), (TEST, "test")):
        wanted, asked = targets(target, user, item, part == window)
        is_target |= asked
        nothing = len(starts(user[wanted])) - len(starts(user[asked]))
        not_evaluated[f"{name} users with nothing before their target"] = nothing
        if target == "successive":
            alone = int(wanted.sum() - asked.sum())
            not_evaluated[f"{name} events with nothing before them"] = alone
    asked_of = np.unique(user[is_target & (part == TEST)])
    facts = {
        "name": "temporal",
        **_asked_cuts(plan),
        "target": target,
        "valid_after": valid_after,
        "test_after": test_after,
        "n_train": int((part == TRAIN).sum()),
        "n_valid_events": int((part == VALID).sum()),
        "n_test_events": int((part == TEST).sum()),
        "n_valid": len(starts(user[is_target & (part == VALID)])),
        "n_test": len(asked_of),
        "n_test_new_users": int((~np.isin(asked_of, user[time <= test_after])).sum()),
        **_several(target, is_target, part),
        "not_evaluated": not_evaluated,
    }
    return Split(part, is_target, facts)


def quantile(time: np.ndarray, q: float) -> int:
    """The element ``floor(q (n - 1))`` of the sorted times: an observed time, never interpolated."""
    place = int(np.floor(q * (len(time) - 1)))
    return int(np.partition(time, place)[place])


def moment(text: str, option: str, unit: str) -> int:
    """A date or time of day as UTC, or a whole number, in units of the source's times.

    Raises:
        RecbenchError: it is neither.
    """
    try:
        return int(text)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise RecbenchError(
            f"{option} {text!r} is no date.",
            why=f"It is a date, a date with a time (UTC unless it says otherwise), or a number of {UNITS[unit]}.",
            fix=f"{option} 2014-05-14",
        ) from error
    since = (when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.fromtimestamp(0, UTC)
    return (since.days * 86_400 + since.seconds) * PER_SECOND[unit] + since.microseconds * PER_SECOND[unit] // 1_000_000


def day(time: int, unit: str) -> str:
    """A time as a date, for sentences; the number itself where no calendar reaches."""
    try:
        return datetime.fromtimestamp(time // PER_SECOND[unit], UTC).date().isoformat()
    except (OverflowError, OSError, ValueError):
        return str(time)


def starts(user: np.ndarray) -> np.ndarray:
    """Where each user's events begin in events sorted by user, (U,)."""
    return np.flatnonzero(np.r_[True, user[1:] != user[:-1]]) if len(user) else np.empty(0, dtype=np.int64)


def _cuts(plan: Plan, time: np.ndarray, unit: str) -> tuple[int, int]:
    """The last moment of training and that of the validation window."""
    q = QUANTILE if plan.quantile is None else plan.quantile
    if plan.test_from is None:
        test_after = quantile(time, q)
    else:
        test_after = moment(plan.test_from, "--test-from", unit) - 1
        _refuse_outside("--test-from", plan.test_from, test_after, time, unit)
    if plan.valid_from is None:
        return quantile(time[time <= test_after], q), test_after
    valid_after = moment(plan.valid_from, "--valid-from", unit) - 1
    _refuse_outside("--valid-from", plan.valid_from, valid_after, time, unit)
    if valid_after >= test_after:
        raise RecbenchError(
            f"--valid-from {plan.valid_from} is not before the test window.",
            why=f"The test window begins at {test_after + 1} {UNITS[unit]} ({day(test_after + 1, unit)}).",
            fix="An earlier --valid-from, or a later --test-from",
        )
    return valid_after, test_after


def _refuse_outside(option: str, text: str, after: int, time: np.ndarray, unit: str) -> None:
    first, last = int(time.min()), int(time.max())
    if first <= after < last:
        return
    raise RecbenchError(
        f"{option} {text} cuts nothing.",
        why=f"The events run from {day(first, unit)} to {day(last, unit)} ({first} to {last} in {UNITS[unit]}), "
        "and both sides of a cut need some.",
        fix=f"{option} DATE between these",
    )


def targets(target: str, user: np.ndarray, item: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The events of a window that are wanted, and those of them that can be asked for: with something before them."""
    places = np.flatnonzero(window)
    of = user[places]
    first = np.r_[True, of[1:] != of[:-1]][: len(of)]
    wanted, asked = np.zeros(len(user), dtype=bool), np.zeros(len(user), dtype=bool)
    before = _from_start(user)[places] > 0
    if target == "last":
        chosen = np.r_[of[1:] != of[:-1], True][: len(of)]
    elif target == "first":
        chosen = first
    elif target == "successive":
        chosen = np.ones(len(of), dtype=bool)
    else:
        chosen = np.zeros(len(of), dtype=bool)
        key = of.astype(np.int64) * (int(item.max(initial=0)) + 1) + item[places]
        chosen[np.unique(key, return_index=True)[1]] = True
        before = np.repeat(before[first], np.diff(np.r_[np.flatnonzero(first), len(of)]))  # of the window's first event
    wanted[places[chosen]] = True
    asked[places[chosen & before]] = True
    return wanted, asked


def _asked_cuts(plan: Plan) -> dict[str, Any]:
    """How the cuts were asked for."""
    given = {name: getattr(plan, name) for name in ("valid_from", "test_from") if getattr(plan, name) is not None}
    return given if len(given) == 2 else {"quantile": plan.quantile or QUANTILE, **given}


def _several(target: str, is_target: np.ndarray, part: np.ndarray) -> dict[str, int]:
    """How many targets there are, where a user can have more than one."""
    if target not in ("all", "successive"):
        return {}
    return {f"n_{name}_targets": int((is_target & (part == which)).sum()) for name, which in WINDOWS.items()}


def _known(option: str, value: str, among: tuple[str, ...]) -> None:
    if value in among:
        return
    raise RecbenchError(
        f"Unknown {option} {value!r}.",
        why=f"The {option}s are: {', '.join(among)}.",
        fix=meant(value, among, f"--{option} {{}}") or f"--{option} {among[0]}",
    )


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


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
