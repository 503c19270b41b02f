"""Packed batches: which rows an epoch holds, and how they are laid out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recbench.data.batching import Batch, Rows, TrainingRows, query_batches
from tests.systems import CPU, histories, queries

LONG = [[1, 2], [3, 4, 5], list(range(1, 12))]


def pairs(rows: TrainingRows, size: int = 4) -> list[tuple[tuple[int, ...], int]]:
    """Every (inputs up to the asked token, target) of an epoch, sorted."""
    found = []
    for batch in rows.batches(size, np.random.default_rng(0), CPU):
        for at, target in zip(batch.at_Q.tolist(), batch.targets_Q.tolist(), strict=True):
            start = int(batch.rows.starts[int(batch.rows.row_N[at])])
            found.append((tuple(batch.items_N[start : at + 1].tolist()), target))
    return sorted(found)


def prefixes(rows: list[list[int]], max_length: int) -> list[tuple[tuple[int, ...], int]]:
    return sorted((tuple(row[max(0, t - max_length) : t]), row[t]) for row in rows for t in range(1, len(row)))


def test_every_position_of_short_users_equals_one_row_a_prefix() -> None:
    rows = TrainingRows(histories(LONG), max_length=20, window="last", every_position=True)
    assert pairs(rows) == prefixes(LONG, 20)


def test_exact_windows_equal_one_row_a_prefix_for_long_users_too() -> None:
    rows = TrainingRows(histories(LONG), max_length=4, window="exact", every_position=True)
    assert pairs(rows) == prefixes(LONG, 4)


def test_prefix_rows_ask_after_their_last_token_only() -> None:
    rows = TrainingRows(histories(LONG), max_length=4, window="last", every_position=False)
    assert pairs(rows) == prefixes(LONG, 4)
    assert rows.n_targets == len(rows.length) == 13


def test_the_last_window_keeps_the_newest_targets() -> None:
    rows = TrainingRows(histories(LONG), max_length=4, window="last", every_position=True)
    assert rows.n_targets == 1 + 2 + 4
    assert [target for _, target in pairs(rows) if target > 5] == [8, 9, 10, 11]


@pytest.mark.parametrize("every_position", [True, False])
def test_all_windows_hold_every_part_of_every_history_once(every_position: bool) -> None:
    rows = TrainingRows(histories(LONG), max_length=4, window="all", every_position=every_position)
    parts = [(tuple(row[s:t]), row[t]) for row in LONG for t in range(1, len(row)) for s in range(max(0, t - 4), t)]
    assert pairs(rows) == sorted(parts)
    assert rows.n_targets == len(parts)
    assert rows.target_counts(11)[11] == 4


@pytest.mark.parametrize("every_position", [True, False])
def test_partners_are_drawn_evenly_also_where_a_target_stands_in_many_rows(every_position: bool) -> None:
    users = [[1, 2, 3, 9], [4, 9, 5], [6, 7, 9]]
    rows = TrainingRows(histories(users), max_length=4, window="all", every_position=every_position)
    events = np.flatnonzero(rows.histories.items == 9)
    for own in events:
        drawn = [int(rows.partners(np.array([own]), np.array([u]), CPU)[1].place_Q[0]) for u in (0.0, 0.49, 0.51, 0.99)]
        assert drawn == [event for event in events if event != own for _ in range(2)]


@pytest.mark.parametrize(
    ("kind", "left_out"),
    [
        ({"window": "last", "every_position": True}, 4),
        ({"window": "exact", "every_position": True}, 0),
        ({"window": "all", "every_position": True}, 0),
        ({"window": "last", "every_position": False}, 0),
    ],
)
def test_rows_say_how_many_targets_their_window_leaves_out(kind: dict[str, object], left_out: int) -> None:
    users = [[7], [1, 2, 3], [1, 2, 3, 4, 5, 6, 7, 8, 9]]  # ten events have a history; the last four inputs are kept
    rows = TrainingRows(histories(users), max_length=4, **kind)  # type: ignore[arg-type]
    assert rows.left_out() == (left_out, 10)


def test_the_rows_of_some_targets_are_those_that_ask_for_one_and_only_these_fill_a_batch() -> None:
    users = [[1, 2, 3], [4, 5], [6, 7, 8, 9, 1], [2, 3, 4]]
    rows = TrainingRows(histories(users), max_length=3, window="exact", every_position=True)
    wanted = np.isin(
        np.arange(13), [0, 2, 6, 9, 11]
    )  # the first event of user 1; one target of users 1 and 4, two of user 3
    held = rows.holding(wanted)
    assert held.n_targets == 4
    batches = list(held.batches(2, np.random.default_rng(0), CPU))
    assert len(batches) == 2
    asked = np.concatenate([batch.place_Q for batch in batches])
    assert sorted(asked) == [1, 2, 6, 7, 8, 9, 11, 12]
    assert all(wanted[batch.place_Q].sum() == 2 for batch in batches)
    assert (rows.n_targets, len(rows.length)) == (9, 5)  # as it was


def test_users_without_a_target_make_no_row() -> None:
    rows = TrainingRows(histories([[5], [1, 2]]), max_length=4, window="last", every_position=True)
    assert rows.n_targets == 1


def test_an_epoch_has_nearly_equal_steps_and_another_order_each_time() -> None:
    rows = TrainingRows(histories([[1, 2, 3]] * 50), max_length=4, window="last", every_position=True)
    sizes = [len(b.at_Q) for b in rows.batches(10, np.random.default_rng(0), CPU)]
    assert len(sizes) == rows.steps(10) == 10
    assert sizes == [10] * 10
    first = [b.users_B.tolist() for b in rows.batches(10, np.random.default_rng(1), CPU)]
    assert first != [b.users_B.tolist() for b in rows.batches(10, np.random.default_rng(2), CPU)]


def test_batches_are_sorted_by_length_and_targets_follow_their_tokens() -> None:
    rows = TrainingRows(histories(LONG), max_length=20, window="last", every_position=True)
    (batch,) = rows.batches(1000, np.random.default_rng(0), CPU)
    assert batch.rows.lengths.tolist() == [1, 2, 10]
    assert batch.items_N.tolist() == [1, 3, 4, *range(1, 11)]
    assert batch.targets_Q.tolist() == [2, 4, 5, *range(2, 12)]
    assert batch.rows.position_N.tolist() == [0, 0, 1, *range(10)]


def test_buckets_cover_every_token_once() -> None:
    lengths = np.array([1, 3, 4, 5, 8, 8, 9, 50, 70])
    rows = Rows(lengths, CPU)
    assert [(b.first, b.last, b.rows, b.width) for b in rows.buckets] == [
        (0, 8, 3, 4), (8, 29, 3, 8), (29, 38, 1, 9), (38, 88, 1, 50), (88, 158, 1, 70),
    ]  # fmt: skip
    cells = rows.buckets[0].cell_N
    assert cells is not None
    assert cells.tolist() == [0, 4, 5, 6, 8, 9, 10, 11]
    assert rows.buckets[2].cell_N is None


def test_queries_come_with_their_places_and_are_cut_to_their_newest_events() -> None:
    asked = queries([[1, 2, 3, 4, 5], [6, 7]])
    ((places, batch),) = query_batches(asked, 3, 10, CPU)
    assert places.tolist() == [1, 0]
    assert batch.items_N.tolist() == [6, 2, 3, 4]
    assert batch.targets_Q is not None
    assert batch.targets_Q.tolist() == [7, 5]
    assert batch.at_Q.tolist() == [0, 3]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_query_is_asked_once_whatever_the_batch_size(size: int) -> None:
    asked = queries([[1, 2], [1, 2, 3], [4, 5, 6, 7], [8, 9], [1, 3, 5]])
    places = np.concatenate([chosen for chosen, _ in query_batches(asked, None, size, CPU)])
    assert sorted(places.tolist()) == [0, 1, 2, 3, 4]


def test_times_travel_with_their_events() -> None:
    rows = TrainingRows(histories([[1, 2, 3], [4, 5]], times=True), max_length=9, window="last", every_position=True)
    (batch,) = rows.batches(100, np.random.default_rng(0), CPU)
    assert batch.times_N is not None
    assert torch.equal(batch.times_N, torch.tensor([3, 0, 1]))


def training(rows: list[list[int]], held_back: int = 0, **changes: object) -> TrainingRows:
    """Training rows of these users, whose last ``held_back`` events are no part of training but stand in the same arrays."""
    past = histories(rows, times=True)
    cut = replace(past, stops=past.stops - held_back)
    return TrainingRows(cut, **{"max_length": 20, "window": "last", "every_position": True, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("every_position", [True, False])
def test_each_token_knows_the_time_of_the_event_that_follows_it(every_position: bool) -> None:
    """The clock of these rows is the place of the event: what follows is one later. No time is that of an event held back."""
    past = histories([[1, 2, 3, 9], [4, 5, 9], [6, 7, 8, 1, 2, 9]], times=True)
    past = replace(past, stops=past.stops - 1)  # the last event is not in training
    rows = TrainingRows(past, max_length=3, window="last", every_position=every_position)
    for batch in rows.batches(100, np.random.default_rng(0), CPU):
        assert batch.times_N is not None
        assert batch.next_times_N is not None
        assert torch.equal(batch.next_times_N, batch.times_N + 1)
        assert past.times[batch.place_Q].tolist() == batch.next_times_N[batch.at_Q].tolist()
        assert not set(batch.next_times_N.tolist()) & {3, 6, 12}


def test_a_query_knows_the_time_of_its_target_only_if_it_is_told() -> None:
    asked = queries([[1, 2, 3, 4, 5], [6, 7, 8]])
    past = histories([[1, 2, 3, 4, 5], [6, 7, 8]], times=True)
    asked = replace(asked, histories=replace(past, stops=past.stops - 1), times=np.array([100, 200]))
    _, batch = next(query_batches(asked, 3, 9, CPU))
    assert batch.times_N.tolist() == [5, 6, 1, 2, 3]
    assert batch.next_times_N.tolist() == [6, 200, 2, 3, 100]
    assert next(query_batches(asked.only(np.array([0])), 3, 9, CPU))[1].next_times_N.tolist() == [2, 3, 100]
    for unknown in (asked.histories, replace(asked, times=None)):
        assert next(query_batches(unknown, 3, 9, CPU))[1].next_times_N is None


def drawn(rows: TrainingRows, place: int, times: int) -> np.ndarray:
    """The partner of one target, drawn so often."""
    uniform = np.random.default_rng(0).random(times)
    chosen, batch = rows.partners(np.full(times, place), uniform, CPU)
    return batch.place_Q[np.argsort(chosen)]  # type: ignore[index,no-any-return]


SHARED = [[1, 9], [2, 3, 9], [4, 9, 8], [9, 5, 6]]
"""Item 9 is a target at events 1, 4 and 6, and once an input only; item 8 is a target once, at 7."""


def test_a_partner_is_each_other_target_of_the_item_equally_often_and_never_itself() -> None:
    for own, others in ((1, {4, 6}), (4, {1, 6}), (6, {1, 4})):
        found, counts = np.unique(drawn(training(SHARED), own, 10_000), return_counts=True)
        assert set(found) == others
        assert abs(counts / 10_000 - 1 / 2).max() < 0.015


def test_a_target_without_another_is_its_own_partner() -> None:
    assert set(drawn(training(SHARED), 7, 100)) == {7}


def test_over_uniform_targets_the_partner_is_uniform_over_the_targets_of_the_item() -> None:
    places = np.random.default_rng(1).choice([1, 4, 6], 30_000)
    _, batch = training(SHARED).partners(places, np.random.default_rng(2).random(30_000), CPU)
    _, counts = np.unique(batch.place_Q, return_counts=True)
    assert abs(counts / 30_000 - 1 / 3).max() < 0.015


def test_events_held_back_from_training_are_no_partners() -> None:
    """Each user's last event is a 9; it stands in the arrays, as what evaluation asks for does."""
    rows = training([[1, 9, 9], [2, 3, 9, 9], [4, 5, 9]], held_back=1)
    assert rows.n_targets == 4
    assert set(drawn(rows, 1, 500)) == {5}
    assert set(drawn(rows, 5, 500)) == {1}


