"""What a reader should know before believing a number on this dataset: ties, unseen targets, repeats, leaks of time."""

from __future__ import annotations

from typing import Any

import numpy as np

from recbench.data import ties
from recbench.data.filtering import pairs
from recbench.data.splitting import TEST, TRAIN, Split, day, starts

SUSPICIOUS = 0.9
"""Share of lists in ascending order of item from which the order is taken to be by item. By chance it is under 1 %."""

SHUFFLE = 0
"""Seed of the shuffles that the audit compares with."""
STRETCHES = 12
"""Bars of the histogram of time."""
TOP = 100
"""How many of the most popular items are compared."""


def audit(
    user: np.ndarray,
    item: np.ndarray,
    time: np.ndarray | None,
    raw_order: np.ndarray,
    split: Split,
    unit: str | None = "s",
) -> dict[str, Any]:
    """Facts for the card.

    Args:
        user: (E,) sorted; the events of a user in sequence order.
        item: (E,) item of each event.
        time: (E,) or None.
        raw_order: (E,) place of the item among the sorted raw ids.
        split: of the same events.
        unit: of the times.
    """
    n_users = len(starts(user))
    target = split.is_target & (split.part == TEST)
    earlier, again = _repeats(user, item)
    seen = np.zeros(int(item.max(initial=0)) + 1, dtype=bool)
    seen[item[split.part == TRAIN]] = True
    facts: dict[str, Any] = {
        "users": n_users,
        "test_targets": int(target.sum()),
        "test_targets_unseen_in_training": int((~seen[item[target]]).sum()),
        "test_targets_repeated_from_history": int(target[again].sum()),
        "repeated_user_item_events": len(again),
        "repeated_user_item_time_events": 0 if time is None else int((time[again] == time[earlier]).sum()),
        "users_with_ascending_lists": ascending_lists(user, raw_order),
        "users_with_fewer_than_3_events": int((np.diff(np.r_[starts(user), len(user)]) < 3).sum()),
    }
    facts["histograms"] = _histograms(user, item, time, unit)
    if time is None:
        return facts
    return facts | _of_time(user, time, split, target) | _of_ties(user, item, time, split, target) | drift(item, time)


def raw_places(raw_ids: list[str]) -> np.ndarray:
    """Place of each raw id in their order: by number where all are numbers, else as text."""
    numeric = all(raw.isascii() and raw.isdigit() for raw in raw_ids)
    ranked = sorted(range(len(raw_ids)), key=(lambda at: int(raw_ids[at])) if numeric else raw_ids.__getitem__)
    places = np.empty(len(raw_ids), dtype=np.int32)
    places[ranked] = np.arange(len(raw_ids))
    return places


def ascending_lists(user: np.ndarray, raw_order: np.ndarray) -> int:
    """How many users' lists never descend in raw item id."""
    falls = (user[1:] == user[:-1]) & (raw_order[1:] < raw_order[:-1])
    return len(starts(user)) - len(np.unique(user[1:][falls]))


def warnings(facts: dict[str, Any]) -> list[str]:
    """What in the audit calls for a warning."""
    found = []
    if facts["users"] and facts["users_with_ascending_lists"] / facts["users"] >= SUSPICIOUS:
        found.append(
            f"The lists of {facts['users_with_ascending_lists']:,} of {facts['users']:,} users ascend by item id: "
            "this source is probably sorted by item, not by time, and its order means nothing."
        )
    if facts["users_with_fewer_than_3_events"]:
        short = facts["users_with_fewer_than_3_events"]
        found.append(f"{short:,} user{' has' if short == 1 else 's have'} fewer than 3 events.")
    return found


def _of_time(user: np.ndarray, time: np.ndarray, split: Split, target: np.ndarray) -> dict[str, Any]:
    """Ties between neighbours, and how much of training lies in the future of a test event."""
    same = np.r_[False, (user[1:] == user[:-1]) & (time[1:] == time[:-1])]
    training = np.sort(time[split.part == TRAIN])
    later = len(training) - np.searchsorted(training, time[target], side="right")
    return {
        "users_with_tied_times": len(np.unique(user[same])),
        "test_targets_tied_with_event_before": int((same & target).sum()),
        "share_of_test_targets_older_than_newest_training_event": float((later > 0).mean()),
        "mean_share_of_training_events_after_test_target": float(later.mean() / len(training)),
    }


