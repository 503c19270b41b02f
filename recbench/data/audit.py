"""What a reader should know before believing a number on this dataset: ties, unseen targets, repeats, leaks of time."""

from __future__ import annotations

from typing import Any

import numpy as np

from recbench.data.filtering import pairs
from recbench.data.splitting import TEST, TRAIN, Split, starts

SUSPICIOUS = 0.9
"""Share of lists in ascending order of item from which the order is taken to be by item. By chance it is under 1 %."""


def audit(
    user: np.ndarray, item: np.ndarray, time: np.ndarray | None, raw_order: np.ndarray, split: Split
) -> dict[str, Any]:
    """Facts for the card.

    Args:
        user: (E,) sorted; the events of a user in sequence order.
        item: (E,) item of each event.
        time: (E,) or None.
        raw_order: (E,) place of the item among the sorted raw ids.
        split: of the same events.
    """
    n_users = len(starts(user))
    target = split.is_target & (split.part == TEST)
    seen = np.zeros(int(item.max(initial=0)) + 1, dtype=bool)
    seen[item[split.part == TRAIN]] = True
    facts = {
        "users": n_users,
        "test_targets": int(target.sum()),
        "test_targets_unseen_in_training": int((~seen[item[target]]).sum()),
        "test_targets_repeated_from_history": int((_repeated(user, item) & target).sum()),
        "repeated_user_item_events": len(user) - len(np.unique(pairs(user, item))),
        "repeated_user_item_time_events": _exact_repeats(user, item, time),
        "users_with_ascending_lists": ascending_lists(user, raw_order),
        "users_with_fewer_than_3_events": int((np.diff(np.r_[starts(user), len(user)]) < 3).sum()),
    }
    return facts | ({} if time is None else _of_time(user, time, split, target))


def raw_places(raw_ids: list[str]) -> np.ndarray:
    """Place of each raw id in their order: by number where all are numbers, else as text."""
    numeric = all(raw.isascii() and raw.isdigit() for raw in raw_ids)
    ranked = sorted(range(len(raw_ids)), key=(lambda at: int(raw_ids[at])) if numeric else raw_ids.__getitem__)
    places = np.empty(len(raw_ids), dtype=np.int64)
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
        found.append(f"{facts['users_with_fewer_than_3_events']:,} users have fewer than 3 events.")
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


def _repeated(user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """True where the user has had the item before."""
    _, first = np.unique(pairs(user, item), return_index=True)
    again = np.ones(len(user), dtype=bool)
    again[first] = False
    return again


def _exact_repeats(user: np.ndarray, item: np.ndarray, time: np.ndarray | None) -> int:
    """Events of the same user, item and time as another one before; without times there is nothing to tell."""
    if time is None or not len(user):
        return 0
    key = pairs(user, item)
    order = np.lexsort((time, key))
    return int(((np.diff(key[order]) == 0) & (np.diff(time[order]) == 0)).sum())
