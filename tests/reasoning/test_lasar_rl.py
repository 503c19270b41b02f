"""Stage rl of LASAR: lists and their rewards, the fence, what a depth is paid, and the controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from recbench.data.batching import Batch
from recbench.reasoning.cuts import held_out
from recbench.reasoning.depth import held, pay
from recbench.reasoning.lasar_rl import Reinforcement
from recbench.reasoning.rewards import advantages, place_in, rank_rewards
from recbench.recommender import ItemRecommender
from recbench.settings import Asked, resolve
from tests.generators.spelled import small
from tests.reasoning.test_heads import USERS
from tests.reasoning.test_lasar import chain, losses, system, told
from tests.systems import training_batch, training_rows


@pytest.mark.parametrize(
    ("place", "mean", "hit", "first", "last"),
    [(1, 0.0316, 2.469, -0.487, -0.284), (2, 0.0199, 2.450, -0.682, -0.249), (8, 0.0100, 2.451, -0.651, -0.233)],
)
def test_rewards_and_advantages_of_a_list_are_those_of_the_table(
    place: int, mean: float, hit: float, first: float, last: float
) -> None:
    is_target = (torch.arange(1, 9) == place)[None]
    reward = rank_rewards(is_target)
    advantage = advantages(reward)
    misses = advantage[~is_target]
    assert float(reward.mean()) == pytest.approx(mean, abs=5e-5)
    assert float(advantage[is_target]) == pytest.approx(hit, abs=1e-3)
    assert float(misses[0]) == pytest.approx(first, abs=1e-3)
    assert float(misses[-1]) == pytest.approx(last, abs=1e-3)
    assert float(advantage.sum()) == pytest.approx(0, abs=1e-5)
    assert place_in(is_target).tolist() == [place]


def test_a_list_without_the_target_teaches_nothing() -> None:
    nothing = torch.zeros(1, 8, dtype=torch.bool)
    assert not rank_rewards(nothing).any()
    assert not advantages(rank_rewards(nothing)).any()
    assert place_in(nothing).tolist() == [9]


def test_where_the_reference_is_the_model_the_fence_is_zero_and_the_ratio_one() -> None:
    model = system(group=19)
    terms, noted = losses(model, "rl")
    assert noted["kl"] == 0
    assert noted["hit_share"] > 0
    assert terms["grpo"].item() == pytest.approx(0, abs=1e-6)  # -mean of advantages, at ratio 1
    assert torch.autograd.grad(terms["grpo"], model.backbone.item_vectors())[0].any()


def all_log_probs(model: ItemRecommender, batch: Batch, n: Tensor) -> Tensor:
    """Of every item after n thoughts, (Q, items)."""
    u = held(chain(model, batch, int(n.max())), n)[:, -1]
    return model.score.log_prob(u, torch.arange(1, 21).expand(len(u), -1))[..., 0]


def test_over_drawn_items_the_loss_is_a_policy_gradient_and_the_fence_a_divergence() -> None:
    at = {"cuts": 0, "depth": "fixed", "fixed_depth": 2, "reward": "hit", "terminal_weight": 0.0}
    model = system(candidates="sample", group=20_000, kl_weight=0.0, **at)
    fenced = system(candidates="sample", group=20_000, kl_weight=1.0, **at)
    context = told(fenced, "rl")
    fenced.begin(context)
    with torch.no_grad():
        fenced.backbone.item_vectors().mul_(20.0)
    batch = training_batch(model, USERS)
    n = torch.full((len(batch.at_Q),), 2)

    logp, below = all_log_probs(fenced, batch, n), all_log_probs(context.reference, batch, n)  # type: ignore[arg-type]
    fenced.eval().losses(batch, context)
    divergence = (logp.exp() * (logp - below)).sum(1).mean()
    assert divergence > 0.05
    assert context.noted()["kl"] == pytest.approx(divergence.item(), rel=0.05)

    table = model.backbone.item_vectors()
    with torch.no_grad():
        table.mul_(20.0)
    terms, noted = losses(model, "rl")
    ours = torch.autograd.grad(terms["grpo"], table)[0]
    p = all_log_probs(model.eval(), batch, n).exp().gather(1, batch.targets_Q[:, None] - 1)[:, 0]  # type: ignore[index]
    theirs = torch.autograd.grad(-(p / (p * (1 - p)).sqrt().detach()).mean(), table)[0]
    assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.98
    assert ours.norm() == pytest.approx(theirs.norm().item(), rel=0.05)
    assert noted["hit_share"] == 1
    assert noted["repeats"] == pytest.approx(1, abs=0.01)


def test_drawn_items_stand_best_first_with_their_own_probabilities() -> None:
    model = system(candidates="sample", group=40)
    batch = training_batch(model, USERS)
    u = chain(model.eval(), batch, 1)[:, -1]
    step = Reinforcement(
        model.head, model.backbone, batch, model.score, told(model, "rl"), torch.arange(len(batch.at_Q))
    )
    items, log_p = step.candidates(u)
    assert (log_p[:, 1:, 0] <= log_p[:, :-1, 0]).all()
    assert torch.equal(log_p, model.score.log_prob(u, items))
    with torch.no_grad():
        model.backbone.item_vectors().zero_()  # all alike: equal items still side by side
    items, _ = step.candidates(u)
    for row in items.tolist():
        assert len([x for x, before in zip(row, [0, *row], strict=False) if x != before]) == len(set(row))


def test_a_depth_is_paid_as_it_ranks_however_candidates_are_found() -> None:
    top, drawn = (
        losses(pinned(system(candidates=which, group=8, cuts=0)), "rl")[1]["depth_pay"] for which in ("top", "sample")
    )
    assert drawn == pytest.approx(top)
    assert top > 0


def pinned(model: ItemRecommender, depth: int = 3) -> ItemRecommender:
    """With a policy that always picks this depth."""
    with torch.no_grad():
        model.head.policy.outer.bias[depth - 1] = 50.0
    return model


def test_a_list_of_the_best_cannot_be_longer_than_the_catalogue_one_of_draws_can() -> None:
    with pytest.raises(ValueError, match="group is 21, but there are only 20 items"):
        system(group=21)
    assert losses(system(group=21, candidates="sample"), "rl")[0]["grpo"].isfinite()


def test_groups_without_the_target_are_fenced_unless_they_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    for skip in (False, True):
        model = system(group=2, kl_weight=0.5, skip_missed=skip)
        context = told(model, "rl")
        model.begin(context)
        with torch.no_grad():
            model.backbone.item_vectors().add_(0.3 * torch.randn(21, 8, generator=torch.Generator().manual_seed(1)))
        batch = training_batch(model, USERS)
        off = (batch.targets_Q + 9) % 20 + 1  # type: ignore[operator]
        monkeypatch.setattr(Reinforcement, "rewards", lambda self, y: torch.zeros(y.shape))
        batch = Batch(batch.items_N, batch.rows, batch.at_Q, off, batch.users_B, place_Q=batch.place_Q)
        terms = model.eval().losses(batch, context)
        noted = context.noted()
        share = noted["hit_share"]
        assert share < 1
        assert terms["grpo"].item() > 0 or (skip and share == 0)
        if not skip:
            assert terms["grpo"].item() == pytest.approx(0.5 * noted["kl"], rel=1e-5)
        else:
            assert terms["grpo"].item() != pytest.approx(0.5 * noted["kl"], rel=1e-5)


def test_where_lists_without_the_target_are_skipped_the_others_share_the_loss() -> None:
    model = system(group=6, kl_weight=1.0, skip_missed=True, depth="fixed", fixed_depth=2, cuts=0)
    context, batch = told(model, "rl"), training_batch(model, USERS)
    model.begin(context)
    with torch.no_grad():
        model.backbone.item_vectors().add_(0.3 * torch.randn(21, 8, generator=torch.Generator().manual_seed(1)))
    every = torch.arange(len(batch.at_Q))

    def loss(some: Tensor) -> tuple[float, float]:
        step = Reinforcement(model.head, model.backbone, batch, model.score, context, some)
        return step.losses()["grpo"].item(), context.noted()["hit_share"]

    model.eval()
    alone = [loss(q[None]) for q in every]
    hits = [value for value, hit in alone if hit]
    assert 0 < len(hits) < len(alone)
    assert loss(every)[0] == pytest.approx(sum(hits) / len(hits), rel=1e-4)


def test_a_depth_is_paid_by_the_place_of_the_target() -> None:
    place = torch.tensor([1, 2, 8, 9])
    dcg = [1.0, 1 / np.log2(3), 1 / np.log2(9), 0.0]
    assert pay(place, 8, "dcg").tolist() == pytest.approx(dcg)
    assert pay(place, 8, "max").tolist() == [1, 1, 1, 0]
    assert pay(place, 8, "mean")[0] == pytest.approx(0.0316, abs=5e-5)


def test_shuffled_rewards_change_the_depth_loss_and_nothing_else() -> None:
    pair = [losses(system(shuffle_reward=shuffled, cuts=0, group=3), "rl")[0] for shuffled in (False, True)]
    one, other = ({name: value.item() for name, value in terms.items()} for terms in pair)
    assert one.pop("depth") != pytest.approx(other.pop("depth"), abs=1e-7)
    assert one == other


def test_the_moving_mean_starts_at_the_first_batch() -> None:
    model = system(cuts=0)
    assert model.head.paid.isnan()
    _, noted = losses(model, "rl")
    assert float(model.head.paid) == pytest.approx(noted["depth_pay"])


def test_the_reference_can_follow_the_epochs() -> None:
    for follow in (False, True):
        model = system(reference_sync=follow, group=4)
        context = told(model, "rl")
        model.begin(context)
        with torch.no_grad():
            for parameter in model.backbone.parameters():
                parameter.mul_(1.3)
        model.eval().losses(training_batch(model, USERS), context)
        assert (context.noted()["kl"] == 0) == follow


def test_a_reference_that_follows_the_epochs_stands_still_within_one() -> None:
    model = system(reference_sync=True, group=4)
    context, batch = told(model, "rl"), training_batch(model, USERS)
    model.begin(context)

    def fence() -> float:
        model.eval().losses(batch, context)
        return context.noted()["kl"]

    assert fence() == 0
    with torch.no_grad():
        model.backbone.item_vectors().mul_(1.3)
    assert fence() > 0
    context.epoch += 1
    assert fence() == 0


@pytest.mark.parametrize("stage", ["align", "rl"])
def test_one_cut_a_row_is_taken_from_what_the_stage_may_train_on(stage: str) -> None:
    model = system(rl_holdout=0.99)
    batch, context = training_batch(model, USERS), told(model, stage)
    own = model.head.own(batch, context)
    assert own is not None
    seen = {int(q) for _ in range(50) for q in model.head._chosen(batch, context)[1]}
    assert seen == set(own.tolist())


@pytest.mark.parametrize("stage", ["ground", "align", "rl"])
def test_held_out_targets_are_spelled_behind_their_own_histories(stage: str) -> None:
    model = small("sid-lm", "lasar", settings={"rl_holdout": 0.99}, beam=10).eval()
    batch, context = training_batch(model, USERS), told(model, stage)
    model.begin(context)
    own = model.head.own(batch, context)
    assert own is not None
    assert 0 < len(own) < len(batch.at_Q)
    terms = model.losses(batch, context)
    assert all(term.isfinite() for term in terms.values())
    if stage != "rl":
        answers = model.answers(batch, steps=0)
        with model.score.step(torch.Generator(), batch.targets_Q, batch):
            by_hand = model.score.at(own).loss(answers[own], batch.targets_Q[own])  # type: ignore[index]
        torch.testing.assert_close(terms["next_item" if stage == "ground" else "keep"], by_hand)


def test_held_out_targets_wait_for_rl() -> None:
    model = system(rl_holdout=0.99, cuts=0)
    batch = training_batch(model, USERS)
    own = {stage: model.head.own(batch, told(model, stage)) for stage in ("ground", "align", "rl")}
    assert torch.equal(own["ground"], own["align"])
    last = torch.tensor(np.flatnonzero(training_rows(model, USERS).is_last(batch.place_Q)))
    assert set(own["rl"].tolist()) <= set(last.tolist())
    assert len(own["rl"]) >= 3
    assert sorted([*own["rl"].tolist(), *own["ground"].tolist()]) == list(range(len(batch.at_Q)))


def test_so_many_users_are_held_back_as_the_setting_says_and_always_the_same() -> None:
    users = [[u % 20 + 1, u % 7 + 1, u % 11 + 1] for u in range(400)]
    batch, rows = training_batch(system(), users), training_rows(system(), users)
    few, more = held_out(batch, rows, 0.25), held_out(batch, rows, 0.5)
    assert int(few.sum()) == pytest.approx(100, abs=5)
    assert int(more.sum()) == pytest.approx(200, abs=5)
    assert more[few].all()


def test_the_reference_thinks_with_its_own_head() -> None:
    model = system(cuts=0)
    context = told(model, "rl")
    model.begin(context)
    batch = training_batch(model, USERS)
    some = torch.arange(len(batch.at_Q))
    y, n = torch.tensor([[1, 2, 3]]).expand(len(some), -1), torch.full_like(some, 2)

    def both() -> tuple[Tensor, Tensor]:
        asked = Reinforcement(model.head, model.backbone, batch, model.score, context, some)
        return asked._under_reference(y, n), asked._answers_of(model, n).detach()

    before = both()
    with torch.no_grad():
        for parameter in model.head.feed.parameters():
            parameter.add_(3.0)
    after = both()
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


def test_rl_trains_without_dropout_and_with_short_steps() -> None:
    found = resolve(Asked("sasrec", "lasar").table(), "other").train
    assert (found["rl"].dropout, found["rl"].clip_norm) == (0.0, 1.0)
    assert found["align"].dropout is None


def test_shuffled_anchors_reach_the_last_thought_of_rl() -> None:
    shuffled, plain = (losses(system(cuts=0, shuffle_anchors=on), "rl")[0] for on in (True, False))
    assert shuffled["terminal"] != plain["terminal"]


@pytest.mark.parametrize(("cuts", "thinking"), [(1, 4), (0, 16)])
def test_rl_thinks_at_as_many_positions_of_a_row_as_align(
    cuts: int, thinking: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    whole = Reinforcement.losses

    def counted(asked: Reinforcement) -> dict[str, Tensor]:
        given.append(len(asked.some_P))
        return whole(asked)

    monkeypatch.setattr(Reinforcement, "losses", counted)
    losses(system(cuts=cuts), "rl")
    assert given == [thinking]
