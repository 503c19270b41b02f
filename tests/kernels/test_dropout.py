"""The fast dropout is dropout: by its frequencies, its expectation and its gradient."""

from __future__ import annotations

import math

import pytest
import torch

from recbench.kernels.dropout import Dropout, drop

ENTRIES = 400_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_dropout_drops_at_its_rate_within_five_standard_errors(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    dropped = (drop(torch.ones(ENTRIES, dtype=dtype), rate) == 0).double().mean().item()
    assert abs(dropped - rate) < 5 * math.sqrt(rate * (1 - rate) / ENTRIES)


@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_dropout_keeps_the_expectation(rate: float) -> None:
    torch.manual_seed(2)
    kept = drop(torch.full((ENTRIES,), 3.0, dtype=torch.float64), rate)
    # An entry is 0 or 3 / (1 - rate): mean 3, standard deviation 3 sqrt(rate / (1 - rate)).
    assert abs(kept.mean().item() - 3) < 5 * 3 * math.sqrt(rate / (1 - rate) / ENTRIES)
    assert len(kept.unique()) == 2
    # The rate is rounded to 2^-16, and the scale goes with the rounded one.
    assert kept.max().item() == pytest.approx(3 / (1 - round(rate * 65_536) / 65_536), rel=1e-12)


def test_neighbouring_entries_are_dropped_independently() -> None:
    torch.manual_seed(3)
    gone = drop(torch.ones(ENTRIES), 0.5) == 0
    for lag in (1, 2, 3, 4):  # four decisions share a word of 64 bits
        both = (gone[lag:] & gone[:-lag]).double().mean().item()
        assert abs(both - 0.25) < 5 * math.sqrt(0.25 * 0.75 / ENTRIES)


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 7), (2, 3, 5), (0, 4), (65, 1)])
def test_any_shape_is_dropped_entry_by_entry(shape: tuple[int, ...]) -> None:
    torch.manual_seed(4)
    x = torch.ones(shape)
    made = drop(x, 0.5)
    assert made.shape == x.shape
    assert set(made.flatten().tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_seed_gives_the_same_mask_and_another_call_another(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    first, second = (drop(torch.ones(1_001, dtype=dtype), 0.5) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(drop(torch.ones(1_001, dtype=dtype), 0.5), first)
    assert first.dtype == dtype
    assert not torch.equal(first, second)


def test_dropout_is_off_in_eval_and_at_rate_0() -> None:
    x, layer = torch.randn(50), Dropout(0.5)
    assert torch.equal(layer.eval()(x), x)
    assert not torch.equal(layer.train()(x), x)
    before = torch.get_rng_state()
    assert torch.equal(Dropout(0.0).train()(x), x)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_gradient_goes_through_the_same_mask() -> None:
    torch.manual_seed(6)
    x = torch.ones(301, requires_grad=True)
    made = drop(x, 0.2)
    made.sum().backward()
    assert torch.equal(x.grad, made)  # type: ignore[arg-type]


def test_rates_next_to_1_leave_nothing_or_hardly_anything() -> None:
    torch.manual_seed(7)
    for rate in (1 - 1e-6, 1.0):
        assert (drop(torch.ones(1_000), rate) == 0).double().mean() > 0.99


LEADING = [(), (1,), (7,), (3, 4)]
