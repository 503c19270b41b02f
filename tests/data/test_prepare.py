"""From raw files to prepared datasets: golden counts and bytes, bad input, and what happens when it fails."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbench import experiment
from recbench.data.card import Card
from recbench.data.dataset import open_dataset
from recbench.data.describe import facts
from recbench.data.export import export
from recbench.data.prepare import Request, prepare
from recbench.errors import Exit, RecbenchError
from recbench.experiment import Order
from recbench.settings import resolve
from recbench.training.loop import Watcher
from tests.systems import CPU

BEAUTY = "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8"


def review(user: str, item: str, time: int, rating: float = 5.0) -> str:
    return json.dumps({"reviewerID": user, "asin": item, "overall": rating, "unixReviewTime": time, "reviewText": "x"})


def reviews(n_users: int = 4, n_items: int = 4) -> list[str]:
    """Every user reviews every item, one a day."""
    return [review(f"A{u}", f"B{i:09d}", 86400 * i) for i in range(n_items) for u in range(n_users)]


def made(home: Path, text: str | bytes, name: str = "raw.json", **options: object) -> Card:
    path = home / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return prepare(Request(name="x", home=home, source=path, **{"core": 0, **options}))  # type: ignore[arg-type]


def refused(home: Path, text: str | bytes, name: str = "raw.json", **options: object) -> RecbenchError:
    with pytest.raises(RecbenchError) as error:
        made(home, text, name, **options)
    assert error.value.code == Exit.DATA
    assert error.value.why
    assert error.value.fix
    assert not (home / "x").exists()
    return error.value


@pytest.fixture(scope="module")
def beauty(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A home with Beauty prepared from its log."""
    from tests.conftest import SHARED_DATA

    source = SHARED_DATA / "amazon2014" / "rebuilt" / "reviews_Beauty_5.rebuilt.json.gz"
    if not source.exists():
        pytest.skip(f"no real data at {SHARED_DATA}")
    home = tmp_path_factory.mktemp("beauty")
    prepare(Request(name="beauty", home=home, source=source))
    return home


def test_beauty_has_its_published_counts_and_says_canonical(beauty: Path) -> None:
    card = Card.read(beauty / "beauty")
    assert (card.users, card.items, card.interactions) == (22_363, 12_101, 198_502)
    assert card.sequence_sha256 == BEAUTY
    assert card.family == "amazon"
    assert any("canonical" in note for note in card.notes)


def test_beauty_exported_as_sequences_is_the_published_file_byte_for_byte(beauty: Path) -> None:
    stream = io.BytesIO()
    export(open_dataset("beauty", beauty), "sequences", stream)
    assert len(stream.getvalue()) == 1_090_094
    assert hashlib.sha256(stream.getvalue()).hexdigest() == BEAUTY


def test_beautys_audit_finds_the_known_ties(beauty: Path) -> None:
    facts = Card.read(beauty / "beauty").audit
    assert facts["users_with_tied_times"] == 19_586
    assert facts["test_targets_tied_with_event_before"] == 9_719
    assert facts["test_targets_unseen_in_training"] == 138
    assert facts["share_of_test_targets_older_than_newest_training_event"] == pytest.approx(0.9995, abs=5e-5)
    assert facts["repeated_user_item_events"] == 0


def test_beautys_ids_do_not_follow_first_appearance(beauty: Path) -> None:
    queries = open_dataset("beauty", beauty).queries("test")
    h = queries.histories
    largest = np.array([h.row(r).max() for r in range(len(h))])
    assert (largest + 1 == queries.targets).mean() < 0.001  # 4.4 % where ids count first appearances


