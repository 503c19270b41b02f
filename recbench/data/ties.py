"""Events of one user at one time have no order of their own: another order for them, drawn by a seeded hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from recbench.data.filtering import places

ROWS = 1 << 20


def hashed(
    user: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    seed: int,
    user_ids: Sequence[str] | None = None,
    item_ids: Sequence[str] | None = None,
) -> np.ndarray:
    """Where each event comes from once equal times stand in the order of a hash of user, item and ``seed``, (E,).

    Args:
        user: (E,) sorted, ids from 1.
        item: (E,) ids from 1.
        time: (E,) ascending within a user.
        seed: another seed gives another order.
        user_ids: raw id of each user, from id 1 on: the order then follows from what the source says, not from ids. None:
            the ids themselves are hashed, which is enough to shuffle.
        item_ids: raw id of each item.
    """
    order = places(len(user))
    rows = np.flatnonzero(tied_with_neighbour(user, time))
    if not len(rows):
        return order
    salt = np.uint64(int.from_bytes(hashlib.sha256(f"ties {seed}".encode()).digest()[:8], "little"))
    keys = [_keys(codes[rows], raw_ids) for codes, raw_ids in ((user, user_ids), (item, item_ids))]
    for part in _stretches(user[rows]):
        at = rows[part]
        key = _mixed(_mixed(keys[0](user[at]) ^ salt) ^ keys[1](item[at]))
        order[at] = at[np.lexsort((key, time[at], user[at]))]  # ties stay in their block: the places are the same
    return order


def tied_with_neighbour(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """True for events that share user and time with the one before or behind, (E,)."""
    same = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
    return np.r_[False, same] | np.r_[same, False] if len(user) else np.zeros(0, dtype=bool)


def _stretches(user: np.ndarray) -> Iterator[slice]:
    """Slices of about ``ROWS`` rows, each user's in one: what is needed for a slice is not needed for all at once."""
    begin = 0
    while begin < len(user):
        stop = min(begin + ROWS, len(user))
        stop = int(np.searchsorted(user, user[stop - 1], side="right"))
        yield slice(begin, stop)
        begin = stop


def _keys(codes: np.ndarray, raw_ids: Sequence[str] | None) -> Callable[[np.ndarray], np.ndarray]:
    """Gives 64 bits for each code among ``codes``: of its raw id, if there are raw ids."""
    if raw_ids is None:
        return lambda of: of.astype(np.uint64)
    distinct = np.unique(codes)
    digests = [hashlib.sha256(raw_ids[code - 1].encode()).digest()[:8] for code in distinct.tolist()]
    table = np.zeros(len(raw_ids) + 1, dtype=np.uint64)
    table[distinct] = np.frombuffer(b"".join(digests), dtype="<u8")
    return lambda of: table[of]


def _mixed(value: np.ndarray) -> np.ndarray:
    """Every bit of the result depends on every bit of ``value`` (the finaliser of SplitMix64; Steele et al., 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
