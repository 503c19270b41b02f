"""Several targets of a user: the user is the unit, of means and of paired tests alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbench import experiment
from recbench.baselines.popularity import Popularity
from recbench.comparison.build import compare
from recbench.comparison.model import Settings
from recbench.data.dataset import Dataset, Queries, histories_of, open_dataset
from recbench.data.prepare import Request, prepare
from recbench.errors import RecbenchError
from recbench.evaluation.evaluate import evaluate
from recbench.evaluation.metrics import Metric, of_several, of_users, parse
from recbench.experiment import Order
from recbench.recommender import BaselineRecommender
from recbench.runs.folder import Run
from recbench.settings import resolve
from recbench.training.loop import Watcher
from tests.systems import CPU


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty users with up to twelve events over forty days and twenty items, prepared once for each target."""
    home = tmp_path_factory.mktemp("several")
    generator = np.random.default_rng(0)
    lines = ["user,item,timestamp"]
    for user in range(60):
        days = np.sort(generator.integers(0, 40, generator.integers(3, 12)))
        lines += [f"u{user},i{generator.integers(0, 20)},{86_400 * day}" for day in days]
    (home / "t.csv").write_text("\n".join(lines) + "\n")
    for target in ("last", "successive", "all"):
        prepare(
            Request(
                name=target, home=home, source=home / "t.csv", core=0, split="temporal", target=target, quantile=0.8
            )
        )
    return home


def finished(dataset: Dataset, runs: Path, backbone: str) -> Run:
    order = Order(dataset, resolve({"backbone": {"name": backbone}}, "generic"), 0, runs, CPU)
    return experiment.run(order, Watcher())[0]


def test_a_user_counts_once_however_many_targets_it_has() -> None:
    above, tied, user = np.array([0, 9, 0]), np.zeros(3, dtype=int), np.array([1, 1, 2])
    assert of_users(Metric("hr", 5), above, tied, user, together=False).tolist() == [0.5, 1.0]


def test_one_target_a_user_gives_the_plain_metric_either_way() -> None:
    generator = np.random.default_rng(1)
    above, tied, user = generator.integers(0, 30, 50), generator.integers(0, 4, 50), np.arange(50)
    for name in ("hr@10", "recall@5", "precision@5", "ndcg@10", "mrr@10", "map@3"):
        plain = parse(name).values(above, tied)
        for together in (False, True):
            assert of_users(parse(name), above, tied, user, together=together) == pytest.approx(plain, abs=1e-12)


def test_a_set_of_targets_by_hand() -> None:
    # User 1: targets at ranks 1 and 3 of a list of two. User 2: its one target at rank 2.
    above, tied, user = np.array([0, 2, 1]), np.zeros(3, dtype=int), np.array([1, 1, 2])
    value = {name: of_users(parse(name), above, tied, user, together=True).tolist() for name in ("hr@2", "recall@2")}
    assert value == {"hr@2": [1.0, 1.0], "recall@2": [0.5, 1.0]}
    ideal = 1 + 1 / np.log2(3)
    found = of_users(parse("ndcg@3"), above, tied, user, together=True)
    assert found == pytest.approx([(1 + 1 / 2) / ideal, 1 / np.log2(3)])


@pytest.mark.parametrize("family", ["hr", "recall", "precision", "ndcg", "mrr", "map"])
def test_targets_without_a_score_and_repeated_ones_add_nothing(family: str) -> None:
    """Counts of NaN targets, and of those already in the query, all stand behind the last item, without ties."""
    above, tied, user = np.array([3, 20, 20, 20, 20]), np.array([1, 0, 0, 0, 0]), np.array([1, 1, 1, 2, 2])
    found = of_users(Metric(family, 10), above, tied, user, together=True)
    expected = of_several(
        Metric(family, 10), above, tied, np.array([0, 0, 0, 1, 1]), np.array([False, True, True, True, True])
    )
    assert found.tolist() == expected.tolist()
    assert found[1] == 0
    assert np.isfinite(of_users(Metric(family, 50), above, tied, user, together=True)).all()


def test_sets_of_targets_know_no_single_place() -> None:
    two = np.zeros(2, dtype=int)
    with pytest.raises(RecbenchError, match="cannot be broken as 'mid'") as error:
        of_users(Metric("hr", 5), two, two, two, together=True, ties="mid")
    assert "--ties expected" in error.value.fix