def test_targets_that_a_window_drops_are_no_partners() -> None:
    rows = training([[1, 9, 2, 3, 4], [5, 9], [6, 9]], max_length=3)
    assert set(drawn(rows, 6, 500)) == {8}


@pytest.mark.parametrize("kind", [{"window": "last"}, {"window": "exact"}, {"every_position": False}])
def test_a_partner_row_is_the_newest_history_before_its_target_and_no_more(kind: dict[str, object]) -> None:
    rng = np.random.default_rng(3)
    users = [rng.integers(1, 6, n).tolist() for n in (2, 3, 5, 8, 12)]
    rows = training(users, held_back=1, max_length=4, **kind)
    flat, start = [item for user in users for item in user], np.cumsum([0] + [len(user) for user in users])
    for batch in rows.batches(8, rng, CPU):
        chosen, other = rows.partners(batch.place_Q, rng.random(len(batch.at_Q)), CPU)  # type: ignore[arg-type]
        assert sorted(chosen) == list(range(len(batch.at_Q)))
        assert (np.diff(other.rows.lengths) >= 0).all()
        assert torch.equal(other.at_Q, other.rows.last_B)
        for row, place in enumerate(other.place_Q):  # type: ignore[arg-type]
            user = int(np.searchsorted(start, place, side="right")) - 1
            first, length = int(other.rows.starts[row]), int(other.rows.lengths[row])
            before = list(range(start[user], place))[-4:]
            assert other.items_N[first : first + length].tolist() == [flat[event] for event in before]
            assert other.times_N[first : first + length].tolist() == before  # type: ignore[index]
            after = [time + 1 for time in before]
            assert other.next_times_N[first : first + length].tolist() == after  # type: ignore[index]
            assert other.users_B[row] == user + 1
            assert flat[place] == batch.targets_Q[chosen[row]]  # type: ignore[index]
            assert place < start[user + 1] - 1


