"""LASAR: the plain model inside it, depths side by side, stages ground and align by hand, its settings."""

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
from recbench.reasoning.chain import input_scale
from recbench.reasoning.depth import held
from recbench.recommender import ItemRecommender, build
from recbench.registry import BACKBONES, HEADS
from tests.generators.spelled import N_ITEMS, TABLE
from tests.reasoning.test_heads import USERS
from tests.systems import CPU, neural_backbones, packed, queries, small_system, training_batch, training_rows

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


def test_who_was_never_taught_to_think_takes_no_number_of_steps() -> None:
    model = system()
    assert model.head.scalable
    model.head.thinks.fill_(False)
    assert not model.head.scalable
    assert not system(depth="fixed", fixed_depth=0).head.scalable
    assert system(depth="fixed", fixed_depth=1).head.scalable


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


def test_a_plain_run_is_no_first_stage_where_ground_teaches_codes_or_holds_targets_back() -> None:
    LASAR = HEADS.load("lasar")
    assert LASAR.begins_as(LASAR.Config()) == {"none": ("ground",)}
    assert LASAR.begins_as(LASAR.Config(ground_codes=0.1)) == {}
    assert LASAR.begins_as(LASAR.Config(rl_holdout=0.1)) == {}


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

    assert labels(cuts=0)["targets"] == 16
    found = labels()
    assert found["targets"] == 4  # one position a row, as the stage trains on
    assert found["bits"] > 0.1
    assert "doubt" not in found
    same = labels(anchor="codes")  # as many segments as levels, for all
    assert same["mean"] == 3
    assert str(same["bits"]) == "0.0"
    assert "no depth can be learned" in same["doubt"]


def test_what_a_thought_is_fed_is_at_the_scale_of_inputs_or_of_states() -> None:
    rms, raw = (losses(system("hstu", feed=feed, cuts=0), "align")[1] for feed in ("rms", "state"))
    assert rms["fed@1"] == pytest.approx(1, rel=0.2)
    assert raw["fed@1"] > 2 * rms["fed@1"]


@pytest.mark.parametrize("feed", ["rms", "linear", "constant"])
def test_the_scale_of_what_is_fed_is_that_of_the_inputs_as_the_stage_begins(feed: str) -> None:
    """Training has moved them since the head was made; and as ``rl`` begins, what ``align`` has made of it stays."""
    model = system("hstu", feed=feed, cuts=0)
    model.backbone.items.weight.data *= 9.0
    context = told(model, "align")
    model.begin(context)
    fed = model.head.feed(torch.ones(1, model.backbone.width), 0).square().mean().sqrt()
    assert fed.item() == pytest.approx(input_scale(model.backbone), rel=1e-3)
    kept = {name: tensor.clone() for name, tensor in model.head.feed.state_dict().items()}
    model.backbone.items.weight.data *= 9.0
    model.begin(told(model, "rl"))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.head.feed.state_dict().items())


def test_what_thoughts_look_like_is_noted_of_the_chains_that_still_think() -> None:
    model = system("gru4rec", cuts=0, feed="state")  # whose first thoughts differ
    batch, context = training_batch(model, USERS), told(model, "align")
    model.begin(context)
    z = chain(model.eval(), batch, 6)
    depths = model.head.anchors(batch, torch.arange(len(batch.at_Q)), context)[1]
    assert sorted(set(depths.tolist())) == [3, 4, 5, 6]
    model.losses(batch, context)
    noted = context.noted()
    inputs = model.backbone.embed(batch).square().mean().sqrt()
    for k in range(1, 7):
        before, now = z[depths >= k, k - 1], z[depths >= k, k]
        alike = torch.cosine_similarity(before, now, dim=1).mean().item()
        fed = (model.head.feed(before, k - 1).square().mean().sqrt() / inputs).item()
        assert (noted[f"similarity@{k}"], noted[f"fed@{k}"]) == pytest.approx((alike, fed), rel=1e-4)
    assert not {"similarity@7", "fed@7"} & set(noted)


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


def test_who_reads_segments_drops_nothing_in_training() -> None:
    model = small_system("sasrec", "lasar", 20, changes={"anchor": "backbone", "cuts": 0}, dropout=0.5)
    context, batch = told(model, "align"), training_batch(model, USERS)
    model.begin(context)
    still, moving = (m.head.anchors(batch, torch.arange(16), context)[0].c_PSX for m in (model.eval(), model.train()))
    assert torch.equal(still, moving)


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


@pytest.mark.parametrize(("stage", "term"), [("align", "policy"), ("rl", "depth")])
def test_the_policys_loss_leaves_the_backbone_alone_unless_told_otherwise(stage: str, term: str) -> None:
    for detach in (True, False):
        model = system(policy_detach=detach)
        terms, _ = losses(model, stage)
        model.zero_grad()
        terms[term].backward()
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


# --- settings -----------------------------------------------------------------------------------------------------


def test_every_setting_stands_in_the_table_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "heads.md").read_text(encoding="utf-8")
    table = page[page.index("| `[head]` |") : page.index("## Steps at test")]
    named = set(re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in table.splitlines() if line)))
    assert named - {"head"} == {field.name for field in fields(HEADS.load("lasar").Config)}


def test_the_policy_learns_at_its_own_rate() -> None:
    assert system(policy_rate=7.0).rates == {"head.policy.": 7.0}


def test_a_policy_has_a_layer_of_some_width() -> None:
    with pytest.raises(ValueError, match="policy_hidden is 0; it is at least 1"):
        system(policy_hidden=0)
    assert system(policy_hidden=3).head.policy.inner.out_features == 3


def test_an_encoder_of_texts_is_refused_where_no_text_is_read() -> None:
    with pytest.raises(ValueError, match="text_encoder is given and anchor is cooc"):
        system(anchor="cooc", text_encoder="some/encoder")
