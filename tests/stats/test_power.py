"""The smallest visible difference, by the formula and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recbench.stats.paired import t_test
from recbench.stats.power import minimum_detectable


def test_the_constant_is_2_80() -> None:
    assert minimum_detectable(1.0) == pytest.approx(1.959964 + 0.841621, abs=1e-6)


def test_beauty_with_4_percent_disagreeing_hits_resolves_what_the_protocol_says() -> None:
    assert minimum_detectable(math.sqrt(0.04 / 22_363)) == pytest.approx(0.0037, abs=5e-5)


def test_one_user_sees_nothing() -> None:
    assert minimum_detectable(math.inf) == math.inf


def test_a_difference_of_that_size_is_found_in_80_percent() -> None:
    rng, error, repeats = np.random.default_rng(6), 0.002, 4_000
    means = rng.normal(minimum_detectable(error), error, repeats)
    found = np.mean([t_test(m, error, 20_000).p < 0.05 for m in means])
    assert found == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / repeats))
