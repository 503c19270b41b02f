"""The terms of LASAR's stages, one target after the other: which thought meets which anchor, and what the policy is taught."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.reasoning.lasar_rl import Reinforcement
from recbench.recommender import ItemRecommender
from tests.reasoning.test_heads import USERS
from tests.reasoning.test_lasar import chain, system, told
from tests.systems import training_batch

DRAWN = [1, 2, 3, 4, 5, 6, 7, 8] * 2
"""A depth for each of the 16 targets, above and below the 3 to 6 segments that they have."""
OTHERS = [2, 1, 1, 8, 8, 8, 7, 3] * 2
"""A second depth, for those who are paid for two."""


def exact(**head: object) -> ItemRecommender:
    """A small LASAR whose thoughts differ; in float64, but for what runs in float32: the policy and the maps to anchors."""
    model = system(cuts=0, **head).double().eval()
    for weight in (*model.backbone.parameters(), model.head.feed.step):
        if weight.dim() > 1:  # drawn so small at first that thoughts repeat each other
            weight.data.normal_(std=0.5, generator=torch.Generator().manual_seed(weight.numel()))
    for part in (model.head.policy, model.head.student, model.head.readers):
        if part is not None:
            part.float()
    return model


def draws(monkeypatch: pytest.MonkeyPatch, depths: list[int] = DRAWN) -> None:
    """From now on depths are these, and the others ``OTHERS``."""
    turns: Iterator[list[int]] = iter([depths, OTHERS])
    monkeypatch.setattr(Reinforcement, "_drawn", lambda *_: torch.tensor(next(turns)))


class Pieces:
    """A batch of 16 targets, h_0 and nine thoughts of each, its anchors, and the log-odds of its depths."""

    def __init__(self, model: ItemRecommender, stage: str) -> None:
        self.model, self.context = model, told(model, stage)
        model.begin(self.context)
        self.batch = training_batch(model, USERS)
        self.z_PKD = chain(model, self.batch, 9)
        anchors, segments_P = model.head.anchors(self.batch, torch.arange(len(self.batch.at_Q)), self.context)
        self.c_PSX, self.segments = anchors.c_PSX.double(), segments_P.tolist()

    def terms(self) -> dict[str, Tensor]:
        """What the stage makes of the same batch."""
        return self.model.losses(self.batch, self.context)

    def far(self, p: int, t: int, anchor: int) -> Tensor:
        """Mean of both divergences between thought ``t`` of target ``p`` and one of its anchors, from 0."""
        head, h_D = self.model.head, self.z_PKD[p, t]
        if head.student is None:
            reader = head.readers[anchor]
            a_X = h_D @ reader.weight.double().T + reader.bias.double()
        else:
            a_X = F.layer_norm(head.student.weight.double() @ h_D, (8,))
        log_p_X, log_q_X = a_X.log_softmax(0), self.c_PSX[p, anchor].log_softmax(0)
        there, back = log_p_X.exp() * (log_p_X - log_q_X), log_q_X.exp() * (log_q_X - log_p_X)
        return (there.sum() + back.sum()) / 2

    def log_pi(self) -> Tensor:
        """log pi(N | h_0) of each target, W_2 tanh(W_1 h_0 + b_1) + b_2."""
        inner, outer = self.model.head.policy.inner, self.model.head.policy.outer
        x = (self.z_PKD[:, 0].detach() @ inner.weight.double().T + inner.bias.double()).tanh()
        return (x @ outer.weight.double().T + outer.bias.double()).log_softmax(1)


def same(term: Tensor, by_hand: Tensor, *of: Tensor) -> None:
    """Equal, and equal in their gradients by these."""
    torch.testing.assert_close(term.double(), by_hand, atol=1e-6, rtol=1e-5)
    ours, theirs = (torch.autograd.grad(one, of, retain_graph=True) for one in (term, by_hand))
    for one, other in zip(ours, theirs, strict=True):
        assert one.any()
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def mapped(model: ItemRecommender) -> Tensor:
    """A weight of what takes thoughts to where anchors are."""
    return model.head.readers[-1].weight if model.head.student is None else model.head.student.weight


# --- align ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        {"depth": "fixed", "fixed_depth": 2},  # fewer thoughts than segments
        {"depth": "fixed", "fixed_depth": 9},  # more
        {"depth": "random"},  # both in one batch
        {"min_depth": 4},  # as many or more
        {"depth": "fixed", "fixed_depth": 3, "anchor": "codes", "code_levels": 2},
    ],
    ids=str,
)
def test_thought_t_meets_anchor_t_and_what_a_target_pays_is_shared_by_its_thoughts(head: dict[str, object]) -> None:
    model = exact(align_weight=0.7, **head)
    seen = Pieces(model, "align")
    depths = [max(s, 4) for s in seen.segments]
    if model.head.config.depth == "fixed":
        depths = [model.head.config.fixed_depth] * 16
    elif model.head.config.depth == "random":  # the first draw of the stage
        depths = model.head.any_depth(16, torch.Generator().manual_seed(5)).tolist()
    assert depths != seen.segments
    each = [
        sum(seen.far(p, t, t - 1) for t in range(1, min(n, s) + 1)) / n
        for p, (n, s) in enumerate(zip(depths, seen.segments, strict=True))
    ]
    by_hand = 0.7 * torch.stack(each).mean()  # type: ignore[arg-type]
    same(seen.terms()["align"], by_hand, mapped(model), model.backbone.item_vectors())


def test_the_policy_is_taught_how_many_segments_there_are() -> None:
    """Of depths 3 to 5, where S is 3 to 6: 0.8 of the label and 0.2 shared by all three."""
    model = exact(min_depth=3, max_depth=5, label_smoothing=0.2, policy_weight=0.5)
    seen = Pieces(model, "align")
    assert set(seen.segments) == {3, 4, 5}
    log_pi = seen.log_pi()
    each = [-0.8 * log_pi[p, s - 3] - 0.2 * log_pi[p].mean() for p, s in enumerate(seen.segments)]
    same(
        seen.terms()["policy"],
        0.5 * torch.stack(each).mean(),
        model.head.policy.outer.bias,
        model.head.policy.inner.weight,
    )


# --- rl -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", ["ema", "exact"])  # each has a chain of its own
@pytest.mark.parametrize("anchor", ["cooc", "codes"])
def test_the_last_thought_meets_the_last_anchor(anchor: str, baseline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = exact(anchor=anchor, code_levels=2, depth_baseline=baseline, terminal_weight=0.3)
    seen = Pieces(model, "rl")
    draws(monkeypatch)
    each = [seen.far(p, n, s - 1) for p, (n, s) in enumerate(zip(DRAWN, seen.segments, strict=True))]
    by_hand = 0.3 * torch.stack(each).mean()
    same(seen.terms()["terminal"], by_hand, mapped(model), model.backbone.item_vectors())


def test_targets_without_a_thought_or_without_an_anchor_have_nothing_to_be_near(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = exact(min_depth=0, terminal_weight=0.3)
    seen = Pieces(model, "rl")
    depths, segments = [0, 0, 1, *DRAWN[3:]], [3, 3, 0, 0, *seen.segments[4:]]
    source = model.head._source.of
    monkeypatch.setattr(model.head._source, "of", lambda *asked: replace(source(*asked), s_P=torch.tensor(segments)))
    draws(monkeypatch, depths)
    each = [seen.far(p, depths[p], segments[p] - 1) for p in range(4, 16)]
    same(seen.terms()["terminal"], 0.3 * torch.stack(each).mean(), mapped(model), model.backbone.item_vectors())


def test_a_model_that_never_thinks_is_pulled_to_no_anchor() -> None:
    model = exact(depth="fixed", fixed_depth=0)
    term = Pieces(model, "rl").terms()["terminal"]
    assert term == 0
    assert not torch.autograd.grad(term, model.backbone.item_vectors())[0].any()
