"""SASRec's forms against their equations as a plain loop; its default, bit for bit, against the plain form of the layers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.backbones.sasrec import Block, SASRec, turned
from recbench.config import read_config
from recbench.settings import Asked, resolve
from tests.backbones.by_hand import HISTORY, fast, gelu, linear, norm, shaken, silu
from tests.systems import packed, small_backbone

EPS = 1e-12
FORMS: list[dict[str, object]] = [
    {},
    {"norm": "pre"},
    {"norm": "pre", "final_norm": False},
    {"positions": "rotary"},
    {"positions_from": "newest"},
    {"gate": True},
    {"feed_forward": "swiglu"},
    {"norm": "pre", "final_norm": False, "gate": True, "feed_forward": "swiglu"},
    {"norm": "pre", "positions": "rotary", "gate": True, "feed_forward": "swiglu", "n_heads": 1},
]


def attention(q: list[Tensor], k: list[Tensor], v: list[Tensor], t: int, heads: int, rotary: bool) -> Tensor:
    """Position t's mix of the values up to it."""
    D, mixed = len(q[0]), []
    d = D // heads
    for head in range(heads):
        own = slice(head * d, (head + 1) * d)
        turn = [rotation(s, d) if rotary else torch.eye(d, dtype=torch.float64) for s in range(t + 1)]
        scores = torch.stack([(turn[t] @ q[t][own]) @ (turn[s] @ k[s][own]) / math.sqrt(d) for s in range(t + 1)])
        weights = torch.exp(scores) / torch.exp(scores).sum()
        mixed.append(sum(weights[s] * v[s][own] for s in range(t + 1)))
    return torch.cat(mixed)


def rotation(position: int, d: int) -> Tensor:
    """The matrix that turns pair (i, i + d / 2) by position / 10000^(2 i / d)."""
    matrix = torch.zeros(d, d, dtype=torch.float64)
    for i in range(d // 2):
        angle = position / 10_000 ** (2 * i / d)
        j = i + d // 2
        matrix[i, i] = matrix[j, j] = math.cos(angle)
        matrix[i, j], matrix[j, i] = -math.sin(angle), math.sin(angle)
    return matrix


def plain(block: Block, inputs: list[Tensor], c: SASRec.Config) -> list[Tensor]:
    """One block over one row."""
    pre = c.norm == "pre"
    normed = [norm(x, block.attention_norm, EPS) if pre else x for x in inputs]
    q, k, v = zip(*(linear(x, block.query_key_value).chunk(3) for x in normed), strict=True)
    outputs = []
    for t, x in enumerate(inputs):
        part = linear(attention(q, k, v, t, c.n_heads, c.positions == "rotary"), block.attended)
        y = x + (part / (1 + torch.exp(-linear(x, block.attention_gate))) if c.gate else part)
        y = y if pre else norm(y, block.attention_norm, EPS)
        z = norm(y, block.norm, EPS) if pre else y
        inner = linear(z, block.inner)
        inner = silu(inner) * linear(z, block.linear) if c.feed_forward == "swiglu" else gelu(inner)
        part = linear(inner, block.outer)
        z = y + (part / (1 + torch.exp(-linear(y, block.gate))) if c.gate else part)
        z = z if pre else norm(z, block.norm, EPS)
        outputs.append(z if block.final_norm is None else norm(z, block.final_norm, EPS))
    return outputs


@pytest.mark.parametrize("form", FORMS, ids=str)
@torch.no_grad()
def test_states_are_those_of_the_equations(form: dict[str, object]) -> None:
    backbone = shaken(small_backbone("sasrec", **form))
    x = [backbone.items.weight[item] for item in HISTORY]
    if backbone.positions is not None:
        newest = backbone.config.positions_from == "newest"
        x = [x_t + backbone.positions.weight[len(x) - 1 - t if newest else t] for t, x_t in enumerate(x)]
    if backbone.norm is not None:
        x = [norm(x_t, backbone.norm, EPS) for x_t in x]
    for block in backbone.layers:
        x = plain(block, x, backbone.config)
    torch.testing.assert_close(fast(backbone), torch.stack(x), atol=1e-10, rtol=0)


class First(nn.Module):
    """SASRec as it was before it took other forms: the modules in their order, and one row through them."""

    def __init__(self, n_items: int, width: int, heads: int, inner: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.items, self.positions = nn.Embedding(n_items + 1, width, padding_idx=0), nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.layers = nn.ModuleList()
        for _ in range(2):
            block = nn.Module()
            block.query_key_value, block.attended = nn.Linear(width, 3 * width), nn.Linear(width, width)
            block.attention_norm = nn.LayerNorm(width, eps=EPS)
            block.inner, block.outer = nn.Linear(width, inner), nn.Linear(inner, width)
            block.norm = nn.LayerNorm(width, eps=EPS)
            self.layers.append(block)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.items.weight[0] = 0

    def forward(self, row: list[int]) -> Tensor:
        x = self.norm(self.items(torch.tensor(row)) + self.positions(torch.arange(len(row))))
        for block in self.layers:
            q, k, v = block.query_key_value(x).view(1, len(row), 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(len(row), -1)
            x = block.attention_norm(x + block.attended(mixed))
            x = block.norm(x + block.outer(F.gelu(block.inner(x))))
        return x


def test_the_default_is_bit_for_bit_what_it_was_before_it_took_other_forms() -> None:
    backbone = small_backbone("sasrec").eval()
    torch.manual_seed(1)
    first = First(20, 8, 2, 16, 12)
    assert dict(first.named_parameters()).keys() == dict(backbone.named_parameters()).keys()
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, backbone.get_parameter(name)), name
    batch = packed([HISTORY])
    assert torch.equal(backbone.encode(backbone.embed(batch), batch).h_QD, first(HISTORY))


def test_turned_products_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(2, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    products = [
        (turned(q, torch.tensor([place + 3]), 2) * turned(k, torch.tensor([place]), 2)).sum() for place in (0, 5, 40)
    ]
    assert max(products) - min(products) < 1e-12
    assert torch.equal(turned(q, torch.tensor([0]), 2), q)


def test_layers_say_truthfully_whether_they_end_in_their_norm() -> None:
    assert small_backbone("sasrec").post_norm
    assert not small_backbone("sasrec", norm="pre").post_norm


def test_the_shipped_config_switches_on_every_part_of_esasrec() -> None:
    resolved = resolve(Asked(config=Path("esasrec")).table(), "amazon")
    config = resolved.backbone_config
    assert resolved.backbone == "sasrec"
    assert (config.norm, config.final_norm, config.gate, config.feed_forward) == ("pre", False, True, "swiglu")
    assert (config.n_layers, config.n_heads, config.width, config.dropout) == (1, 1, 64, 0.2)
    assert config.positions_from == "newest"
    assert resolved.train["train"].patience == 50
    assert read_config(Path("esasrec"))["backbone"]["name"] == "sasrec"


@pytest.mark.parametrize(
    ("named", "values"),
    [
        ("rotary", {"positions": "rotary", "width": 6}),
        ("positions_from", {"positions": "rotary", "positions_from": "newest"}),
        ("final_norm", {"final_norm": False}),
        ("n_heads", {"n_heads": 3}),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(named: str, values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=named):
        SASRec.Config(**values)
