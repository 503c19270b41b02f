"""One-sided claims against statsmodels and against the intervals they mirror."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from recbench.stats.claims import equivalence, non_inferiority, superiority
from recbench.stats.intervals import over_users, t_interval
from tests.stats.shaped import kinds, samples
from tests.stats.test_paired import allowed, of


@pytest.mark.parametrize("kind", list(kinds()))
def test_equivalence_is_the_paired_tost_of_statsmodels(kind: str) -> None:
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    d = kinds()[kind]
    told = weightstats.ttost_paired(d, np.zeros_like(d), -0.1, 0.1)[0]
    assert equivalence(d.mean(), over_users(of(d)), 0.1) == pytest.approx(told, rel=1e-6)


@pytest.mark.parametrize("kind", list(kinds()))
def test_superiority_and_non_inferiority_are_one_sided_t(kind: str) -> None:
    d = kinds()[kind]
    spread = over_users(of(d))
    assert superiority(d.mean(), spread) == pytest.approx(
        stats.ttest_1samp(d, 0, alternative="greater").pvalue, rel=1e-6
    )
    told = stats.ttest_1samp(d, -0.05, alternative="greater").pvalue
    assert non_inferiority(d.mean(), spread, 0.05) == pytest.approx(told, rel=1e-6)


def test_equivalence_holds_exactly_where_the_90_percent_interval_is_inside() -> None:
    d = of(kinds()["zero-inflated"])
    spread = over_users(d)
    inner = t_interval(d.mean, spread, 0.90)
    edge = max(abs(inner.low), abs(inner.high))
    assert equivalence(d.mean, spread, edge * 1.001) < 0.05 < equivalence(d.mean, spread, edge * 0.999)


def test_one_user_shows_nothing_and_equal_users_show_all() -> None:
    one, same = over_users(of([0.7])), over_users(of([0.0] * 9))
    assert [superiority(0.7, one), equivalence(0.7, one, 1.0), non_inferiority(0.7, one, 1.0)] == [1, 1, 1]
    assert (superiority(0.0, same), equivalence(0.0, same, 0.01), non_inferiority(0.0, same, 0.01)) == (1, 0, 0)
    assert math.isinf(one.standard_error)


def test_a_difference_at_the_margin_is_called_equivalent_in_5_percent() -> None:
    margin = 0.002
    called = [equivalence(d.mean, over_users(d), margin) < 0.05 for d in samples(200_000, 3_000, gain=margin)]
    assert np.mean(called) == pytest.approx(0.05, abs=allowed(3_000))


def test_a_system_worse_by_the_margin_is_called_not_worse_in_5_percent() -> None:
    called = [non_inferiority(d.mean, over_users(d), 0.004) < 0.05 for d in samples(22_363, 3_000, gain=-0.004)]
    assert np.mean(called) == pytest.approx(0.05, abs=allowed(3_000))
