"""The audit by hand: ties, repeats, drift, leaks, histograms; and what another order of ties is worth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recbench.cli.app import run
from recbench.data import audit, splitting
from recbench.data.dataset import open_dataset
from recbench.data.prepare import Request, prepare
from recbench.data.splitting import Plan
from recbench.evaluation.sensitivity import sensitivity


def facts(rows: list[tuple[int, int, int]], plan: Plan | None = None) -> dict[str, object]:
    """The audit of (user, item, time) rows, sorted as preparation sorts."""
    user, item, time = (np.array(column) for column in zip(*rows, strict=True))
    made = splitting.split(plan or Plan(), user, item, time, "s")
    return audit.audit(user, item, time, item, made)


def test_ties_repeats_and_order_by_hand() -> None:
    rows = [(1, 5, 0), (1, 4, 0), (1, 5, 0), (1, 5, 9), (2, 1, 1), (2, 2, 2), (2, 3, 3)]
    found = facts(rows)
    assert found["users_with_tied_times"] == 1
    assert found["test_targets_tied_with_event_before"] == 0
    assert found["repeated_user_item_events"] == 2  # 5 again at time 0 and at time 9
    assert found["repeated_user_item_time_events"] == 1
    assert found["test_targets_repeated_from_history"] == 1
    assert found["users_with_ascending_lists"] == 1


def test_leave_one_out_leaks_the_future_and_a_cut_in_time_does_not() -> None:
    rows = [(1, 1, 0), (1, 2, 1), (1, 3, 2), (2, 1, 10), (2, 2, 20), (2, 3, 30)]
    found = facts(rows)
    # Training: times 0 and 10. Test: 2, older than 10, and 30. After 2 lies half of training, after 30 none.
    assert found["share_of_test_targets_older_than_newest_training_event"] == 0.5
    assert found["mean_share_of_training_events_after_test_target"] == 0.25
    cut = facts([*rows, (3, 1, 5), (3, 2, 15), (3, 3, 25)], Plan(name="temporal", valid_from="12", test_from="22"))
    assert cut["share_of_test_targets_older_than_newest_training_event"] == 0


def test_only_targets_within_ties_can_change() -> None:
    free = [(user, item, item) for user in range(1, 30) for item in range(1, 5)]
    assert facts(free)["test_targets_changed_by_shuffled_ties"] == 0
    tied = [(user, item, 0) for user in range(1, 201) for item in range(1, 5)]
    changed = facts(tied)["test_targets_changed_by_shuffled_ties"]
    assert isinstance(changed, int)
    assert 120 < changed < 180  # three of four orders end with another item


def test_a_set_of_targets_does_not_depend_on_ties() -> None:
    rows = [(user, item, item // 2) for user in range(1, 50) for item in range(1, 9)]
    successive, together = (
        facts(rows, Plan(name="temporal", target=target, valid_from="2", test_from="3"))
        for target in ("successive", "all")
    )
    assert successive["test_targets_changed_by_shuffled_ties"]
    assert together["test_targets_changed_by_shuffled_ties"] == 0


def test_drift_is_total_variation_between_halves_of_time() -> None:
    item, time = np.array([1, 1, 2, 2, 3, 3, 4, 4]), np.arange(8)
    assert audit.drift(item, time)["popularity_drift"] == 1.0  # nothing in common
    still = audit.drift(np.tile([1, 2], 4), time)
    assert still["popularity_drift"] == 0.0
    assert still["top_items_of_older_half_kept_in_newer"] == 2
    assert audit.drift(np.tile([1, 2], 500), np.arange(1000))["popularity_drift_by_chance"] < 0.1


def test_histograms_count_everything_once() -> None:
    rows = [(1, item, 86_400 * item) for item in range(1, 10)] + [(2, 1, 0), (3, 1, 0), (3, 2, 0)]
    found = facts(rows)["histograms"]
    assert isinstance(found, dict)
    assert found["events_per_user"] == [["1", 1], ["2", 1], ["3-4", 0], ["5-8", 0], ["9-16", 1]]
    assert found["events_per_item"] == [["1", 7], ["2", 1], ["3-4", 1]]
    assert sum(n for _, n in found["events_by_time"]) == len(rows)
    assert found["events_by_time"][0] == ["1970-01-01", 3]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who buy i0 .. i5 in ascending order within one day: all that markov can learn is the order of ties."""
    home = tmp_path_factory.mktemp("audit")
    rows = "".join(f"u{u},i{(u + t) % 40:02d},{86_400 * (u % 7)}\n" for u in range(120) for t in range(6))
    (home / "tied.csv").write_text("user,item,timestamp\n" + rows)
    prepare(Request(name="tied", home=home, source=home / "tied.csv", core=0))
    lists = "".join(f"{u} {' '.join(str((u * 7 + t) % 40 + 1) for t in range(6))}\n" for u in range(1, 60))
    (home / "lists.txt").write_text(lists)
    prepare(Request(name="lists", home=home, source=home / "lists.txt", core=0))
    return home


