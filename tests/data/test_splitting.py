"""Splits: parts cover the events once, and every target follows what it is predicted from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbench.data.dataset import histories_of, queries_of
from recbench.data.splitting import (
    TARGETS,
    TEST,
    TRAIN,
    VALID,
    WINDOWS,
    Plan,
    Split,
    leave_one_out,
    moment,
    quantile,
    split,
    temporal,
)
from recbench.errors import Exit, RecbenchError

LENGTHS = st.lists(st.integers(1, 8), min_size=1, max_size=10)
SEEDS = st.integers(0, 99)
LAST = Plan(name="temporal")


def drawn(lengths: list[int], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, items and times sorted as preparation sorts them; few times, so that many are equal."""
    generator = np.random.default_rng(seed)
    user = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    time = generator.integers(0, 30, len(user))
    return user, generator.integers(1, 5, len(user)), time[np.lexsort((time, user))]


def asked(made: Split, user: np.ndarray, item: np.ndarray, name: str, *, together: bool) -> list[tuple[int, list, int]]:
    """(user, history, target) of each query of a window, through the code that evaluation uses."""
    upto = made.part <= WINDOWS[name]
    window = (made.part == WINDOWS[name])[upto]
    queries = queries_of(
        histories_of(user[upto], item[upto], None),
        made.is_target[upto] & window,
        window,
        name,  # type: ignore[arg-type]
        together=together,
    )
    rows = range(len(queries))
    return [(int(queries.histories.users[r]), queries.histories.row(r).tolist(), int(queries.targets[r])) for r in rows]


@given(LENGTHS)
def test_leave_one_out_holds_out_the_last_two_of_users_with_three(lengths: list[int]) -> None:
    user = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    made = leave_one_out(user)
    for number, length in enumerate(lengths, 1):
        expected = [TRAIN] * length if length < 3 else [TRAIN] * (length - 2) + [VALID, TEST]
        assert made.part[user == number].tolist() == expected
    assert (made.is_target == (made.part != TRAIN)).all()


@given(LENGTHS, SEEDS, st.sampled_from(TARGETS))
def test_parts_follow_each_other_in_time_and_hold_every_event_once(lengths: list[int], seed: int, target: str) -> None:
    user, item, time = drawn(lengths, seed)
    made = temporal(Plan(name="temporal", target=target), user, item, time)
    parts = [time[made.part == part] for part in (TRAIN, VALID, TEST)]
    for earlier, later in ((0, 1), (1, 2), (0, 2)):
        if len(parts[earlier]) and len(parts[later]):
            assert parts[earlier].max() < parts[later].min()
    facts = made.facts
    assert facts["n_train"] + facts["n_valid_events"] + facts["n_test_events"] == len(user)
    assert not (made.is_target & (made.part == TRAIN)).any()


@given(LENGTHS, SEEDS, st.sampled_from(TARGETS), st.sampled_from(list(WINDOWS)))
def test_every_target_and_its_history_are_those_of_a_plain_loop(
    lengths: list[int], seed: int, target: str, name: str
) -> None:
    user, item, time = drawn(lengths, seed)
    made = temporal(Plan(name="temporal", target=target), user, item, time)
    expected = []
    for one in np.unique(user):
        mine = [(int(i), int(p)) for i, p in zip(item[user == one], made.part[user == one], strict=True)]
        window = [place for place, (_, part) in enumerate(mine) if part == WINDOWS[name]]
        if not window:
            continue
        items = [i for i, _ in mine]
        if target == "all":
            distinct = list(dict.fromkeys(items[place] for place in window))
            wanted = [(items[: window[0]], i) for i in distinct]
        else:
            chosen = {"last": window[-1:], "first": window[:1], "successive": window}[target]
            wanted = [(items[:place], items[place]) for place in chosen]
        expected += [(int(one), history, i) for history, i in wanted if history]
    assert asked(made, user, item, name, together=target == "all") == expected
    n_users = len({one for one, _, _ in expected})
    nothing = sum(n for why, n in made.facts["not_evaluated"].items() if why.startswith(_word(name)) and "users" in why)
    assert made.facts[f"n_{name}"] == n_users
    assert n_users + nothing == len(np.unique(user[made.part == WINDOWS[name]]))


def _word(name: str) -> str:
    return {"valid": "validation", "test": "test"}[name]


