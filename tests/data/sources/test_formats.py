"""Each raw format: found from its content, read to the letter, and what its traps become."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from recbench.data.dataset import open_dataset
from recbench.data.detect import open_source
from recbench.data.prepare import Request, prepare
from recbench.registry import SOURCES
from tests.data.sources.files import (
    BUSINESSES,
    INTER,
    MOVIES_DAT,
    MS,
    RATINGS_DAT,
    REVIEWS_2014,
    REVIEWS_2018,
    REVIEWS_2023,
    SPLIT_INTER,
    STEAM,
    U_DATA,
    UK,
    VK,
    YELP,
    J,
    K,
    S,
    U,
    V,
    put,
    read,
    refused,
    rows,
    tarred,
    triples,
    zipped,
)

AMAZON = [(U, K, S), (V, K, S + 86_400), (U, J, S + 86_400)]
RATINGS = f"{U},{K},5.0,{S}\n{V},{K},4.0,{S}\n{U},{J},5E0,{S}\n"
ITEM_FIRST = f"{K},{U},5.0,{S}\n{K},{V},4.0,{S}\n{J},{U},5E0,{S}\n"
OF_2023 = f"user_id,parent_asin,rating,timestamp\n{UK},{K},5.0,{MS}\n{VK},{K},4.0,{MS}\n{UK},{J},1.0,{MS + 1}\n"
LETTER = '{"0": [0, 781], "1": [332]}'


@pytest.mark.parametrize(
    ("name", "content", "known", "n"),
    [
        ("any", REVIEWS_2014, "amazon2014-reviews", 3),
        ("any", RATINGS, "amazon2014-ratings", 3),
        ("any", REVIEWS_2018, "amazon2018-reviews", 3),
        ("any", ITEM_FIRST, "amazon2018-ratings", 3),
        ("any", REVIEWS_2023, "amazon2023-reviews", 3),
        ("any", OF_2023, "amazon2023-ratings", 3),
        ("any", YELP, "yelp", 4),
        ("any", RATINGS_DAT, "movielens", 3),
        ("any", U_DATA, "movielens", 3),
        ("any", "userId,movieId,rating,timestamp\n1,2,3.5,964982703\n", "movielens", 1),
        ("any", STEAM, "steam", 3),
        ("any", INTER, "recbole", 3),
        ("any", SPLIT_INTER, "recbole", 5),
        ("any", "1 1 2 3\n2 4 5\n", "sequences", 5),
        ("any", "1 6393\n1 12\n2 6393\n", "sequences", 3),
        ("any", LETTER, "letter", 3),
        ("any", "user,item\nu,i\n", "table", 1),
        ("any.gz", REVIEWS_2014, "amazon2014-reviews", 3),
        ("any", "\ufeff" + REVIEWS_2014.replace("\n", "\r\n"), "amazon2014-reviews", 3),
        ("any", "\ufeff" + YELP, "yelp", 4),
        ("any", "\ufeff1 1 2 3\r\n2 4 5\r\n", "sequences", 5),
    ],
)
def test_the_content_tells_the_format(name: str, content: str, known: str, n: int, tmp_path: Path) -> None:
    found, source = open_source(put(tmp_path, name, content), None, {})
    assert found == known
    assert len(source.read(lambda _: None)) == n
    others = [SOURCES.load(other) for other in SOURCES.entries()]
    assert sum(other.recognises(source.file, content.encode()) for other in others) <= 2  # a table may be of any kind


def test_amazon_2014_and_2018_reviews_keep_ids_and_days(tmp_path: Path) -> None:
    events = read(put(tmp_path, "a", REVIEWS_2014))
    assert triples(events) == AMAZON
    assert events.rating is not None
    assert events.rating.tolist() == [5.0, 5.0, 3.0]
    assert events.time_unit == "s"
    assert triples(read(put(tmp_path, "b", REVIEWS_2018)))[2] == (U, J, S + 1)


def test_amazon_2023_takes_the_parent_and_milliseconds(tmp_path: Path) -> None:
    for content in (REVIEWS_2023, OF_2023, REVIEWS_2023.replace('"timestamp"', '"sortTimestamp"')):
        events = read(put(tmp_path, "a", content))
        assert triples(events) == [(UK, K, MS), (VK, K, MS), (UK, J, MS + 1)]
        assert events.time_unit == "ms"


def test_ratings_with_the_item_first_say_so(tmp_path: Path) -> None:
    events = read(put(tmp_path, "a", ITEM_FIRST))
    assert triples(events) == [(U, K, S), (V, K, S), (U, J, S)]
    assert "item stands first" in events.notes[0]
    error = refused(put(tmp_path, "a", ITEM_FIRST), "amazon2014-ratings")
    assert "does not look like Amazon ratings with the user first" in error.what
    assert "--columns user=1,item=2" in error.fix


SPLIT = {
    "train": f"user_id,parent_asin,rating,timestamp,history\n{UK},{K},5.0,{MS},\n",
    "valid": f"user_id,parent_asin,rating,timestamp,history\n{UK},{J},5.0,{MS + 1},{K}\n",
    "test": f"user_id,parent_asin,rating,timestamp,history\n{UK},B07KG1TWP5,5.0,{MS + 2},{K} {J}\n",
}


def test_times_that_are_there_and_not_named_are_told_of(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", "user,item,date\nu,i,2014-01-02\nu,j,2014-01-01\n")
    events = read(path, columns={"user": "user", "item": "item"})
    assert events.timestamp is None
    assert "Column date is not read" in events.notes[-1]
    assert "timestamp=date" in events.notes[-1]
    assert "not read" not in str(read(path).notes)


@pytest.mark.parametrize("given", ["train", "valid", "test", ""])
def test_an_official_split_is_one_log_whichever_part_is_named(given: str, tmp_path: Path) -> None:
    for part, content in SPLIT.items():
        put(tmp_path, f"raw/X.{part}.csv.gz", content)
    path = tmp_path / "raw" / f"X.{given}.csv.gz" if given else tmp_path / "raw"
    card = prepare(Request(name="x", home=tmp_path / "home", source=path, core=0))
    assert card.interactions == 3
    assert card.source["format"] == "amazon2023-split"
    assert len(card.source["beside"]) == 2
    assert any("1 train, 1 valid, 1 test rows" in note for note in card.notes)


def test_a_split_without_one_of_its_parts_is_refused_by_that_parts_name(tmp_path: Path) -> None:
    path = put(tmp_path, "X.train.csv.gz", SPLIT["train"])
    put(tmp_path, "X.test.csv.gz", SPLIT["test"])
    error = refused(path)
    assert "X.valid.csv.gz is not beside it" in error.what
    assert "its name says which part it is" in refused(put(tmp_path, "X.csv", SPLIT["train"])).what


def test_a_part_of_a_split_may_be_empty_and_bad_rows_are_a_share_of_all_parts(tmp_path: Path) -> None:
    head, _, row = SPLIT["train"].partition("\n")
    bad = [row.replace(UK, "") for _ in range(3)]
    train = put(
        tmp_path, "X.train.csv", "\n".join([head, *(row.replace(K, f"B{n:09}").strip() for n in range(400)), *bad])
    )
    put(tmp_path, "X.valid.csv", f"{head}\n")
    put(tmp_path, "X.test.csv", SPLIT["test"] + bad[0])
    events = read(train)
    assert triples(events)[-1] == (UK, "B07KG1TWP5", MS + 2)
    told, left_out = events.notes
    assert told == "An official split read as one log: 400 train, 0 valid, 1 test rows."
    assert left_out.startswith("4 bad rows were left out: X.train.csv line 402 has no user; ")
    put(tmp_path, "X.test.csv", SPLIT["test"] + bad[0] * 3)
    assert "6 of 407 rows, and at most 1 % may be left out" in refused(train).what
    put(tmp_path, "X.test.csv", SPLIT["test"].replace(str(MS + 2), "5"))
    assert "more than one unit" in refused(train).what


def test_yelps_repeats_stay_and_the_slice_of_2019_ends_as_published(tmp_path: Path) -> None:
    path = put(tmp_path, "review.json", YELP)
    card = prepare(
        Request(name="x", home=tmp_path, source=path, core=0, since="2018-01-01", until="2019-12-31 00:00:00")
    )
    assert [step.interactions for step in card.steps] == [4, 3]
    assert card.audit["repeated_user_item_events"] == 1
    card = prepare(Request(name="x", home=tmp_path, source=path, core=0, until="2019-12-31"))
    assert card.interactions == 4  # a bare date is the whole day
    known = prepare(Request(name="yelp", home=tmp_path, source=path, core=0, since="2018-12-31"))
    assert known.filters["until"] == "2019-12-31 00:00:00"
    assert any("likely cause: --core 0 (published: 5)" in note for note in known.notes)


@pytest.mark.parametrize("packing", ["tar", "tgz", "zip of tar", "zip", "folder"])
def test_yelp_is_read_from_its_archives_with_names_and_categories(packing: str, tmp_path: Path) -> None:
    names: dict[str, str | bytes] = {
        "yelp_academic_dataset_business.json": BUSINESSES,
        "yelp_academic_dataset_review.json": YELP,
        "yelp_academic_dataset_tip.json": "{}",
    }
    if packing == "tar":
        path = put(tmp_path, "yelp_dataset.tar", tarred(names))
    elif packing == "tgz":
        path = put(tmp_path, "yelp_dataset.tgz", tarred(names, "w:gz"))
    elif packing == "zip of tar":
        path = zipped(tmp_path, "Yelp-JSON.zip", **{"Yelp JSON/yelp_dataset.tar": tarred(names), "__MACOSX/._x": b"\0"})
    elif packing == "zip":
        path = zipped(tmp_path, "y.zip", **names)
    else:
        path = tmp_path / "raw"
        for name, content in names.items():
            put(path, name, content)
    card = prepare(Request(name="x", home=tmp_path / "home", source=path, core=0))
    assert (card.users, card.items, card.interactions) == (2, 2, 4)
    assert card.source["format"] == "yelp"
    items = open_dataset("x", tmp_path / "home").items().set_index("raw_id")
    assert items["title"].to_dict() == {"b1": "Café One", "b2": "Two"}
    assert list(items["categories"]["b1"]) == ["Doctors", "Traditional Chinese Medicine"]


def test_movielens_1m_is_read_from_its_zip_with_titles_in_their_own_encoding(tmp_path: Path) -> None:
    path = zipped(
        tmp_path,
        "ml-1m.zip",
        **{
            "ml-1m/README": "x",
            "ml-1m/movies.dat": MOVIES_DAT.encode("iso-8859-1"),
            "ml-1m/ratings.dat": RATINGS_DAT + "2::661::3::978302108\n2::99::3::978302109\n",
            "ml-1m/users.dat": "1::F::1::10::48067\n",
        },
    )
    card = prepare(Request(name="x", home=tmp_path, source=path, core=0))
    assert (card.users, card.items, card.interactions) == (2, 3, 5)
    assert card.source["path"] == str(path)
    items = open_dataset("x", tmp_path).items().set_index("raw_id")
    assert items["title"]["661"] == "Amélie (2001)"
    assert list(items["categories"]["661"]) == ["Animation", "Children's"]
    assert any("of 3 items are described" in note for note in card.notes)


def test_movielens_100k_has_its_genres(tmp_path: Path) -> None:
    put(tmp_path, "raw/u.data", U_DATA + "186\t242\t3\t891717743\n186\t9\t1\t1\n")
    marks = "|".join("1" if place in (1, 18) else "0" for place in range(19))
    put(tmp_path, "raw/u.item", f"242|Kolya (1996)|24-Jan-1997||http://x|{marks}\n".encode("iso-8859-1"))
    prepare(Request(name="x", home=tmp_path / "home", source=tmp_path / "raw", core=0))
    items = open_dataset("x", tmp_path / "home").items().set_index("raw_id")
    assert list(items["categories"]["242"]) == ["Action", "Western"]
    assert pd.isna(items["title"]["9"])


def test_colons_on_the_border_of_two_blocks_are_still_a_separator() -> None:
    from recbench.data.sources.movielens import _tabs

    for text in (b"1::2::3::4\n", b"10::20::3.5::4\n11::21::1::5"):
        for cut in range(len(text) + 1):
            assert b"".join(_tabs(iter([text[:cut], text[cut:]]))) == text.replace(b"::", b"\t")


def test_steam_lines_are_read_without_evaluating_them(tmp_path: Path) -> None:
    events = read(put(tmp_path, "s", STEAM))
    assert [user for user, _, _ in triples(events)] == ["Chaos Syren", "O'Neil", "Chaos Syren"]
    assert events.rating is None
    assert events.timestamp is not None
    assert events.timestamp[0] == pd.Timestamp("2017-12-17").timestamp()


def test_recbole_keeps_quotes_and_blanks_in_ids_and_reads_scientific_times(tmp_path: Path) -> None:
    assert triples(read(put(tmp_path, "x.inter", INTER))) == [
        ("u 1", 'i"1', 1_000_000_000),
        ("u 1", "i2", 1_000_000_001),
        ("u2", "i2", 1),
    ]


def test_recboles_split_form_gives_each_users_longest_row_once(tmp_path: Path) -> None:
    put(tmp_path, "x.test.inter", SPLIT_INTER + "1\t7 8 9\t3\n")
    path = put(tmp_path, "x.train.inter", SPLIT_INTER)
    assert [(u, i) for u, i, _ in triples(read(path))] == [*zip("1111", "7893", strict=True), ("2", "9"), ("2", "7")]
    assert len(read(put(tmp_path, "y.inter", SPLIT_INTER))) == 5


def test_recboles_items_come_from_the_file_beside(tmp_path: Path) -> None:
    put(tmp_path, "x.inter", INTER + 'u2\ti"1\t1\t2\nu2\ti3\t1\t3\n')
    put(tmp_path, "x.item", "item_id:token\ttitle:token_seq\tprice:float\tcategories:token_seq\tbrand:token\n"
        "i2\tA title\t9.5\t'Arts & Crafts', 'Pens'\tOak\n")  # fmt: skip
    prepare(Request(name="x", home=tmp_path / "home", source=tmp_path / "x.inter", core=0))
    item = open_dataset("x", tmp_path / "home").items().set_index("raw_id").loc["i2"]
    assert (item["title"], item["brand"], item["price"]) == ("A title", "Oak", 9.5)
    assert list(item["categories"]) == ["Arts & Crafts", "Pens"]


def test_s3rec_attributes_beside_the_lists_become_categories(tmp_path: Path) -> None:
    put(tmp_path, "X.txt", "1 1 2 3\n2 3 2 1\n")
    put(tmp_path, "X_item2attributes.json", '{"3": [1, 2], "1": [2], "2": [3]}')
    prepare(Request(name="x", home=tmp_path / "home", source=tmp_path / "X.txt", core=0))
    items = open_dataset("x", tmp_path / "home").items().set_index("raw_id")
    assert list(items["categories"]["3"]) == ["attribute 1", "attribute 2"]


def test_columns_are_found_whatever_their_case(tmp_path: Path) -> None:
    content = "UserID;ITEM_ID;Timestamp\nu;i;5\n"
    assert triples(read(put(tmp_path, "t", content))) == [("u", "i", 5)]
    asked = {"user": "userid", "item": "ITEM_ID", "timestamp": "timestamp"}
    assert triples(read(put(tmp_path, "t", content), columns=asked)) == [("u", "i", 5)]


def test_ids_keep_blanks_and_any_script(tmp_path: Path) -> None:
    content = 'user,item\n"Zoë, the 1st",東京 \n null ,NA\nnan,0012\n'
    assert [(u, i) for u, i, _ in triples(read(put(tmp_path, "t", content)))] == [
        ("Zoë, the 1st", "東京 "),
        (" null ", "NA"),
        ("nan", "0012"),
    ]


def test_amazons_ids_under_a_header_are_a_table_and_the_header_is_no_row(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", "user,item,rating,timestamp\n" + RATINGS * 20)
    name, source = open_source(path, None, {})
    events = source.read(lambda _: None)
    assert (name, len(events), source.bad.n) == ("table", 60, 0)


def test_columns_by_number_do_not_make_an_event_of_a_header(tmp_path: Path) -> None:
    columns = {"user": "2", "item": "1"}
    path = put(tmp_path, "a", "Item_ID:token,user_id:token\ni,u\nj,u\n")
    assert triples(read(path, "table", columns=columns)) == [("u", "i", None), ("u", "j", None)]
    assert triples(read(put(tmp_path, "b", "i,u\nj,u\n"), "table", columns=columns)) == [
        ("u", "i", None),
        ("u", "j", None),
    ]


def test_header_lines_further_down_are_counted_and_left_out(tmp_path: Path) -> None:
    content = OF_2023 + OF_2023.replace(UK, VK)
    events = read(put(tmp_path, "t", content))
    assert len(events) == 6
    assert "1 repeated header lines" in events.notes[0]


@pytest.mark.parametrize(
    ("format_", "words"), [("yelp", "yelp knows its own columns"), ("sequences", "sequences knows its own columns")]
)
def test_columns_for_a_format_that_knows_them_are_refused(format_: str, words: str, tmp_path: Path) -> None:
    error = refused(put(tmp_path, "a", YELP), format_, columns={"user": "user_id"})
    assert words in error.why
    assert "has no setting 'users'" in refused(put(tmp_path, "a", YELP), format_, users="3").what


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (rows({"asin": K, "title": "x"}), "--metadata THIS_FILE"),
        ('{"4": [1, 2, 3], "83": [4, 5, 6], "165": [7, 8]}', "attributes or texts of items"),
        (b"BZh91AY&SY", "packed with bzip2"),
        (b"\xfd7zXZ\x00\x00", "packed with xz"),
        ("<!DOCTYPE html><html>", "web page"),
        (" \n \n", "nothing but blanks"),
    ],
)
def test_what_is_no_log_of_events_is_told_what_it_looks_like(content: str | bytes, words: str, tmp_path: Path) -> None:
    error = refused(put(tmp_path, "a", content))
    assert words in f"{error.why} {error.fix}"
