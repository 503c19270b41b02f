"""Wilcoxon, sign and McNemar against scipy and statsmodels, by hand, and the trap they are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from recbench.stats.counting_tests import mcnemar, sign_test, wilcoxon
from recbench.stats.intervals import bootstrap_test, resampled_means
from recbench.stats.paired import Differences, paired_t, randomisation
from tests.stats.shaped import kinds
from tests.stats.test_paired import of


@pytest.mark.parametrize("kind", ["random", "tied", "zero-inflated", "skewed", "hits"])
def test_wilcoxon_above_fifty_is_the_normal_approximation_of_scipy(kind: str) -> None:
    d = kinds()[kind]
    told = stats.wilcoxon(d, zero_method="wilcox", correction=False, method="asymptotic")
    assert wilcoxon(of(d)).p == pytest.approx(told.pvalue, rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 5, 12, 40])
def test_wilcoxon_of_few_is_the_exact_one_of_scipy(n: int) -> None:
    d = np.random.default_rng(n).normal(0.2, 1, n)
    assert wilcoxon(of(d)).p == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, rel=1e-9)


def test_wilcoxon_of_few_with_ties_counts_every_sign_pattern() -> None:
    d = np.array([0.1, 0.1, -0.1, 0.3, 0.3, 0.5, 0.0])
    sizes = stats.rankdata(np.abs(d[d != 0]))
    observed = sizes[d[d != 0] > 0].sum()
    sums = [sizes[np.array(signs)].sum() for signs in itertools.product([False, True], repeat=6)]
    p = 2 * min(np.mean([s <= observed for s in sums]), np.mean([s >= observed for s in sums]))
    assert wilcoxon(of(d)).p == pytest.approx(min(1, p))
    assert wilcoxon(of(d)).statistic == observed


@pytest.mark.parametrize("kind", list(kinds()))
def test_sign_test_is_scipys_binomial(kind: str) -> None:
    d = kinds()[kind]
    better, worse = int((d > 0).sum()), int((d < 0).sum())
    assert sign_test(of(d)).p == pytest.approx(stats.binomtest(better, better + worse).pvalue, rel=1e-9)


def test_mcnemar_is_that_of_statsmodels() -> None:
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    d = kinds()["hits"]
    table = [[100, int((d == 1).sum())], [int((d == -1).sum()), 300]]
    assert mcnemar(of(d)).p == pytest.approx(contingency.mcnemar(table, exact=True).pvalue, rel=1e-9)


def test_mcnemar_refuses_what_is_no_hit() -> None:
    with pytest.raises(ValueError, match="hits"):
        mcnemar(of([0.5, 0.0, 1.0]))


def test_where_nobody_differs_p_is_1() -> None:
    assert [test(of([0.0] * 9)).p for test in (wilcoxon, sign_test, mcnemar)] == [1, 1, 1]


@pytest.fixture(scope="module")
def rejected() -> dict[str, float]:
    """The protocol's example: one hits at rank 1 for 2 % of users, the other at rank 3 for 4 %. NDCG is equal."""
    repeats, n = 1_000, 22_363
    chances = [0.02 * 0.96, 0.04 * 0.98, 0.02 * 0.04, 0.98 * 0.96]
    values = np.array([1.0, -0.5, 0.5, 0.0])
    counts = np.random.default_rng(4).multinomial(n, chances, size=repeats)
    order = np.argsort(values)
    drawn = [Differences(values[order], c[order]) for c in counts]
    found: dict[str, list[bool]] = {"t": [], "bootstrap": [], "randomisation": [], "wilcoxon": [], "sign": []}
    for seed, d in enumerate(drawn):
        found["t"].append(paired_t(d).p < 0.05)
        found["bootstrap"].append(bootstrap_test(d, resampled_means(d, 399, seed)).p <= 0.05)
        found["randomisation"].append(randomisation(d, resamples=399, seed=seed).p <= 0.05)
        found["wilcoxon"].append(wilcoxon(d).p < 0.05)
        found["sign"].append(sign_test(d).p < 0.05)
    return {name: float(np.mean(values)) for name, values in found.items()}


def test_with_equal_means_t_bootstrap_and_randomisation_hold_their_level(rejected: dict[str, float]) -> None:
    for name in ("t", "bootstrap", "randomisation"):
        assert rejected[name] == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 1_000)), name


def test_with_equal_means_wilcoxon_and_sign_test_reject_nearly_always(rejected: dict[str, float]) -> None:
    assert rejected["wilcoxon"] == pytest.approx(0.90, abs=0.04)
    assert rejected["sign"] > 0.99
