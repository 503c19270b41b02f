"""Thoughts of backbones that mix whole rows: each is the newest event of a window encoded anew."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from recbench.backbones.windows import WindowBackbone
from recbench.registry import BACKBONES
from tests.systems import neural_backbones, packed, small_backbone

NAMES = [name for name in neural_backbones() if issubclass(BACKBONES.load(name), WindowBackbone)]
ROWS = [[3], [5, 6], [7, 8, 9], [9, 8, 7, 6, 5, 4, 3, 2, 1], list(range(1, 13))]
LAST = [0, 2, 5, 14, 26]
N = 12


def small(name: str) -> nn.Module:
    model = small_backbone(name, max_length=N).double().eval()
    for parameter in model.layers.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def encoded_alone(model: nn.Module, tokens: Tensor) -> Tensor:
    """The state of the last of these tokens as one row."""
    batch = packed([[1] * len(tokens)])
    return model.encode(tokens, batch).h_QD[-1]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_thought_is_the_newest_event_and_the_oldest_falls_out_of_a_full_window(name: str) -> None:
    model = small(name)
    batch = packed(ROWS, at=[0, 1, 2, 5, 10, 14, 26])  # also behind tokens that are not their row's last
    x_ND, tokens = model.embed(batch), drawn(N + 2, 7, 8)
    memory = model.encode(x_ND, batch, remember=True).memory
    for k in range(len(tokens)):
        found = model.extend(memory, tokens[k], batch.at_Q)
        for chain, at in enumerate(batch.at_Q.tolist()):
            start = int(batch.rows.starts[int(batch.rows.row_N[at])])
            said = torch.cat([x_ND[start : at + 1], tokens[: k + 1, chain]])
            torch.testing.assert_close(found[chain], encoded_alone(model, said[-N:]), atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_thought_that_is_not_live_leaves_no_gap(name: str) -> None:
    model = small(name)
    batch, tokens = packed(ROWS, at=LAST), drawn(3, 5, 8)
    x_ND = model.embed(batch)
    memory = model.encode(x_ND, batch, remember=True).memory
    live = torch.tensor([True, False, True, False, True])
    model.extend(memory, tokens[0], batch.at_Q, live_Q=live)
    model.extend(memory, tokens[1], batch.at_Q, live_Q=~live)
    found = model.extend(memory, tokens[2], batch.at_Q)
    starts = batch.rows.starts
    for chain, at in enumerate(LAST):
        heard = tokens[[0, 2] if live[chain] else [1, 2], chain]
        said = torch.cat([x_ND[int(starts[chain]) : at + 1], heard])
        torch.testing.assert_close(found[chain], encoded_alone(model, said[-N:]), atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_thought_has_a_gradient_into_history_and_earlier_thoughts(name: str) -> None:
    model = small(name)
    batch, tokens = packed(ROWS, at=LAST), drawn(2, 5, 8).requires_grad_()
    x_ND = model.embed(batch)
    x_ND.retain_grad()
    memory = model.encode(x_ND, batch, remember=True).memory
    model.extend(memory, tokens[0], batch.at_Q)
    model.extend(memory, tokens[1], batch.at_Q).square().sum().backward()
    assert tokens.grad is not None
    assert x_ND.grad is not None
    assert (tokens.grad.abs().sum(2) > 0).all()
    assert (x_ND.grad.abs().sum(1) > 0).tolist() == [place not in (15, 16) for place in range(27)]
