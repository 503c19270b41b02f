"""GRU4Rec against its equations as a plain loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recbench.backbones.gru4rec import GRU4Rec, Layer
from recbench.backbones.recurrence import TimeMajor
from tests.backbones.by_hand import HISTORY, fast, linear, norm, shaken
from tests.systems import packed, small_backbone


def plain(layer: Layer, inputs: list[Tensor]) -> list[Tensor]:
    """One layer over one row, gate by gate."""
    gru, h, outputs = layer.gru, torch.zeros(layer.gru.hidden_size, dtype=torch.float64), []
    w, u = gru.weight_ih_l0.chunk(3), gru.weight_hh_l0.chunk(3)
    b, c = gru.bias_ih_l0.chunk(3), gru.bias_hh_l0.chunk(3)
    if layer.norm is not None:
        inputs = [norm(x, layer.norm, 1e-5) for x in inputs]
    for x in inputs:
        reset = 1 / (1 + torch.exp(-(w[0] @ x + b[0] + u[0] @ h + c[0])))
        keep = 1 / (1 + torch.exp(-(w[1] @ x + b[1] + u[1] @ h + c[1])))
        candidate = torch.tanh(w[2] @ x + b[2] + reset * (u[2] @ h + c[2]))
        h = (1 - keep) * candidate + keep * h
        outputs.append(h if layer.projection is None else linear(h, layer.projection))
    return outputs


@pytest.mark.parametrize(("hidden", "normed"), [(None, False), (5, False), (5, True)])
@torch.no_grad()
def test_states_are_those_of_the_equations(hidden: int | None, normed: bool) -> None:
    backbone = shaken(small_backbone("gru4rec", hidden=hidden, norm=normed))
    assert [layer.norm is not None for layer in backbone.layers] == [False, normed]
    x = [backbone.items.weight[item] for item in HISTORY]
    for layer in backbone.layers:
        x = plain(layer, x)
    torch.testing.assert_close(fast(backbone), torch.stack(x), atol=1e-10, rtol=0)


def test_tokens_in_order_of_time_are_whole_positions_longest_rows_first() -> None:
    rows = packed([[1], [2, 3], [4, 5, 6]]).rows  # tokens 0 | 1 2 | 3 4 5
    order = TimeMajor.of(rows)
    assert order.token_N.tolist() == [3, 1, 0, 4, 2, 5]
    assert order.sizes_T.tolist() == [3, 2, 1]
    assert order.token_N[order.place_N].tolist() == list(range(6))


def test_matrices_start_gate_by_gate_and_biases_at_zero() -> None:
    layer = small_backbone("gru4rec", width=64).layers[0]
    bound = (6 / (64 + 64)) ** 0.5  # Glorot: sqrt(6 / (in + out)) of one gate, not of three stacked
    for gate in layer.gru.weight_hh_l0.chunk(3):
        assert 0.95 * bound < gate.abs().max() <= bound
    assert not layer.gru.bias_ih_l0.any()
    assert not layer.gru.bias_hh_l0.any()


@pytest.mark.parametrize(
    ("setting", "value"), [("hidden", 0), ("n_layers", 0), ("dropout", 1.0), ("state_dropout", -0.1)]
)
def test_settings_out_of_range_are_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=setting):
        GRU4Rec.Config(**{setting: value})


def test_norms_behind_the_first_layer_are_refused_where_there_is_one() -> None:
    with pytest.raises(ValueError, match="n_layers is 1"):
        GRU4Rec.Config(norm=True, n_layers=1)