@pytest.mark.parametrize("kept", [[], [0], [1, 3], [0, 1, 2, 3]])
def test_some_rows_of_a_batch_are_a_batch(kept: list[int]) -> None:
    (batch,) = training([[1, 2], [3, 4, 5], [6, 7, 8, 9], [1, 3, 5, 7, 9]], max_length=3).batches(
        99, np.random.default_rng(0), CPU
    )
    batch = replace(batch, at_Q=batch.at_Q[1:], targets_Q=batch.targets_Q[1:], place_Q=batch.place_Q[1:])  # type: ignore[index]
    some, token_N, asked_Q = batch.only(np.array(kept, dtype=np.int64))
    lengths, starts = batch.rows.lengths, batch.rows.starts
    assert some.rows.lengths.tolist() == [lengths[b] for b in kept]
    assert token_N.tolist() == [n for b in kept for n in range(starts[b], starts[b] + lengths[b])]
    assert asked_Q.tolist() == [q for q in range(len(batch.at_Q)) if int(batch.row_Q[q]) in kept]
    assert torch.equal(some.items_N, batch.items_N[token_N])
    assert torch.equal(some.items_N[some.at_Q], batch.items_N[batch.at_Q[asked_Q]])
    assert torch.equal(token_N[some.at_Q], batch.at_Q[asked_Q])
    assert some.users_B.tolist() == batch.users_B[kept].tolist()
    for name in ("targets_Q", "place_Q"):
        assert getattr(some, name).tolist() == getattr(batch, name)[asked_Q.numpy()].tolist()
    assert torch.equal(some.times_N, batch.times_N[token_N])  # type: ignore[arg-type,index]
    assert torch.equal(some.next_times_N, batch.next_times_N[token_N])  # type: ignore[arg-type,index]