def test_an_order_that_only_the_file_has_is_worth_much_to_markov(home: Path) -> None:
    found = sensitivity(open_dataset("tied", home), range(3))
    markov = found["markov"]
    assert markov["as_prepared"]["hr@10"] == 1.0
    assert max(markov["shuffled"]["ndcg@10"]) < 0.8 * markov["as_prepared"]["ndcg@10"]
    assert len(markov["shuffled"]["hr@10"]) == 3


def test_the_shuffle_is_that_of_preparing_with_ties_hash_up_to_the_draw(home: Path, tmp_path: Path) -> None:
    prepare(Request(name="h", home=tmp_path, source=home / "tied.csv", core=0, ties="hash", tie_seed=3))
    hashed = sensitivity(open_dataset("h", tmp_path), range(2))["markov"]["as_prepared"]["ndcg@10"]
    source = sensitivity(open_dataset("tied", home), range(5))["markov"]
    assert min(source["shuffled"]["ndcg@10"]) - 0.1 < hashed < max(source["shuffled"]["ndcg@10"]) + 0.1


def test_the_command_prints_keeps_and_gives_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "tied", "--seeds", "2", "--datasets", str(home)]) == 0
    told = capsys.readouterr().out
    assert "markov" in told
    assert "ties shuffled" in told
    assert "120 users (100.0 %) with events at equal times" in told
    assert open_dataset("tied", home).card.audit["tie_sensitivity"]["seeds"] == [0, 1]
    assert run(["audit", "tied", "--seeds", "2", "--datasets", str(home), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["audit"]["tie_sensitivity"]["popularity"]["as_prepared"].keys() == {"hr@10", "ndcg@10"}


def test_lists_without_times_have_no_ties_to_shuffle(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "lists", "--datasets", str(home)]) == 0
    assert "no order of ties can be tried" in capsys.readouterr().out


def test_shuffled_ties_cost_markov_on_beauty_what_the_protocol_says(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "amazon2014" / "rebuilt" / "reviews_Beauty_5.rebuilt.json.gz"
    card = prepare(Request(name="beauty", home=tmp_path, source=source))
    assert card.audit["users_with_tied_times"] == 19_586
    assert card.audit["test_targets_tied_with_event_before"] == 9_719
    assert card.audit["share_of_test_targets_older_than_newest_training_event"] == pytest.approx(0.9995, abs=5e-5)
    found = sensitivity(open_dataset("beauty", tmp_path), range(3))
    markov, popularity = found["markov"], found["popularity"]
    assert markov["as_prepared"] == pytest.approx({"hr@10": 0.065853, "ndcg@10": 0.042721}, abs=1e-6)
    assert np.mean(markov["shuffled"]["hr@10"]) == pytest.approx(0.0526, abs=0.0025)
    assert np.mean(markov["shuffled"]["ndcg@10"]) == pytest.approx(0.0305, abs=0.0015)
    assert np.mean(popularity["shuffled"]["hr@10"]) == pytest.approx(0.0155, abs=0.001)
