"""The GPU for machines without one refuses what a GPU refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from tests.elsewhere import CUDA, Elsewhere, Far


@pytest.mark.parametrize(
    ("careless", "words"),
    [
        (lambda: torch.ones(3, device=CUDA) + torch.ones(3), "two devices"),
        (lambda: torch.ones(3).to(CUDA).index_select(0, torch.tensor([1])), "two devices"),
        (lambda: torch.nn.Linear(3, 2).to(CUDA)(torch.ones(3)), "two devices"),
        (lambda: torch.arange(5)[torch.tensor([1], device=CUDA)], "indices should be"),
        (lambda: torch.ones(3, device=CUDA).numpy(), "to numpy"),
        (lambda: torch.rand(3, device=CUDA, generator=torch.Generator()), "device type for generator"),
        (lambda: torch.rand(3, generator=torch.Generator(CUDA)), "device type for generator"),
        (lambda: torch.ones(3, device=CUDA).normal_(generator=torch.Generator()), "device type for generator"),
    ],
)
def test_what_a_gpu_refuses_is_refused(careless: Callable[[], object], words: str) -> None:
    with Elsewhere(), pytest.raises((RuntimeError, TypeError), match=words):
        careless()


def test_what_a_gpu_takes_is_taken_with_the_numbers_of_the_host() -> None:
    x, at = torch.randn(2, 5, 4), torch.tensor([0, 3])
    layer = torch.nn.GRU(4, 4)
    host = F.scaled_dot_product_attention(layer(x)[0], x, x, is_causal=True)[:, at] + torch.tensor(2.0)
    host.sum().backward()
    slope = layer.weight_ih_l0.grad.clone()  # type: ignore[operator]
    layer.zero_grad()
    with Elsewhere():
        layer, there = layer.to(CUDA), x.to(CUDA)
        far = F.scaled_dot_product_attention(layer(there)[0], there, there, is_causal=True)[:, at] + torch.tensor(2.0)
        far.sum().backward()
        assert isinstance(far, Far)
        assert far.device == layer.weight_ih_l0.grad.device == CUDA  # type: ignore[operator,union-attr]
        assert torch.allclose(far.cpu(), host)
        assert torch.allclose(layer.weight_ih_l0.grad.cpu(), slope)  # type: ignore[operator,union-attr]
    assert torch.Generator().device == torch.device("cpu")