def closed(rows: list[list[int]], **kind: object) -> TrainingRows:
    return training(rows, **{"every_position": False, "closed": True, **kind})


def test_closed_prefix_rows_end_in_a_blank_that_the_next_item_fills() -> None:
    rows = closed(LONG, max_length=4)
    assert rows.n_targets == 13
    assert pairs(rows) == sorted(((*inputs, 0), target) for inputs, target in prefixes(LONG, 4))
    (batch,) = rows.batches(1000, np.random.default_rng(0), CPU)
    assert batch.at_Q.tolist() == batch.rows.last_B.tolist()
    assert int(batch.rows.lengths.max()) == 5


def test_a_blank_has_the_time_of_the_event_before_it() -> None:
    (batch,) = closed([[1, 2, 3]]).batches(100, np.random.default_rng(0), CPU)
    assert batch.times_N is not None
    assert batch.times_N.tolist() == [0, 0, 0, 1, 1]


def test_closed_queries_keep_their_whole_history_and_a_blank() -> None:
    ((places, batch),) = query_batches(queries([[1, 2, 3, 4, 5], [6, 7]]), 3, 10, CPU, closed=True)
    assert places.tolist() == [1, 0]
    assert batch.items_N.tolist() == [6, 0, 2, 3, 4, 0]
    assert batch.at_Q.tolist() == [1, 5]