def test_beauty_split_in_time_has_the_published_counts(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "amazon2014" / "rebuilt" / "reviews_Beauty_5.rebuilt.json.gz"
    facts = prepare(Request(name="beauty", home=tmp_path, source=source, split="temporal")).split
    assert (facts["n_train"], facts["n_valid_events"], facts["n_test_events"]) == (161_023, 17_651, 19_828)
    assert (facts["n_valid"], facts["n_test"], facts["n_test_new_users"]) == (6_188, 6_110, 593)
    dataset = open_dataset("beauty", tmp_path)
    assert len(dataset.queries("test")) == 6_110
    run, _ = experiment.run(
        Order(dataset, resolve({"backbone": {"name": "markov"}}, "amazon"), 0, tmp_path, CPU), Watcher()
    )
    told = {key: (round(m["hr@10"], 6), round(m["ndcg@10"], 6)) for key, m in run.manifest.metrics.items()}
    assert told["test"] == (0.025068, 0.015628)
    assert told["test_unseen"] == (0.025068, 0.015669)
    assert len(dataset.queries("valid")) == 6_188


@pytest.mark.parametrize(
    ("target", "n_valid", "n_test", "n_test_targets"),
    [("first", 5_462, 5_517, 5_517), ("all", 5_462, 5_517, None), ("successive", 6_188, 6_110, 19_235)],
)
def test_the_other_targets_of_a_temporal_split_of_beauty(
    target: str, n_valid: int, n_test: int, n_test_targets: int | None, shared_data: Path, tmp_path: Path
) -> None:
    source = shared_data / "amazon2014" / "rebuilt" / "reviews_Beauty_5.rebuilt.json.gz"
    card = prepare(Request(name="beauty", home=tmp_path, source=source, split="temporal", target=target))
    assert (card.split["n_valid"], card.split["n_test"]) == (n_valid, n_test)
    queries = open_dataset("beauty", tmp_path).queries("test")
    assert len(np.unique(queries.histories.users)) == n_test
    if n_test_targets is not None:
        assert len(queries) == n_test_targets
    if target == "successive":  # an event in the window is a query, or has nothing before it
        assert card.split["not_evaluated"]["test events with nothing before them"] == 19_828 - 19_235
    if target == "all":  # every distinct item of a user that was there before the cut
        test = pd.read_parquet(tmp_path / "beauty" / "test.parquet")
        known = test[test["user"].isin(queries.histories.users)]
        assert len(queries) == len(known.drop_duplicates(["user", "item"])) == card.split["n_test_targets"]


def test_hashed_ties_do_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    lines = reviews(6, 5)
    same_day = [line.replace(str(86400 * 3), str(86400 * 2)) for line in lines]
    cards = []
    for side, text in (("a", same_day), ("b", same_day[::-1])):
        (tmp_path / side).mkdir()
        cards.append(made(tmp_path / side, "\n".join(text), ties="hash", tie_seed=1))
    events = [pd.read_parquet(tmp_path / side / "x" / "interactions.parquet")[["user", "item"]] for side in "ab"]
    pd.testing.assert_frame_equal(*events)
    assert "seed 1" in cards[0].tie_rule
    (tmp_path / "c").mkdir()
    assert made(tmp_path / "c", "\n".join(same_day)).tie_rule.startswith("stable sort")


def test_ties_that_are_not_known_or_have_no_times_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecbenchError, match="Unknown tie policy 'hsah'") as error:
        made(tmp_path, "\n".join(reviews()), ties="hsah")
    assert "--ties hash" in error.value.fix
    with pytest.raises(RecbenchError, match="--ties hash needs times"):
        made(tmp_path, "1 1 2 3\n2 4 2 5 1\n", "lists.txt", ties="hash")


def test_the_data_card_says_what_the_terminal_says_and_draws_histograms(tmp_path: Path) -> None:
    card = made(tmp_path, "\n".join(reviews()))
    text = (tmp_path / "x" / "README.md").read_text()
    assert text.startswith("# x\n")
    for words in ("leave-one-out: train 8, valid 4, test 4 events", "## Length", "## Popularity", "## Time", "#" * 40):
        assert words in text
    assert card.fingerprint in text
    assert str(tmp_path) not in text  # a card may be passed on
    assert "raw.json" in text


