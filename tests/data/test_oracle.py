"""The oracle: equal to a sum over every hidden path, calibrated, and better than what looks at one or two items."""

from itertools import product

import numpy as np
import pytest

from recbench import columns
from recbench.data.dataset import Histories, Queries
from recbench.data.oracle import Oracle, expected_metrics, oracle_table
from recbench.data.synthetic import Settings, World, generate

TINY = Settings(
    users=6, leaves=5, items_per_leaf=4, brands=2, tastes=2, families=1, variants=2, steps=3, loyalty=3.0,
    distraction=0.2, repeat=0.15, skip=0.1, follow=0.7, min_length=3, mean_length=3.5, max_length=4,
)  # fmt: skip
DEMO = Settings(users=3000)


@pytest.fixture(scope="module")
def demo() -> tuple[World, list[np.ndarray], np.ndarray]:
    """World, histories, and p(next | all but the last item)."""
    world, sequences = generate(DEMO)
    histories = sequences.histories()
    return world, histories, Oracle(world).probabilities([items[:-1] for items in histories])


def step_chance(world: World, taste: int, before: tuple[int, int], after: tuple[int, int]) -> float:
    """p(after | before), read off the documentation."""
    s, (intent, step) = world.settings, before
    chance = 0.0
    for jump, p_jump in ((0, s.repeat), (1, 1 - s.repeat - s.skip), (2, s.skip)):
        if step + jump < s.steps:
            chance += p_jump * (after == (intent, step + jump))
        elif after[1] == 0:
            chance += p_jump * s.follow * (after[0] == world.successor_GZ[taste, intent])
            chance += p_jump * (1 - s.follow) / 2
    return chance


def item_chance(world: World, taste: int, leaf: int, item: int, taken: list[int]) -> float:
    """p(item | leaf, taste, what the user has), read off the documentation."""
    s = world.settings

    def share(weight: dict[int, float]) -> float:
        left = {i: w for i, w in weight.items() if i not in taken}
        return left.get(item, 0.0) / sum(left.values())

    anywhere = {i: (i % s.items_per_leaf + 1.0) ** -s.zipf for i in range(world.n_items)}
    here = {
        i: w * (s.loyalty if world.brand_CN.reshape(-1)[i] % s.tastes == taste else 1)
        for i, w in anywhere.items()
        if i // s.items_per_leaf == leaf
    }
    return s.distraction * share(anywhere) + (1 - s.distraction) * share(here)


def by_every_path(world: World, history: list[int]) -> np.ndarray:
    """p(next | history) as the sum over all tastes and all sequences of (intent, step)."""
    states = list(product(range(2), range(world.settings.steps)))
    p_V = np.zeros(world.n_items)
    for taste, path in product(range(2), product(states, repeat=len(history) + 1)):
        p = 0.5 * 0.5 * (path[0][1] == 0)
        for t in range(1, len(path)):
            p *= step_chance(world, taste, path[t - 1], path[t])
        for t, item in enumerate(history):
            p *= item_chance(world, taste, int(world.leaf_GZS[taste, *path[t]]), item, history[:t]) if p else 0.0
        if p:
            leaf = int(world.leaf_GZS[taste, *path[-1]])
            p_V += [p * item_chance(world, taste, leaf, item, history) for item in range(world.n_items)]
    return p_V / p_V.sum()


def test_the_filter_equals_the_sum_over_every_hidden_path() -> None:
    world, sequences = generate(TINY)
    histories = [items[:-1][:3] for items in sequences.histories()[:2]] + [
        np.array([0, 13]),
        np.array([7]),
        np.array([], int),
    ]
    p_RV = Oracle(world).probabilities(histories)
    for r, history in enumerate(histories):
        np.testing.assert_allclose(p_RV[r], by_every_path(world, history.tolist()), rtol=0, atol=1e-12)


def test_probabilities_sum_to_one_and_give_nothing_to_items_of_the_history(demo) -> None:
    _, histories, p_RV = demo
    np.testing.assert_allclose(p_RV.sum(axis=1), 1, atol=1e-12)
    assert all((p_V[items[:-1]] == 0).all() for p_V, items in zip(p_RV, histories, strict=True))
    assert p_RV.min() >= 0


def test_neighbours_in_a_call_change_nothing(demo) -> None:
    world, histories, p_RV = demo
    for r in (0, 17, 2999):
        np.testing.assert_allclose(Oracle(world).probabilities([histories[r][:-1]])[0], p_RV[r], rtol=1e-12)


@pytest.mark.parametrize("k", [1, 10, 100])
def test_the_hits_it_expects_are_the_hits_it_gets(demo, k: int) -> None:
    _, histories, p_RV = demo
    expected = -np.sort(-p_RV, axis=1)[:, :k].sum(axis=1)
    p_target = np.array([p_V[items[-1]] for p_V, items in zip(p_RV, histories, strict=True)])
    hit = (p_RV > p_target[:, None]).sum(axis=1) < k
    error = np.sqrt((expected * (1 - expected)).sum()) / len(hit)
    assert abs(hit.mean() - expected.mean()) < 4 * error


