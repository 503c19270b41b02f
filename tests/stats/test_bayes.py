"""Posteriors: moments by hand, and signed ranks against baycomp."""

from __future__ import annotations

import numpy as np
import pytest

from recbench.stats.bayes import bayesian_bootstrap, signed_rank
from tests.stats.shaped import kinds
from tests.stats.test_paired import of


@pytest.mark.parametrize("kind", ["random", "zero-inflated"])
def test_the_bayesian_bootstrap_has_the_moments_of_dirichlet_weights(kind: str) -> None:
    # mean: the sample mean; variance: sum (d - mean)^2 / (n (n + 1))
    d = kinds()[kind]
    found = bayesian_bootstrap(of(d), 0.0, draws=20_000)
    sd = np.sqrt(((d - d.mean()) ** 2).sum() / (len(d) * (len(d) + 1)))
    middle, half = (found.interval.low + found.interval.high) / 2, (found.interval.high - found.interval.low) / 2
    assert middle == pytest.approx(d.mean(), abs=0.15 * sd)
    assert half == pytest.approx(1.96 * sd, rel=0.04)
    assert found.worse + found.rope + found.better == pytest.approx(1)


def test_many_distinct_differences_give_what_few_give() -> None:
    rng = np.random.default_rng(1)
    d = np.where(rng.random(5_000) < 0.15, rng.normal(0.02, 0.4, 5_000), 0.0)
    weights = rng.dirichlet(np.ones(5_000), size=2_000) @ d
    found = bayesian_bootstrap(of(d), 0.003)
    assert found.better == pytest.approx((weights > 0.003).mean(), abs=0.04)
    assert found.worse == pytest.approx((weights < -0.003).mean(), abs=0.04)


def test_swapping_swaps_worse_and_better() -> None:
    d = kinds()["zero-inflated"]
    one, other = bayesian_bootstrap(of(d), 0.002, draws=20_000), bayesian_bootstrap(of(-d), 0.002, draws=20_000)
    assert one.better == pytest.approx(other.worse, abs=0.02)


def test_identical_systems_are_the_same_for_certain() -> None:
    assert bayesian_bootstrap(of([0.0] * 20), 0.001).rope == 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rope", [0.0, 0.01])
def test_signed_ranks_are_those_of_baycomp(seed: int, rope: float) -> None:
    baycomp = pytest.importorskip("baycomp")
    d = np.random.default_rng(seed).normal(0.01, 0.03, 5 + 3 * seed)
    told = baycomp.SignedRankTest.probs(np.zeros_like(d), d, rope=rope, nsamples=20_000)
    found = signed_rank(list(d), rope, draws=20_000)
    if rope == 0:
        assert (found.worse, found.better) == pytest.approx(told, abs=0.02)
    else:
        assert (found.worse, found.rope, found.better) == pytest.approx(told, abs=0.02)


def test_signed_ranks_refuse_nothing_and_nan() -> None:
    for bad in ([], [0.1, float("nan")]):
        with pytest.raises(ValueError, match="finite"):
            signed_rank(bad, 0.01)
