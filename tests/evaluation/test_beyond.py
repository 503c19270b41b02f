"""Measures beyond accuracy, by hand on five items and three lists; slice sizes on the real files."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recbench.data.dataset import Histories
from recbench.evaluation import beyond
from recbench.evaluation.beyond import TrainingCounts
from tests.sequences import read_sequences

# Training: user 1 has 1 1 2, user 2 has 1 2, user 3 has 1 3, user 4 has 1. Events 5 2 1 0 0, users 4 2 1 0 0.
ITEMS = np.array([1, 1, 2, 1, 2, 1, 3, 1], dtype=np.int32)
TRAIN = Histories(np.arange(1, 5), ITEMS, None, np.array([0, 3, 5, 7]), np.array([3, 5, 7, 8]))
COUNTS = TrainingCounts.of(TRAIN, 5)
LISTS = np.array([[1, 2], [1, 4], [1, 0]])


def test_training_counts_tell_events_from_users():
    assert COUNTS.events_V.tolist() == [5, 2, 1, 0, 0]
    assert COUNTS.users_V.tolist() == [4, 2, 1, 0, 0]
    assert COUNTS.n_users == 4


def test_the_head_threshold_is_the_smallest_that_a_fifth_of_the_items_reach():
    # Reaching 1, 2, 3, 4, 5 events: 3, 2, 1, 1, 1 of 5 items; at most 1 may.
    assert COUNTS.head_threshold == 3
    assert COUNTS.is_head.tolist() == [True, False, False, False, False]


def test_a_head_may_be_empty():
    counts = TrainingCounts(np.array([2, 2, 2]), np.array([2, 2, 2]), 2)
    assert counts.head_threshold == 3
    assert not counts.is_head.any()


def test_coverage_is_the_share_of_items_in_some_list():
    assert beyond.coverage(LISTS, 5) == 3 / 5


def test_gini_by_hand():
    # Exposure ascending 0 0 1 1 3, weights -4 -2 0 2 4: (0 + 0 + 0 + 2 + 12) / (5 * 5).
    assert beyond.gini(LISTS, 5) == pytest.approx(14 / 25, abs=1e-15)


def test_gini_is_0_for_equal_exposure_and_near_1_for_one_item():
    assert beyond.gini(np.array([[1, 2], [3, 4]]), 4) == pytest.approx(0.0, abs=1e-15)
    assert beyond.gini(np.ones((50, 1), dtype=int), 1000) == pytest.approx(1 - 1 / 1000, abs=1e-12)


def test_novelty_counts_an_unknown_item_as_known_to_one_user():
    # Item 1: -log2(4/4) = 0. Item 2: -log2(2/4) = 1. Item 4, never seen: -log2(1/4) = 2.
    np.testing.assert_allclose(beyond.novelty(LISTS, COUNTS), [0.5, 1.0, 0.0], atol=1e-15)


def test_popularity_is_the_mean_number_of_users_of_the_listed_items():
    np.testing.assert_allclose(beyond.popularity(LISTS, COUNTS), [3.0, 2.0, 4.0], atol=1e-15)


def test_lift_compares_a_list_with_the_query_it_answers():
    # Queries: 1 2 (mean 3), 2 3 3 (mean 4/3), 4 (never in training: no value).
    items = np.array([1, 2, 2, 3, 3, 4], dtype=np.int32)
    queries = Histories(np.arange(1, 4), items, None, np.array([0, 2, 5]), np.array([2, 5, 6]))
    np.testing.assert_allclose(beyond.lift(LISTS, queries, COUNTS), [0.0, 2.0 / (4 / 3) - 1, math.nan], atol=1e-15)


def test_tail_share_is_the_share_of_places_outside_the_head():
    np.testing.assert_allclose(beyond.tail_share(LISTS, COUNTS), [0.5, 0.5, 0.0], atol=1e-15)


def test_an_empty_list_has_no_value():
    empty = np.zeros((1, 3), dtype=int)
    assert np.isnan(beyond.novelty(empty, COUNTS)).all()
    assert np.isnan(beyond.tail_share(empty, COUNTS)).all()


def test_diversity_by_hand():
    # Attributes: item 1 {0, 1}, item 2 {1, 2}, item 3 {0, 1}, items 4 and 5 none.
    attributes = np.array([[0, 1, -1], [1, 2, -1], [1, 0, -1], [-1, -1, -1], [-1, -1, -1]])
    lists = np.array([[1, 2, 3], [1, 3, 4], [1, 4, 0]])
    diversity, left_out = beyond.diversity(lists, attributes)
    # List 1: pairs (1,2) 1 - 1/3, (1,3) 0, (2,3) 1 - 1/3. List 2: only (1,3). List 3: one item with attributes.
    np.testing.assert_allclose(diversity, [(2 / 3 + 0 + 2 / 3) / 3, 0.0, math.nan], atol=1e-15)
    assert left_out == 2 / 8


def test_slices_by_hand():
    masks = beyond.slices(np.array([1, 2, 4, 3]), np.array([4, 5, 19, 20]), COUNTS)
    assert {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()} == {
        "cold": [2],
        "head": [0],
        "tail": [1, 3],
        "length 1-4": [0],
        "length 5-9": [1],
        "length 10-19": [2],
        "length 20+": [3],
    }


@pytest.mark.parametrize(
    ("name", "threshold", "sizes"),
    [
        ("Beauty", 16, [138, 9367, 12858, 7162, 10959, 3106, 1136]),
        ("Toys_and_Games", 15, [279, 7304, 11829, 6579, 9443, 2513, 877]),
    ],
)
def test_slices_of_the_amazon_sets_have_their_published_sizes(shared_data, name, threshold, sizes):
    data = read_sequences(shared_data, name)
    counts = TrainingCounts.of(data.train, data.n_items)
    masks = beyond.slices(data.test.targets, data.test.histories.lengths, counts)
    assert counts.head_threshold == threshold
    assert [int(mask.sum()) for mask in masks.values()] == sizes