def test_several_targets_of_a_user_by_hand() -> None:
    # One user; days 1 2 | 3 3 4 after the cut, items a b | c a c: nothing of the validation window is shown here.
    user, time = np.ones(5, dtype=int), np.array([1, 2, 3, 3, 4])
    item = np.array([1, 2, 3, 1, 3])
    found = {}
    for target in TARGETS:
        plan = Plan(name="temporal", target=target, valid_from="2", test_from="3")
        found[target] = asked(temporal(plan, user, item, time), user, item, "test", together=target == "all")
    assert found["last"] == [(1, [1, 2, 3, 1], 3)]
    assert found["first"] == [(1, [1, 2], 3)]
    assert found["all"] == [(1, [1, 2], 3), (1, [1, 2], 1)]
    assert found["successive"] == [(1, [1, 2], 3), (1, [1, 2, 3], 1), (1, [1, 2, 3, 1], 3)]


def test_the_quantile_is_an_observed_time() -> None:
    assert quantile(np.array([50, 10, 40, 20, 30]), 0.9) == 40  # sorted, element floor(0.9 x 4) = 3


def test_an_event_at_a_cut_belongs_to_the_earlier_part() -> None:
    # Times 0..9, q = 0.5: the test is what is later than element floor(0.5 x 9) = 4, validation than floor(0.5 x 4) = 2.
    made = temporal(Plan(name="temporal", quantile=0.5), np.ones(10, dtype=int), np.arange(10), np.arange(10))
    assert made.part.tolist() == [TRAIN] * 3 + [VALID] * 2 + [TEST] * 5
    assert (made.facts["valid_after"], made.facts["test_after"], made.facts["quantile"]) == (2, 4, 0.5)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("1400025600", "s", 1_400_025_600),
        ("2014-05-14", "s", 1_400_025_600),
        ("2014-05-14", "ms", 1_400_025_600_000),
        ("2014-05-14T02:00:00+02:00", "s", 1_400_025_600),
        ("2014-05-14 00:00:00.250", "ms", 1_400_025_600_250),
        ("1969-12-31", "s", -86_400),
    ],
)
def test_a_cut_is_a_date_or_a_time_of_the_source(text: str, unit: str, value: int) -> None:
    assert moment(text, "--test-from", unit) == value


def test_a_cut_by_date_begins_its_window() -> None:
    user, item, time = np.array([1, 1, 1, 1]), np.array([1, 2, 3, 4]), np.array([0, 86_400, 86_401, 172_800])
    made = temporal(Plan(name="temporal", valid_from="1970-01-02", test_from="1970-01-03"), user, item, time)
    assert made.part.tolist() == [TRAIN, VALID, VALID, TEST]
    assert made.facts["valid_from"] == "1970-01-02"
    assert "quantile" not in made.facts


def refused(words: str, **plan: object) -> RecbenchError:
    user, item, time = np.array([1, 1, 1, 1]), np.array([1, 2, 3, 4]), np.array([0, 86_400, 86_401, 172_800])
    with pytest.raises(RecbenchError) as error:
        split(Plan(**plan), user, item, time, "s")  # type: ignore[arg-type]
    assert words in f"{error.value.what} {error.value.why}"
    assert error.value.fix
    return error.value


def test_what_cannot_be_split_is_refused_with_a_reason() -> None:
    assert "leave-one-out" in refused("Unknown split 'leave-one-ot'", name="leave-one-ot").fix
    assert "--target first" in refused("Unknown target 'firts'", name="temporal", target="firts").fix
    refused("--quantile 1.5 is not between 0 and 1", name="temporal", quantile=1.5)
    refused("--target does not go with --split leave-one-out", target="all")
    refused("--test-from does not go with", test_from="2014-05-14")
    refused("cannot all be given", name="temporal", quantile=0.5, valid_from="1", test_from="2")
    refused("--test-from 'soon' is no date", name="temporal", test_from="soon")
    refused("from 1970-01-01 to 1970-01-03", name="temporal", test_from="2014-05-14")
    refused("--valid-from 0 cuts nothing", name="temporal", valid_from="0", test_from="1970-01-03")
    refused("is not before the test window", name="temporal", valid_from="1970-01-03", test_from="1970-01-02")


def test_a_split_that_leaves_nobody_and_one_without_times_are_refused() -> None:
    user = np.array([1, 1, 1])
    with pytest.raises(RecbenchError, match="needs times"):
        split(LAST, user, user, None, None)
    with pytest.raises(RecbenchError, match="leaves nobody") as error:
        split(Plan(), user[:2], user[:2], None, None)
    assert error.value.code == Exit.DATA
    with pytest.raises(RecbenchError, match="leaves nobody"):
        split(LAST, user, user, np.array([5, 5, 5]), "s")
