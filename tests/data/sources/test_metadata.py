"""What is known of items: every format of it, joined to the items a dataset holds, repeats counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbench.data.prepare import Request, prepare
from recbench.data.sources.bad import BadRows
from recbench.data.sources.metadata import LONGEST_TEXT, read_metadata
from recbench.errors import RecbenchError
from tests.data.sources.files import BUSINESSES, K, put, rows

OLD = (
    "{'asin': '0205616461', 'title': \"Schiff's Guide &amp; Map\", 'price': 9.49, 'brand': 'Oak', 'description': "
    "'<p>Bold</p> it\\'s', 'categories': [['Books', 'Arts &amp; Crafts'], ['Books', 'Pens']]}\n"
)
NEW = rows(
    {"asin": K, "title": " Maggiano&#39;s  Card", "brand": "", "category": ["Gift Cards", "Gift Cards"], "price": "$1,025.00",
     "description": ["one", "<b>two</b>"], "feature": ["zero"]},
)  # fmt: skip
OF_2023 = rows(
    {
        "parent_asin": K,
        "title": "T",
        "store": "Shop",
        "price": None,
        "categories": [],
        "features": [],
        "description": [],
    }
)
MOVIES = 'movieId,title,genres\n0205616461,"President, The (1995)",(no genres listed)\n'
STEAM = "{u'publisher': u'X', u'genres': [u'Action', u'Indie'], u'app_name': u'Lost', u'price': 4.99, u'id': u'0205616461'}\n"


@pytest.mark.parametrize(
    ("content", "row"),
    [
        (OLD, (K, "Schiff's Guide & Map", "Oak", ["Books", "Arts & Crafts", "Pens"], 9.49, "Bold it's")),
        (NEW, (K, "Maggiano's Card", None, ["Gift Cards"], 1025.0, "zero one two")),
        (OF_2023, (K, "T", "Shop", [], None, None)),
        (STEAM, (K, "Lost", None, ["Action", "Indie"], 4.99, None)),
        (BUSINESSES.replace("b1", K), (K, "Café One", None, ["Doctors", "Traditional Chinese Medicine"], None, None)),
        (MOVIES, (K, "President, The (1995)", None, [], None, None)),
    ],
)  # fmt: skip
def test_each_format_gives_the_same_columns(content: str, row: tuple[object, ...], tmp_path: Path) -> None:
    items = read_metadata(put(tmp_path, "m", content), [K], lambda _: None).items
    got = items.astype(object).where(items.notna(), None).iloc[0].tolist()
    assert tuple(got) == row


def test_repeats_are_counted_and_the_first_row_stays(tmp_path: Path) -> None:
    rows_ = [{"asin": K, "title": "first"}, {"asin": K, "title": "first"}, {"asin": K, "title": "other"}, {"asin": "Z"}]
    read = read_metadata(put(tmp_path, "m", rows(*rows_)), [K, "B2"], lambda _: None)
    assert read.items["title"].tolist() == ["first"]
    assert (read.facts["repeated"], read.facts["repeated_and_different"], read.facts["not_described"]) == (2, 1, 1)
    assert "1 of 2 items are described by the metadata, 1 with a title" in read.notes[0]
    assert "2 rows of the metadata repeat an item" in read.notes[1]


@pytest.mark.parametrize(
    "content",
    [
        f"movieId,title,genres\n{K},a,b\n1,only\n",
        f"{K}::a::b\n1::only\n".replace(K, "0205"),
        "item_id:token\ttitle:token\n0205\ta\n1\n",
    ],
)
def test_a_row_of_a_table_of_items_that_is_none_is_counted(content: str, tmp_path: Path) -> None:
    path = put(tmp_path, "m", content)
    bad = BadRows(limit=1, share=None)
    read_metadata(path, [K, "0205"], lambda _: None, bad)
    line = content.count("\n")
    assert (bad.n, bad.first[0].line) == (1, line)
    with pytest.raises(RecbenchError, match=f"Line {line} of"):
        read_metadata(path, [K, "0205"], lambda _: None, BadRows(limit=0))


def test_a_share_of_bad_lines_is_held_against_all_lines_of_the_metadata(tmp_path: Path) -> None:
    other = [{"asin": f"other{n}"} for n in range(97)]
    path = put(tmp_path, "m", rows({"asin": K, "title": "t"}, *other) + f'{{"asin": "{K}", x}}\n' * 2)
    read_metadata(path, [K], lambda _: None, BadRows(limit=1 << 62, share=0.02))
    with pytest.raises(RecbenchError, match=r"2 of 100 rows, and at most 1.9 %"):
        read_metadata(path, [K], lambda _: None, BadRows(limit=1 << 62, share=0.019))


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    read = read_metadata(put(tmp_path, "m", rows({"asin": K, "description": "word " * 9000})), [K], lambda _: None)
    assert len(read.items["text"][0]) == LONGEST_TEXT


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (rows({"asin": "other"}), "describes none of the items"),
        ('{"1": {"title": 1}', "is neither JSON"),
        ('{"1": [1, "x"]}', "cannot be read as attributes"),
        ('{"1": [1, 2', "cannot be read as attributes"),
        (rows({"asin": K})[:-3], "ends in the middle of a record"),
    ],
)
def test_metadata_that_is_none_is_refused(content: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(RecbenchError) as error:
        read_metadata(put(tmp_path, "m", content), [K], lambda _: None)
    assert words in error.value.what
    assert str(tmp_path / "m") in error.value.what


def test_real_gift_cards_are_all_described_and_canonical(shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "amazon2018" / "raw"
    card = prepare(
        Request(
            name="amazon2018/Gift_Cards",
            home=tmp_path,
            source=raw / "Gift_Cards_5.json.gz",
            metadata=raw / "meta_Gift_Cards.json.gz",
        )
    )
    assert [step.interactions for step in card.steps] == [2_972, 2_965, 2_941]
    assert (card.users, card.items, card.name) == (453, 147, "amazon2018-gift-cards")
    assert card.source["metadata_rows"]["described"] == card.source["metadata_rows"]["with_title"] == 147
    assert card.source["bad_rows"]["count"] == 0
    assert any(note.startswith("canonical counts") for note in card.notes)


@pytest.mark.parametrize(
    ("name", "file", "counts"),
    [
        ("ml-latest-small", "movielens/ml-latest-small-2018", (610, 3_650, 90_274)),
        ("lastfm", "lastfm/s3rec/LastFM.txt", (1_090, 3_646, 52_551)),
        ("amazon2023/all-beauty", "amazon2023/benchmark/5core/rating_only/All_Beauty.csv.gz", (253, 356, 2_535)),
        ("amazon2023/all-beauty", "amazon2023/benchmark/5core/last_out_w_his", (253, 356, 2_535)),
        ("musical-instruments", "amazon2014/raw/reviews_Musical_Instruments_5.json.gz", (1_429, 900, 10_261)),
        ("toys", "amazon2014/s3rec/Toys_and_Games.txt", (19_412, 11_924, 167_597)),
    ],
)
def test_real_files_are_canonical_under_their_names(
    name: str, file: str, counts: tuple[int, ...], shared_data: Path, tmp_path: Path
) -> None:
    card = prepare(Request(name=name, home=tmp_path, source=shared_data / file))
    assert (card.users, card.items, card.interactions) == counts
    assert any(note.startswith("canonical") for note in card.notes)
    assert card.source["bad_rows"]["count"] == 0
