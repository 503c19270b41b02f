"""LETTER / LC-Rec JSON: the real Office set, maps and texts beside the lists, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from recbench.data.card import Card
from recbench.data.dataset import open_dataset
from recbench.data.detect import file_of, find_format
from recbench.data.prepare import Request, prepare
from recbench.data.sources.letter import Letter
from recbench.errors import Exit, RecbenchError
from recbench.files import sha256

LISTS = {"10": [3, 0, 2], "2": [1, 2, 0], "0": [2, 2, 3]}
TAB_MAP = "B-zero\t0\nB one\t1\nB-two\t2\nB-three\t3\n"
JSON_MAP = {"A-zero": 0, "A-two": 2, "A-ten": 10}
OFFICE = "amazon2014/letter_style/Office_Products"


def put(home: Path, name: str, content: object) -> Path:
    path = home / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, indent=4).encode())
    return path


def sequences(path: Path) -> list[tuple[str, list[str]]]:
    """Raw ids as read: each user with its list, in the order of the events."""
    events = Letter(path, {}).read(lambda _: None)
    read: dict[str, list[str]] = {}
    for user, item in zip(events.user, events.item, strict=True):
        read.setdefault(events.user_ids[user], []).append(events.item_ids[item])
    return list(read.items())


def refused(path: Path) -> RecbenchError:
    with pytest.raises(RecbenchError) as error:
        prepare(Request(name="x", home=path.parent / "home", source=path, source_format="letter", core=0))
    assert error.value.code == Exit.DATA
    assert error.value.why
    assert error.value.fix
    assert not (path.parent / "home" / "x").exists()
    return error.value


@pytest.fixture
def office(shared_data: Path) -> Path:
    if not (shared_data / OFFICE).is_dir():
        pytest.skip(f"no {OFFICE} in {shared_data}")
    return shared_data / OFFICE


def test_office_keeps_every_raw_id_and_list_and_has_its_published_counts(office: Path, tmp_path: Path) -> None:
    card = prepare(Request(name="office", home=tmp_path, source=office / "Office_Products.inter.json"))
    assert (card.users, card.items, card.interactions) == (4_905, 2_420, 53_258)
    assert (card.family, card.source["format"]) == ("amazon", "letter")
    assert any(note.startswith("canonical counts") for note in card.notes)
    dataset = open_dataset("office", tmp_path)
    users, items, events = dataset.users(), dataset.items(), dataset.interactions()
    assert (events["item"].min(), events["item"].max()) == (1, 2_420)
    numbers = [json.loads((office / f"{kind}_index.json").read_bytes()) for kind in ("user", "item")]
    user_number, item_number = (
        frame["raw_id"].map(mapped).to_numpy() for frame, mapped in zip((users, items), numbers, strict=True)
    )
    events["number"] = item_number[events["item"].to_numpy() - 1]
    there = {str(user_number[user - 1]): rows.tolist() for user, rows in events.groupby("user")["number"]}
    assert there == json.loads((office / "Office_Products.inter.json").read_bytes())


def test_office_has_its_titles_and_brands_under_the_right_ids(office: Path, tmp_path: Path) -> None:
    prepare(Request(name="office", home=tmp_path, source=office))
    items = open_dataset("office", tmp_path).items().set_index("raw_id")
    assert (items["title"].notna().sum(), items["brand"].notna().sum()) == (2_420, 2_416)
    assert not items["categories"].map(len).any()
    assert items["title"]["B00000JBLH"] == "HP 12C Financial Calculator"


def test_the_old_name_of_office_still_finds_it(office: Path, tmp_path: Path) -> None:
    assert prepare(Request(name="office-products", home=tmp_path, source=office)).name == "office"


def test_users_come_in_order_of_their_number_and_lists_in_their_own(tmp_path: Path) -> None:
    read = sequences(put(tmp_path, "X.inter.json", LISTS))
    assert read == [("0", ["2", "2", "3"]), ("2", ["1", "2", "0"]), ("10", ["3", "0", "2"])]


@pytest.mark.parametrize(
    ("users", "items"), [("user_index.json", "X.item2id"), ("X.user2id", "item_index.json"), ("X.user2id", "X.item2id")]
)
def test_raw_ids_come_from_the_maps_beside(users: str, items: str, tmp_path: Path) -> None:
    path = put(tmp_path, "X.inter.json", LISTS)
    tabs = {
        "X.user2id": "\r\n".join(f"{raw}\t{n}" for raw, n in JSON_MAP.items()).encode(),
        "X.item2id": TAB_MAP.encode(),
    }
    items_as_json = {raw: int(n) for raw, n in (line.split("\t") for line in TAB_MAP.splitlines())}
    put(tmp_path, users, tabs.get(users, JSON_MAP))
    put(tmp_path, items, tabs.get(items, items_as_json))
    assert sequences(path) == [
        ("A-zero", ["B-two", "B-two", "B-three"]),
        ("A-two", ["B one", "B-two", "B-zero"]),
        ("A-ten", ["B-three", "B-zero", "B-two"]),
    ]


def test_a_map_that_names_the_set_goes_before_one_that_does_not(tmp_path: Path) -> None:
    path = put(tmp_path, "X.inter.json", {"0": [0]})
    put(tmp_path, "X.item2id", b"mine\t0\n")
    put(tmp_path, "Y.item2id", b"of another\t0\n")
    put(tmp_path, "item_index.json", {"of no set": 0})
    assert sequences(path) == [("0", ["mine"])]


def test_a_packed_file_with_a_byte_order_mark_finds_its_map(tmp_path: Path) -> None:
    path = put(tmp_path, "X.inter.json.gz", gzip.compress(b"\xef\xbb\xbf" + json.dumps(LISTS).encode()))
    put(tmp_path, "X.user2id", "".join(f"{raw}\t{n}\n" for raw, n in JSON_MAP.items()).encode())
    assert find_format(path) == "letter"
    assert [user for user, _ in sequences(path)] == ["A-zero", "A-two", "A-ten"]


def test_item_texts_come_with_the_raw_ids_of_the_map(tmp_path: Path) -> None:
    path = put(tmp_path, "X.inter.json", LISTS)
    put(tmp_path, "X.item2id", TAB_MAP.encode())
    texts = {
        "2": {"title": "Pens &amp; paper", "description": "", "brand": "", "categories": "Arts, Crafts & Sewing,Pens"},
        "0": {"title": "Desk", "brand": "Oak"},
        "1": {"title": "Chair", "categories": [["Office", "Chairs"]]},
        "77": {"title": "nobody had it"},
    }
    put(tmp_path, "X.item.json", texts)
    items = Letter(path, {}).read(lambda _: None).items
    assert items is not None
    assert list(items) == ["raw_id", "title", "brand", "categories", "price", "text"]
    rows = {row["raw_id"]: row for row in items.to_dict("records")}
    assert set(rows) == {"B-zero", "B one", "B-two"}
    assert rows["B-two"]["title"] == "Pens & paper"
    assert pd.isna(rows["B-two"]["brand"])
    assert rows["B-two"]["categories"] == ["Arts, Crafts & Sewing", "Pens"]
    assert (rows["B-zero"]["brand"], rows["B-zero"]["categories"]) == ("Oak", [])
    assert rows["B one"]["categories"] == ["Office", "Chairs"]


def test_without_files_beside_it_there_is_no_metadata_and_the_card_names_one_file(tmp_path: Path) -> None:
    put(tmp_path, "other.item.json", {"0": {"title": "of another set"}})
    card = prepare(Request(name="x", home=tmp_path, source=put(tmp_path, "X.inter.json", LISTS), core=0))
    assert "beside" not in card.source
    assert open_dataset("x", tmp_path).items()["title"].isna().all()
    assert set(pd.read_parquet(tmp_path / "x" / "users.parquet")["raw_id"]) == {"0", "2", "10"}


def test_the_card_names_every_file_that_was_read(tmp_path: Path) -> None:
    path = put(tmp_path, "X.inter.json", LISTS)
    others = {"item_ids": put(tmp_path, "X.item2id", TAB_MAP.encode())}
    others["user_ids"] = put(tmp_path, "user_index.json", JSON_MAP)
    others["metadata"] = put(tmp_path, "X.item.json", {"0": {"title": "Desk"}})
    prepare(Request(name="x", home=tmp_path, source=path, core=0))
    source = Card.read(tmp_path / "x").source
    assert source["sha256"] == sha256(path)
    assert {role: facts["sha256"] for role, facts in source["beside"].items()} == {
        role: sha256(other) for role, other in others.items()
    }


def test_a_folder_stands_for_its_one_file_of_lists(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    put(raw, "X.item2id", TAB_MAP.encode())
    path = put(raw, "X.inter.json", LISTS)
    card = prepare(Request(name="x", home=tmp_path, source=raw, core=0))
    assert (card.source["format"], card.source["path"]) == ("letter", str(path))
    with pytest.raises(RecbenchError, match="is a folder"):
        prepare(Request(name="x", home=tmp_path, source=raw, source_format="sequences", core=0))
    put(raw, "Y.inter.json", LISTS)
    with pytest.raises(RecbenchError, match="is a folder"):
        prepare(Request(name="x", home=tmp_path, source=raw, core=0))


def test_users_with_an_empty_list_are_counted_in_a_note(tmp_path: Path) -> None:
    path = put(tmp_path, "X.inter.json", {**LISTS, "1": [], "3": []})
    events = Letter(path, {}).read(lambda _: None)
    assert events.user_ids == ["0", "2", "10"]
    assert events.notes == ("2 users in the source have an empty list and are left out.",)


@pytest.mark.parametrize(
    ("head", "known"),
    [
        (b'{"0": [0, 781, 1083], "1": [332', True),
        (b'{\n    "7": [\n        5,\n        12\n    ],', True),
        (b'{"1": [1, 2, 3], "2": [4, 2], "3": [5, 1]}', True),  # numbered from 1, but users follow one another
        (b'{"4": [1, 2, 3], "83": [4, 5, 6], "165": [7, 8, 9, 10]}', False),  # S3-Rec: attributes of items
        (b'{"0": ["<a_183>", "<b_70>"]}', False),  # semantic ids
        (b'{"1": {"title": "x"}}', False),
        (b'{"B00000JBLH": 0}', False),
        (b'{"reviewerID": "A", "asin": "B"}', False),
        (b"1 1 2 3\n", False),
        (b"{}", False),
        (b"", False),
    ],
)
def test_the_content_tells_lists_from_what_looks_like_them(head: bytes, known: bool) -> None:
    assert Letter.recognises(Path("any"), head) is known


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps(LISTS).encode()[:-9], "probably cut"),
        (gzip.compress(json.dumps(LISTS).encode(), mtime=0)[:-9], "cut off"),
        (b'{"0": [1, 2],}', "line 1 column 14"),
        (b'{"0": [1, 2], "1": [\xff]}', "codec"),
        (b'{"0": [1, 2], "0": [3]}', '"0" stands in it 2 times'),
        (b"[" * 100_000, "cannot be read"),
        (b"[[0, 1]]", "One JSON object"),
        (b'{"A2T": [1, 2]}', 'user "A2T"'),
        (b'{"01": [1, 2]}', 'user "01"'),
        (b'{"0": [1], "1": 2}', "gives user 1 2"),
        (b'{"0": [1], "1": {"title": 1}}', 'gives user 1 {"title": 1}'),
        (b'{"0": [1, -1]}', "gives user 0 -1"),
        (b'{"0": [1, 2.0]}', "gives user 0 2.0"),
        (b'{"0": [1, true]}', "gives user 0 true"),
        (b'{"0": [1, "2"]}', 'gives user 0 "2"'),
        (b'{"0": [1, null]}', "gives user 0 null"),
        (b'{"0": []}', "holds no event"),
    ],
)
def test_bad_lists_are_refused_with_what_is_wrong(content: bytes, words: str, tmp_path: Path) -> None:
    error = refused(put(tmp_path, "X.inter.json", content))
    assert words in f"{error.what} {error.why}"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("item_index.json", {"a": 0, "b": 1, "c": 2}, "no raw id for item 3"),
        ("X.item2id", TAB_MAP.encode()[:-3], "not `raw id<TAB>number`"),
        ("user_index.json", {"a": 0, "b": 2}, "no raw id for user 10"),
        ("item_index.json", {"a": 0, "b": 1, "c": 2, "d": 1, "e": 3}, '"b" and "d"'),
        ("X.item2id", b"a\t0\nb\t1\nc\t2\nd\t3\na\t4\n", '"a" stands in it 2 times'),
        ("item_index.json", {"0": "a", "1": "b"}, 'maps "0" to "a"'),
        ("item_index.json", {"a": True}, 'maps "a" to true'),
        ("item_index.json", b'{"a": 0, "b"', "probably cut"),
        ("X.item2id", b"a 0\n", "not `raw id<TAB>number`"),
        ("X.item.json", {"0": "a title"}, 'gives item 0 "a title"'),
        ("X.item.json", {"B-zero": {"title": "x"}}, "describes none of the items"),
        ("X.item.json", b'{"0": {"title": "x"', "probably cut"),
    ],
)
def test_bad_files_beside_are_refused_by_their_own_name(name: str, content: object, words: str, tmp_path: Path) -> None:
    path = put(tmp_path, "X.inter.json", LISTS)
    put(tmp_path, name, content)
    error = refused(path)
    assert str(tmp_path / name) in error.what
    assert words in f"{error.what} {error.why}"


def test_a_folder_of_several_datasets_is_not_guessed_at_and_the_usual_format_goes_first(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "Tools.inter.json").write_text('{"0": [0, 1, 2]}')
    one = {"reviewerID": "A", "asin": "B1", "overall": 5.0, "unixReviewTime": 1}
    for name in ("reviews_Tools_5.json", "reviews_Toys_5.json"):
        (tmp_path / "sub" / name).write_text(json.dumps(one) + "\n")
    assert file_of(tmp_path, "letter").name == "Tools.inter.json"
    assert file_of(tmp_path, None, "amazon2014-reviews") == tmp_path
    (tmp_path / "sub" / "reviews_Toys_5.json").unlink()
    (tmp_path / "sub" / "ratings.dat").write_text("1::2::5::978300760\n")
    assert file_of(tmp_path, None) == tmp_path
    assert file_of(tmp_path, None, "amazon2014-reviews").name == "reviews_Tools_5.json"
    assert file_of(tmp_path, None, "letter").name == "Tools.inter.json"