def test_the_queries_of_a_user_are_successive_or_one_set(home: Path) -> None:
    successive, together = (open_dataset(name, home).queries("test") for name in ("successive", "all"))
    assert len(successive) > len(np.unique(successive.histories.users))
    assert not successive.together
    assert together.together
    for user in np.unique(together.histories.users):
        rows = np.flatnonzero(together.histories.users == user)
        assert len({together.histories.row(r).tobytes() for r in rows}) == 1
        assert len(set(together.targets[rows].tolist())) == len(rows)
        assert together.times is not None
        assert len(set(together.times[rows].tolist())) == 1  # one question has one moment, whatever is asked for
        last = max(np.flatnonzero(successive.histories.users == user), key=lambda r: successive.histories.lengths[r])
        longest = [*successive.histories.row(last), successive.targets[last]]
        assert set(longest[together.histories.lengths[rows[0]] :]) == set(together.targets[rows].tolist())


@pytest.mark.parametrize("name", ["last", "successive", "all"])
def test_a_run_and_a_comparison_average_over_users(name: str, home: Path, tmp_path: Path) -> None:
    dataset = open_dataset(name, home)
    runs = [finished(dataset, tmp_path, backbone) for backbone in ("popularity", "markov")]
    ranks = runs[0].ranks("test")
    users = ranks["user"].unique()
    assert len(ranks) == len(dataset.queries("test"))
    assert (len(ranks) > len(users)) == (name != "last")
    which = parse("ndcg@10")
    by_user = [
        of_several(which, a, t, np.zeros(len(a), dtype=int), np.zeros(len(a), dtype=bool))[0]
        if name == "all"
        else which.values(a, t).mean()
        for a, t in ((one["above"].to_numpy(), one["tied"].to_numpy()) for _, one in ranks.groupby("user"))
    ]
    assert runs[0].manifest.metrics["test"]["ndcg@10"] == pytest.approx(np.mean(by_user))
    table = compare(runs, Settings()).tables[0]
    assert table.n_users == len(users)
    shown = next(row for row in table.rows if row.system.label == "popularity" and str(row.metric) == "ndcg@10")
    assert shown.score.mean == pytest.approx(np.mean(by_user))
    top = pd.read_parquet(runs[0].folder / "topk.parquet")
    assert not top.duplicated(["user", "position"]).any()
    assert set(top["user"]) == set(users)


def test_a_list_of_a_user_with_several_queries_is_that_of_the_last(home: Path) -> None:
    dataset = open_dataset("successive", home)
    baseline = Popularity()
    baseline.fit(dataset.training(), dataset.n_items)
    ranks = evaluate(BaselineRecommender(baseline), dataset.queries("test"), CPU, top=3)
    marked = replace(
        ranks, top_items=np.arange(len(ranks.users))[:, None] + 1, top_scores=np.zeros((len(ranks.users), 1))
    )
    last = {int(user): place + 1 for place, user in enumerate(ranks.users)}
    assert dict(zip(*(marked.top_frame()[c].tolist() for c in ("user", "item")), strict=True)) == last


def test_runs_with_other_targets_are_not_compared(home: Path, tmp_path: Path) -> None:
    for name in ("last", "successive"):
        target = tmp_path / name / "same"
        prepare(
            Request(
                name="same",
                home=target.parent,
                source=home / "t.csv",
                core=0,
                split="temporal",
                target=name,
                quantile=0.8,
            )
        )
    runs = [
        finished(open_dataset("same", tmp_path / n), tmp_path / n / "runs", "markov") for n in ("last", "successive")
    ]
    with pytest.raises(RecbenchError, match=r"differ in protocol\.split\.target") as error:
        compare(runs)
    assert "last: " in error.value.why


def test_the_other_targets_of_a_set_are_counted_like_any_item() -> None:
    """Item 1 scores best, then 2, 3, 4; the set is {1, 3}: one item beats target 3 that is a target itself."""

    train = histories_of(np.repeat([1, 2, 3, 4], [4, 3, 2, 1]), np.array([1, 2, 3, 4, 1, 2, 3, 1, 2, 1]), None)
    baseline = Popularity()
    baseline.fit(train, 4)
    history = histories_of(np.array([9]), np.array([4], dtype=np.int32), None)
    asked = Queries("test", history.only(np.array([0, 0])), np.array([1, 3]), together=True)
    ranks = evaluate(BaselineRecommender(baseline), asked, CPU)
    assert ranks.above.tolist() == [0, 2]
    assert ranks.means(["recall@2", "hr@1"]) == {"recall@2": 0.5, "hr@1": 1.0}
