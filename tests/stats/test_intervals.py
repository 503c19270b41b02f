"""Intervals against scipy, by hand, and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from recbench.stats.corrections import CORRECTIONS
from recbench.stats.intervals import (
    Interval,
    bca,
    bootstrap,
    bootstrap_test,
    over_users,
    over_users_and_seeds,
    percentile,
    resampled_means,
    t_interval,
)
from recbench.stats.paired import Differences, coarse, paired_t, randomisation, t_test
from tests.stats.shaped import kinds, samples
from tests.stats.test_paired import allowed, null, of, users


def test_t_interval_is_that_of_scipy() -> None:
    ours, theirs = users(800, 1), users(800, 2)
    d = Differences.between(ours, theirs)
    told = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    found = t_interval(d.mean, over_users(d))
    assert (found.low, found.high) == pytest.approx((told.low, told.high), rel=1e-6)


def test_interval_knows_what_it_excludes_and_what_holds_it() -> None:
    interval = Interval(-0.1, 0.2, 0.95)
    assert not interval.excludes(0)
    assert interval.excludes(0.21)
    assert interval.within(-0.1, 0.2)
    assert not interval.within(-0.09, 0.2)


def test_one_user_leaves_the_interval_open_and_equal_users_close_it() -> None:
    one, same = of([0.7]), of([0.25] * 9)
    assert t_interval(one.mean, over_users(one)) == Interval(-math.inf, math.inf, 0.95)
    assert t_interval(same.mean, over_users(same)) == Interval(0.25, 0.25, 0.95)
    assert bootstrap(same, resamples=99) == Interval(0.25, 0.25, 0.95)


@pytest.mark.parametrize("digits", [1, 12])
def test_bootstrap_agrees_with_scipy_for_few_and_for_many_distinct_differences(digits: int) -> None:
    rng = np.random.default_rng(3)
    d = np.round(np.where(rng.random(2_000) < 0.2, rng.normal(0.1, 0.5, 2_000), 0.0), digits)
    told = stats.bootstrap((d,), np.mean, n_resamples=9_999, method="percentile", rng=rng).confidence_interval
    found = bootstrap(of(d), seed=1)
    error = d.std() / math.sqrt(2_000)
    assert found.low == pytest.approx(told.low, abs=0.1 * error)
    assert found.high == pytest.approx(told.high, abs=0.1 * error)


@pytest.mark.parametrize("digits", [1, 12])
def test_resampled_means_have_the_moments_of_the_mean(digits: int) -> None:
    rng = np.random.default_rng(4)
    d = np.round(np.where(rng.random(3_000) < 0.1, rng.gamma(2.0, 0.2, 3_000), 0.0), digits)
    means = resampled_means(of(d), 20_000, seed=2)
    assert means.mean() == pytest.approx(d.mean(), abs=5 * d.std() / math.sqrt(3_000 * 20_000))
    assert means.std() == pytest.approx(d.std() / math.sqrt(3_000), rel=0.03)


def test_a_majority_that_is_not_zero_is_resampled_too() -> None:
    d = np.array([0.5] * 90 + [0.1, 0.2, 0.3, -0.4, 0.9, 0.6, 0.7, 0.8, 0.05, 0.0])
    assert resampled_means(of(d), 20_000).mean() == pytest.approx(d.mean(), abs=0.001)


def test_bootstrap_is_the_same_for_the_same_seed() -> None:
    d = of(users(500, 1) - users(500, 2))
    assert bootstrap(d, resamples=500, seed=3) == bootstrap(d, resamples=500, seed=3)
    assert bootstrap(d, resamples=500, seed=3) != bootstrap(d, resamples=500, seed=4)


def test_bootstrap_interval_covers_a_true_null_in_95_percent() -> None:
    missed = [bootstrap(d, resamples=399, seed=i).excludes(0) for i, d in enumerate(null(22_363, 1_000))]
    # 399 draws put the quantiles between order statistics: the level is 0.05 within 1/400
    assert np.mean(missed) == pytest.approx(0.05, abs=allowed(1_000) + 1 / 400)


def test_users_and_seeds_by_hand() -> None:
    d = of([1.0, -1.0, 1.0, -1.0, 0.0])  # var 1, n 5: 0.2 with 4 df
    found = over_users_and_seeds(d, [0.1, 0.3], [0.2, 0.2, 0.5])
    # tau_A^2 = 0.02, /2 = 0.01 with 1 df; tau_B^2 = 0.03, /3 = 0.01 with 2 df
    assert found.standard_error == pytest.approx(math.sqrt(0.22))
    assert found.df == pytest.approx(0.22**2 / (0.2**2 / 4 + 0.01**2 / 1 + 0.01**2 / 2))


def test_deterministic_systems_add_no_variance_and_one_run_is_not_deterministic() -> None:
    d = of(users(300, 1) - users(300, 2))
    both = over_users_and_seeds(d, (), ())
    assert both.standard_error == pytest.approx(d.standard_error)
    assert both.df == pytest.approx(299)
    with pytest.raises(ValueError, match="One run"):
        over_users_and_seeds(d, [0.1], ())


def test_without_user_variance_it_is_welch() -> None:
    ours, theirs = [0.10, 0.14, 0.12], [0.2, 0.1]
    told = stats.ttest_ind(ours, theirs, equal_var=False)
    spread = over_users_and_seeds(of([-0.03] * 8), ours, theirs)
    found = t_test(-0.03, spread.standard_error, spread.df)
    assert found.p == pytest.approx(told.pvalue)
    assert found.df == pytest.approx(told.df)


def test_training_noise_is_called_a_finding_by_users_alone_and_not_by_users_and_seeds() -> None:
    # the case of the protocol: var(d) 0.04, n 22,363, tau 0.001, three seeds: users alone reject about 9 %
    rng, n, tau, seeds, repeats = np.random.default_rng(5), 22_363, 0.001, 3, 4_000
    ours, theirs = rng.normal(0, tau, (2, repeats, seeds))
    means = ours.mean(axis=1) - theirs.mean(axis=1) + rng.normal(0, math.sqrt(0.04 / n), repeats)
    base = Differences(np.array([-0.2, 0.2]), np.array([n // 2, n - n // 2]))
    users_only = [t_test(m, base.standard_error, n - 1).p < 0.05 for m in means]
    spreads = [over_users_and_seeds(base, a, b) for a, b in zip(ours, theirs, strict=True)]
    both = [t_test(m, s.standard_error, s.df).p < 0.05 for m, s in zip(means, spreads, strict=True)]
    assert np.mean(users_only) == pytest.approx(0.09, abs=0.02)
    assert np.mean(both) < 0.05 + allowed(repeats)


@pytest.mark.parametrize("kind", ["random", "zero-inflated", "skewed", "hits"])
def test_bca_is_that_of_scipy(kind: str) -> None:
    d = kinds()[kind]
    told = stats.bootstrap((d,), np.mean, n_resamples=20_000, method="BCa", rng=3).confidence_interval
    found = bca(of(d), resampled_means(of(d), 20_000, 4))
    error = d.std(ddof=1) / math.sqrt(len(d))
    assert (found.low, found.high) == pytest.approx((told.low, told.high), abs=0.08 * error)


def test_bca_leans_where_the_differences_are_skewed() -> None:
    d = of(np.concatenate([np.zeros(95), np.full(5, 1.0)]))
    means = resampled_means(d, 20_000)
    plain, corrected = percentile(means), bca(d, means)
    assert corrected.low > plain.low
    assert corrected.high > plain.high


@pytest.mark.parametrize("kind", ["random", "tied", "zero-inflated"])
def test_bootstrap_test_agrees_with_t_where_users_are_many(kind: str) -> None:
    d = of(kinds()[kind])
    assert bootstrap_test(d, resampled_means(d, 20_000)).p == pytest.approx(paired_t(d).p, abs=0.03)


def test_bootstrap_p_is_never_0_and_is_1_without_a_difference() -> None:
    far, none = of(np.array([1.0, 1.1] * 50)), of([0.0] * 20)
    assert bootstrap_test(far, resampled_means(far, 199)).p == 1 / 200
    assert bootstrap_test(none, resampled_means(none, 199)).p == 1


def test_many_distinct_differences_on_a_grid_keep_mean_and_width() -> None:
    rng = np.random.default_rng(2)
    d = of(np.where(rng.random(60_000) < 0.3, rng.normal(0.01, 0.3, 60_000), 0.0))
    gridded = coarse(d)
    assert len(gridded.values) <= 401
    assert gridded.mean == pytest.approx(d.mean, abs=1e-12)
    assert gridded.sd == pytest.approx(d.sd, rel=1e-3)
    assert resampled_means(d, 4_000).std() == pytest.approx(d.standard_error, rel=0.05)


def test_many_small_differences_beside_few_large_ones_keep_mean_and_width() -> None:
    rng = np.random.default_rng(5)  # on the grid of the large ones, nearly all of the small ones fall to 0
    d = of(np.concatenate([rng.uniform(-1e-3, 1e-3, 7_000), rng.uniform(-1, 1, 200), np.zeros(2_800)]))
    means = resampled_means(d, 4_000)
    assert means.mean() == pytest.approx(d.mean, abs=5 * d.standard_error / math.sqrt(4_000))
    assert means.std() == pytest.approx(d.standard_error, rel=0.05)


REPEATS = 800


@pytest.mark.parametrize("n", [1_000, 22_363])
def test_every_default_rejects_a_true_null_in_5_percent_of_users_shaped_like_beautys(n: int) -> None:
    found = [(d, resampled_means(d, 399, i)) for i, d in enumerate(samples(n, REPEATS))]
    rates = {
        "t": np.mean([paired_t(d).p < 0.05 for d, _ in found]),
        "bootstrap test": np.mean([bootstrap_test(d, means).p <= 0.05 for d, means in found]),
        "percentile": np.mean([percentile(means).excludes(0) for _, means in found]),
        "bca": np.mean([bca(d, means).excludes(0) for d, means in found]),
        "randomisation": np.mean([randomisation(d, resamples=399, seed=i).p <= 0.05 for i, (d, _) in enumerate(found)]),
    }
    for name, rate in rates.items():
        slack = 1 / 400 if name in ("percentile", "bca") else 0  # quantiles lie between two of 399 draws
        assert rate == pytest.approx(0.05, abs=allowed(REPEATS) + slack), name


def test_with_fifty_users_t_and_randomisation_stay_below_5_percent() -> None:
    found = samples(50, 2_000)
    assert np.mean([paired_t(d).p < 0.05 for d in found]) < 0.05 + allowed(2_000)
    assert np.mean([randomisation(d, resamples=199, seed=i).p <= 0.05 for i, d in enumerate(found)]) < 0.05 + allowed(
        2_000
    )


@pytest.mark.parametrize("correction", list(CORRECTIONS))
def test_families_of_true_nulls_hold_the_family_wise_error(correction: str) -> None:
    p = np.array([paired_t(d).p for d in samples(22_363, 5_000, seed=3)]).reshape(1_000, 5)
    found = np.mean([min(CORRECTIONS[correction](list(row))) < 0.05 for row in p])
    assert found < 0.05 + allowed(1_000)
    if correction != "by":
        assert found > 0.05 - allowed(1_000)