@pytest.mark.parametrize(
    ("file", "options", "counts"),
    [
        ("amazon2014/raw/reviews_Musical_Instruments_5.json.gz", {"core": 5}, (1_429, 900, 10_261)),
        ("amazon2018/raw/Gift_Cards_5.json.gz", {"core": 5, "duplicates": "first"}, (453, 147, 2_941)),
        ("amazon2018/raw/Gift_Cards_5.json.gz", {"core": 0}, (458, 148, 2_972)),
        ("amazon2014/s3rec/Toys_and_Games.txt", {"core": 0}, (19_412, 11_924, 167_597)),
        ("movielens/ml-latest-small-2018/ratings.csv", {"core": 5}, (610, 3_650, 90_274)),
    ],
)
def test_real_files_have_their_known_counts(
    file: str, options: dict[str, object], counts: tuple[int, ...], shared_data: Path, tmp_path: Path
) -> None:
    columns = {"columns": {"user": "userId", "item": "movieId", "rating": "rating", "timestamp": "timestamp"}}
    extra = {"options": columns} if file.endswith("ratings.csv") else {}
    card = prepare(Request(name="x", home=tmp_path, source=shared_data / file, **options, **extra))  # type: ignore[arg-type]
    assert (card.users, card.items, card.interactions) == counts
    assert card.steps[0].interactions >= card.steps[-1].interactions == card.interactions


def test_a_sequence_file_survives_the_round_trip(tmp_path: Path) -> None:
    text = "1 1 2 3\n2 4 2 5 1\n3 3 6 1\n"
    made(tmp_path, text, "lists.txt")
    stream = io.BytesIO()
    export(open_dataset("x", tmp_path), "sequences", stream)
    assert stream.getvalue().decode() == text


