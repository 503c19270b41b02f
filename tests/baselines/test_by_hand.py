"""Each baseline on four items, the arithmetic shown; and what every baseline must keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse

from recbench.baselines import ease
from recbench.baselines.base import Baseline
from recbench.baselines.ease import EASE
from recbench.baselines.itemknn import ItemKNN
from recbench.baselines.markov import Markov
from recbench.baselines.popularity import Popularity
from recbench.data.dataset import Histories
from recbench.errors import Exit, RecbenchError


def histories(*rows: list[int]) -> Histories:
    lengths = np.array([len(row) for row in rows])
    items = np.array([item for row in rows for item in row], dtype=np.int32)
    stops = np.cumsum(lengths)
    return Histories(np.arange(1, len(rows) + 1), items, None, stops - lengths, stops)


# Three users, six events, four items; item 4 is never bought.
TRAIN = histories([1, 2], [1, 2, 3], [2])
QUERY = histories([3, 1], [2, 2])
EVERY = [Popularity, Markov, ItemKNN, EASE]


def fitted(baseline: Baseline) -> Baseline:
    baseline.fit(TRAIN, 4)
    return baseline


def test_popularity_is_the_number_of_training_events():
    assert fitted(Popularity()).scores(QUERY).tolist() == [[2, 3, 1, 0], [2, 3, 1, 0]]


def test_markov_counts_what_followed_the_last_item_and_then_what_is_popular():
    # After 1 came 2, twice. After 2 came 3, once. Shares 2/6, 3/6, 1/6, 0.
    share = np.array([2, 3, 1, 0]) / 6
    expected = np.array([[0, 2, 0, 0], [0, 0, 1, 0]]) + 0.001 * share
    np.testing.assert_array_equal(fitted(Markov()).scores(QUERY), expected)


def test_markov_without_popularity_is_the_raw_count():
    raw = fitted(Markov(Markov.Config(popularity_weight=0.0)))
    assert raw.scores(QUERY).tolist() == [[0, 2, 0, 0], [0, 0, 1, 0]]


def test_markov_does_not_chain_one_user_to_the_next():
    # User 1 ends with 2 and user 2 begins with 1: no transition from 2 to 1.
    assert fitted(Markov()).scores(histories([2]))[0, 0] < 0.001


def test_markov_knows_only_popularity_where_nothing_is_known():
    share = np.array([2, 3, 1, 0]) / 6
    np.testing.assert_array_equal(fitted(Markov()).scores(histories([1], [], [4]))[1:], np.tile(0.001 * share, (2, 1)))


def test_itemknn_adds_the_cosines_of_the_distinct_items():
    # Columns of X: item 1 (1,1,0), item 2 (1,1,1), item 3 (0,1,0), item 4 nothing.
    cos_12, cos_13, cos_23 = 2 / math.sqrt(2 * 3), 1 / math.sqrt(2), 1 / math.sqrt(3)
    expected = [[cos_13, cos_12 + cos_23, cos_13, 0], [cos_12, 0, cos_23, 0]]  # 2 2 counts once
    np.testing.assert_allclose(fitted(ItemKNN()).scores(QUERY), expected, atol=1e-15)


def test_itemknn_keeps_the_nearest_neighbours_of_each_scored_item():
    # cos_12 0.816, cos_13 0.707, cos_23 0.577: item 1 keeps 2, item 2 keeps 1, item 3 keeps 1.
    cos_12, cos_13 = 2 / math.sqrt(6), 1 / math.sqrt(2)
    expected = [[0, cos_12, cos_13, 0], [cos_12, 0, 0, 0]]
    np.testing.assert_allclose(fitted(ItemKNN(ItemKNN.Config(neighbours=1))).scores(QUERY), expected, atol=1e-15)


def test_itemknn_keeps_neighbours_that_tie_with_the_last_one():
    knn = ItemKNN(ItemKNN.Config(neighbours=1))
    knn.fit(histories([1, 2], [1, 3]), 3)  # items 2 and 3 are equally near to item 1
    assert knn.scores(histories([2], [3]))[:, 0].tolist() == pytest.approx([1 / math.sqrt(2)] * 2)


@pytest.mark.parametrize("neighbours", [3, 100])
def test_itemknn_with_room_for_all_neighbours_keeps_all(neighbours):
    all_of_them, enough = fitted(ItemKNN()), fitted(ItemKNN(ItemKNN.Config(neighbours=neighbours)))
    np.testing.assert_array_equal(all_of_them.scores(QUERY), enough.scores(QUERY))


def test_ease_of_two_items_by_hand():
    # G + I = [[3, 2], [2, 4]], determinant 8, P = [[4, -2], [-2, 3]] / 8.
    # B = -P / diag(P) by column: B_12 = 2/3, B_21 = 2/4, zero diagonal.
    two = EASE(EASE.Config(l2=1.0))
    two.fit(histories([1, 2], [1, 2], [2]), 2)
    np.testing.assert_allclose(
        two.scores(histories([1], [2], [1, 2, 1])), [[0, 2 / 3], [1 / 2, 0], [1 / 2, 2 / 3]], atol=1e-15
    )


def test_ease_of_an_item_never_bought_is_zero():
    assert fitted(EASE()).scores(histories([4], [1]))[:, 3].tolist() == [0, 0]
    assert fitted(EASE()).scores(histories([4])).tolist() == [[0, 0, 0, 0]]


def ridge(density: float) -> sparse.csr_array:
    rng = np.random.default_rng(0)
    x_UV = sparse.csr_array((rng.random((400, 300)) < density).astype(np.float64))
    return sparse.csr_array(x_UV.T @ x_UV + 2.0 * sparse.eye_array(300))


@pytest.mark.parametrize("density", [0.0, 0.001, 0.01, 0.05, 0.5])
def test_the_inverse_is_that_of_lapack_at_any_density(density):
    matrix = ridge(density)
    np.testing.assert_allclose(ease.inverse(matrix), np.linalg.inv(matrix.toarray()), atol=1e-14, rtol=1e-12)


@pytest.mark.parametrize(("density", "is_shrunk"), [(0.005, True), (0.5, False)])
def test_a_sparse_matrix_is_shrunk_before_lapack_sees_it(monkeypatch, density, is_shrunk):
    sizes, dense = [], ease._dense_inverse
    monkeypatch.setattr(ease, "_dense_inverse", lambda matrix: sizes.append(matrix.shape[0]) or dense(matrix))
    ease.inverse(ridge(density))
    assert (sizes[0] < 300) == is_shrunk


def test_a_matrix_that_is_not_positive_definite_is_refused():
    with pytest.raises(ValueError, match="not positive definite"):
        ease._dense_inverse(sparse.csr_array(np.array([[1.0, 2.0], [2.0, 1.0]])))


def test_a_penalty_too_small_to_be_seen_is_refused():
    twins = histories([1, 2, 3], [1, 2], [1, 2, 4])
    with pytest.raises(RecbenchError, match="no solution with l2 1e-17") as refused:
        EASE(EASE.Config(l2=1e-17)).fit(twins, 4)
    assert refused.value.fix == "--set backbone.l2=200"


def test_ease_is_refused_where_it_does_not_fit_into_memory(monkeypatch):
    monkeypatch.setattr(ease, "_available_bytes", lambda: 255)  # 2 x 8 bytes x 4 items squared is 256
    with pytest.raises(RecbenchError, match="EASE over 4 items") as caught:
        fitted(EASE())
    assert caught.value.code == Exit.RUN
    monkeypatch.setattr(ease, "_available_bytes", lambda: 256)
    fitted(EASE())


def test_the_memory_of_this_machine_is_known():
    assert 2**24 < ease._available_bytes() < 2**50


@pytest.mark.parametrize("baseline", EVERY)
def test_scores_are_float64_one_column_an_item(baseline):
    scores_BV = fitted(baseline()).scores(QUERY)
    assert scores_BV.dtype == np.float64
    assert scores_BV.shape == (2, 4)
    assert scores_BV.flags.writeable


@pytest.mark.parametrize("baseline", EVERY)
@pytest.mark.parametrize("rows", [slice(1, 3), np.array([2, 0]), slice(3, 3)])
def test_any_rows_score_as_they_do_among_all(baseline, rows):
    model, asked = fitted(baseline()), histories([3, 1], [2, 2], [1, 2, 3])
    np.testing.assert_array_equal(model.scores(asked, rows), model.scores(asked)[rows])


@pytest.mark.parametrize("baseline", EVERY)
def test_a_restored_baseline_scores_as_the_fitted_one(baseline):
    model, copy = fitted(baseline()), baseline()
    state = model.state()
    assert all(isinstance(array, np.ndarray) for array in state.values())
    copy.restore({name: array.copy() for name, array in state.items()})
    np.testing.assert_array_equal(copy.scores(QUERY), model.scores(QUERY))


@pytest.mark.parametrize("baseline", EVERY)
def test_the_order_of_users_changes_nothing(baseline):
    model, other = fitted(baseline()), baseline()
    other.fit(histories([2], [1, 2, 3], [1, 2]), 4)
    np.testing.assert_allclose(other.scores(QUERY), model.scores(QUERY), atol=1e-15)


@pytest.mark.parametrize("baseline", EVERY)
def test_events_outside_the_training_rows_are_not_seen(baseline):
    model, other = fitted(baseline()), baseline()
    items = np.array([4, 1, 2, 4, 4, 1, 2, 3, 4, 2, 4], dtype=np.int32)
    other.fit(Histories(np.arange(3), items, None, np.array([1, 5, 9]), np.array([3, 8, 10])), 4)
    np.testing.assert_array_equal(other.scores(QUERY), model.scores(QUERY))


@pytest.mark.parametrize(
    ("config", "value"),
    [
        (Markov.Config, {"popularity_weight": -0.1}),
        (Markov.Config, {"popularity_weight": math.nan}),
        (ItemKNN.Config, {"neighbours": -1}),
        (EASE.Config, {"l2": 0.0}),
        (EASE.Config, {"l2": math.inf}),
    ],
)
def test_a_config_refuses_nonsense_and_names_the_number(config, value):
    with pytest.raises(ValueError, match=next(iter(value))):
        config(**value)
