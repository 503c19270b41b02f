"""Metrics against arithmetic done by hand and against the average over every order of the ties."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

from recbench.errors import RecbenchError
from recbench.evaluation.metrics import FAMILIES, TIES, Metric, metric, of_several, parse

LOG2 = math.log2


def value(name: str, above: int, tied: int, ties: str = "expected") -> float:
    return float(metric(name, np.array([above]), np.array([tied]), ties)[0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hr@10", 1.0),
        ("recall@10", 1.0),
        ("precision@10", 1 / 10),
        ("ndcg@10", 1 / LOG2(3 + 1)),  # third place
        ("mrr@10", 1 / 3),
        ("map@10", 1 / 3),
        ("hr@2", 0.0),
        ("ndcg@2", 0.0),
    ],
)
@pytest.mark.parametrize("ties", TIES)
def test_without_ties_every_policy_gives_the_textbook_value(name, expected, ties):
    assert value(name, 2, 0, ties) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # two above, three tied: places 3, 4, 5, 6 with chance 1/4 each; the cut is after 4
        ("hr@4", 2 / 4),
        ("precision@4", 2 / 4 / 4),
        ("ndcg@4", (1 / LOG2(4) + 1 / LOG2(5)) / 4),
        ("mrr@4", (1 / 3 + 1 / 4) / 4),
    ],
)
def test_ties_count_as_the_mean_over_their_places(name, expected):
    assert value(name, 2, 3) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("ties", "place"), [("opt", 3.0), ("mid", 4.5), ("pess", 6.0)])
def test_the_other_policies_put_the_target_at_one_place(ties, place):
    assert value("ndcg@6", 2, 3, ties) == pytest.approx(1 / LOG2(place + 1), abs=1e-15)
    assert value("mrr@6", 2, 3, ties) == pytest.approx(1 / place, abs=1e-15)
    assert value("hr@4", 2, 3, ties) == (place <= 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_expectation_is_the_mean_of_the_metric_over_all_places(family):
    for above, tied, k in itertools.product(range(6), range(6), range(1, 9)):
        places = [value(f"{family}@{k}", place, 0) for place in range(above, above + tied + 1)]
        assert value(f"{family}@{k}", above, tied) == pytest.approx(np.mean(places), abs=1e-14)


@pytest.mark.parametrize("k", [1, 5, 10, 50])
@pytest.mark.parametrize("n_items", [5, 20, 1000])
def test_a_constant_scorer_hits_with_chance_k_over_the_catalogue(k, n_items):
    assert value(f"hr@{k}", 0, n_items - 1) == pytest.approx(min(k, n_items) / n_items, abs=1e-15)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ties", TIES)
def test_a_model_of_nan_scores_nothing(family, ties):
    n_items = 20  # a NaN target is below the 19 others
    assert all(value(f"{family}@{k}", n_items - 1, 0, ties) == 0.0 for k in (1, 10, 19))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ties", TIES)
def test_no_metric_exceeds_one_or_falls_as_the_cut_off_grows(family, ties):
    rng = np.random.default_rng(0)
    above, tied = rng.integers(0, 40, 2000), rng.integers(0, 40, 2000)
    by_cut = np.array([metric(f"{family}@{k}", above, tied, ties) for k in range(1, 90)])
    assert by_cut.min() >= 0
    assert by_cut.max() <= 1 + 1e-15
    if family != "precision":
        assert np.diff(by_cut, axis=0).min() >= -1e-15


def test_expected_lies_between_pessimistic_and_optimistic():
    rng = np.random.default_rng(0)
    above, tied = rng.integers(0, 20, 2000), rng.integers(0, 20, 2000)
    pess, expected, opt = (metric("ndcg@10", above, tied, ties) for ties in ("pess", "expected", "opt"))
    assert (pess <= expected + 1e-15).all()
    assert (expected <= opt + 1e-15).all()


def test_a_name_is_read_whatever_its_case():
    assert parse(" NDCG@10 ") == Metric("ndcg", 10)
    assert str(parse("Recall@5")) == "recall@5"
    assert [parse(name).label for name in ("ndcg@10", "recall@5", "precision@1")] == [
        "NDCG@10",
        "Recall@5",
        "Precision@1",
    ]


@pytest.mark.parametrize(
    ("name", "fix"),
    [("ncdg@10", "Did you mean ndcg@10?"), ("recal@5", "Did you mean recall@5?"), ("auc", "ndcg@10"), ("", "ndcg@10")],
)
def test_an_unknown_metric_is_refused_with_the_nearest_one(name, fix):
    with pytest.raises(RecbenchError) as caught:
        parse(name)
    assert repr(name) in caught.value.what
    assert caught.value.fix == fix


@pytest.mark.parametrize(
    "name", ["ndcg", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@ten", "ndcg@1.5", "ndcg@10@5", "ndcg@\u0661"]
)
def test_a_metric_without_a_usable_cut_off_is_refused(name):
    with pytest.raises(RecbenchError) as caught:
        parse(name)
    assert caught.value.fix == "ndcg@10"


def test_metrics_are_had_without_torch():
    code = "import sys, recbench.evaluation.metrics, recbench.evaluation.beyond; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def of_ranking(family: str, is_target: tuple[bool, ...], n_targets: int, k: int) -> float:
    """The textbook value of one list without ties."""
    hits = [place for place, hit in enumerate(is_target[:k], start=1) if hit]
    ideal = sum(1 / LOG2(place + 1) for place in range(1, min(n_targets, k) + 1))
    return {
        "hr": float(bool(hits)),
        "recall": len(hits) / n_targets,
        "precision": len(hits) / k,
        "ndcg": sum(1 / LOG2(place + 1) for place in hits) / ideal,
        "mrr": 1 / hits[0] if hits else 0.0,
        "map": sum((i + 1) / place for i, place in enumerate(hits)) / min(n_targets, k),
    }[family]


def over_all_orders(scores: list[float], targets: list[int], family: str, k: int) -> float:
    """The mean of the metric over every order that the scores allow."""
    orders = [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[i] >= scores[j] for i, j in itertools.pairwise(order))
    ]
    return float(np.mean([of_ranking(family, tuple(i in targets for i in order), len(targets), k) for order in orders]))


@pytest.mark.parametrize("family", FAMILIES)
def test_several_targets_agree_with_the_mean_over_every_order_of_the_ties(family):
    rng = np.random.default_rng(FAMILIES.index(family))
    above, tied, query, expected_by_k = [], [], [], {k: [] for k in (1, 2, 3, 5, 8)}
    for q in range(150):
        scores = rng.integers(0, rng.integers(1, 5), rng.integers(1, 7)).tolist()
        targets = rng.choice(len(scores), rng.integers(1, len(scores) + 1), replace=False).tolist()
        for i in targets:
            others = [score for j, score in enumerate(scores) if j != i]
            above.append(sum(score > scores[i] for score in others))
            tied.append(sum(score == scores[i] for score in others))
            query.append(q)
        for k, expected in expected_by_k.items():
            expected.append(over_all_orders(scores, targets, family, k))
    shuffle = rng.permutation(len(query))
    arrays = [np.array(values)[shuffle] for values in (above, tied, query)]
    for k, expected in expected_by_k.items():
        found = of_several(Metric(family, k), *arrays, np.zeros(len(query), dtype=bool))
        np.testing.assert_allclose(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_target_is_several_targets_of_which_there_is_one(family):
    rng = np.random.default_rng(0)
    above, tied = rng.integers(0, 20, 500), rng.integers(0, 20, 500)
    found = of_several(Metric(family, 10), above, tied, np.arange(500), np.zeros(500, dtype=bool))
    np.testing.assert_allclose(found, metric(f"{family}@10", above, tied), atol=1e-13, rtol=0)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("hr", 1.0),
        ("recall", 1 / 2),
        ("precision", 1 / 3),
        ("ndcg", 1 / (1 + 1 / LOG2(3))),
        ("mrr", 1.0),
        ("map", 1 / 2),
    ],
)
def test_a_nan_target_adds_nothing_but_counts_among_the_targets(family, expected):
    # Query 0: one target at the first place, one NaN. Query 1: NaN only.
    above, tied, query = np.array([0, 2, 2]), np.array([0, 0, 0]), np.array([0, 0, 1])
    found = of_several(Metric(family, 3), above, tied, query, np.array([False, True, True]))
    np.testing.assert_allclose(found, [expected, 0.0], atol=1e-15)


def test_a_query_without_a_target_is_refused():
    with pytest.raises(ValueError, match="query 1 has no target"):
        of_several(Metric("hr", 3), np.zeros(2, int), np.zeros(2, int), np.array([0, 2]), np.zeros(2, bool))