def test_sequences_come_in_the_order_in_which_users_first_stand_in_the_source(tmp_path: Path) -> None:
    # u2 stands first and last: its first row counts. Times run against the file, so the order within a user is by time.
    rows = [
        ("u2", "a", 3),
        ("u1", "b", 9),
        ("u1", "a", 8),
        ("u1", "c", 7),
        ("u2", "b", 2),
        ("u2", "c", 1),
        ("u2", "d", 0),
    ]
    made(tmp_path, "user,item,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows), "t.csv")
    stream = io.BytesIO()
    export(open_dataset("x", tmp_path), "sequences", stream)
    assert stream.getvalue().decode() == "1 1 2 3 4\n2 2 4 3\n"  # u2: d c b a; u1: c a b


def test_the_prepared_folder_holds_what_the_contract_says(tmp_path: Path) -> None:
    made(tmp_path, "\n".join(reviews()))
    names = {path.name for path in (tmp_path / "x").iterdir()}
    parts = ("interactions", "items", "users", "train", "valid", "test")
    assert names == {"card.json", "README.md", *(f"{part}.parquet" for part in parts)}
    events = pd.read_parquet(tmp_path / "x" / "interactions.parquet")
    assert list(events) == ["user", "item", "rating", "timestamp", "original_order"]
    assert len(pd.read_parquet(tmp_path / "x" / "train.parquet")) == 8
    test = pd.read_parquet(tmp_path / "x" / "test.parquet")
    items = pd.read_parquet(tmp_path / "x" / "items.parquet").set_index("item")["raw_id"]
    assert set(items[test["item"]]) == {"B000000003"}


def test_ids_and_hashes_depend_on_what_is_there_and_not_on_the_order_of_rows(tmp_path: Path) -> None:
    lines = reviews()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = made(tmp_path / "a", "\n".join(lines))
    made(tmp_path / "b", "\n".join(reversed(lines)))
    raw = [pd.read_parquet(tmp_path / side / "x" / "items.parquet")["raw_id"].tolist() for side in "ab"]
    assert raw[0] == raw[1]
    (tmp_path / "c").mkdir()
    assert made(tmp_path / "c", "\n".join(lines)).fingerprint == one.fingerprint


def test_equal_times_keep_the_order_of_the_file(tmp_path: Path) -> None:
    order = ["B3", "B1", "B2", "B0"]
    made(tmp_path, "user,item,timestamp\n" + "".join(f"u,{item},86400\n" for item in order), "t.csv")
    events = pd.read_parquet(tmp_path / "x" / "interactions.parquet")
    items = pd.read_parquet(tmp_path / "x" / "items.parquet").set_index("item")["raw_id"]
    assert items[events["item"]].tolist() == order


def test_python_dict_lines_are_read_and_nothing_is_evaluated(tmp_path: Path) -> None:
    lines = [str(json.loads(line)) for line in reviews()]
    assert "'" in lines[0]
    assert made(tmp_path, "\n".join(lines), source_format="amazon2014-reviews").interactions == 16
    call = "{'reviewerID': __import__('os').getcwd(), 'asin': 'B', 'overall': 1.0, 'unixReviewTime': 1}"
    (tmp_path / "evil").mkdir()
    assert "neither JSON nor" in refused(tmp_path / "evil", call, source_format="amazon2014-reviews").what


RATINGS = [
    ("A2IBPI20UZIR0U", item, n) for n, item in enumerate(["0205616461", "0000000001", "5E10000000", "B00000JBLH"])
]


def test_ids_stay_text_with_their_leading_zeros(tmp_path: Path) -> None:
    made(tmp_path, "".join(f"{user},{item},5.0,{n}\n" for user, item, n in RATINGS), "r.csv")
    assert set(pd.read_parquet(tmp_path / "x" / "items.parquet")["raw_id"]) == {item for _, item, _ in RATINGS}


def test_ratings_with_the_item_first_are_not_taken_for_users(tmp_path: Path) -> None:
    made(tmp_path, "".join(f"{item},{user},5.0,{n}\n" for user, item, n in RATINGS), "r.csv")
    assert pd.read_parquet(tmp_path / "x" / "users.parquet")["raw_id"].tolist() == ["A2IBPI20UZIR0U"]


def test_a_byte_order_mark_windows_lines_and_quotes_are_read(tmp_path: Path) -> None:
    text = '\ufeffuser,item,timestamp\r\n"u, 1","a ""b""",1\r\n"u, 1",c,2\r\n"u, 1",d,3\r\n'
    made(tmp_path, text, "t.csv")
    assert pd.read_parquet(tmp_path / "x" / "users.parquet")["raw_id"].tolist() == ["u, 1"]
    assert 'a "b"' in set(pd.read_parquet(tmp_path / "x" / "items.parquet")["raw_id"])


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        ((1_400_000_000, 1_400_000_100, 1_400_000_200), "s"),
        ((1_400_000_000_000, 1_400_000_100_000, 1_400_000_200_000), "ms"),
    ],
)
def test_the_unit_of_time_is_found_by_magnitude(times: tuple[int, ...], unit: str, tmp_path: Path) -> None:
    rows = "".join(f"u,{i},{t}\n" for i, t in enumerate(times))
    assert made(tmp_path, "user,item,timestamp\n" + rows, "t.csv").time_unit == unit


def test_a_mixture_of_seconds_and_milliseconds_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "user,item,timestamp\nu,a,1400000000\nu,b,1400000000000\nu,c,1400000001\n", "t.csv")