def _of_ties(user: np.ndarray, item: np.ndarray, time: np.ndarray, split: Split, target: np.ndarray) -> dict[str, Any]:
    """How many test targets are another item once equal times are shuffled.

    Parts depend on times and places only, so a shuffle within equal times leaves the split where it is. A set of targets
    (``all``) does not change: its window begins and ends between two times.
    """
    if split.facts.get("target") == "all":
        return {"test_targets_changed_by_shuffled_ties": 0}
    other = item[ties.hashed(user, item, time, SHUFFLE)]
    return {"test_targets_changed_by_shuffled_ties": int((target & (item != other)).sum())}


def drift(item: np.ndarray, time: np.ndarray) -> dict[str, Any]:
    """How far what is popular moves with time: the older half of the events against the newer.

    The distance is half the sum of absolute differences of the items' shares (total variation): 0 the same, 1 nothing in
    common. Sparse counts differ by chance alone, so the same distance of two random halves stands beside it.
    """
    n_items = int(item.max(initial=0)) + 1
    half = len(item) // 2
    if not half:
        return {}
    by_time = item[np.argsort(time, kind="stable")]
    by_chance = np.random.default_rng(SHUFFLE).permutation(item)
    old, new = (np.bincount(part, minlength=n_items) for part in (by_time[:half], by_time[half:]))
    top = min(TOP, n_items - 1)
    best = [np.argsort(-counts, kind="stable")[:top] for counts in (old, new)]
    return {
        "popularity_drift": _distance(by_time, half, n_items),
        "popularity_drift_by_chance": _distance(by_chance, half, n_items),
        "top_items": top,
        "top_items_of_older_half_kept_in_newer": int(np.isin(best[0], best[1]).sum()),
    }


def _histograms(user: np.ndarray, item: np.ndarray, time: np.ndarray | None, unit: str | None) -> dict[str, Any]:
    """Bins as ``[name, count]``: lengths and popularity by doubling, time in equal stretches."""
    found = {
        "events_per_user": _doubling(np.diff(np.r_[starts(user), len(user)])),
        "events_per_item": _doubling(np.bincount(item)[1:]),
    }
    if time is not None and len(time):
        first, last = int(time.min()), int(time.max())
        n_bins = min(STRETCHES, last - first + 1)
        edges = [first + (last + 1 - first) * place // n_bins for place in range(n_bins + 1)]
        counts = np.histogram(time, np.array(edges))[0]
        found["events_by_time"] = [[day(edge, unit or "s"), int(n)] for edge, n in zip(edges[:-1], counts, strict=True)]
    return found


def _doubling(values: np.ndarray) -> list[list[Any]]:
    """1, 2, 3-4, 5-8, 9-16 and so on; only from the first bin with a value to the last."""
    values = values[values > 0]
    if not len(values):
        return []
    bins = np.ceil(np.log2(values)).astype(np.int64)
    counts = np.bincount(bins)
    names = ["1", "2", *(f"{2 ** (n - 1) + 1}-{2**n}" for n in range(2, len(counts)))]
    return [[names[n], int(counts[n])] for n in range(int(bins.min()), len(counts))]


def _distance(item: np.ndarray, half: int, n_items: int) -> float:
    one, other = (np.bincount(part, minlength=n_items) / len(part) for part in (item[:half], item[half:]))
    return float(np.abs(one - other).sum() / 2)


def _repeats(user: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each event stands that repeats a user and item, and where the latest before it does: ``(earlier, again)``."""
    key = pairs(user, item)
    order = np.argsort(key, kind="stable")  # so that equal pairs stay in sequence order
    same = np.flatnonzero(np.diff(key[order]) == 0)
    return order[same], order[same + 1]
