"""BSARec's equations by hand, on rows padded on the left to N places, padding 0 at every layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from recbench.backbones.bsarec import BSARec
from tests.backbones import plain
from tests.systems import packed, small_backbone

ROWS = [[3], [5, 6], [1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4, 3, 2, 1], list(range(1, 13))]


def by_hand(model: nn.Module, items: list[int], alpha: float, kept: int) -> Tensor:
    """States of one row, (T, D)."""
    N, T = model.config.max_length, len(items)
    x = plain.norm(model.items.weight[items] + model.positions.weight[:T].flip(0), model.norm)
    passed = [1 + 0j if k < kept else 0j for k in range(N // 2 + 1)]
    for layer in model.layers:
        low = plain.filtered(x, [passed] * x.shape[1], N)
        rescaled = low + layer.filter.sqrt_beta**2 * (x - low)
        filtered = plain.norm(x + rescaled, layer.filter.norm)
        attended = plain.attention(x, layer.attention, plain.causal(T), model.config.n_heads)
        x = plain.feed_forward(alpha * filtered + (1 - alpha) * attended, layer.feed_forward)
    return x


@pytest.mark.parametrize(("alpha", "c", "kept"), [(0.7, 3, 2), (0.3, 1, 1), (0.5, 5, 3), (1.0, 4, 3), (0.0, 13, 7)])
@torch.no_grad()
def test_states_equal_a_slow_filter_beside_slow_attention(alpha: float, c: int, kept: int) -> None:
    model = small_backbone("bsarec", alpha=alpha, c=c).double().eval()
    for parameter in model.layers.parameters():
        nn.init.normal_(parameter, std=0.3)
    batch = packed(ROWS)
    found = model.encode(model.embed(batch), batch).h_QD.split([len(row) for row in ROWS])
    for row, states in zip(ROWS, found, strict=True):
        torch.testing.assert_close(states, by_hand(model, row, alpha, kept), atol=1e-10, rtol=0)


def test_only_the_filter_looks_ahead() -> None:
    batches = packed([[1, 2, 3]]), packed([[1, 2, 9]])
    for alpha, ahead in ((0.0, False), (0.7, True)):
        model = small_backbone("bsarec", alpha=alpha, n_layers=1).eval()
        one, other = (model.encode(model.embed(batch), batch).h_QD for batch in batches)
        assert torch.allclose(one[0], other[0], atol=1e-6) != ahead


def test_high_frequencies_start_at_random_gains_of_mean_one() -> None:
    torch.manual_seed(0)
    gains = [layer.filter.sqrt_beta.square() for layer in BSARec(BSARec.Config(width=4096, inner=8), 5).layers]
    assert [gain.mean().item() for gain in gains] == pytest.approx([1, 1], abs=5 * (2 / 4096) ** 0.5)


@pytest.mark.parametrize(
    "wrong", [{"width": 65}, {"alpha": 1.5}, {"c": 0}, {"dropout": 1.0}, {"attention_dropout": -0.1}], ids=str
)
def test_a_setting_out_of_range_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"\b{next(iter(wrong))}\b"):
        BSARec.Config(**wrong)