def test_a_parquet_file_is_read_like_a_csv(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": ["u"] * 3, "item": ["a", "b", "c"], "timestamp": [3, 1, 2]})
    frame.to_parquet(tmp_path / "t.parquet")
    card = prepare(Request(name="x", home=tmp_path, source=tmp_path / "t.parquet", core=0))
    assert card.interactions == 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cut.json.gz", gzip.compress("\n".join(reviews(50, 50)).encode(), mtime=0)[:-200], "cut off"),
        ("cut.json", "\n".join(reviews())[:-30], "Line 16"),
        ("empty.json", "", "is empty"),
        ("empty.json.gz", gzip.compress(b"", mtime=0), "empty"),
        ("wrong.csv", "a,b\n1,2\n", "no column"),
        ("junk", b"\x00\xff\xfe\x01" * 50, "format"),
        ("short.csv", "user,item,timestamp\nu1,a,1\nu2,b,2\n", "nobody to evaluate"),
    ],
)
def test_bad_files_are_refused_with_their_name_and_nothing_is_written(
    name: str, content: str | bytes, words: str, tmp_path: Path
) -> None:
    error = refused(tmp_path, content, name)
    assert words in f"{error.what} {error.why}"


def test_a_folder_a_pipe_or_an_absent_file_as_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for source, words in (
        (tmp_path / "raw", "is a folder"),
        (tmp_path / "none.gz", "no file"),
        (tmp_path / "pipe", "is a pipe"),
    ):
        with pytest.raises(RecbenchError, match=words) as error:
            prepare(Request(name="x", home=tmp_path, source=source))
        assert error.value.code == Exit.DATA


def test_a_dataset_emptied_by_a_filter_names_the_filter(tmp_path: Path) -> None:
    error = refused(tmp_path, "\n".join(reviews()), core=50)
    assert "50-core" in f"{error.what} {error.why}"


def test_the_old_dataset_stays_when_a_new_preparation_fails(tmp_path: Path) -> None:
    before = made(tmp_path, "\n".join(reviews()))
    with pytest.raises(RecbenchError):
        made(tmp_path, "\n".join(reviews())[:-30])
    assert Card.read(tmp_path / "x") == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".x")]


def test_users_with_one_or_two_events_stay_in_training_and_are_counted(tmp_path: Path) -> None:
    text = "user,item,timestamp\nu1,a,1\nu1,b,2\nu1,c,3\nu2,a,1\nu2,b,2\nu3,c,9\n"
    card = made(tmp_path, text, "t.csv")
    assert card.users == 3
    assert (card.split["n_train"], card.split["n_valid"], card.split["n_test"]) == (4, 1, 1)
    assert sum(card.split["not_evaluated"].values()) == 2


def test_recbole_files_keep_the_order_of_ties(tmp_path: Path) -> None:
    made(tmp_path, "user,item,timestamp\n" + "".join(f"u,{item},86400\n" for item in "dacb"), "t.csv")
    export(open_dataset("x", tmp_path), "recbole", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "x.inter", sep="\t")
    assert list(table)[:2] == ["user_id:token", "item_id:token"]
    assert table["timestamp:float"].is_monotonic_increasing
    assert table["timestamp:float"].is_unique
    assert "".join(table["item_id:token"]) == "dacb"


@pytest.mark.parametrize(("name", "source_format"), [("synthetic", None), ("synthetic", "table"), ("x", "synthetic")])
def test_what_is_generated_takes_no_file(name: str, source_format: str | None, tmp_path: Path) -> None:
    (tmp_path / "my events.csv").write_text("user,item\n1,2\n")
    request = Request(name=name, home=tmp_path, source=tmp_path / "my events.csv", source_format=source_format)
    with pytest.raises(RecbenchError) as error:
        prepare(request)
    assert error.value.code == Exit.USAGE
    assert f"recbench prepare my-data --source '{tmp_path / 'my events.csv'}'" in error.value.fix


def test_density_counts_pairs_of_a_user_and_an_item_once(tmp_path: Path) -> None:
    rows = [f"u{u},i{i},{day}" for u in range(4) for i in range(3) for day in range(4)]
    card = made(tmp_path, "user,item,timestamp\n" + "\n".join(rows), "raw.csv")
    assert card.interactions == 48
    (size,) = [text for label, text in facts(card) if label == "size"]
    assert size == "12.00 events a user, density 100.0000 %"
