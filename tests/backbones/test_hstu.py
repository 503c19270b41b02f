"""HSTU against its equations as a plain loop, and what it may know of time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recbench.backbones.hstu import HSTU, Layer
from tests.backbones.by_hand import GAPS, HISTORY, fast, linear, norm, shaken, silu
from tests.systems import packed, small_backbone

EPS = 1e-6
SECONDS = [0, 1, 2, 40, 86_400, 90_000_000]
BUCKETS = [0, 0, 2, 12, 37, 60]
"""floor(ln(max(seconds, 1)) / 0.301): ln 2 = 0.693, ln 40 = 3.689, ln 86400 = 11.367, ln 9e7 = 18.315."""


def bucket(seconds: int) -> int:
    return math.floor(math.log(max(abs(seconds), 1)) / 0.301)


def plain(layer: Layer, inputs: list[Tensor], events: list[int] | None, queries: list[int] | None) -> list[Tensor]:
    """One layer over one row, pair by pair."""
    D, H = len(inputs[0]), layer.n_heads
    d = D // H
    u, v, q, k = zip(*(silu(linear(norm(x, None, EPS), layer.uvqk)).chunk(4) for x in inputs), strict=True)
    outputs = []
    for t, x in enumerate(inputs):
        mixed = torch.zeros(D, dtype=torch.float64)
        for head in range(H):
            own = slice(head * d, (head + 1) * d)
            for s in range(t + 1):
                score = (q[t][own] * k[s][own]).sum() + layer.place_bias[t - s]
                if events is not None and queries is not None and layer.time_bias is not None:
                    score = score + layer.time_bias[bucket(queries[t] - events[s])]
                mixed[own] += silu(score) / layer.divisor * v[s][own]
        y = x + linear(u[t] * norm(mixed, None, EPS), layer.out)
        outputs.append(y if layer.norm is None else norm(y, layer.norm, EPS))
    return outputs


def states(backbone: HSTU, events: list[int] | None, queries: list[int] | None) -> Tensor:
    x = [backbone.items.weight[item] * math.sqrt(backbone.width) for item in HISTORY]
    if backbone.positions is not None:
        newest = backbone.config.positions_from == "newest"
        x = [x_t + backbone.positions.weight[len(x) - 1 - t if newest else t] for t, x_t in enumerate(x)]
    for layer in backbone.layers:
        x = plain(layer, x, events, queries)
    return torch.stack(x)


@pytest.mark.parametrize(
    "changes",
    [{}, {"positions": False}, {"positions_from": "newest"}, {"time_bias": False}, {"divisor": 3}, {"n_heads": 4}],
    ids=str,
)
@torch.no_grad()
def test_states_are_those_of_the_equations(changes: dict[str, object]) -> None:
    backbone = shaken(small_backbone("hstu", **changes))
    torch.testing.assert_close(fast(backbone, GAPS), states(backbone, GAPS, GAPS), atol=1e-10, rtol=0)


@torch.no_grad()
def test_without_times_the_time_bias_is_left_out() -> None:
    backbone = shaken(small_backbone("hstu"))
    batch = replace(packed([HISTORY]), times_N=None, next_times_N=None)
    alone = backbone.encode(backbone.embed(batch), batch).h_QD
    torch.testing.assert_close(alone, states(backbone, None, None), atol=1e-10, rtol=0)
    assert not torch.allclose(alone, fast(backbone, GAPS), atol=1e-3)


@torch.no_grad()
def test_the_time_of_the_target_is_used_only_where_a_setting_says_so() -> None:
    target = [*GAPS[1:], GAPS[-1] + 3600]
    told = shaken(small_backbone("hstu", query_time="target"))
    torch.testing.assert_close(fast(told, GAPS), states(told, GAPS, target), atol=1e-10, rtol=0)
    assert (told.times_seen, small_backbone("hstu").times_seen) == ("history and target", "history")
    assert small_backbone("hstu", time_bias=False).times_seen == "none"

    blind, batch = shaken(small_backbone("hstu")), packed([HISTORY], times=[GAPS])
    later = replace(batch, next_times_N=batch.next_times_N + 10**7)
    for some in (None, torch.tensor([6])):
        one, other = (blind.encode(blind.embed(b), b, at_Q=some).h_QD for b in (batch, later))
        assert torch.equal(one, other)
        one, other = (told.encode(told.embed(b), b, at_Q=some).h_QD for b in (batch, later))
        assert not torch.allclose(one, other, atol=1e-3)


@torch.no_grad()
def test_where_the_time_of_the_target_is_not_known_it_is_that_of_the_newest_event() -> None:
    told, batch = shaken(small_backbone("hstu", query_time="target")), packed([HISTORY], times=[GAPS])
    unknown = replace(batch, next_times_N=None)
    torch.testing.assert_close(
        told.encode(told.embed(unknown), unknown).h_QD, states(told, GAPS, GAPS), atol=1e-10, rtol=0
    )


@torch.no_grad()
def test_a_later_time_changes_no_state_before_it() -> None:
    backbone = shaken(small_backbone("hstu"))
    one, other = fast(backbone, GAPS), fast(backbone, [*GAPS[:4], 10**8, 10**8 + 5, 2 * 10**8])
    assert torch.equal(one[:4], other[:4])
    assert not torch.allclose(one[4:], other[4:], atol=1e-3)


@torch.no_grad()
def test_only_differences_of_times_matter() -> None:
    backbone = shaken(small_backbone("hstu"))
    assert torch.equal(fast(backbone, GAPS), fast(backbone, [time + 1_400_000_000 for time in GAPS]))


def test_time_falls_into_buckets_of_its_logarithm() -> None:
    backbone = small_backbone("hstu", time_buckets=50)
    assert backbone._time_bucket(torch.tensor(SECONDS[:5])).tolist() == BUCKETS[:5]
    assert backbone._time_bucket(-torch.tensor(SECONDS[:5])).tolist() == BUCKETS[:5]
    assert backbone._time_bucket(torch.tensor([SECONDS[5]])).tolist() == [
        50
    ]  # the last bucket takes all that is longer
    assert small_backbone("hstu")._time_bucket(torch.tensor([SECONDS[5]])).tolist() == [BUCKETS[5]]


@torch.no_grad()
def test_the_divisor_is_that_of_the_config_however_long_the_rows_are() -> None:
    assert small_backbone("hstu", max_length=12).layers[0].divisor == 12
    assert small_backbone("hstu", divisor=7).layers[0].divisor == 7
    backbone = small_backbone("hstu").eval()
    short = packed([[1, 2]])
    among = packed([[1, 2], [3, 4, 5, 6, 7, 8, 9, 10, 11]])
    one, other = (backbone.encode(backbone.embed(b), b).h_QD[:2] for b in (short, among))
    torch.testing.assert_close(one, other, atol=1e-7, rtol=0)


@torch.no_grad()
def test_thoughts_behind_a_full_history_take_the_last_place_of_the_bias() -> None:
    """Places apart that training never saw are those furthest apart that it saw."""
    backbone = shaken(small_backbone("hstu", max_length=4))
    batch = packed([[1, 2, 3, 4]])
    memory = backbone.encode(backbone.embed(batch), batch, remember=True).memory
    at_Q, x = torch.tensor([3]), torch.ones(1, 8, dtype=torch.float64)
    assert all(backbone.extend(memory, x, at_Q).isfinite().all() for _ in range(3))
    apart = backbone._asked_apart(
        memory.seen_L[0].layout, batch.rows, memory.clock, at_Q, memory.places.taken[-1], memory.places.taken
    )
    assert apart[0].places.tolist() == [[[3, 3, 3, 3, 2, 1, 0]]]


@pytest.mark.parametrize(
    "changes", [{"positions": False, "positions_from": "newest"}, {"time_bias": False, "query_time": "target"}], ids=str
)
def test_a_setting_of_what_is_left_out_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=[*changes][1]):
        HSTU.Config(**changes)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("divisor", 0), ("time_buckets", 0), ("n_heads", 3), ("dropout", 1.0), ("attention_dropout", -0.1)],
)
def test_settings_out_of_range_are_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=setting):
        HSTU.Config(**{setting: value})
