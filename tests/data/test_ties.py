"""The order of equal times: shuffled within their block, the same for the same seed, blind to the source's order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recbench.data.ties import hashed, tied_with_neighbour


@given(st.lists(st.integers(1, 8), min_size=1, max_size=10), st.integers(0, 99))
def test_only_events_of_one_user_and_time_change_places(lengths: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    user = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    time = generator.integers(0, 4, len(user))
    time = time[np.lexsort((time, user))]
    item = np.arange(1, len(user) + 1)
    order = hashed(user, item, time, seed)
    assert sorted(order.tolist()) == list(range(len(user)))
    assert (user[order] == user).all()
    assert (time[order] == time).all()


def test_a_seed_is_one_order_and_another_seed_is_another() -> None:
    user, time, item = np.ones(50, dtype=int), np.zeros(50, dtype=int), np.arange(1, 51)
    one, again, other = (item[hashed(user, item, time, seed)].tolist() for seed in (0, 0, 1))
    assert one == again != other
    assert one != item.tolist()


def test_the_order_follows_from_raw_ids_and_not_from_the_source() -> None:
    user, time, item = np.ones(6, dtype=int), np.zeros(6, dtype=int), np.array([1, 2, 3, 4, 5, 6])
    raw = [f"B{n}" for n in range(6)]
    one = item[hashed(user, item, time, 0, ["u"], raw)]
    backwards = item[::-1]
    other = backwards[hashed(user, backwards, time, 0, ["u"], raw)]
    renumbered = np.array([6, 5, 4, 3, 2, 1])  # the same raw ids under other numbers
    third = renumbered[hashed(user, renumbered, time, 0, ["u"], raw[::-1])]
    assert one.tolist() == other.tolist()
    assert [raw[code - 1] for code in one] == [raw[::-1][code - 1] for code in third]


def test_two_users_with_the_same_day_get_unrelated_orders() -> None:
    n = 8
    user, time = np.repeat(np.arange(1, 41), n), np.zeros(40 * n, dtype=int)
    item = np.tile(np.arange(1, n + 1), 40)
    orders = {tuple(row) for row in item[hashed(user, item, time, 0)].reshape(40, n)}
    assert len(orders) == 40


def test_an_event_alone_at_its_time_is_not_tied() -> None:
    user, time = np.array([1, 1, 1, 2]), np.array([3, 3, 4, 4])
    assert tied_with_neighbour(user, time).tolist() == [True, True, False, False]
