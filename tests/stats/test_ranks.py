"""Ranks over datasets against scipy and scikit-posthocs, and the constants of the paper."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from recbench.stats.corrections import holm
from recbench.stats.ranks import against_control, cliques, critical_difference, friedman, nemenyi, ranked


def scores(seed: int, n: int = 8, k: int = 5, *, tied: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, 1, (n, k)) + np.linspace(0, 1.5, k)
    return np.round(values, 0 if tied else 6)


def test_the_best_score_has_rank_1_and_ties_share() -> None:
    assert ranked(np.array([[0.3, 0.5, 0.3, 0.1]])).tolist() == [[2.5, 1.0, 2.5, 4.0]]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_friedman_is_that_of_scipy(seed: int, tied: bool) -> None:
    found = scores(seed, tied=tied)
    told = stats.friedmanchisquare(*found.T)
    mine = friedman(ranked(found))
    assert mine.chi2 == pytest.approx(told.statistic)
    assert mine.p == pytest.approx(told.pvalue)


def test_iman_davenport_by_hand() -> None:
    # Demsar 2006, section 3.2.2: N = 14, k = 4, chi2 = 9.28 gives F = 13 x 9.28 / (42 - 9.28) = 3.69 with 3 and 39 df
    mine = friedman(ranked(scores(1, n=14, k=4)))
    assert mine.f == pytest.approx(13 * mine.chi2 / (42 - mine.chi2))
    assert mine.f_df == (3, 39)
    assert mine.f_p == pytest.approx(stats.f.sf(mine.f, 3, 39))


def test_the_same_order_everywhere_leaves_no_doubt() -> None:
    mine = friedman(np.tile([1.0, 2.0, 3.0], (6, 1)))
    assert mine.chi2 == pytest.approx(12)
    assert (mine.f, mine.f_p) == (np.inf, 0)


def test_systems_that_always_tie_do_not_differ() -> None:
    mine = friedman(np.full((6, 3), 2.0))
    assert (mine.chi2, mine.p, mine.f, mine.f_p) == (0, 1, 0, 1)


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.344), (5, 2.728), (10, 3.164)])
def test_critical_values_are_those_of_the_protocol(k: int, q: float) -> None:
    assert critical_difference(k, 20) / np.sqrt(k * (k + 1) / 120) == pytest.approx(q, abs=0.0006)


@pytest.mark.parametrize("seed", range(3))
def test_nemenyi_is_that_of_scikit_posthocs(seed: int) -> None:
    posthocs = pytest.importorskip("scikit_posthocs")
    found = scores(seed)
    told = posthocs.posthoc_nemenyi_friedman(found).to_numpy()
    assert nemenyi(ranked(found).mean(axis=0), len(found)) == pytest.approx(told, abs=1e-6)


def test_nemenyi_p_is_5_percent_at_the_critical_difference() -> None:
    width = critical_difference(4, 10)
    assert nemenyi(np.array([1.0, 1.0 + width, 2.0, 3.0]), 10)[0, 1] == pytest.approx(0.05, abs=1e-6)


def test_the_control_is_held_against_all_by_z() -> None:
    z, p = against_control(np.array([1.5, 3.0, 2.5]), 0, 10)
    error = np.sqrt(3 * 4 / 60)
    assert z == pytest.approx([0, -1.5 / error, -1.0 / error])
    assert p == pytest.approx(2 * stats.norm.sf(np.abs(z)))


def test_over_datasets_true_nulls_are_rejected_in_5_percent_at_most() -> None:
    rng, repeats, n, k = np.random.default_rng(7), 2_000, 10, 5
    rejected = np.zeros(4)
    for _ in range(repeats):
        ranks = ranked(rng.normal(size=(n, k)))
        mean_ranks = ranks.mean(axis=0)
        found, p = friedman(ranks), against_control(mean_ranks, 0, n)[1]
        pairs = nemenyi(mean_ranks, n)[np.triu_indices(k, 1)]
        rejected += [found.p < 0.05, found.f_p < 0.05, pairs.min() < 0.05, min(holm(list(p[1:]))) < 0.05]
    chi2, f, any_pair, any_system = rejected / repeats
    allowed = 3 * np.sqrt(0.05 * 0.95 / repeats)
    assert f == pytest.approx(0.05, abs=allowed)  # the better approximation (Iman and Davenport, 1980)
    assert chi2 < f  # the chi-square is conservative
    assert any_pair < 0.05 + allowed
    assert any_system < 0.05 + allowed


def test_cliques_are_maximal() -> None:
    assert cliques([1.0, 1.5, 2.2, 4.0, 4.1], 1.0) == [(0, 1), (1, 2), (3, 4)]
    assert cliques([1.0, 2.0, 3.0], 0.5) == []
    assert cliques([1.0, 2.0, 3.0], 5) == [(0, 2)]


def test_friedman_of_too_little_is_refused() -> None:
    with pytest.raises(ValueError, match="three systems"):
        friedman(np.ones((5, 2)))
