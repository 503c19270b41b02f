"""The segments of a rationale: what each holds, which neighbours become one, and whose windows there are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.reasoning.segments import NAMES, merged, next_groups, segments, window_of
from tests.systems import histories

WINDOW = 20


def weights(
    window: list[int], group_of: dict[int, int], target: int = 9, **options: bool
) -> dict[str, dict[int, float]]:
    """Segments of one target as item -> weight; the intent as its group."""
    group_V = torch.zeros(12, dtype=torch.long)
    for item, group in group_of.items():
        group_V[item] = group
    padded = [0] * (WINDOW - len(window)) + window
    next_group = torch.tensor([0, 3, 1, 2])
    found = segments(
        torch.tensor([padded]), torch.tensor([target]), group_V, next_group, **{"use_target": True, **options}
    )
    out: dict[str, dict[int, float]] = {}
    for name, row in zip(NAMES, found.weight_PSE[0], strict=True):
        here: dict[int, float] = {}
        for item, weight in zip(found.items_PE[0].tolist(), row.tolist(), strict=True):
            if weight:
                here[item] = here.get(item, 0) + weight
        out[name] = here
    out["intent"] = {int(found.group_P): 1.0}
    return out


def test_evidence_is_the_newest_three_preference_fades_and_the_item_is_the_target() -> None:
    found = weights([1, 2, 3, 4], {})
    assert found["evidence"] == pytest.approx({2: 1 / 3, 3: 1 / 3, 4: 1 / 3})
    fade = np.array([0.9**3, 0.9**2, 0.9, 1])
    assert found["preference"] == pytest.approx(dict(zip([1, 2, 3, 4], fade / fade.sum(), strict=True)))
    assert found["item"] == {9: 1.0}


def test_themes_are_groups_of_two_at_least_the_largest_first_then_the_newest() -> None:
    found = weights([1, 2, 3, 4, 5, 6, 7], {1: 1, 2: 1, 3: 2, 4: 2, 5: 2, 6: 3, 7: 3})
    assert found["theme 1"] == pytest.approx({3: 1 / 3, 4: 1 / 3, 5: 1 / 3})
    assert found["theme 2"] == pytest.approx({6: 0.5, 7: 0.5})
    assert found["theme 3"] == pytest.approx({1: 0.5, 2: 0.5})
    assert weights([1, 2], {1: 1, 2: 2})["theme 1"] == {}


def test_an_intent_is_the_targets_group_or_the_likeliest_next_one() -> None:
    assert weights([1, 2], {2: 1, 9: 2})["intent"] == {2: 1.0}
    assert weights([1, 2], {2: 1, 9: 2}, use_target=False)["intent"] == {3: 1.0}
    assert weights([1, 2], {2: 1, 9: 2}, use_target=False)["item"] == {}


@pytest.mark.parametrize("themes", [0, 1, 2, 3])
@pytest.mark.parametrize("use_target", [True, False])
def test_a_rationale_has_four_to_seven_segments_three_to_six_without_the_target(themes: int, use_target: bool) -> None:
    group_of = {item: 1 + (item - 1) // 2 if item <= 2 * themes else 0 for item in range(1, 9)} | {9: 1, 8: 1}
    found = weights(list(range(1, 9)), group_of, use_target=use_target)
    assert sum(bool(items) for items in found.values()) == 3 + themes + use_target


def test_the_likeliest_next_group_is_counted_in_training() -> None:
    rows = histories([[1, 2, 1, 2], [1, 3], [3, 1]])
    assert next_groups(rows, np.array([0, 1, 2, 3])).tolist() == [0, 2, 1, 1]


def test_neighbours_that_say_the_same_become_one_and_empty_ones_fall_out() -> None:
    e = torch.eye(3)
    x = torch.stack([e[0], torch.zeros(3), torch.nn.functional.normalize(e[0] + 0.1 * e[1], dim=0), e[1], e[0]])[None]
    out, count = merged(x, 0.9, 8)
    assert count.tolist() == [3]
    torch.testing.assert_close(out[0, 1], e[1])
    torch.testing.assert_close(out[0, 2], e[0])
    assert merged(x, 1.1, 8)[1].tolist() == [4]


def test_the_most_alike_neighbours_are_joined_until_few_enough_are_left_and_the_last_stays_the_last() -> None:
    def at(degrees: list[float]) -> Tensor:
        angle = torch.tensor(degrees).deg2rad()
        return torch.stack([angle.cos(), angle.sin()], 1)

    x = torch.stack([at([0, 20, 90, 100, 190]), torch.cat([at([0, 90]), torch.zeros(3, 2)])])
    few, count = merged(x, 1.1, 3)  # 90 and 100 are nearest, then 0 and 20
    assert count.tolist() == [3, 2]
    torch.testing.assert_close(few[0, :3], at([10, 95, 190]))
    torch.testing.assert_close(few[1], x[1])
    two, count = merged(x, 1.1, 2)  # then 10 and 95
    assert count.tolist() == [2, 2]
    torch.testing.assert_close(two[0, 1], at([190])[0])
    assert merged(x, 1.1, 1)[1].tolist() == [1, 1]


def test_a_part_is_as_long_as_its_vectors_are_on_average() -> None:
    e = torch.eye(2)
    out, count = merged(torch.stack([3 * e[0], e[0], 0 * e[0], 5 * e[1]])[None], 0.9, 8)
    assert count.tolist() == [2]
    torch.testing.assert_close(out[0, :2], torch.stack([2 * e[0], 5 * e[1]]))


def test_segments_that_stay_apart_are_one_part_behind_the_others_whatever_they_say() -> None:
    e, none = torch.eye(4), torch.zeros(4)
    told_apart = torch.stack([e[0], e[1], e[2], e[3]])
    said_before = torch.stack([e[0], e[1], e[1], e[1]])
    half = torch.stack([e[0], e[1], none, e[1]])
    nothing = torch.stack([e[0], e[1], none, none])
    out, count = merged(torch.stack([told_apart, said_before, half, nothing]), 0.9, 8, apart=2)
    assert count.tolist() == [3] * 4
    last = [F.normalize(e[2] + e[3], dim=0), e[1], e[1], e[1]]
    for found, expected in zip(out, last, strict=True):
        torch.testing.assert_close(found[:3], torch.stack([e[0], e[1], expected]))
    assert merged(torch.stack([nothing, told_apart]), 0.9, 2, apart=2)[1].tolist() == [2, 2]
    silent = torch.stack([torch.stack([none, none, e[0], none]), torch.zeros(4, 4)])
    assert merged(silent, 0.9, 8, apart=2)[1].tolist() == [1, 0]


def test_a_window_is_what_its_user_did_before_the_target() -> None:
    rows = histories([[1, 2, 3], [4, 5, 6, 7]])
    assert window_of(rows, np.array([1, 2, 6]), 2).tolist() == [[0, 1], [1, 2], [5, 6]]


def test_a_validation_or_test_target_has_no_rationale() -> None:
    rows = histories([[1, 2, 3], [4, 5, 6, 7]])
    training_only = replace(rows, stops=rows.stops - 1)
    for place in (2, 6, 7, -1):
        with pytest.raises(ValueError, match="training targets only"):
            window_of(training_only, np.array([place]), 2)
