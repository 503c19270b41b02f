"""FMLP-Rec's equations by hand, on rows padded on the left to N places as the authors lay them out, padding 0 at every layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from recbench.backbones.fmlp import FMLP
from tests.backbones import plain
from tests.systems import packed, small_backbone

ROWS = [[3], [5, 6], [1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4, 3, 2, 1], list(range(1, 13))]


def by_hand(model: nn.Module, items: list[int]) -> Tensor:
    """States of one row, (T, D)."""
    N, T = model.config.max_length, len(items)
    newest_last = model.positions.weight[:T].flip(0)
    x = plain.norm(model.items.weight[items] + newest_last, model.norm)
    for layer in model.layers:
        spectrum = layer.spectrum
        weights = [[complex(*spectrum[k, d].tolist()) for k in range(N // 2 + 1)] for d in range(x.shape[1])]
        x = plain.feed_forward(plain.norm(x + plain.filtered(x, weights, N), layer.norm), layer.feed_forward)
    return x


@pytest.mark.parametrize("max_length", [12, 13])
@torch.no_grad()
def test_states_equal_a_slow_transform_of_the_whole_window(max_length: int) -> None:
    model = small_backbone("fmlp", max_length=max_length).double().eval()
    for parameter in model.layers.parameters():
        nn.init.normal_(parameter, std=0.3)
    batch = packed(ROWS)
    found = model.encode(model.embed(batch), batch).h_QD.split([len(row) for row in ROWS])
    for row, states in zip(ROWS, found, strict=True):
        torch.testing.assert_close(states, by_hand(model, row), atol=1e-10, rtol=0)


def test_a_later_item_changes_earlier_states() -> None:
    model = small_backbone("fmlp").eval()
    one, other = (model.encode(model.embed(batch), batch).h_QD for batch in (packed([[1, 2, 3]]), packed([[1, 2, 9]])))
    assert not torch.allclose(one[0], other[0], atol=1e-4)


def test_every_frequency_has_a_complex_weight_a_channel() -> None:
    model = FMLP(FMLP.Config(max_length=50), 20)
    assert [tuple(layer.spectrum.shape) for layer in model.layers] == [(26, 64, 2)] * 2
    assert model.layers[0].spectrum.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"n_layers": 0}, {"max_length": 0}, {"dropout": 1.0}], ids=str)
def test_a_setting_out_of_range_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"\b{next(iter(wrong))}\b"):
        FMLP.Config(**wrong)
