"""The fast product is the product."""

from __future__ import annotations

import pytest
import torch

from recbench.kernels.products import times_transposed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("view", [False, True])
def test_it_equals_torchs_own_also_for_a_transposed_view(dtype: torch.dtype, view: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(33, 64, generator=generator, dtype=dtype)
    b = (
        torch.randn(64, 501, generator=generator, dtype=dtype).t()
        if view
        else torch.randn(501, 64, generator=generator, dtype=dtype)
    )
    torch.testing.assert_close(times_transposed(a, b), a @ b.T, atol=1e-4 if dtype == torch.float32 else 1e-12, rtol=0)


def test_nan_stays_nan() -> None:
    a = torch.full((2, 4), float("nan"))
    assert times_transposed(a, torch.ones(3, 4)).isnan().all()
