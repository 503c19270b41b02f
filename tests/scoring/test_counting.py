"""Counts and lists against what a loop over plain Python numbers gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recbench.scoring.counting import Counts, count, scratch_for, top

NAN, INF = math.nan, math.inf
LEVELS = [-INF, -1.0, -0.0, 0.0, 1.0, 2.5, INF, NAN]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]

blocks = st.integers(1, 12).flatmap(
    lambda n_items: st.lists(
        st.tuples(
            st.lists(st.sampled_from(LEVELS), min_size=n_items, max_size=n_items),
            st.integers(1, n_items),
            st.lists(st.integers(1, n_items), max_size=15),
        ),
        min_size=1,
        max_size=6,
    )
)


def tensors(block: list[tuple[list[float], int, list[int]]], dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    scores, targets, histories = zip(*block, strict=True)
    seen = torch.tensor([item for history in histories for item in history], dtype=torch.int64)
    row = torch.repeat_interleave(torch.arange(len(block)), torch.tensor([len(history) for history in histories]))
    return torch.tensor(scores, dtype=dtype), torch.tensor(targets), seen, row


def by_loop(scores: list[float], target: int, candidates: set[int]) -> tuple[int, int]:
    own = scores[target - 1]
    others = [scores[item - 1] for item in candidates - {target}]
    return sum(not (value <= own) for value in others), sum(value == own for value in others)


def one(scores: list[float], target: int, history: list[int]) -> Counts:
    return count(*tensors([(scores, target, history)]))


def numbers(counts: Counts) -> tuple[int, ...]:
    return tuple(int(part) for part in (counts.above, counts.tied, counts.above_unseen, counts.tied_unseen))


@given(blocks, st.sampled_from([torch.float32, torch.float64]), st.integers(1, 3))
@settings(max_examples=300, deadline=None)
def test_counts_equal_those_of_a_loop(block, dtype, rows_of_scratch):
    scores_BV, target_B, seen, row = tensors(block, dtype)
    shuffle = torch.randperm(len(seen))
    scratch = torch.empty(rows_of_scratch, scores_BV.shape[1], dtype=dtype)
    counts = count(scores_BV, target_B, seen[shuffle], row[shuffle], scratch=scratch)
    for b, (scores, target, history) in enumerate(block):
        everything = set(range(1, len(scores) + 1))
        unseen = everything - set(history)
        assert (int(counts.above[b]), int(counts.tied[b])) == by_loop(scores, target, everything)
        expected = (len(everything), 0) if target in history else by_loop(scores, target, unseen)
        assert (int(counts.above_unseen[b]), int(counts.tied_unseen[b])) == expected
        assert bool(counts.nan[b]) == math.isnan(scores[target - 1])
        assert bool(counts.repeated[b]) == (target in history)


def test_counts_of_five_items_by_hand():
    # The target, item 2, has 3.0. Above: items 1 (4.0) and 4 (5.0). Tied: item 5. Items 1 and 5 are seen.
    assert numbers(one([4.0, 3.0, 1.0, 5.0, 3.0], 2, [1, 5])) == (2, 1, 1, 0)


def test_an_item_seen_twice_is_taken_off_once():
    assert numbers(one([4.0, 3.0, 1.0, 5.0], 2, [1, 1, 1])) == (2, 0, 1, 0)


def test_a_target_in_the_history_is_a_miss_among_unseen_items_however_few_these_are():
    counts = one([9.0, 1.0, 2.0, 9.0], 1, [1, 2, 2])
    assert numbers(counts) == (0, 1, 4, 0)  # unseen: items 3 and 4
    assert counts.repeated.tolist() == [True]


def test_a_nan_target_is_below_every_other_candidate_and_marks_the_run():
    counts = one([NAN, NAN, 0.0, -INF], 1, [3])
    assert numbers(counts) == (3, 0, 2, 0)
    assert counts.diverged


def test_a_nan_elsewhere_beats_the_target_and_does_not_mark_the_run():
    counts = one([1.0, NAN, 0.0], 1, [])
    assert numbers(counts) == (1, 0, 1, 0)
    assert not counts.diverged


def test_infinite_scores_are_ordinary_values():
    assert numbers(one([INF, INF, 0.0], 1, [])) == (0, 1, 0, 1)
    assert numbers(one([-INF, -INF, 0.0], 1, [])) == (1, 1, 1, 1)


def test_seen_items_with_positive_rank_never_outrank_negative_scores():
    # A mask of 0 would put the seen item 1 above the target, whose score is negative.
    assert numbers(one([-1.0, -3.0, -2.0], 3, [1])) == (1, 0, 0, 0)


def test_a_constant_scorer_ties_with_everything():
    assert numbers(one([0.0] * 7, 4, [1, 2])) == (0, 6, 0, 4)


@pytest.mark.parametrize("monotone", [lambda x: x * 3 + 1, torch.exp, torch.atan, lambda x: x**3])
def test_a_strictly_increasing_map_of_the_scores_changes_nothing(monotone):
    scores_BV = torch.randint(-3, 4, (20, 30)).double() / 2
    target_B, seen, row = torch.randint(1, 31, (20,)), torch.randint(1, 31, (60,)), torch.arange(60) % 20
    plain, mapped = count(scores_BV, target_B, seen, row), count(monotone(scores_BV), target_B, seen, row)
    assert numbers_of_all(plain) == numbers_of_all(mapped)


def numbers_of_all(counts: Counts) -> list[list[int]]:
    return [part.tolist() for part in (counts.above, counts.tied, counts.above_unseen, counts.tied_unseen)]


@pytest.mark.parametrize("device", DEVICES)
def test_counts_do_not_depend_on_scratch_chunk_or_device(device):
    generator = torch.Generator().manual_seed(0)
    scores_BV = torch.randint(-50, 50, (300, 5000), generator=generator).float()
    target_B = torch.randint(1, 5001, (300,), generator=generator)
    seen, row = torch.randint(1, 5001, (3000,), generator=generator), torch.arange(3000) % 300
    whole = count(scores_BV, target_B, seen, row, scratch=torch.empty(300, 5000))
    assert len(scratch_for(scores_BV)) < 300
    moved = count(*(tensor.to(device) for tensor in (scores_BV, target_B, seen, row)))
    assert numbers_of_all(whole) == numbers_of_all(moved)
    assert whole.above.tolist() == (scores_BV > scores_BV.gather(1, target_B[:, None] - 1)).sum(1).tolist()


def test_scores_are_left_as_they_were():
    scores_BV = torch.tensor([[1.0, NAN, 3.0]])
    before = scores_BV.clone()
    count(scores_BV, torch.tensor([1]), torch.tensor([3]), torch.tensor([0]))
    top(scores_BV, 2, torch.tensor([1]), 0, (torch.tensor([3]), torch.tensor([0])))
    assert torch.equal(scores_BV.nan_to_num(nan=-9.0), before.nan_to_num(nan=-9.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_scores_coarser_than_float32_are_refused(dtype):
    with pytest.raises(ValueError, match="float32 or float64"):
        count(torch.zeros(1, 3, dtype=dtype), torch.tensor([1]), torch.tensor([1]), torch.tensor([0]))


@pytest.mark.parametrize(("target", "seen"), [(0, 1), (4, 1), (1, 0), (1, 4)])
def test_padding_and_unknown_items_are_refused(target, seen):
    with pytest.raises(ValueError, match=r"items are 1\.\.3"):
        count(torch.zeros(1, 3), torch.tensor([target]), torch.tensor([seen]), torch.tensor([0]))


def listed(scores: list[float], k: int, history: tuple[int, ...] = (), user: int = 7, seed: int = 0) -> list[int]:
    exclude = (torch.tensor(history, dtype=torch.int64), torch.zeros(len(history), dtype=torch.int64))
    return top(torch.tensor([scores]), k, torch.tensor([user]), seed, exclude)[0][0].tolist()


@given(blocks, st.integers(1, 14), st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_list_holds_the_best_allowed_items_in_order(block, k, leave_out):
    scores_BV, _, seen, row = tensors(block, torch.float64)
    users_B = torch.arange(len(block))
    items_BK, values_BK = top(scores_BV, k, users_B, 3, (seen, row) if leave_out else None)
    for b, (scores, _, history) in enumerate(block):
        allowed = [item for item in range(1, len(scores) + 1) if not (leave_out and item in history)]
        worth = {item: -INF if math.isnan(scores[item - 1]) else scores[item - 1] for item in allowed}
        ranking = sorted(allowed, key=lambda item: (math.isnan(scores[item - 1]), -worth[item]))
        found = [item for item in items_BK[b].tolist() if item]
        assert len(set(found)) == len(found) == min(k, len(allowed))
        expected = [scores[item - 1] for item in ranking[: len(found)]]
        np.testing.assert_equal([scores[item - 1] + 0.0 for item in found], [value + 0.0 for value in expected])
        np.testing.assert_equal(values_BK[b].tolist()[: len(found)], [scores[item - 1] for item in found])
        assert values_BK[b, len(found) :].isnan().all()


@pytest.mark.parametrize("n_items", [40, 1000, 1601])
def test_a_list_of_many_items_is_that_of_a_stable_sort(n_items):
    scores_BV = torch.stack([torch.randperm(n_items) for _ in range(50)]).double()
    items_BK, _ = top(scores_BV, 20, torch.arange(50), 0)
    assert torch.equal(items_BK, scores_BV.argsort(dim=1, descending=True)[:, :20] + 1)


def test_nan_is_listed_after_minus_infinity():
    assert listed([NAN, -INF, 0.0, NAN], 4)[:2] == [3, 2]
    assert listed([NAN, -INF, 0.0, NAN], 2) == [3, 2]


def test_a_list_that_runs_out_of_items_ends_in_item_0():
    assert listed([3.0, 2.0, 1.0], 3, history=(1, 3)) == [2, 0, 0]
    assert listed([3.0, -INF, NAN], 3, history=(1,)) == [2, 3, 0]


def test_a_list_is_no_longer_than_the_catalogue():
    assert sorted(listed([1.0, 1.0, 1.0], 10)) == [1, 2, 3]


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        listed([1.0], 0)


def test_a_constant_scorer_lists_every_item_about_equally_often():
    n_users, n_items, k = 4000, 100, 10
    items_BK, _ = top(torch.zeros(n_users, n_items), k, torch.arange(n_users), 0)
    for place in (slice(0, 1), slice(0, k)):  # 40 and 400 times expected; chi-square over 99 degrees, 3.9 sd
        seen = np.bincount(items_BK[:, place].ravel().numpy(), minlength=n_items + 1)[1:]
        expected = seen.sum() / n_items
        assert ((seen - expected) ** 2 / expected).sum() < 99 + 3.9 * math.sqrt(2 * 99)


def test_ties_are_ordered_by_user_and_seed_and_not_by_their_company():
    scores_BV = torch.zeros(6, 500)
    users_B = torch.arange(1, 7)
    items_BK, _ = top(scores_BV, 20, users_B, 0)
    assert torch.equal(items_BK, top(scores_BV, 20, users_B, 0)[0])
    assert torch.equal(items_BK[2:3], top(scores_BV[:1], 20, users_B[2:3], 0)[0])
    assert torch.equal(items_BK[:, :5], top(scores_BV, 5, users_B, 0)[0])
    assert len({tuple(row) for row in items_BK.tolist()}) == 6
    assert not torch.equal(items_BK, top(scores_BV, 20, users_B, 1)[0])


def test_an_item_loses_no_place_among_ties_when_another_is_left_out():
    whole = listed([0.0] * 60, 60)
    assert (
        listed([0.0] * 60, 30, history=(whole[0], whole[7])) == [i for i in whole if i not in (whole[0], whole[7])][:30]
    )


@pytest.mark.parametrize("device", DEVICES)
def test_lists_are_the_same_on_every_device_and_in_every_block_height(device):
    generator = torch.Generator().manual_seed(0)
    scores_BV = torch.randint(0, 30, (400, 3000), generator=generator).float()
    seen, row = torch.randint(1, 3001, (4000,), generator=generator), torch.arange(4000) % 400
    users_B = torch.arange(400)
    whole, _ = top(scores_BV.to(device), 50, users_B.to(device), 5, (seen.to(device), row.to(device)))
    for b in (0, 173, 399):
        mine = row == b
        alone, _ = top(scores_BV[b : b + 1], 50, users_B[b : b + 1], 5, (seen[mine], row[mine] - b))
        assert whole[b].tolist() == alone[0].tolist()
