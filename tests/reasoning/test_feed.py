"""What a thought becomes on its way back in, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recbench.reasoning.chain import input_scale
from recbench.reasoning.feed import Fed, Feed
from tests.systems import small_backbone

H = torch.tensor([[3.0, -4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
RMS = (25 / 8) ** 0.5


def made(kind: Fed, steps: int = 3) -> Feed:
    """A feed whose steps have learned vectors: step t is all t + 1."""
    feed = Feed(small_backbone("sasrec"), kind, steps)
    assert not feed.step.any()
    with torch.no_grad():
        feed.step.copy_(torch.arange(1.0, steps + 1)[:, None])
    return feed


def fed(feed: Feed, t: int, h: Tensor = H) -> Tensor:
    return feed(h, t).detach()


@pytest.mark.parametrize("kind", ["rms", "state", "linear", "constant"])
def test_each_step_adds_its_own_vector_and_those_beyond_the_last_take_the_last(kind: Fed) -> None:
    feed = made(kind)
    first = fed(feed, 0)
    for t, more in ((1, 1.0), (2, 2.0), (3, 2.0), (9, 2.0)):
        torch.testing.assert_close(fed(feed, t), first + more)


def test_a_thought_is_fed_at_the_scale_of_inputs_as_it_is_or_projected() -> None:
    scale = input_scale(small_backbone("sasrec"))
    torch.testing.assert_close(fed(made("rms"), 0) - 1, H / RMS * scale)
    torch.testing.assert_close(fed(made("state"), 0) - 1, H)
    linear = made("linear")
    torch.testing.assert_close(fed(linear, 0) - 1, H * scale)
    with torch.no_grad():
        linear.weight.copy_(torch.arange(64.0).view(8, 8))
    torch.testing.assert_close(fed(linear, 0) - 1, 3 * torch.arange(8.0)[None] - 4 * torch.arange(8.0, 16.0)[None])


def test_a_constant_is_as_large_as_a_thought_and_told_nothing_of_it() -> None:
    feed = made("constant")
    torch.testing.assert_close(fed(feed, 0), fed(feed, 0, -2 * H))
    scale = input_scale(small_backbone("sasrec"))
    assert float((fed(feed, 0) - 1).square().mean().sqrt()) == pytest.approx(scale, rel=1e-4)
    assert (fed(feed, 0) != fed(feed, 0)[0, 0]).any()
