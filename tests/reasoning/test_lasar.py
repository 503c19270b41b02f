"""LASAR: the plain model inside it, depths side by side, its losses by hand, its controls, and what it learns."""

from __future__ import annotations

import copy
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recbench.data.batching import Batch
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.evaluate import evaluate
from recbench.reasoning.base import Context
from recbench.reasoning.depth import held, pay
from recbench.reasoning.lasar_rl import Reinforcement
from recbench.reasoning.rewards import advantages, place_in, rank_rewards
from recbench.recommender import ItemRecommender, build
from recbench.registry import BACKBONES, HEADS
from recbench.training.checkpoint import Store
from recbench.training.loop import Job, Start, Watcher, fit
from recbench.training.seeding import seed_everything
from recbench.training.settings import stage_settings
from tests.generators.spelled import N_ITEMS, TABLE
from tests.reasoning.test_heads import USERS
from tests.systems import CPU, histories, neural_backbones, packed, queries, small_system, training_batch, training_rows

ROWS = [[3], [5, 6], [7, 8, 9], [1, 2, 3, 4, 5]]
STILL = {"dropout": 0.0, "attention_dropout": 0.0}


def system(backbone: str = "sasrec", n_items: int = 20, **head: object) -> ItemRecommender:
    return small_system(backbone, "lasar", n_items, changes=head, **STILL)


def told(model: ItemRecommender, stage: str, seed: int = 5) -> Context:
    rows = training_rows(model, USERS)
    reference = None if stage == "ground" else copy.deepcopy(model).eval().requires_grad_(False)
    return Context(
        stage, torch.Generator().manual_seed(seed), rows, reference=reference, epoch=1, step=1, epochs=2, steps=1
    )


