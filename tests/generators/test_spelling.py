"""Beams and their cutoff, ids that do not fit, losses that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recbench import experiment
from recbench.comparison import Settings, compare
from recbench.config import parse_assignments
from recbench.data.dataset import open_dataset
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.evaluate import evaluate
from recbench.evaluation.metrics import parse
from recbench.experiment import Order
from recbench.recommender import build
from recbench.registry import BACKBONES, HEADS
from recbench.runs.sources import read
from recbench.semantic_ids.table import table_of
from recbench.settings import Asked, resolve
from recbench.training.loop import Watcher
from tests.generators.spelled import N_ITEMS, TABLE, small, told
from tests.reasoning.looping import random_users
from tests.run_folders import make_run, ranks
from tests.semantic_ids.spelling import random_table
from tests.systems import CPU, queries, small_system, training_batch


def test_a_target_outside_of_the_beam_is_last_and_unseen_lists_are_as_long_as_the_beam() -> None:
    histories = [[1, 2, 3, 4], [5, 6, 7], [8, 9, 1, 2, 3]]
    asked = queries(histories)
    model, full = small("sid-lm", beam=5), small("sid-lm", scoring="exact")
    found, known = evaluate(model, asked, CPU), evaluate(full, asked, CPU)
    n_unseen = N_ITEMS - np.array([len(set(row[:-1])) for row in histories])
    for rule, candidates in (("above", N_ITEMS), ("above_unseen", n_unseen)):
        a, b = getattr(found, rule), getattr(known, rule)
        inside = b < 5
        assert not inside.all()
        assert np.array_equal(a, np.where(inside, b, candidates - 1))


def test_targets_are_lost_by_the_beam_over_all_items() -> None:
    asked = queries(random_users(200, 5))
    model, full = small("sid-lm", beam=3), small("sid-lm", scoring="exact")
    for one in (model, full):
        for parameter in one.parameters():
            parameter.data *= 5.0  # sure of itself, so that a code that looks bad hides good ones
    found = evaluate(model, asked, CPU, top=3)
    order_UV = evaluate(full, asked, CPU, top=N_ITEMS).top_items
    lost = 0
    for target, listed, order in zip(asked.targets, found.top_items, order_UV, strict=True):  # type: ignore[arg-type]
        place = {item: n for n, item in enumerate(order.tolist())}
        lost += target not in listed and place[target] < max(place[item] for item in listed.tolist())
    assert found.n_lost == lost > 0


@pytest.mark.parametrize(("within", "width"), [(None, 8), (3, 4), (6, 6)])
def test_training_selects_by_a_beam_of_its_own_that_reaches_as_far_as_its_metrics(
    within: int | None, width: int
) -> None:
    asked = queries(random_users(20, 5))
    found = evaluate(small("sid-lm", beam=8, select_beam=4), asked, CPU, within=within).frame()
    assert found.equals(evaluate(small("sid-lm", beam=width), asked, CPU).frame())
    assert not found.equals(evaluate(small("sid-lm", beam=width + 1), asked, CPU).frame())


@pytest.mark.parametrize("search", [{"scoring": "exact"}, {"beam": 19}, {"beam": 6}], ids=str)
@pytest.mark.parametrize("name", ["sid-lm", "tiger"])
def test_items_that_share_their_codes_tie(name: str, search: dict[str, object]) -> None:
    """Twenty items on nine paths of two codes: each path holds two or three of them."""
    codes_NM = np.array([[place % 9 // 3, place % 3] for place in range(N_ITEMS)])
    asked = queries([[1, 2, 3, 4], [5, 6, 7], [8, 9, 1, 2, 3], [4, 20]])
    model = small(name, table=table_of(codes_NM, (3, 3), ()), **search)
    ranks, full = (
        evaluate(model, asked, CPU),
        evaluate(small(name, table=model.backbone.table, scoring="exact"), asked, CPU),
    )
    group = np.array([(codes_NM == codes_NM[target - 1]).all(1).sum() for target in asked.targets])
    assert set(group) == {2, 3}
    assert (full.tied == group - 1).all()
    inside = full.above + full.tied < search.get("beam", N_ITEMS)
    assert inside.any()
    assert (ranks.above[inside] == full.above[inside]).all()
    assert (ranks.tied[inside] == full.tied[inside]).all()


@pytest.mark.parametrize("name", ["sid-lm", "tiger"])
def test_lists_order_items_that_share_their_codes_as_exact_lists_do(name: str) -> None:
    """Four paths of five items, so each list cuts a group: by a hash of user and item, the same from a beam."""
    codes_NM = np.array([[place % 4 // 2, place % 2] for place in range(N_ITEMS)])
    asked = queries([[1, 2, 3, 4], [5, 6, 7], [8, 9, 1, 2, 3], [4, 20]])
    exact = evaluate(small(name, table=table_of(codes_NM, (2, 2), ()), scoring="exact"), asked, CPU, top=7)
    model = small(name, table=table_of(codes_NM, (2, 2), ()), beam=7)
    found = evaluate(model, asked, CPU, top=7)
    assert (found.top_items == exact.top_items).all()
    assert not all(row[:5] == sorted(row[:5]) for row in found.top_items.tolist())  # type: ignore[union-attr]


def test_the_loss_of_each_code_is_told_and_sums_to_the_loss_of_the_item() -> None:
    model = small("sid-lm")
    context = told(model, model.stages[0])
    losses = model.losses(training_batch(model, random_users(6, 5)), context)
    noted = context.noted()
    assert [name for name in noted if name.startswith("code@")] == [f"code@{n}" for n in range(1, len(TABLE) + 1)]
    assert sum(v for name, v in noted.items() if name.startswith("code@")) == pytest.approx(losses["next_item"].item())


def test_a_model_that_finds_all_items_alike_gets_its_share_of_chance() -> None:
    model = small("sid-lm", table=random_table(N_ITEMS, (2, 2, 5)), scoring="exact")
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    ranks = evaluate(model, queries(random_users(30, 5)), CPU)
    assert (ranks.above == 0).all()
    assert (ranks.tied == N_ITEMS - 1).all()
    assert ranks.means(["hr@10"])["hr@10"] == pytest.approx(10 / N_ITEMS)


@pytest.mark.parametrize("name", ["sid-lm", "tiger"])
def test_a_model_that_has_diverged_finds_nothing_and_is_ranked_last(name: str) -> None:
    model = small(name, beam=5)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, float("nan"))
    ranks = evaluate(model, queries([[1, 2, 3, 4], [5, 6, 7]]), CPU, top=3)
    assert ranks.n_nan == 2
    assert ranks.above.tolist() == [N_ITEMS - 1] * 2
    assert not ranks.top_items.any()


@pytest.mark.parametrize(
    ("settings", "refused", "fix"),
    [
        (["loss.beam=10"], "A beam of 10 is too narrow", "--set loss.beam=50"),
        (["train.monitor=ndcg@70"], "A beam of 50 is too narrow for ndcg@70", "--set loss.beam=70"),
    ],
)
def test_a_run_whose_beam_is_narrower_than_its_metrics_is_refused_before_it_trains(
    settings: list[str], refused: str, fix: str, tiny_home: Path, tmp_path: Path
) -> None:
    table = Asked("sid-lm", assignments=parse_assignments([*settings, "backbone.width=8"])).table()
    dataset = open_dataset("tiny", tiny_home)
    order = Order(dataset, resolve(table, dataset.card.family), 0, tmp_path, CPU, False)
    with pytest.raises(RecbenchError, match=refused) as caught:
        experiment.run(order, Watcher())
    assert caught.value.fix == fix
    assert caught.value.code == Exit.USAGE
    assert not list(tmp_path.rglob("log.jsonl"))


def test_metrics_beyond_the_beam_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path, "sid-lm", ranks([0, 3, 12]), rank_cutoff=10)
    make_run(tmp_path, "markov", ranks([1, 2, 30]))
    compare(read([tmp_path]), Settings(metrics=(parse("ndcg@10"),), baseline="markov"), datasets=tmp_path)
    with pytest.raises(RecbenchError) as caught:
        compare(read([tmp_path]), Settings(metrics=(parse("ndcg@20"),), baseline="markov"), datasets=tmp_path)
    assert "ends at rank 10" in caught.value.why
    assert "loss.beam=20" in caught.value.fix


def test_weights_of_other_ids_are_refused() -> None:
    model, other = small("sid-lm"), small("sid-lm", table=random_table(N_ITEMS, (3, 4)))
    with pytest.raises(RecbenchError, match=r"other ids") as caught:
        other.restore(model.tensors())
    assert caught.value.code == Exit.RUN


def test_a_reward_that_needs_item_vectors_is_refused_where_items_are_spelled() -> None:
    config = HEADS.load("diffuse").Config(reward="sampled")
    with pytest.raises(RecbenchError) as caught:
        build("sid-lm", BACKBONES.load("sid-lm").Config(), "diffuse", config, N_ITEMS, "spelling", None, TABLE)
    assert "spells its items" in caught.value.why
    assert caught.value.code == Exit.USAGE


def test_refinements_earn_likelihood_where_a_rank_would_take_a_beam() -> None:
    assert small("sid-lm", "diffuse").head.reward == "likelihood"
    assert small("sid-lm", "diffuse", settings={"reward": "ndcg"}).head.reward == "ndcg"
    assert small_system("sasrec", "diffuse").head.reward == "ndcg"


def test_a_table_of_other_items_is_refused() -> None:
    with pytest.raises(RecbenchError, match=r"20 items; the dataset has 30") as caught:
        build(
            "sid-lm",
            BACKBONES.load("sid-lm").Config(),
            "none",
            HEADS.load("none").Config(),
            30,
            "spelling",
            None,
            TABLE,
        )
    assert caught.value.code == Exit.DATA


def test_ranks_are_the_same_whether_or_not_longer_lists_are_asked_for() -> None:
    asked = queries([[1, 2, 3, 4], [5, 6, 7], [8, 9, 1, 2, 3], [4, 5], [1, 2, 1]])
    model = small("sid-lm", beam=4)
    alone, listed = evaluate(model, asked, CPU), evaluate(model, asked, CPU, top=15)
    assert alone.frame().equals(listed.frame())
    assert (listed.top_items > 0).sum(1).tolist() == [4] * 5
