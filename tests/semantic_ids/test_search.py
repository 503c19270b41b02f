"""The prefix tree, the beam and the exact scores: nothing is spelled that does not exist, and beam and exact agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from recbench.semantic_ids.search import (
    NONE,
    Norm,
    beam_search,
    beam_searches,
    drawn_items,
    exact_scores,
    path_log_prob,
    search_errors,
)
from recbench.semantic_ids.table import table_of
from recbench.semantic_ids.tree import PrefixTree
from tests.semantic_ids.spelling import Recurrent, by_hand, random_table

USERS = 7
CONSTRAINED = Norm(constrained=True)


class Odd:
    """Gives the same logits to every row of a level, whatever was spelled."""

    def __init__(self, logits: list[list[float]], users: int = 1) -> None:
        self.logits = [torch.tensor(row) for row in logits]
        self.users = users

    def begin(self) -> tuple[None, Tensor]:
        return None, self.logits[0].expand(self.users, -1)

    def step(self, state: None, parent_R: Tensor, code_R: Tensor, level: int) -> tuple[None, Tensor]:
        return None, self.logits[level].expand(len(parent_R), -1)


def test_the_tree_accepts_every_path_and_no_other() -> None:
    table = random_table(60, (4, 5, 3))
    tree = PrefixTree.of(table)
    all_paths = torch.cartesian_prod(*(torch.arange(size) for size in table.level_sizes))
    leaf = tree.walk(all_paths)
    assert int((leaf >= 0).sum()) == 60 == tree.n_leaves
    items = tree.leaf_items[leaf[leaf >= 0]]
    assert torch.equal(torch.from_numpy(table.codes_VM.astype("int64"))[items], all_paths[leaf >= 0])
    assert tree.walk(torch.tensor([[4, 0, 0, 0], [-1, 0, 0, 0]])).tolist() == [-1, -1]  # codes that no level has


def test_branches_are_the_codes_that_some_item_has_behind_the_prefix() -> None:
    tree = PrefixTree.of(table_of(np.array([[2, 0], [0, 1], [2, 3]]), (3, 4), ()))
    root = tree.branches(0, torch.tensor([0]))
    assert root.code_E.tolist() == [0, 2]
    second = tree.branches(1, torch.tensor([1, 0, 1]))
    assert second.row_E.tolist() == [0, 0, 1, 2, 2]
    assert second.code_E.tolist() == [0, 3, 1, 0, 3]
    assert tree.leaf_items[second.child_E].tolist() == [1, 3, 2, 1, 3]
    assert tree.allowed(1, torch.tensor([1, 0])).tolist() == [[True, False, False, True], [False, True, False, False]]


@pytest.mark.parametrize("norm", [Norm(), CONSTRAINED], ids=["full", "constrained"])
@pytest.mark.parametrize("rows", [1, 50, 10**6])
def test_a_beam_as_wide_as_the_catalogue_is_the_exact_ranking(norm: Norm, rows: int) -> None:
    table = random_table(200, (6, 6, 6))
    tree, model = PrefixTree.of(table), Recurrent(table, USERS)
    exact_BV = exact_scores(model, tree, norm, rows)
    best_BV, order_BV = exact_BV.sort(dim=1, descending=True)
    beams = beam_search(model, tree, 200, norm)
    torch.testing.assert_close(beams.scores_BW, best_BV, rtol=0, atol=1e-12)
    assert torch.equal(beams.items_BW, order_BV + 1)


def test_exact_scores_are_the_products_of_the_models_probabilities() -> None:
    table = random_table(30, (4, 4))
    model = Recurrent(table, 2)
    exact_BV = exact_scores(model, PrefixTree.of(table))
    wanted = [[by_hand(model, table, user, item) for item in range(1, 31)] for user in range(2)]
    torch.testing.assert_close(exact_BV, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-12)


def test_exact_scores_run_each_prefix_once_a_user() -> None:
    table = random_table(200, (6, 6, 6))
    tree, model = PrefixTree.of(table), Recurrent(table, USERS)
    exact_scores(model, tree, rows=40)
    assert model.rows_run == USERS * sum(tree.nodes(level) for level in range(1, len(tree)))


def test_constrained_probabilities_of_all_items_sum_to_one_and_full_ones_to_less() -> None:
    table = random_table(100, (8, 8, 8))
    tree, model = PrefixTree.of(table), Recurrent(table, USERS)
    ones = torch.ones(USERS, dtype=torch.float64)
    torch.testing.assert_close(exact_scores(model, tree, CONSTRAINED).exp().sum(dim=1), ones)
    assert (exact_scores(model, tree).exp().sum(dim=1) < 0.9).all()


@pytest.mark.parametrize("unique", [True, False])
def test_items_are_drawn_as_often_as_their_codes_say_and_those_on_one_path_alike(unique: bool) -> None:
    table = random_table(12, (3, 2), unique=unique)
    tree, model = PrefixTree.of(table), Recurrent(table, 3)
    drawn = drawn_items(model, tree, 40_000, torch.Generator().manual_seed(0))
    share = torch.stack([torch.bincount(row, minlength=13) for row in drawn])[:, 1:] / 40_000
    on_path = (tree.leaf_starts.diff())[tree.leaf_of_V[1:]]
    wanted = exact_scores(model, tree, CONSTRAINED).exp() / on_path
    torch.testing.assert_close(wanted.sum(1), torch.ones(3, dtype=torch.float64))
    error = (wanted * (1 - wanted) / 40_000).sqrt()
    assert bool(((share - wanted).abs() < 4 * error).all())
    assert (on_path.max() > 1) != unique


@pytest.mark.parametrize("width", [1, 3, 10, 50])
def test_every_item_of_a_beam_exists_once_with_its_exact_score(width: int) -> None:
    table = random_table(40, (5, 5, 5))
    tree, model = PrefixTree.of(table), Recurrent(table, USERS)
    exact_BV = exact_scores(model, tree)
    beams = beam_search(model, tree, width)
    for user in range(USERS):
        items = beams.items_BW[user]
        items = items[items != NONE]
        assert len(items.unique()) == len(items) == min(width, 40)
        assert items.min() >= 1
        assert items.max() <= 40
        torch.testing.assert_close(exact_BV[user, items - 1], beams.scores_BW[user, : len(items)], rtol=0, atol=1e-12)
    assert (beams.scores_BW.diff(dim=1) <= 0).all()


def test_beams_of_several_widths_are_each_what_they_are_alone() -> None:
    table = random_table(40, (5, 5, 5))
    tree, model = PrefixTree.of(table), Recurrent(table, USERS)
    widths = [3, 1, 10, 50, 2, 10, 7]
    together = beam_search(model, tree, torch.tensor(widths))
    for user, width in enumerate(widths):
        alone = beam_search(model, tree, width)
        n = int((alone.items_BW[user] != NONE).sum())
        assert torch.equal(together.items_BW[user, :n], alone.items_BW[user, :n])
        torch.testing.assert_close(together.scores_BW[user, :n], alone.scores_BW[user, :n])
        assert (together.items_BW[user, n:] == NONE).all()


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("norm", [Norm(), CONSTRAINED], ids=["full", "constrained"])
def test_searches_at_once_find_what_each_finds_alone_and_run_what_they_share_once(norm: Norm, unique: bool) -> None:
    table = random_table(200, (6, 6, 6), unique=unique)
    tree, model = PrefixTree.of(table), Recurrent(table, USERS)
    widths: list[int | Tensor] = [5, torch.tensor([1, 5, 9, 9, 7, 40, 3]), 200]
    together, run = beam_searches(model, tree, widths, norm), model.rows_run
    for found, width in zip(together, widths, strict=True):
        alone = beam_search(model, tree, width, norm)
        assert torch.equal(found.items_BW, alone.items_BW)
        torch.testing.assert_close(found.scores_BW, alone.scores_BW)
    assert model.rows_run - run > 1.2 * run
    two = Recurrent(table, USERS)
    beam_searches(two, tree, [9, 9], norm)
    one = Recurrent(table, USERS)
    beam_search(one, tree, 9, norm)
    assert two.rows_run == one.rows_run


def test_a_catalogue_smaller_than_the_beam_never_repeats_or_invents_an_item() -> None:
    table = random_table(3, (4, 4))
    beams = beam_search(Recurrent(table, 2), PrefixTree.of(table), 50)
    assert beams.items_BW.sort(dim=1).values.tolist() == [[1, 2, 3], [1, 2, 3]]


def test_what_has_no_probability_is_not_returned() -> None:
    inf = float("inf")
    tree = PrefixTree.of(table_of(np.array([[0, 0], [0, 1], [1, 0]]), (2, 2), ()))
    beams = beam_search(Odd([[0.0, -inf], [1.0, 0.0]]), tree, 3)
    assert beams.items_BW.tolist() == [[1, 2]]
    nan = beam_search(Odd([[float("nan"), 0.0], [1.0, 0.0]]), tree, 3)
    assert nan.items_BW.tolist() == [[NONE]]


def test_equal_scores_go_to_the_lower_path_so_a_search_repeats_itself() -> None:
    tree = PrefixTree.of(table_of(np.array([[1, 1], [0, 1], [1, 0], [0, 0]]), (2, 2), ()))
    assert beam_search(Odd([[0.0, 0.0], [0.0, 0.0]], users=2), tree, 3).items_BW.tolist() == [[4, 2, 3], [4, 2, 3]]


def test_items_on_one_path_share_its_score() -> None:
    codes = np.array([[0, 0], [0, 1], [0, 0], [1, 1], [0, 0]])
    table = table_of(codes, (2, 2), ())
    tree, model = PrefixTree.of(table), Recurrent(table, 2)
    exact_BV = exact_scores(model, tree)
    assert (exact_BV[:, 0] == exact_BV[:, 2]).all()
    assert (exact_BV[:, 0] == exact_BV[:, 4]).all()
    beams = beam_search(model, tree, 3)
    assert beams.items_BW.sort(dim=1).values.tolist() == [[1, 2, 3, 4, 5]] * 2
    group = beams.scores_BW[0][torch.isin(beams.items_BW[0], torch.tensor([1, 3, 5]))]
    assert len(group.unique()) == 1


def test_path_log_prob_is_the_exact_score_of_that_item() -> None:
    table = random_table(90, (5, 5, 5))
    tree, model = PrefixTree.of(table), Recurrent(table, USERS)
    items_B = torch.tensor([1, 90, 45, 7, 7, 30, 61])
    for norm in (Norm(), CONSTRAINED):
        exact_BV = exact_scores(model, tree, norm)
        torch.testing.assert_close(
            path_log_prob(model, tree, items_B, norm), exact_BV[torch.arange(USERS), items_B - 1], rtol=0, atol=1e-12
        )


def test_a_search_error_is_an_item_lost_that_beats_the_last_beam() -> None:
    # The first code alone speaks for path (0, .), the whole path for item 3.
    table = table_of(np.array([[0, 0], [0, 1], [1, 0]]), (2, 2), ())
    tree = PrefixTree.of(table)

    class Misleading(Odd):
        def step(self, state: None, parent_R: Tensor, code_R: Tensor, level: int) -> tuple[None, Tensor]:
            return None, torch.where(code_R[:, None] == 1, torch.tensor([9.0, -9.0]), torch.tensor([0.0, 0.0]))

    model = Misleading([[0.2, 0.0], [0.0, 0.0]])
    beams = beam_search(model, tree, 1)
    assert beams.items_BW.tolist() == [[1]]
    target = torch.tensor([3])
    assert search_errors(beams, target, path_log_prob(model, tree, target)).tolist() == [True]
    equal = torch.tensor([2])  # outside the beam, but no better than what is in it
    assert search_errors(beams, equal, path_log_prob(model, tree, equal)).tolist() == [False]
    wide = beam_search(model, tree, 2)
    assert search_errors(wide, target, path_log_prob(model, tree, target)).tolist() == [False]
    assert wide.items_BW[0, 0] == 3


def test_beam_and_exact_metrics_agree_within_half_a_percent() -> None:
    """2,000 items, 400 users, targets drawn from the model itself, a beam of 50: hits and NDCG at 10."""
    table = random_table(2_000, (16, 16, 16))
    tree, model = PrefixTree.of(table), Recurrent(table, 400)
    exact_BV = exact_scores(model, tree, rows=200_000)
    target_B = torch.multinomial((exact_BV * 2).softmax(dim=1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
    rank_B = (exact_BV > exact_BV.gather(1, target_B[:, None])).sum(dim=1)
    place_BW = beam_search(model, tree, 50).items_BW == target_B[:, None] + 1
    beam_rank_B = torch.where(place_BW.any(dim=1), place_BW.int().argmax(dim=1), 2_000)

    def metrics(rank_B: Tensor) -> tuple[float, float]:
        gain = torch.where(rank_B < 10, 1 / torch.log2(rank_B + 2.0), 0.0)
        return float((rank_B < 10).double().mean()), float(gain.mean())

    for beam, exact in zip(metrics(beam_rank_B), metrics(rank_B), strict=True):
        assert exact > 0.1
        assert beam == pytest.approx(exact, rel=0.005)


def test_a_width_below_one_is_refused() -> None:
    table = random_table(3, (4, 4))
    with pytest.raises(ValueError, match="at least 1"):
        beam_search(Recurrent(table, 2), PrefixTree.of(table), 0)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        beam_search(Recurrent(table, 2), PrefixTree.of(table), torch.tensor([3, 0]))
