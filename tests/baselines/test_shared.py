"""Counts without a matrix equal those of the matrix, ties and all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbench.baselines import shared
from recbench.baselines.markov import Markov
from recbench.baselines.popularity import Popularity
from recbench.baselines.shared import SharedBaseline, above_and_tied
from recbench.data.dataset import Histories, Queries, histories_of
from recbench.scoring.counting import count

V = 12


def log(rng: np.random.Generator, n_users: int, n_events: int) -> Histories:
    user = np.sort(rng.integers(1, n_users + 1, n_events)).astype(np.int32)
    return histories_of(
        user, rng.integers(1, V - 1, n_events).astype(np.int32), None
    )  # the last two items: never bought


def queries(rng: np.random.Generator, histories: Histories) -> Queries:
    """Every user asked once, some with nothing before."""
    stops = histories.starts + rng.integers(0, histories.lengths + 1)
    asked = Histories(histories.users, histories.items, None, histories.starts, stops)
    return Queries("test", asked, rng.integers(1, V + 1, len(histories)).astype(np.int32))


@pytest.mark.parametrize(
    "baseline",
    [Popularity(), Markov(), Markov(Markov.Config(popularity_weight=0.0))],
    ids=["popularity", "markov", "raw"],
)
@pytest.mark.parametrize("seed", range(8))
def test_counts_equal_those_of_the_whole_matrix(
    baseline: SharedBaseline, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "ROWS", 5)  # several blocks
    rng = np.random.default_rng(seed)
    train = log(rng, 17, 60)
    asked = queries(rng, log(rng, 23, 90))
    baseline.fit(train, V)
    nothing = torch.zeros(0, dtype=torch.int64)
    whole = count(torch.from_numpy(baseline.scores(asked.histories)), torch.from_numpy(asked.targets), nothing, nothing)
    above, tied = above_and_tied(baseline, asked)
    assert above.tolist() == whole.above.tolist()
    assert tied.tolist() == whole.tied.tolist()
    assert whole.tied.sum() > 0


def test_by_hand() -> None:
    baseline = Markov()
    row = np.array([1, 2, 1, 3, 3], dtype=np.int32)
    baseline.fit(histories_of(np.ones(5, np.int32), row, None), 4)  # 1 > 2, 2 > 1, 1 > 3, 3 > 3; counts 2, 1, 2, 0
    users = np.arange(1, 5, dtype=np.int32)
    asked = Histories(users, np.ones(4, np.int32), None, np.arange(4), np.arange(1, 5))
    found = above_and_tied(baseline, Queries("test", asked, np.array([1, 2, 3, 4], np.int32)))
    # After 1: 2 and 3 were seen once, 3 is more popular; then 1, then 4.
    assert found[0].tolist() == [2, 1, 0, 3]
    assert found[1].tolist() == [0, 0, 0, 0]
