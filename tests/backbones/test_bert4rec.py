"""BERT4Rec's equations by hand, its blank, and which tokens see which."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from recbench.backbones.bert4rec import BERT4Rec
from tests.backbones import plain
from tests.systems import packed, small_backbone

ROWS = [[3, 0], [5, 6, 0], [1, 2, 3, 4, 5, 0], [9, 8, 0, 6, 5, 4, 0, 2, 1], [*range(1, 13), 0]]
LAST = [1, 4, 10, 19, 32]


def small(**changes: object) -> nn.Module:
    model = small_backbone("bert4rec", **changes).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    nn.init.zeros_(model.items.weight[0])
    return model


def embedded(model: nn.Module, items: list[int]) -> Tensor:
    x = torch.stack([model.items.weight[item] if item else model.blank.weight[0] for item in items])
    places = model.positions.weight[: len(items)]
    return plain.norm(x + (places.flip(0) if model.config.positions_from == "newest" else places), model.norm)


def run(model: nn.Module, x: Tensor, visible: Tensor) -> Tensor:
    for layer in model.layers:
        x = plain.feed_forward(plain.attention(x, layer.attention, visible, model.config.n_heads), layer.feed_forward)
    if model.projection is None:
        return x
    return plain.norm(plain.gelu(plain.linear(x, model.projection)), model.projected)


@pytest.mark.parametrize("projection", [True, False])
@torch.no_grad()
def test_states_equal_slow_attention_over_each_row_alone(projection: bool) -> None:
    model = small(projection=projection)
    batch = packed(ROWS)
    found = model.encode(model.embed(batch), batch).h_QD.split([len(row) for row in ROWS])
    for row, states in zip(ROWS, found, strict=True):
        alone = run(model, embedded(model, row), torch.ones(len(row), len(row)).bool())
        torch.testing.assert_close(states, alone, atol=1e-10, rtol=0)


@torch.no_grad()
def test_thoughts_see_the_whole_row_and_earlier_thoughts_and_no_item_sees_them() -> None:
    model = small()
    batch = packed(ROWS, at=[*LAST[:3], 13, 17, LAST[4]])  # a row with two blanks, asked at both, before its end
    memory = model.encode(model.embed(batch), batch, at_Q=batch.at_Q, remember=True).memory
    tokens = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = [model.extend(memory, x, batch.at_Q) for x in tokens]
    for chain, row in enumerate([*ROWS[:4], ROWS[3], ROWS[4]]):
        T, K = len(row), len(tokens)
        visible = torch.ones(T + K, T + K).tril().bool()
        visible[:T, :T] = True
        whole = run(model, torch.cat([embedded(model, row), tokens[:, chain]]), visible)
        for k in range(K):
            torch.testing.assert_close(found[k][chain], whole[T + k], atol=1e-10, rtol=0)


def test_a_state_depends_on_items_on_both_sides() -> None:
    model = small()
    one, before, after = (
        model.encode(model.embed(batch), batch).h_QD[2]
        for batch in (packed([[1, 2, 3, 4]]), packed([[9, 2, 3, 4]]), packed([[1, 2, 3, 9]]))
    )
    assert not torch.allclose(one, before, atol=1e-4)
    assert not torch.allclose(one, after, atol=1e-4)


def test_a_blank_hides_the_item_and_is_no_row_of_the_table_that_ranks() -> None:
    model = small()
    blank = model.embed(packed([[4, 0]]))[1]
    torch.testing.assert_close(blank, plain.norm(model.blank.weight[0] + model.positions.weight[1], model.norm))
    assert model.item_vectors().shape == (21, 8)
    assert (model.item_vectors()[0] == 0).all()


def test_the_longest_history_and_its_blank_fit() -> None:
    model = BERT4Rec(BERT4Rec.Config(max_length=3, width=8, inner=8), 5)
    assert model.longest_row == len(model.positions.weight) == 4
    assert model.embed(packed([[1, 2, 3, 0]])).shape == (4, 8)


@pytest.mark.parametrize("wrong", [{"width": 65}, {"blanked": 0.0}, {"blanked": 1.5}, {"dropout": 1.0}], ids=str)
def test_a_setting_out_of_range_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"\b{next(iter(wrong))}\b"):
        BERT4Rec.Config(**wrong)