def losses(model: ItemRecommender, stage: str, seed: int = 5) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Losses of one batch without dropout, and what was noted."""
    context = told(model, stage, seed)
    model.begin(context)
    return model.eval().losses(training_batch(model, USERS), context), context.noted()


def chain(model: ItemRecommender, batch: Batch, deepest: int) -> Tensor:
    backbone = model.backbone
    seen = backbone.encode(backbone.embed(batch), batch, at_Q=batch.at_Q, remember=True)
    return model.head.chain(backbone, seen.memory, seen.h_QD, batch.at_Q, deepest)


# --- depth ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", neural_backbones())
def test_thought_n_of_a_longer_chain_is_thought_n(backbone: str) -> None:
    model = system(backbone).eval()
    batch = packed(ROWS)
    long = chain(model, batch, 8)
    for n in (0, 1, 2, 4):
        assert torch.equal(chain(model, batch, n), long[:, : n + 1])


@pytest.mark.parametrize("backbone", neural_backbones())
def test_rows_of_all_depths_side_by_side_are_each_row_alone(backbone: str) -> None:
    model = system(backbone).eval()
    together = packed(ROWS, at=[0, 2, 5, 10])
    depths = torch.tensor([0, 8, 2, 4])
    answers = held(chain(model, together, 8), depths)[:, -1]
    for row, n, among_others in zip(ROWS, depths.tolist(), answers, strict=True):
        alone = chain(model, packed([row], at=[len(row) - 1]), n)[0, -1]
        torch.testing.assert_close(alone, among_others, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backbone", neural_backbones())
def test_without_a_step_it_is_the_plain_model_rank_for_rank(backbone: str) -> None:
    model = system(backbone, depth="fixed", fixed_depth=0)
    plain = small_system(backbone, "none", 20, **STILL)
    plain.backbone.load_state_dict(model.backbone.state_dict())
    asked = queries(USERS)
    assert evaluate(model, asked, CPU).frame().drop(columns="steps").equals(evaluate(plain, asked, CPU).frame())


def test_before_it_was_taught_to_think_it_does_not() -> None:
    model, plain = system(), small_system("sasrec", "none", 20, **STILL)
    model.head.thinks.fill_(False)
    plain.backbone.load_state_dict(model.backbone.state_dict())
    frame = evaluate(model, queries(USERS), CPU).frame()
    assert (frame.pop("steps") == 0).all()
    assert frame.equals(evaluate(plain, queries(USERS), CPU).frame())


def test_ground_trains_as_no_head_does() -> None:
    model, plain = system(), small_system("sasrec", "none", 20, **STILL)
    plain.backbone.load_state_dict(model.backbone.state_dict())
    ((_, ours),) = losses(model, "ground")[0].items()
    ((_, theirs),) = losses(plain, "ground")[0].items()
    assert torch.equal(ours, theirs)


def test_ground_may_teach_the_codes_of_items_too() -> None:
    model, plain = system(ground_codes=0.1), system()
    context = told(model, "ground")
    model.begin(context)
    assert context.facts["ground_codes"] == {
        "made_of": "cooc", "width": 8, "items_without_vector": 11, "levels": 3, "codes": 5,
    }  # fmt: skip
    batch = training_batch(model, USERS)
    terms = model.eval().losses(batch, context)
    assert torch.equal(terms["next_item"], losses(plain, "ground")[0]["next_item"])
    items = batch.targets_Q.unique()  # type: ignore[union-attr]
    logits = [reader(model.backbone.item_vectors()[items]) for reader in model.head.readers]
    codes = model.head._codes_VL[items]
    by_hand = sum(-z.log_softmax(1)[torch.arange(len(items)), codes[:, level]].mean() for level, z in enumerate(logits))
    torch.testing.assert_close(terms["codes"], 0.1 * by_hand)
    terms["codes"].backward()
    touched = model.backbone.item_vectors().grad
    assert touched[items].any(1).all()
    assert not touched[0].any()
    model.begin(told(model, "align"))
    assert "codes" not in model.losses(batch, told(model, "align"))


def test_codes_that_ground_teaches_need_a_ground_and_items_that_are_not_spelled() -> None:
    with pytest.raises(ValueError, match="ground_codes is a loss of stage ground"):
        system(ground_codes=0.1, skip=("ground",))
    config = HEADS.load("lasar").Config(ground_codes=0.1)
    with pytest.raises(RecbenchError) as caught:
        build("sid-lm", BACKBONES.load("sid-lm").Config(), "lasar", config, N_ITEMS, "spelling", None, TABLE)
    assert "spells its items" in caught.value.why
    assert caught.value.code == Exit.USAGE


def test_a_plain_run_is_no_first_stage_where_ground_teaches_codes() -> None:
    LASAR = HEADS.load("lasar")
    assert LASAR.begins_as(LASAR.Config()) == {"none": ("ground",)}
    assert LASAR.begins_as(LASAR.Config(ground_codes=0.1)) == {}


def test_the_policy_decides_and_users_parquet_says_how_long_each_query_thought() -> None:
    model = system()
    with torch.no_grad():
        model.head.policy.outer.bias[2] = 50.0
    ranks = evaluate(model, queries(USERS), CPU)
    assert ranks.steps is not None
    assert ranks.steps.tolist() == [3] * len(USERS)
    assert ranks.frame()["steps"].tolist() == [3] * len(USERS)
    assert evaluate(model, queries(USERS), CPU, steps=2).steps.tolist() == [2] * len(USERS)  # type: ignore[union-attr]


@pytest.mark.parametrize("depth", ["sample", "random"])
def test_drawn_depths_differ_between_users_and_never_between_evaluations(depth: str) -> None:
    model = system(depth=depth)
    asked = queries([[u % 20 + 1, u % 7 + 1, u % 11 + 1] for u in range(200)])
    first, again = (evaluate(model, asked, CPU).steps for _ in range(2))
    assert first is not None
    assert (first == again).all()
    assert set(np.unique(first)) == set(range(1, 9))


# --- align ----------------------------------------------------------------------------------------------------------


def test_several_cuts_of_a_row_cost_the_mean_of_each_alone() -> None:
    model = system(cuts=0, keep_weight=0.0, policy_weight=0.0)
    row = [[8, 9, 1, 2, 3]]
    context = Context("align", torch.Generator().manual_seed(0), training_rows(model, row), reference=model)
    model.begin(context)
    batch = training_batch(model, row)
    whole = model.eval().losses(batch, context)
    parts: list[dict[str, Tensor]] = []
    for q in range(len(batch.at_Q)):
        one = Batch(
            batch.items_N,
            batch.rows,
            batch.at_Q[q : q + 1],
            batch.targets_Q[q : q + 1],  # type: ignore[index]
            batch.users_B,
            place_Q=batch.place_Q[q : q + 1],  # type: ignore[index]
        )
        parts.append(model.losses(one, context))
    for name in ("next_item", "align"):
        torch.testing.assert_close(whole[name], torch.stack([p[name] for p in parts]).mean(), atol=1e-6, rtol=1e-6)


def test_one_cut_a_row_is_taken_unless_told_otherwise() -> None:
    model = system()
    context = told(model, "align")
    batch = training_batch(model, USERS)
    every = torch.arange(len(batch.at_Q))
    seen = set()
    for _ in range(50):
        some = model.head._chosen(batch, context)[1]
        assert batch.row_Q[some].tolist() == [0, 1, 2, 3]
        seen |= set(some.tolist())
    assert seen == set(every.tolist())


def test_align_asks_for_as_many_thoughts_as_there_are_segments() -> None:
    _, noted = losses(system(cuts=0), "align")
    assert noted["depth"] == pytest.approx(noted["segments"])
    assert sum(noted[f"depth@{k}"] for k in range(9)) == pytest.approx(1)
    assert noted["depth@0"] == 0


def test_shuffled_anchors_leave_every_depth_as_it_was() -> None:
    model, plain = system(cuts=0, shuffle_anchors=True), system(cuts=0)
    noted, own = losses(model, "align")[1], losses(plain, "align")[1]
    depths = [name for name in own if name.startswith("depth")]
    assert {name: noted[name] for name in depths} == {name: own[name] for name in depths}
    assert losses(model, "align")[0]["align"] != losses(plain, "align")[0]["align"]


def test_a_stage_says_what_its_labels_tell_and_doubts_them_where_they_tell_nothing() -> None:
    def labels(**head: object) -> dict[str, Any]:
        model = system(**head)
        context = told(model, "align")
        model.begin(context)
        return context.facts["labels"]

    found = labels()
    assert found["targets"] == 16
    assert found["bits"] > 0.1
    assert "doubt" not in found
    same = labels(anchor="codes")  # as many segments as levels, for all
    assert same["mean"] == 3
    assert same["bits"] == 0
    assert "no depth can be learned" in same["doubt"]


def test_what_a_thought_is_fed_is_at_the_scale_of_inputs_or_of_states() -> None:
    rms, raw = (losses(system("hstu", feed=feed, cuts=0), "align")[1] for feed in ("rms", "state"))
    assert rms["fed@1"] == pytest.approx(1, rel=0.2)
    assert raw["fed@1"] > 2 * rms["fed@1"]


def test_who_reads_segments_is_the_model_of_ground_also_after_align() -> None:
    model = system(anchor="backbone", cuts=0)
    batch, every = training_batch(model, USERS), torch.arange(16)

    def anchors(stage: str) -> Tensor:
        context = told(model, stage)
        model.begin(context)
        return model.train().head.anchors(batch, every, context)[0].c_PSX

    first = anchors("align")
    with torch.no_grad():
        model.backbone.item_vectors().mul_(-1.5)
    assert torch.equal(anchors("rl"), first)
    again = system(anchor="backbone", cuts=0)
    again.restore(model.tensors())
    model = again
    assert torch.equal(anchors("rl"), first)
    assert not torch.allclose(anchors("align"), first)
    assert all(not p.requires_grad for p in model.head.grounded.parameters())


def test_the_next_item_loss_reaches_the_history_through_the_thoughts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = system(cuts=0, keep_weight=0.0, align_weight=0.0, policy_weight=0.0)
    table = model.backbone.item_vectors()

    def gradient() -> Tensor:
        terms, _ = losses(model, "align")
        return torch.autograd.grad(terms["next_item"], table)[0].clone()

    whole = gradient()
    extend = model.backbone.extend
    monkeypatch.setattr(model.backbone, "extend", lambda memory, x, at, **more: extend(memory, x.detach(), at, **more))
    assert not torch.allclose(whole, gradient(), atol=1e-6)


def test_the_policys_loss_leaves_the_backbone_alone_unless_told_otherwise() -> None:
    for detach in (True, False):
        model = system(policy_detach=detach)
        terms, _ = losses(model, "align")
        model.zero_grad()
        terms["policy"].backward()
        touched = any(p.grad is not None and p.grad.any() for p in model.backbone.parameters())
        assert touched != detach
        assert model.head.policy.outer.weight.grad.any()


def test_the_weight_of_anchors_can_be_found_at_the_first_step_and_is_kept() -> None:
    model = system(align_weight="auto", cuts=0)
    context = told(model, "align")
    model.begin(context)
    batch = training_batch(model, USERS)
    first = model.eval().losses(batch, context)
    assert first["align"].item() == pytest.approx(0.3 * first["next_item"].item(), rel=1e-5)
    alpha = float(model.head.alpha)
    assert context.noted()["align_weight"] == pytest.approx(alpha)
    with torch.no_grad():
        model.backbone.item_vectors().mul_(3.0)
    later = model.losses(batch, context)
    assert float(model.head.alpha) == alpha
    assert later["align"].item() != pytest.approx(0.3 * later["next_item"].item(), rel=1e-2)
    plain = system(cuts=0)
    plain.backbone.load_state_dict(model.backbone.state_dict())
    plain.head.load_state_dict({name: t for name, t in model.head.state_dict().items() if name != "alpha"})
    assert later["align"].item() == pytest.approx(alpha * losses(plain, "align")[0]["align"].item(), rel=1e-5)


def test_a_resumed_stage_keeps_the_weight_that_it_found_and_a_new_one_finds_its_own() -> None:
    model, again = system(align_weight="auto", cuts=0), system(align_weight="auto", cuts=0)
    losses(model, "align")
    saved = model.tensors()
    again.begin(told(again, "align"))
    again.restore(saved)
    assert again.head.alpha == model.head.alpha
    again.begin(told(again, "align"))
    assert again.head.alpha.isnan()
    assert "head.alpha" not in system().tensors()


def test_the_weight_of_anchors_waits_for_a_thought_that_has_one() -> None:
    model = system(align_weight="auto", cuts=0)
    context = told(model, "align")
    model.begin(context)
    source = model.head._source.of
    model.head._source.of = lambda *asked: replace(source(*asked), s_P=torch.zeros_like(asked[1]))
    batch = training_batch(model, USERS)
    assert model.eval().losses(batch, context)["align"] == 0
    assert model.head.alpha.isnan()
    model.head._source.of = source
    assert model.losses(batch, context)["align"] > 0


def test_each_term_can_be_switched_off() -> None:
    names = set(losses(system(), "align")[0])
    assert names == {"next_item", "keep", "align", "policy"}
    assert "align" not in losses(system(align="none"), "align")[0]
    assert "keep" not in losses(system(keep_weight=0.0), "align")[0]
    assert "policy" not in losses(system(depth="fixed"), "align")[0]
    assert set(losses(system(), "rl")[0]) == {"grpo", "terminal", "depth"}
    assert "terminal" not in losses(system(terminal_weight=0.0), "rl")[0]
    assert "depth" not in losses(system(depth_weight=0.0), "rl")[0]


# --- rl -------------------------------------------------------------------------------------------------------------


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
        model = system(group=2, kl_weight=1.0, skip_missed=skip)
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
            assert terms["grpo"].item() == pytest.approx(noted["kl"], rel=1e-5)
        else:
            assert terms["grpo"].item() != pytest.approx(noted["kl"], rel=1e-5)


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


def test_held_out_targets_wait_for_rl() -> None:
    model = system(rl_holdout=0.99, cuts=0)
    batch = training_batch(model, USERS)
    own = {stage: model.head.own(batch, told(model, stage)) for stage in ("ground", "align", "rl")}
    assert torch.equal(own["ground"], own["align"])
    last = torch.tensor(np.flatnonzero(training_rows(model, USERS).is_last(batch.place_Q)))
    assert set(own["rl"].tolist()) <= set(last.tolist())
    assert len(own["rl"]) >= 3
    assert sorted([*own["rl"].tolist(), *own["ground"].tolist()]) == list(range(len(batch.at_Q)))


def test_every_setting_stands_in_the_table_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "heads.md").read_text(encoding="utf-8")
    table = page[page.index("| `[head]` |") : page.index("## Steps at test")]
    named = set(re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in table.splitlines() if line)))
    assert named - {"head"} == {field.name for field in fields(HEADS.load("lasar").Config)}


def test_the_policy_learns_at_its_own_rate() -> None:
    assert system(policy_rate=7.0).rates == {"head.policy.": 7.0}


# --- stages and learning --------------------------------------------------------------------------------------------


def two_hops(users: int, seed: int, noise: bool = False) -> list[list[int]]:
    """Items 1..20 in a drawn order; each next item is the one two further than the last item points to."""
    random = np.random.default_rng(seed)
    step = np.random.default_rng(7).permutation(20)
    rows = []
    for _ in range(users):
        row = [int(random.integers(20))]
        for _ in range(5):
            row.append(int(random.integers(20)) if noise else int(step[step[row[-1]]]))
        rows.append([item + 1 for item in row])
    return rows


def trained(folder: Path, rows: list[list[int]], asked: list[list[int]], **head: Any) -> ItemRecommender:
    seed_everything(3)
    model = small_system("sasrec", "lasar", 20, width=16, changes=head, **STILL)
    table = {"epochs": 10, "batch_size": 60, "learning_rate": 0.02, "patience": 10}
    own = {"align": {"learning_rate": 0.01, "epochs": 10, "patience": 10}, "rl": {"epochs": 2, "learning_rate": 1e-3}}
    names = {stage.name for stage in model.stages}
    settings = stage_settings(table | {name: own[name] for name in own if name in names}, model.stages)
    folder.mkdir(exist_ok=True)
    job = Job(histories(rows, times=True), queries(asked, "valid"), settings, 0, CPU, folder, Watcher())
    fit(model, job, Store(folder / "state"))
    return model


def test_a_rule_is_learned_in_one_stage_of_thoughts(tmp_path: Path) -> None:
    asked = two_hops(60, 2)
    model = trained(tmp_path, two_hops(60, 1), asked, skip=("ground", "rl"), cuts=0)
    assert bool(model.head.thinks)
    assert evaluate(model, queries(asked), CPU).means(["hr@1"])["hr@1"] > 0.6  # chance is 0.05


PLACES = 6


def pointers(users: int, seed: int, *, mixed: bool) -> list[list[int]]:
    """Rows whose first six items each name a place among them, so that they make a ring; then questions, each with its answer.

    A question (items 7..12) names a place, and the item there follows; or it asks for two hops (13..18), and what follows is the
    item at the place that the item there names. One layer of attention can look once.

    Args:
        mixed: six questions of both kinds; else one of two hops.
    """
    random, rows = np.random.default_rng(seed), []
    for _ in range(users):
        ring = random.permutation(PLACES)
        points = np.empty(PLACES, dtype=int)
        points[ring] = np.roll(ring, -1)
        row = [1 + int(place) for place in points]
        for place in random.permutation(PLACES)[: PLACES if mixed else 1]:
            two = not mixed or random.random() < 0.5
            row += [1 + int(place) + PLACES * (1 + two), 1 + int(points[points[place]] if two else points[place])]
        rows.append(row)
    return rows


def hopper(**head: object) -> ItemRecommender:
    """A network of one layer that was not taught to think."""
    sizes = {"width": 32, "inner": 32, "n_layers": 1, "max_length": 3 * PLACES, "norm": "pre"}
    changes = {"depth": "fixed", "align": "none", "cuts": 0, "skip": ("rl",), **head}
    model = small_system("sasrec", "lasar", 3 * PLACES, changes=changes, **sizes, **STILL)
    model.head.thinks.fill_(False)
    return model


def hopping(folder: Path, model: ItemRecommender, start: Start | None = None, until: str | None = None) -> float:
    """Share of unseen questions of two hops that the model answers once it is trained."""
    table = {"batch_size": 300, "learning_rate": 0.005, "epochs": 5, "patience": 99}
    settings = stage_settings(table | {"align": table | {"epochs": 9}}, model.stages)
    rows, asked = histories(pointers(1000, 1, mixed=True), times=True), pointers(200, 2, mixed=False)
    folder.mkdir(exist_ok=True)
    job = Job(rows, queries(asked, "valid"), settings, 0, CPU, folder, Watcher(), start, until)
    fit(model, job, Store(folder / "state"))
    return evaluate(model, queries(asked), CPU).means(["hr@1"])["hr@1"]


@pytest.fixture(scope="module")
def one_hop(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """What all arms go on from: the plain network, after it has met the questions."""
    model = hopper()
    hopping(tmp_path_factory.mktemp("ground"), model, until="ground")
    plain = {name: tensor.clone() for name, tensor in model.tensors().items() if name.startswith("backbone.")}
    return Start(plain, ("ground",), backbone_only=True)


def test_a_rule_of_two_hops_is_learned_by_two_thoughts_and_not_without(one_hop: Start, tmp_path: Path) -> None:
    """The network can look once, so who looks a second time has been told by a thought what the first look found."""
    assert hopping(tmp_path / "two", hopper(fixed_depth=2), one_hop) > 0.9
    assert hopping(tmp_path / "none", hopper(fixed_depth=0), one_hop) < 0.6


def test_a_token_behind_two_thoughts_answers_for_them(one_hop: Start, tmp_path: Path) -> None:
    assert hopping(tmp_path, hopper(fixed_depth=2, readout="end"), one_hop) > 0.9


def test_thoughts_that_are_told_nothing_learn_no_second_hop(one_hop: Start, tmp_path: Path) -> None:
    assert hopping(tmp_path, hopper(fixed_depth=2, feed="constant"), one_hop) < 0.6


def test_nothing_is_learned_from_noise(tmp_path: Path) -> None:
    asked = two_hops(200, 2, noise=True)
    model = trained(tmp_path, two_hops(60, 1, noise=True), asked)
    for steps in (None, 0, 4):
        assert evaluate(model, queries(asked), CPU, steps=steps).means(["hr@1"])["hr@1"] < 0.12
