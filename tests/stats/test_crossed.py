"""Users and training runs resampled together: against a literal pigeonhole bootstrap, and the variance it must have."""

from __future__ import annotations

import numpy as np
import pytest

from recbench.stats.crossed import _over_runs, resampled_run_means, two_way_bootstrap
from recbench.stats.intervals import over_users_and_seeds
from recbench.stats.paired import Differences


def runs(n: int, s: int, tau: float, seed: int) -> np.ndarray:
    """Values of n users under s runs: most 0, each run off by its own amount."""
    rng = np.random.default_rng(seed)
    base = np.where(rng.random((n, 1)) < 0.2, rng.random((n, 1)), 0.0)
    return base * (1 + rng.normal(0, 0.05, (n, s))) * (1 + rng.normal(0, tau, s))


def test_resampled_means_have_mean_and_covariance_of_the_runs() -> None:
    values = runs(1_000, 3, 0.1, 1)
    drawn = resampled_run_means(values, 20_000, seed=2)
    assert drawn.mean(axis=0) == pytest.approx(values.mean(axis=0), rel=0.01)
    assert np.cov(drawn.T) == pytest.approx(np.cov(values.T, ddof=0) / len(values), rel=0.06)


def test_users_who_score_nothing_count_and_nothing_at_all_is_0() -> None:
    assert not resampled_run_means(np.zeros((50, 2)), 20).any()
    one = np.zeros((1_000, 1))
    one[0] = 1.0
    drawn = resampled_run_means(one, 20_000, seed=1) * 1_000  # a count that is Poisson(1) but for 1/n
    assert drawn.mean() == pytest.approx(1, abs=0.03)
    assert drawn.var() == pytest.approx(1, abs=0.05)


def test_it_is_the_pigeonhole_bootstrap_with_the_spread_between_runs_scaled() -> None:
    ours, theirs, s = runs(300, 4, 0.3, 3), runs(300, 3, 0.3, 4), (4, 3)
    rng = np.random.default_rng(5)
    literal = []
    for _ in range(6_000):
        users = rng.integers(300, size=300)
        means = [values[users].mean(axis=0) for values in (ours, theirs)]
        parts = []
        for mean, size in zip(means, s, strict=True):
            away = mean[rng.integers(size, size=size)].mean() - mean.mean()
            parts.append(mean.mean() + np.sqrt(size / (size - 1)) * away)
        literal.append(parts[0] - parts[1])
    drawn = resampled_run_means(np.concatenate([ours, theirs], axis=1), 6_000, seed=6)
    found = two_way_bootstrap(drawn[:, :4], drawn[:, 4:], seed=7)
    low, high = np.quantile(literal, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.06 * (high - low))


def test_its_width_is_that_of_the_variance_sum() -> None:
    ours, theirs = runs(20_000, 5, 0.05, 8), runs(20_000, 5, 0.05, 9)
    drawn = resampled_run_means(np.concatenate([ours, theirs], axis=1), 4_000, seed=1)
    found = two_way_bootstrap(drawn[:, :5], drawn[:, 5:])
    d = Differences.between(ours.mean(axis=1), theirs.mean(axis=1))
    told = over_users_and_seeds(d, list(ours.mean(axis=0)), list(theirs.mean(axis=0)))
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(told.standard_error, rel=0.08)


def test_a_deterministic_system_has_no_spread_of_its_own() -> None:
    ours, theirs = runs(5_000, 1, 0.0, 1), runs(5_000, 1, 0.0, 2)
    drawn = resampled_run_means(np.concatenate([ours, theirs], axis=1), 4_000)
    d = Differences.between(ours[:, 0], theirs[:, 0])
    found = two_way_bootstrap(drawn[:, :1], drawn[:, 1:])
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(d.standard_error, rel=0.06)


def test_the_order_of_users_and_users_who_score_nothing_change_no_draw() -> None:
    values = runs(500, 3, 0.1, 1)
    shuffled = values[np.random.default_rng(2).permutation(500)]
    assert np.array_equal(resampled_run_means(values, 50, seed=3), resampled_run_means(shuffled, 50, seed=3))


@pytest.mark.parametrize("s", [2, 3, 5])
def test_drawn_runs_spread_as_much_as_runs_do_not_less_by_one_in_s(s: int) -> None:
    means = np.random.default_rng(s).normal(0, 1, s)
    drawn = _over_runs(np.tile(means, (60_000, 1)), np.random.default_rng(1))
    assert drawn.mean() == pytest.approx(means.mean(), abs=0.02)
    assert drawn.var() == pytest.approx(means.var(ddof=1) / s, rel=0.03)
