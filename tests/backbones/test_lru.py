"""LRU against its equations as a plain loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recbench.backbones.lru import LRU, Block
from tests.backbones.by_hand import HISTORY, fast, gelu, linear, norm, shaken
from tests.systems import packed, small_backbone

EPS = 1e-12


def plain(block: Block, inputs: list[Tensor]) -> list[Tensor]:
    """One block over one row, number by number where it recurs."""
    channels = len(block.nu_log)
    b_re, b_im = block.into.weight[0::2], block.into.weight[1::2]
    c_re, c_im = block.out.weight[:, 0::2], block.out.weight[:, 1::2]
    re, im = torch.zeros(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    size, angle, gamma = torch.exp(-torch.exp(block.nu_log)), torch.exp(block.theta_log), torch.exp(block.gamma_log)
    outputs = []
    for x in inputs:
        in_re, in_im = b_re @ x + block.into.bias[0::2], b_im @ x + block.into.bias[1::2]
        turned_re = size * (torch.cos(angle) * re - torch.sin(angle) * im)
        turned_im = size * (torch.sin(angle) * re + torch.cos(angle) * im)
        re, im = turned_re + gamma * in_re, turned_im + gamma * in_im
        y = norm(x + c_re @ re + c_im @ im + block.out.bias, block.unit_norm, EPS)
        outputs.append(norm(y + linear(gelu(linear(y, block.inner)), block.outer), block.norm, EPS))
    return outputs


@torch.no_grad()
def test_states_are_those_of_the_equations() -> None:
    backbone = shaken(small_backbone("lru", channels=6))
    x = [norm(backbone.items.weight[item], backbone.norm, EPS) for item in HISTORY]
    for block in backbone.layers:
        x = plain(block, x)
    torch.testing.assert_close(fast(backbone), torch.stack(x), atol=1e-10, rtol=0)


def test_decays_start_in_the_ring_and_inputs_keep_the_state_at_their_own_size() -> None:
    block = small_backbone("lru", channels=500, r_min=0.5, r_max=0.9).layers[0]
    size = block._decay().abs()
    assert 0.5 <= size.min() < 0.52
    assert 0.88 < size.max() <= 0.9
    assert abs((size**2).mean() - (0.5**2 + 0.9**2) / 2) < 0.02  # uniform over the area of the ring
    torch.testing.assert_close(block.gamma_log.exp() ** 2, 1 - size**2)


@torch.no_grad()
def test_no_parameter_makes_the_recurrence_grow() -> None:
    block = small_backbone("lru").layers[0]
    block.nu_log.normal_(std=3.0)
    assert (block._decay().abs() < 1).all()


def test_the_norm_of_the_input_stands_behind_its_dropout() -> None:
    backbone = small_backbone("lru", dropout=0.5).train()
    x = backbone.embed(packed([HISTORY]))
    assert (x.std(1, correction=0) - 1).abs().max() < 1e-3
    assert not torch.allclose(x, backbone.eval().embed(packed([HISTORY])))


def test_complex_numbers_are_made_of_float32_whatever_the_step_runs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast casts for them on a CPU alone; on a GPU bfloat16 would arrive as it is, and be refused."""
    made, view = [], torch.view_as_complex
    monkeypatch.setattr(torch, "view_as_complex", lambda x: made.append(x.dtype) or view(x))  # type: ignore[func-returns-value]
    backbone, batch = small_backbone("lru"), packed([HISTORY])
    with torch.autocast("cpu", torch.bfloat16):
        backbone.encode(backbone.embed(batch), batch)
    assert made == [torch.float32] * backbone.n_layers


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("r_min", {"r_min": 0.0}),
        ("r_max", {"r_max": 1.0}),
        ("r_min", {"r_min": 0.9, "r_max": 0.8}),
        ("dropout", {"dropout": 1.0}),
    ],
)
def test_settings_out_of_range_are_refused_by_name(setting: str, values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=setting):
        LRU.Config(**values)
