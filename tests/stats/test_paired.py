"""Paired tests against scipy, by hand, and under a true null."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recbench.stats.paired import Differences, paired_t, randomisation

GAINS = np.concatenate([[0.0], 1 / np.log2(np.arange(2, 12))])


def users(n: int, seed: int, share: float = 0.15) -> np.ndarray:
    """NDCG@10 of n users, most of them 0."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(n) < share, GAINS[rng.integers(1, 11, size=n)], 0.0)


def of(d: list[float] | np.ndarray) -> Differences:
    values = np.asarray(d, float)
    return Differences.between(values, np.zeros_like(values))


def test_differences_are_counted_by_value() -> None:
    d = Differences.between(np.array([0.3, 0.5, 0.0, 0.2]), np.array([0.2, 0.4, 0.0, 0.5]))
    assert d.values.tolist() == [-0.3, 0.0, 0.1]  # 0.3 - 0.2 and 0.5 - 0.4 differ in the last bit; they are one value
    assert d.counts.tolist() == [1, 1, 2]
    assert (d.n, d.better, d.worse, d.equal) == (4, 0.5, 0.25, 0.25)


@pytest.mark.parametrize("n", [2, 7, 1000, 22_363])
def test_mean_sd_and_t_are_those_of_scipy(n: int) -> None:
    ours, theirs = users(n, 1, 0.6), users(n, 2, 0.6)
    d, told = Differences.between(ours, theirs), stats.ttest_rel(ours, theirs)
    found = paired_t(d)
    assert d.mean == pytest.approx((ours - theirs).mean(), abs=1e-12)
    assert d.sd == pytest.approx((ours - theirs).std(ddof=1), rel=1e-9)
    assert d.d_z == pytest.approx(d.mean / d.sd)
    assert found.statistic == pytest.approx(told.statistic, rel=1e-7)
    assert found.p == pytest.approx(told.pvalue, rel=1e-7)
    assert found.df == n - 1


def test_p_of_t_by_hand() -> None:
    # d = 1, 1, 1, -1: mean 1/2, sd 1, t = 0.5/(1/2) = 1 with 3 df; two-sided p of t = 1 at 3 df is 0.3910
    found = paired_t(of([1, 1, 1, -1]))
    assert found.statistic == pytest.approx(1.0)
    assert found.p == pytest.approx(0.3910, abs=1e-4)


def test_identical_systems_have_no_difference_and_p_1() -> None:
    d = of([0.0] * 50)
    assert (d.mean, d.sd, d.d_z, d.equal) == (0, 0, 0, 1)
    assert paired_t(d).p == 1
    assert randomisation(d, resamples=99).p == 1


def test_a_constant_difference_is_certain_for_t_and_bounded_for_randomisation() -> None:
    d = of([0.1] * 50)
    assert d.sd == 0
    assert paired_t(d) == paired_t(d).__class__(math.inf, 0.0, 49)
    assert paired_t(of([-0.1] * 50)).statistic == -math.inf
    assert randomisation(d, resamples=999).p == 1 / 1000


def test_one_user_decides_nothing() -> None:
    d = of([0.7])
    assert math.isnan(d.sd)
    assert d.standard_error == math.inf
    assert paired_t(d).p == 1
    assert randomisation(d, resamples=99).p == 1  # both signs are as far from 0


def test_two_users_are_enough_for_a_test() -> None:
    assert paired_t(of([0.1, 0.3])).p == pytest.approx(stats.ttest_1samp([0.1, 0.3], 0).pvalue)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [([], []), ([1.0], [1.0, 2.0]), ([math.nan], [1.0]), ([math.inf], [1.0])],
)
def test_what_cannot_be_paired_is_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"users|finite"):
        Differences.between(np.array(ours), np.array(theirs))


def test_randomisation_agrees_with_scipy() -> None:
    d = users(400, 3) - users(400, 4) + np.where(np.arange(400) % 11 == 0, 0.1, 0.0)
    told = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=9_999, rng=5)
    assert randomisation(of(d), seed=5).p == pytest.approx(told.pvalue, abs=4 * math.sqrt(0.25 / 9_999))


def test_randomisation_on_few_users_is_the_exact_test() -> None:
    # of the 8 sign patterns of 1, 2, 4 those with |sum| >= 7 are +++ and ---: p = 2/8
    assert randomisation(of([1, 2, 4]), resamples=99_999).p == pytest.approx(0.25, abs=0.006)


def test_randomisation_counts_equal_sums_as_equal() -> None:
    # every draw of 0.1 and -0.1 sums to -0.2, 0 or 0.2, the observed one to 0.2: half of the draws are as far
    assert randomisation(of([0.1, 0.1]), resamples=99_999).p == pytest.approx(0.5, abs=0.006)


def test_p_of_resampling_is_never_0() -> None:
    assert randomisation(of(np.full(5_000, 0.5)), resamples=199).p == 1 / 200


@given(st.lists(st.sampled_from([-0.5, -0.1, 0.0, 0.1, 0.3]), min_size=2, max_size=40), st.randoms())
def test_swapping_flips_the_sign_and_order_means_nothing(values: list[float], random: object) -> None:
    d, flipped = of(values), of([-v for v in values])
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert flipped.mean == pytest.approx(-d.mean, abs=1e-15)
    assert paired_t(flipped).p == pytest.approx(paired_t(d).p, rel=1e-12)
    assert (flipped.better, flipped.worse) == (d.worse, d.better)
    assert randomisation(flipped, resamples=49).p == randomisation(d, resamples=49).p
    assert paired_t(of(shuffled)) == paired_t(d)


ZERO_INFLATED = np.array([-0.9, 0.0, 0.1])
"""A gain for nine users against a loss of nine times its size for one: mean 0, asymmetric, 90 % zeros."""
SHARES = np.array([0.01, 0.90, 0.09])


def null(n: int, repeats: int) -> list[Differences]:
    counts = np.random.default_rng(11).multinomial(n, SHARES, size=repeats)
    return [Differences(ZERO_INFLATED[c > 0], c[c > 0]) for c in counts]


def allowed(repeats: int) -> float:
    return 3 * math.sqrt(0.05 * 0.95 / repeats)


def test_paired_t_rejects_a_true_null_in_5_percent() -> None:
    rejected = np.mean([paired_t(d).p < 0.05 for d in null(22_363, 4_000)])
    assert rejected == pytest.approx(0.05, abs=allowed(4_000))


def test_randomisation_rejects_a_true_null_in_5_percent() -> None:
    found = [randomisation(d, resamples=499, seed=i).p <= 0.05 for i, d in enumerate(null(22_363, 2_000))]
    assert np.mean(found) == pytest.approx(0.05, abs=allowed(2_000))