def test_partners_of_closed_rows_are_closed_histories_before_the_same_item() -> None:
    rows = closed(SHARED)
    (batch,) = rows.batches(1000, np.random.default_rng(0), CPU)
    chosen, other = rows.partners(batch.place_Q, np.random.default_rng(1).random(len(batch.at_Q)), CPU)  # type: ignore[arg-type]
    assert other.at_Q.tolist() == other.rows.last_B.tolist()
    assert batch.targets_Q is not None
    items = rows.histories.items
    for b, (place, tokens) in enumerate(
        zip(other.place_Q, other.items_N.split(other.rows.lengths.tolist()), strict=True)
    ):  # type: ignore[arg-type]
        assert items[place] == batch.targets_Q[chosen[b]]
        row = int(np.searchsorted(rows.histories.starts, place, side="right")) - 1
        assert tokens.tolist() == [*items[rows.histories.starts[row] : place].tolist(), 0]


CLOZE = [[*range(1, 11)], [11, 12, 13], [14, 15]]


def cloze(seed: int = 0, blanked: float = 0.4) -> tuple[TrainingRows, Batch]:
    rows = closed(CLOZE, max_length=6, blanked=blanked)
    return rows, next(rows.batches(1000, np.random.default_rng(seed), CPU))


def test_cloze_rows_blank_a_share_of_each_users_newest_events_and_once_the_newest_alone() -> None:
    rows, batch = cloze()
    assert batch.targets_Q is not None
    # 7 of 10 events, 3 and 2; 40 % of 7 is 3 blanks, of 3 and 2 it is 1, and a row each with its newest alone
    assert rows.n_targets == len(batch.at_Q) == (3 + 1) + (1 + 1) + (1 + 1)
    assert batch.rows.lengths.tolist() == [2, 2, 3, 3, 7, 7]
    filled = batch.items_N.clone()
    filled[batch.at_Q] = batch.targets_Q
    whole = [CLOZE[2], CLOZE[2], CLOZE[1], CLOZE[1], CLOZE[0][-7:], CLOZE[0][-7:]]
    assert [row.tolist() for row in filled.split(batch.rows.lengths.tolist())] == whole
    assert (batch.items_N == 0).nonzero()[:, 0].tolist() == batch.at_Q.tolist()
    assert rows.histories.items[batch.place_Q].tolist() == batch.targets_Q.tolist()
    newest = [int(last) for last in batch.rows.last_B if last in batch.at_Q]
    assert len(newest) >= 3


def test_cloze_blanks_are_drawn_anew_each_epoch_and_fall_everywhere() -> None:
    drawn_blanks = [tuple(cloze(seed)[1].place_Q.tolist()) for seed in range(60)]  # type: ignore[union-attr]
    assert len(set(drawn_blanks)) > 20
    assert {place for blanks in drawn_blanks for place in blanks} == {*range(3, 15)}


def test_cloze_targets_are_counted_as_often_as_they_are_blanked_on_average() -> None:
    """3 of the 7 newest of ten events, 1 of 3, 1 of 2; each user's newest once more."""
    counted = cloze()[0].target_counts(15)
    expected = [0] * 4 + [3 / 7] * 6 + [3 / 7 + 1] + [1 / 3] * 2 + [1 / 3 + 1] + [1 / 2, 1 / 2 + 1]
    assert counted.tolist() == pytest.approx(expected)
    drawn = sum(np.bincount(cloze(seed)[1].targets_Q, minlength=16) for seed in range(600))  # type: ignore[arg-type]
    assert (drawn / 600).tolist() == pytest.approx(expected, abs=0.08)


def test_every_cloze_target_has_a_partner_index_also_a_users_first_event() -> None:
    rows, batch = cloze()
    _, other = rows.partners(np.array([10, 13]), np.array([0.5, 0.5]), CPU)
    assert other.items_N.tolist() == [0, 0]
    assert other.place_Q is not None
    assert other.place_Q.tolist() == [10, 13]
    assert batch.rows.device == CPU


@pytest.mark.parametrize(
    "wrong", [{"closed": True}, {"blanked": 0.2}, {"every_position": False, "blanked": 0.2}], ids=str
)
def test_blanks_where_every_position_is_asked_for_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="blanks"):
        training(LONG, **wrong)
