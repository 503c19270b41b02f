"""Packed batches: which rows an epoch holds, and how they are laid out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbench.data.batching import Rows, TrainingRows, query_batches
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
