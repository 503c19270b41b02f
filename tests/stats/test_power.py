"""The smallest visible difference, by the formula and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from recbench.stats.intervals import Spread, over_users, over_users_and_seeds
from recbench.stats.paired import paired_t, t_test
from recbench.stats.power import minimum_detectable, users_needed
from tests.stats.shaped import samples, shape
from tests.stats.test_paired import of

MANY = 10**9


def test_over_many_users_the_constant_is_2_80() -> None:
    assert minimum_detectable(Spread(1.0, MANY)) == pytest.approx(1.959964 + 0.841621, abs=1e-6)


@pytest.mark.parametrize(("df", "errors"), [(2, 5.65), (4, 3.76), (10, 3.11)])
def test_few_degrees_of_freedom_see_less(df: int, errors: float) -> None:
    found = minimum_detectable(Spread(2.0, df))
    assert found == pytest.approx(2 * errors, abs=0.01)
    assert stats.nct.sf(stats.t.ppf(0.975, df), df, found / 2) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize(("alpha", "power"), [(0.001, 0.8), (0.05, 0.95), (0.1, 0.5)])
def test_other_levels_and_powers(alpha: float, power: float) -> None:
    found = minimum_detectable(Spread(1.0, 6), alpha=alpha, power=power)
    assert stats.nct.sf(stats.t.ppf(1 - alpha / 2, 6), 6, found) == pytest.approx(power, abs=1e-4)


def test_beauty_with_4_percent_disagreeing_hits_resolves_what_the_protocol_says() -> None:
    assert minimum_detectable(Spread(math.sqrt(0.04 / 22_363), 22_362)) == pytest.approx(0.0037, abs=5e-5)


def test_one_user_sees_nothing() -> None:
    assert minimum_detectable(over_users(of([0.5]))) == math.inf


def test_a_difference_of_that_size_is_found_in_80_percent() -> None:
    rng, error, repeats = np.random.default_rng(6), 0.002, 4_000
    means = rng.normal(minimum_detectable(Spread(error, 20_000)), error, repeats)
    found = np.mean([t_test(m, error, 20_000).p < 0.05 for m in means])
    assert found == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / repeats))


def test_users_needed_are_those_of_statsmodels() -> None:
    power = pytest.importorskip("statsmodels.stats.power")
    d = of(np.random.default_rng(1).normal(0, 0.2, 500))
    told = power.TTestPower().solve_power(effect_size=0.01 / d.sd, alpha=0.05, power=0.8)
    assert users_needed(d, over_users(d), 0.01) == math.ceil(told)


def test_at_the_users_needed_the_wished_difference_is_the_visible_one() -> None:
    d = of(np.random.default_rng(2).normal(0, 0.3, 400))
    needed = users_needed(d, over_users(d), 0.02)
    assert minimum_detectable(Spread(d.sd / math.sqrt(needed), needed - 1)) == pytest.approx(0.02, rel=1e-3)


def test_at_the_users_needed_it_is_visible_beside_the_noise_of_training_too() -> None:
    d = of(np.random.default_rng(2).normal(0, 0.3, 400))
    runs = [0.001, 0.003, 0.006]
    needed = users_needed(d, over_users_and_seeds(d, runs, []), 0.02)
    sizes = (needed - 1, needed)
    part = float(np.var(runs, ddof=1)) / 3
    seen = []
    for n in sizes:
        users = d.sd**2 / n
        df = (users + part) ** 2 / (users**2 / (n - 1) + part**2 / 2)
        seen.append(minimum_detectable(Spread(math.sqrt(users + part), df)) <= 0.02)
    assert seen == [False, True]


def test_training_noise_that_hides_a_difference_cannot_be_outnumbered() -> None:
    d = of(np.random.default_rng(3).normal(0, 0.3, 400))
    noisy = Spread(math.hypot(d.standard_error, 0.01), 3)
    assert math.isinf(users_needed(d, noisy, 0.02))  # 4.2 x 0.01 is more than 0.02
    assert users_needed(d, noisy, 0.05) > users_needed(d, over_users(d), 0.05)
    assert math.isinf(users_needed(d, over_users(d), 0.0))
    assert math.isinf(users_needed(of([0.5]), over_users(of([0.5])), 0.1))


def test_on_users_shaped_like_beautys_the_visible_difference_is_found_in_80_percent() -> None:
    values, chances = shape()
    gain = minimum_detectable(Spread(math.sqrt(float(values**2 @ chances) / 22_363), 22_362))
    found = np.mean([paired_t(d).p < 0.05 for d in samples(22_363, 2_000, gain)])
    assert found == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / 2_000) + 0.01)  # sd moves a little with the gain
