"""Filters: k-core to the fixpoint, ratings, repeats."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbench.data.filtering import Filters, apply, k_core, one_of_each, rated_at_least
from recbench.data.sources.base import Events
from recbench.errors import RecbenchError


def naive_core(events: list[tuple[int, int]], k: int) -> list[tuple[int, int]]:
    """Drop one event of a too rare user or item at a time, until none is left to drop."""
    left = list(events)
    while True:
        users, items = Counter(u for u, _ in left), Counter(i for _, i in left)
        kept = [(u, i) for u, i in left if users[u] >= k and items[i] >= k]
        if kept == left:
            return left
        left = kept


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60), st.integers(1, 4))
def test_the_k_core_is_that_of_a_naive_loop(pairs: list[tuple[int, int]], k: int) -> None:
    user = np.array([u for u, _ in pairs], dtype=np.int32)
    item = np.array([i for _, i in pairs], dtype=np.int32)
    kept, _ = k_core(user, item, k)
    assert list(zip(user[kept].tolist(), item[kept].tolist(), strict=True)) == naive_core(pairs, k)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60), st.integers(1, 4))
def test_the_k_core_of_a_k_core_is_itself_and_that_of_a_smaller_k_holds_it(
    pairs: list[tuple[int, int]], k: int
) -> None:
    user = np.array([u for u, _ in pairs], dtype=np.int32)
    item = np.array([i for _, i in pairs], dtype=np.int32)
    kept, rounds = k_core(user, item, k)
    again, no_rounds = k_core(user[kept], item[kept], k)
    assert again.all()
    assert no_rounds == 0
    assert (rounds == 0) == kept.all()
    assert not (kept & ~k_core(user, item, k - 1)[0]).any()
    shuffled = np.random.default_rng(len(pairs)).permutation(len(pairs))
    assert (k_core(user[shuffled], item[shuffled], k)[0] == kept[shuffled]).all()


def events(rows: list[tuple[int, int, float, int]]) -> Events:
    table = np.array(rows)
    return Events(
        user=table[:, 0].astype(np.int32),
        item=table[:, 1].astype(np.int32),
        rating=table[:, 2].astype(np.float32),
        timestamp=table[:, 3].astype(np.int64),
        user_ids=[f"u{n}" for n in range(9)],
        item_ids=[f"i{n}" for n in range(9)],
        time_unit="s",
    )


ROWS = [(0, 0, 5, 10), (0, 1, 2, 20), (1, 0, 4, 30), (0, 0, 3, 5), (1, 1, 5, 40)]


def test_each_step_counts_what_is_left() -> None:
    rows, steps = apply(events(ROWS), Filters(core=0, min_rating=3, duplicates="first"))
    assert [(s.users, s.items, s.interactions) for s in steps] == [(2, 2, 5), (2, 2, 4), (2, 2, 3)]
    assert rows.tolist() == [2, 3, 4]  # of user 0 and item 0 the earliest, row 3, stays


@pytest.mark.parametrize(("policy", "kept"), [("first", [1, 2, 3, 4]), ("last", [0, 1, 2, 4])])
def test_one_of_repeated_events_stays_by_time(policy: str, kept: list[int]) -> None:
    e = events(ROWS)
    assert np.flatnonzero(_mask(one_of_each(e.user, e.item, e.timestamp, policy), 5)).tolist() == kept


def test_ratings_below_the_least_go() -> None:
    e = events(ROWS)
    assert np.flatnonzero(_mask(rated_at_least(e.rating, 4), 5)).tolist() == [0, 2, 4]


@pytest.mark.parametrize("least", [float("nan"), float("inf")])
def test_a_least_rating_that_is_no_rating_is_refused(least: float) -> None:
    with pytest.raises(RecbenchError, match="is no rating"):
        Filters(min_rating=least)


def test_a_rating_filter_without_ratings_is_refused() -> None:
    with pytest.raises(RecbenchError):
        rated_at_least(None, 4)


def _mask(found: np.ndarray, n: int) -> np.ndarray:
    """A filter's answer as a mask, be it one or a list of rows."""
    if found.dtype == bool:
        return found
    mask = np.zeros(n, dtype=bool)
    mask[found] = True
    return mask


def test_the_advised_core_leaves_something_and_the_next_one_nothing() -> None:
    dense = events([(u, i, 5.0, 1) for u in range(6) for i in range(4)])
    with pytest.raises(RecbenchError) as error:
        apply(dense, Filters(core=500))
    assert error.value.fix == "A weaker filter: --core 4, or --core 0 for none"
    assert len(apply(dense, Filters(core=4))[0]) == 24
