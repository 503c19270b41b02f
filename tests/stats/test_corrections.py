"""Adjusted p, by hand and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recbench.stats.corrections import CORRECTIONS, NAMES, benjamini_hochberg, bonferroni, holm

P = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_holm_by_hand() -> None:
    # sorted .03 x 3 = .09, .04 x 2 = .08 -> not below .09, .045 x 1 -> not below .09
    assert holm([0.03, 0.04, 0.045]) == pytest.approx([0.09, 0.09, 0.09])
    assert holm([0.045, 0.03, 0.04]) == pytest.approx([0.09, 0.09, 0.09])
    assert holm([0.001, 0.5, 0.02]) == pytest.approx([0.003, 0.5, 0.04])


def test_benjamini_hochberg_by_hand() -> None:
    # .02 x 3/1 = .06, .03 x 3/2 = .045, .045 x 3/3 = .045; none above a later one
    assert benjamini_hochberg([0.02, 0.03, 0.045]) == pytest.approx([0.045, 0.045, 0.045])


def test_bonferroni_by_hand_and_never_above_1() -> None:
    assert bonferroni([0.01, 0.02, 0.6]) == pytest.approx([0.03, 0.06, 1.0])


@given(P)
def test_benjamini_hochberg_is_that_of_scipy(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(list(stats.false_discovery_control(p)))


@given(P)
def test_benjamini_yekutieli_is_that_of_scipy(p: list[float]) -> None:
    assert CORRECTIONS["by"](p) == pytest.approx(list(stats.false_discovery_control(p, method="by")))


@pytest.mark.parametrize(
    ("ours", "theirs"), [("holm", "holm"), ("bonferroni", "bonferroni"), ("bh", "fdr_bh"), ("by", "fdr_by")]
)
def test_every_correction_is_that_of_statsmodels(ours: str, theirs: str) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(1)
    for p in (rng.random(9), np.array([0.03, 0.04, 0.045]), np.repeat(0.02, 4), rng.random(5) ** 6):
        assert CORRECTIONS[ours](list(p)) == pytest.approx(list(multitest.multipletests(p, method=theirs)[1]))


@given(P)
def test_order_is_kept_and_corrections_are_ordered(p: list[float]) -> None:
    for adjust in CORRECTIONS.values():
        adjusted = np.array(adjust(p))
        assert ((adjusted >= np.array(p) * (1 - 1e-12)) & (adjusted <= 1)).all()
        assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    bounds = zip(benjamini_hochberg(p), holm(p), bonferroni(p), strict=True)
    assert all(bh <= h * (1 + 1e-12) and h <= b * (1 + 1e-12) for bh, h, b in bounds)


@pytest.mark.parametrize("name", list(CORRECTIONS))
def test_one_p_is_left_as_it_is_and_none_stays_none(name: str) -> None:
    assert CORRECTIONS[name]([0.04]) == pytest.approx([0.04])
    assert CORRECTIONS[name]([]) == []
    assert name in NAMES


def test_holm_holds_the_family_wise_error() -> None:
    p = np.random.default_rng(2).random((4_000, 5))
    found = np.mean([min(holm(list(row))) < 0.05 for row in p])
    assert found == pytest.approx(1 - (1 - 0.05 / 5) ** 5, abs=3 * np.sqrt(0.05 * 0.95 / 4_000))
