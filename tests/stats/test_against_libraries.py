"""Each procedure on every kind of input that has broken a test somewhere, held against the library that does the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from recbench.stats.bayes import signed_rank
from recbench.stats.counting_tests import mcnemar, wilcoxon
from recbench.stats.intervals import bca, percentile, resampled_means
from recbench.stats.paired import paired_t, randomisation
from recbench.stats.ranks import friedman, nemenyi, ranked
from tests.stats.shaped import kinds
from tests.stats.test_paired import of

DRAWS = 9_999
KINDS = list(kinds())


def shifted(kind: str) -> np.ndarray:
    """Differences with a p that is neither 0 nor 1."""
    d = kinds()[kind]
    return np.where(d == 0, 0.0, d + 0.5 * d.std() / math.sqrt(len(d)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("made", [lambda kind: kinds()[kind], shifted], ids=["as drawn", "shifted"])
def test_t_is_that_of_scipy(kind: str, made: object) -> None:
    d = made(kind)  # type: ignore[operator]
    told = stats.ttest_rel(d, np.zeros_like(d))
    found = paired_t(of(d))
    assert found.statistic == pytest.approx(told.statistic, rel=1e-7)
    assert found.p == pytest.approx(told.pvalue, rel=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_randomisation_is_that_of_scipy(kind: str) -> None:
    d = shifted(kind)
    told = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=DRAWS, rng=1).pvalue
    # scipy takes every sign pattern of the tiny one; both sides draw otherwise
    assert randomisation(of(d), resamples=DRAWS, seed=2).p == pytest.approx(told, abs=4 * math.sqrt(0.5 / DRAWS) * 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_percentile_and_bca_are_those_of_scipy(kind: str) -> None:
    d = kinds()[kind]
    means = resampled_means(of(d), 40_000, seed=4)
    error = d.std(ddof=1) / math.sqrt(len(d))
    for method, found in (("percentile", percentile(means)), ("BCa", bca(of(d), means))):
        told = stats.bootstrap((d,), np.mean, n_resamples=40_000, method=method, rng=3).confidence_interval
        assert (found.low, found.high) == pytest.approx((told.low, told.high), abs=0.08 * error), method


@pytest.mark.parametrize("kind", ["random", "tied", "zero-inflated", "skewed", "hits", "tiny"])
def test_wilcoxon_is_that_of_scipy(kind: str) -> None:
    d = shifted(kind)
    told = stats.wilcoxon(d, zero_method="wilcox", correction=False, method="exact" if kind == "tiny" else "asymptotic")
    assert wilcoxon(of(d)).p == pytest.approx(told.pvalue, rel=1e-9)


@pytest.mark.parametrize("n", [1, 3, 12, 400])
def test_mcnemar_is_that_of_statsmodels(n: int) -> None:
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    d = np.random.default_rng(n).choice([-1.0, 0.0, 1.0], n, p=[0.2, 0.45, 0.35])
    table = [[0, int((d == 1).sum())], [int((d == -1).sum()), 0]]
    assert mcnemar(of(d)).p == pytest.approx(contingency.mcnemar(table, exact=True).pvalue, rel=1e-9)


@pytest.mark.parametrize("rope", [0.0, 0.01])
@pytest.mark.parametrize(
    "d",
    [[0.02, 0.02, 0.02, -0.01, 0.0, 0.0, 0.03], [0.0] * 5 + [0.05, 0.01], [0.04, -0.03, 0.02], [0.01]],
    ids=["tied", "zero-inflated", "tiny", "one"],
)
def test_signed_ranks_are_those_of_baycomp(d: list[float], rope: float) -> None:
    baycomp = pytest.importorskip("baycomp")
    told = baycomp.SignedRankTest.probs(np.zeros(len(d)), np.array(d), rope=rope, nsamples=20_000)
    found = signed_rank(d, rope, draws=20_000)
    mine = (found.worse, found.better) if rope == 0 else (found.worse, found.rope, found.better)
    assert mine == pytest.approx(told, abs=0.02)


@pytest.mark.parametrize("shape", [(8, 5), (5, 3), (2, 3), (30, 10)])
def test_ranks_over_datasets_are_those_of_scipy_and_scikit_posthocs_with_ties(shape: tuple[int, int]) -> None:
    posthocs = pytest.importorskip("scikit_posthocs")
    scores = np.random.default_rng(shape[0]).integers(0, 4, shape).astype(float)
    scores[0] = np.arange(shape[1])  # at least one row without ties
    told = stats.friedmanchisquare(*scores.T)
    mine = friedman(ranked(scores))
    assert (mine.chi2, mine.p) == pytest.approx((told.statistic, told.pvalue))
    pairs = posthocs.posthoc_nemenyi_friedman(scores).to_numpy()
    assert nemenyi(ranked(scores).mean(axis=0), len(scores)) == pytest.approx(pairs, abs=1e-6)
