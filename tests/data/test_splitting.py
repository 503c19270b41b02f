"""Splits: parts cover the events once, and every target follows what it is predicted from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbench.data.splitting import TEST, TRAIN, VALID, leave_one_out, quantile, split, temporal
from recbench.errors import RecbenchError

LENGTHS = st.lists(st.integers(1, 8), min_size=1, max_size=10)


@given(LENGTHS)
def test_leave_one_out_holds_out_the_last_two_of_users_with_three(lengths: list[int]) -> None:
    user = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    made = leave_one_out(user)
    for number, length in enumerate(lengths, 1):
        expected = [TRAIN] * length if length < 3 else [TRAIN] * (length - 2) + [VALID, TEST]
        assert made.part[user == number].tolist() == expected
    assert (made.is_target == (made.part != TRAIN)).all()


@given(LENGTHS, st.integers(0, 99))
def test_a_cut_in_time_puts_every_target_behind_all_training(lengths: list[int], seed: int) -> None:
    user = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    time = np.random.default_rng(seed).integers(0, 30, len(user))
    time = time[np.lexsort((time, user))]
    made = temporal(user, time)
    train, valid, test = (time[made.part == part] for part in (TRAIN, VALID, TEST))
    if len(valid):
        assert train.max() < valid.min()
    if len(test) and len(valid):
        assert valid.max() < test.min()
    for place in np.flatnonzero(made.is_target):
        before = (user == user[place]) & (np.arange(len(user)) < place)
        assert before.any()
        after = (user == user[place]) & (np.arange(len(user)) > place)
        assert not (made.part[after] == made.part[place]).any()


def test_the_quantile_is_an_observed_time() -> None:
    assert quantile(np.array([50, 10, 40, 20, 30]), 0.9) == 40  # sorted, element floor(0.9 x 4) = 3


def test_a_cut_in_time_without_times_and_an_unknown_split_are_refused() -> None:
    user = np.array([1, 1, 1])
    with pytest.raises(RecbenchError, match="needs times"):
        split("temporal", user, None)
    with pytest.raises(RecbenchError, match="Unknown split"):
        split("leave-two-out", user, None)