def ndcg(score_RV: np.ndarray, histories: list[np.ndarray]) -> float:
    """NDCG@10 over items not in the history."""
    target = np.array([items[-1] for items in histories])
    score_RV = score_RV.copy()
    for row, items in zip(score_RV, histories, strict=True):
        row[items[:-1]] = -1
    at = score_RV[np.arange(len(target)), target][:, None]
    return expected_metrics((score_RV > at).sum(axis=1), (score_RV == at).sum(axis=1) - 1)["ndcg@10"]


def test_popularity_then_markov_then_the_oracle_and_a_longer_memory_alone_does_not_close_the_gap(demo) -> None:
    world, histories, p_RV = demo
    training = [items[:-2] for items in histories]
    popularity_V = np.bincount(np.concatenate(training), minlength=world.n_items).astype(float)
    follows_VV = np.zeros((world.n_items, world.n_items))
    pairs: dict[tuple[int, int], np.ndarray] = {}
    for items in training:
        np.add.at(follows_VV, (items[:-1], items[1:]), 1)
        for first, second, third in zip(items[:-2], items[1:-1], items[2:], strict=True):
            pairs.setdefault((first, second), np.zeros(world.n_items))[third] += 1
    smoothed_VV = follows_VV + 20 * popularity_V / popularity_V.sum()
    smoothed_VV /= smoothed_VV.sum(axis=1, keepdims=True)
    first_RV = np.stack([smoothed_VV[items[-2]] for items in histories])
    second_RV = np.stack(
        [pairs.get((items[-3], items[-2]), 0) + 5 * p for p, items in zip(first_RV, histories, strict=True)]
    )
    by_popularity = ndcg(np.tile(popularity_V, (len(histories), 1)), histories)
    by_markov, by_second_order = ndcg(first_RV, histories), ndcg(second_RV, histories)
    assert by_popularity * 2 < by_markov
    assert max(by_markov, by_second_order) * 2 < ndcg(p_RV, histories)


def test_the_order_of_the_history_matters(demo) -> None:
    world, histories, p_RV = demo
    rng = np.random.default_rng(0)
    shuffled_RV = Oracle(world).probabilities([rng.permutation(items[:-1]) for items in histories])
    assert ndcg(shuffled_RV, histories) < 0.7 * ndcg(p_RV, histories)


def test_the_last_two_items_are_not_enough(demo) -> None:
    """The oracle that forgets how the intent began and whose taste it is: the rest is what composing facts is worth."""
    world, histories, p_RV = demo
    forgetful_RV = Oracle(world).probabilities([items[-3:-1] for items in histories])
    assert ndcg(forgetful_RV, histories) < 0.8 * ndcg(p_RV, histories)


def test_the_table_ranks_over_the_catalogue_whatever_its_ids() -> None:
    world, sequences = generate(Settings(users=50, mean_length=6, max_length=10))
    rng, raw = np.random.default_rng(1), world.raw_ids()
    catalogue = rng.permutation(np.unique(sequences.items))
    assert len(catalogue) < world.n_items
    id_of = np.zeros(world.n_items, dtype=np.int32)
    id_of[catalogue] = np.arange(1, len(catalogue) + 1)
    stops = np.cumsum(sequences.lengths)
    asked = Queries(
        "test",
        Histories(np.arange(1, 51, dtype=np.int32), id_of[sequences.items], None, stops - sequences.lengths, stops - 1),
        id_of[sequences.items[stops - 1]],
    )
    table, card = oracle_table(Oracle(world), [asked], [raw[item] for item in catalogue])
    assert tuple(table.columns) == columns.RANKS
    p_RV = Oracle(world).probabilities([items[:-1] for items in sequences.histories()])[:, catalogue]
    p_target = p_RV[np.arange(50), asked.targets - 1]
    assert list(table["above"]) == list((p_RV > p_target[:, None]).sum(axis=1))
    assert list(table["above_unseen"]) == list(table["above"])
    assert (table["tied"] == 0).all()
    assert card["test"]["all"] == card["test"]["unseen"] == expected_metrics(table["above"], table["tied"])
    assert card["test"]["expected"]["hr@10"] == pytest.approx(
        np.mean([np.sort(p_V / p_V.sum())[-10:].sum() for p_V in p_RV]), abs=1e-12
    )


def test_a_target_of_the_history_is_a_miss() -> None:
    world, _ = generate(TINY)
    asked = Queries(
        "test",
        Histories(np.array([1]), np.array([1, 5, 1]), None, np.array([0]), np.array([2])),
        np.array([1]),
    )
    table, _ = oracle_table(Oracle(world), [asked], world.raw_ids())
    assert table.loc[0, list(columns.RANKS[3:])].tolist() == [18, 1, 20, 0]  # of 20 items, 2 of them in the history


def test_metrics_by_hand_with_a_tie_across_the_cut_off() -> None:
    # first user: rank 1. Second: positions 10 and 11 alike, so half a hit, worth 1/log2(11) at position 10.
    assert expected_metrics([0, 9], [0, 1]) == pytest.approx({"hr@10": 0.75, "ndcg@10": (1 + 0.5 / np.log2(11)) / 2})


@pytest.mark.parametrize("history", [[3, 3], list(range(4))])
def test_a_history_that_nothing_can_follow_is_refused(history: list[int]) -> None:
    world, _ = generate(TINY)
    with pytest.raises(ValueError, match="history 1"):
        Oracle(world).probabilities([np.array([0]), np.array(history)])
