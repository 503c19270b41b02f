"""Rows that hold no event: counted, shown with file and line, refused above a limit, never dropped in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recbench.data.card import Card
from recbench.data.prepare import Request, prepare
from recbench.data.sources.bad import BadRows, parse_limit
from recbench.errors import Exit, RecbenchError
from tests.data.sources.files import REVIEWS_2014, J, S, U, old, put, read, refused, rows, triples, yelp, zipped

FUTURE = 4_102_444_800  # 2100-01-01
GOOD = rows(*(old(f"A{n % 5}", f"B{n % 7}", S + n) for n in range(2000)))


def some(n: int = 20, share: float | None = None) -> BadRows:
    return BadRows(limit=n, share=share)


@pytest.mark.parametrize(
    ("line", "what", "why"),
    [
        ("nonsense", "is neither JSON nor Python-dict text: nonsense", "invalid character (byte"),
        ("[1, 2]", "is neither JSON nor Python-dict text: [1, 2]", "holds a list, not one record"),
        ("{'reviewerID': exit()}", "is neither JSON nor Python-dict text", "object keys must be strings"),
        ('{"asin": "B"}', "has no reviewerID", "the record has: asin"),
        (json.dumps(old("", "B", 1)), "has no user", "named by text"),
        (json.dumps(old("A", None, 1)), "has no asin", "Every event needs its item"),  # type: ignore[arg-type]
        (json.dumps(old("A", "B", True)), "has no unixReviewTime", "Every event needs its timestamp"),
        (json.dumps(old("A", "B", "soon")), "holds 'soon' as its time", "seconds or milliseconds since 1970"),
        (json.dumps(old("A", "B", -5)), "has the time -5, before 1970", "no time of an event"),
        (json.dumps(old("A", "B", FUTURE)), f"has the time {FUTURE}, in the future", "no time of an event"),
        (json.dumps(old("A", "B", 1, "great")), "holds 'great' as its rating", "A rating is a number"),
        (json.dumps(old("   ", "B", 1)), "has no user", "named by text"),
        (json.dumps(old("A" * 2000, "B", 1)), "has an endless user", "named by text"),
        (json.dumps(old("A", "B\nC", 1)), "has a many-line item", "text without line breaks"),
        ('{"reviewerID": "A\\ud800", "asin": "B", "overall": 1, "unixReviewTime": 1}', "Line 2", ""),
    ],
)
def test_a_bad_review_is_named_by_its_line_and_left_out_when_that_is_allowed(
    line: str, what: str, why: str, tmp_path: Path
) -> None:
    first, _, rest = REVIEWS_2014.partition("\n")
    path = put(tmp_path, "r.json", f"{first}\n{line}\n{rest}")
    error = refused(path, "amazon2014-reviews", some(0))
    assert error.what.startswith(f"Line 2 of {path} ")
    assert what in error.what
    assert why in error.why
    assert "--max-bad-rows 1" in error.fix
    bad = some(1)
    events = read(path, "amazon2014-reviews", bad)
    assert triples(events) == triples(read(put(tmp_path, "g.json", REVIEWS_2014)))
    assert bad.facts()["count"] == 1
    assert bad.first[0].line == 2
    assert "1 bad row was left out" in events.notes[-1]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("u,i", "has 2 columns in place of 4: u,i"),
        ("u,i,1,2,3", "has 5 columns in place of 4"),
        (",i,1,2", "has no user"),
        ("u,,1,2", "has no item"),
        ("u,i,x,2", "holds 'x' as its rating"),
        ("u,i,inf,2", "has an endless rating"),
        ("u,i,1,", "has no time"),
        ("u,i,1,later", "holds 'later' as its time"),
        ("u,i,1,nan", "holds 'nan' as its time"),
        ("u,i,1,-1", "has the time -1, before 1970"),
        (f"u,i,1,{FUTURE}", "in the future"),
        ("\udcff,i,1,2", "has an unreadable user"),
        ("\udcff,i", "has 2 columns in place of 4"),
    ],
)
def test_a_bad_row_of_a_table_is_named_by_its_line(line: str, what: str, tmp_path: Path) -> None:
    text = f"user,item,rating,timestamp\na,b,1,5\n\n{line}\nc,d,,7\n"
    path = put(tmp_path, "t.csv", text.encode(errors="surrogateescape"))
    error = refused(path, None, some(0))
    assert error.what.startswith(f"Line 4 of {path} ")
    assert what in error.what
    bad = some(1)
    events = read(path, None, bad)
    assert triples(events) == [("a", "b", 5), ("c", "d", 7)]
    assert events.user.tolist() == [0, 1]
    assert bad.first[0].line == 4


def test_bad_rows_of_sequences_are_named_by_their_line(tmp_path: Path) -> None:
    path = put(tmp_path, "s.txt", "1 1 2\n7\n2 3 4\n")
    assert "Line 2 of" in refused(path, "sequences", some(0)).what
    assert len(read(path, "sequences", some(1))) == 4


def test_the_line_is_the_files_line_far_into_it(tmp_path: Path) -> None:
    lines = GOOD.splitlines()
    lines[1500] = "{}"
    bad = some(1)
    read(put(tmp_path, "r", "\n".join(lines)), None, bad)
    assert bad.first[0].line == 1501
    table = ["user,item,timestamp", *(f"u{n},i,{n}" for n in range(5000))]
    table[2000], table[4000] = "u", "u,i,-3"
    bad = some(2)
    read(put(tmp_path, "t.csv", "\n".join(table)), None, bad)
    assert [row.line for row in bad.first] == [2001, 4001]


def test_nothing_is_left_out_of_a_small_file_unless_that_is_said(tmp_path: Path) -> None:
    path = put(tmp_path, "r", REVIEWS_2014 + "{}\n")
    assert "Line 4 of" in refused(path).what
    assert len(read(path, None, parse_limit("1"))) == 3
    assert len(read(path, None, parse_limit("25%"))) == 3
    assert "Line 4" in refused(path, None, parse_limit("24%")).what
    path = put(tmp_path, "r", REVIEWS_2014 + "{}\n{}\n")
    assert "2 of 5 rows, and at most 0.5 % may be left out" in refused(path, None, parse_limit("0.5%")).what


def test_a_large_file_may_have_ten_bad_rows_and_no_more(tmp_path: Path) -> None:
    ten = put(tmp_path, "ten", GOOD + "{}\n" * 10)
    card = prepare(Request(name="x", home=tmp_path, source=ten, core=0))
    assert card.steps[0].interactions == 2000
    assert card.source["bad_rows"]["count"] == 10
    assert card.source["bad_rows"]["first"][0] == {"file": str(ten), "line": 2001, "what": "has no reviewerID"}
    assert any("10 bad rows were left out: ten line 2,001 has no reviewerID; ten line" in note for note in card.notes)
    assert str(tmp_path) not in (tmp_path / "x" / "README.md").read_text()
    assert Card.read(tmp_path / "x").source["bad_rows"]["count"] == 10
    error = refused(put(tmp_path, "eleven", GOOD + "{}\n" * 11))
    assert "too many bad rows: more than 10 may be left out" in error.what
    assert "Line 2,001 has no reviewerID; line 2,002 has no reviewerID" in error.why
    assert "and 8 more" in error.why
    assert "--max-bad-rows N or N%" in error.fix


def test_too_many_rows_with_other_columns_are_refused_like_any_other(tmp_path: Path) -> None:
    text = "user,item\n" + "u,i\n" * 2000 + "u\n" * 50
    error = refused(put(tmp_path, "t.csv", text))
    assert "more than 10 may be left out" in error.what
    assert "line 2,003 has 1 column in place of 2" in error.why


def test_a_cut_last_record_is_damage_and_no_number_excuses_it(tmp_path: Path) -> None:
    error = refused(put(tmp_path, "r", GOOD[:-30]), None, some(1000))
    assert "ends in the middle of a record" in error.what
    assert "The last good line is 1,999" in error.why


def test_bad_metadata_is_counted_too(tmp_path: Path) -> None:
    path = put(tmp_path, "r", REVIEWS_2014 + rows(old(U, J, S + 9)))
    meta = put(tmp_path, "m", rows({"asin": J, "title": "x"}) + '{"asin": "' + J + '", title}\n')
    with pytest.raises(RecbenchError, match=r"Line 2 of .*m is neither JSON"):
        prepare(Request(name="x", home=tmp_path / "h", source=path, metadata=meta, core=0, max_bad_rows="0"))
    card = prepare(Request(name="x", home=tmp_path / "h", source=path, metadata=meta, core=0, max_bad_rows="1"))
    assert card.source["metadata_rows"]["bad_rows"]["count"] == 1
    assert any("1 of 2 items are described by the metadata, 1 with a title" in note for note in card.notes)


def test_a_bad_date_leaves_the_other_dates_alone(tmp_path: Path) -> None:
    path = put(
        tmp_path, "y", rows(yelp("u", "a", "2018-01-01"), yelp("u", "b", "0000-00-00"), yelp("u", "c", "2019-01-01"))
    )
    assert "holds '0000-00-00' as its time" in refused(path).what
    assert [item for _, item, _ in triples(read(path, None, some(1)))] == ["a", "c"]


def test_rows_in_an_archive_are_named_with_it(tmp_path: Path) -> None:
    path = zipped(tmp_path, "x.zip", **{"a.json": REVIEWS_2014 + "{}\n"})
    assert f"Line 4 of {path}:a.json has no reviewerID" in refused(path).what


@pytest.mark.parametrize("text", ["", "-1", "x", "101%", "1.5", "1e3", "%"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RecbenchError, match="cannot be read") as error:
        parse_limit(text)
    assert error.value.code == Exit.USAGE
    assert "--max-bad-rows 0.5%" in error.value.fix


def test_the_user_is_no_longer_known_when_all_his_rows_are_bad(tmp_path: Path) -> None:
    events = read(put(tmp_path, "t.csv", f"user,item,timestamp\ngone,x,{FUTURE}\na,b,5\na,c,6\n"), None, some(1))
    assert (events.user_ids, events.item_ids) == (["a"], ["b", "c"])
    assert events.user.tolist() == [0, 0]
    assert U not in events.user_ids


def test_a_file_that_is_not_utf8_is_answered_with_its_conversion(tmp_path: Path) -> None:
    path = tmp_path / "latin 1.csv"
    path.write_bytes(b"user,item\n" + b"".join(f"Ren\u00e9{n},{n}\n".encode("latin-1") for n in range(30)))
    error = refused(path, "table")
    assert "UTF-8" in error.why
    assert f"iconv -f LATIN1 -t UTF-8 '{path}'" in error.fix
    assert "--max-bad-rows" not in error.fix


def test_where_no_first_row_is_good_none_is_advised_to_be_left_out(tmp_path: Path) -> None:
    path = put(tmp_path, "r.csv", "user,item\n" + ",1\n" * 30)
    assert "none of its first rows is good" in refused(path, "table").fix
    path = put(tmp_path, "s.csv", "user,item\na,1\n" + ",1\n" * 30)
    assert "--max-bad-rows" in refused(path, "table").fix


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    error = refused(put(tmp_path, "r.csv", "user,item,item,x,x\na,b,c,d,e\n"), "table")
    assert "2 columns named 'item'" in error.what
    assert triples(read(put(tmp_path, "s.csv", "user,item,x,x\na,b,c,d\n"), "table"))


def table_of(n: int, *, text: str = "fine", **lines: str) -> str:
    """``n`` rows behind a header; line k is what ``linek`` says instead, counted as a file's lines are."""
    held = ["user,item,timestamp,text", *(f"u{k % 9},i{k},{S + k},{text}" for k in range(n))]
    for name, line in lines.items():
        held[int(name.removeprefix("line")) - 1] = line
    return "\n".join([*held, ""])


def test_a_last_row_of_a_table_that_is_cut_is_damage_too(tmp_path: Path) -> None:
    error = refused(put(tmp_path, "t.csv", table_of(2000)[:-20]), None, some(1000))
    assert "Line 2,001 of" in error.what
    assert "ends in the middle of a record: u1" in error.what
    assert "The last good line is 2,000" in error.why
    assert len(read(put(tmp_path, "s.csv", table_of(2000).rstrip()))) == 2000  # its line break alone may be missing
    assert len(read(put(tmp_path, "r.csv", table_of(2000) + "u1\n"), None, some(1))) == 2000  # a bad row, not a cut


@pytest.mark.parametrize("n", [30, 200_000])
@pytest.mark.parametrize(
    "line", ['u0,"i1,5,fine', '"u0,i1,5,fine', 'u0,i1,5,"fine', 'u0,i1,"5,fine'], ids=["item", "user", "text", "time"]
)
def test_a_quote_that_is_never_closed_takes_no_event_with_it(line: str, n: int, tmp_path: Path) -> None:
    for at in (9, n - 9):
        error = refused(put(tmp_path, "t.csv", table_of(n, **{f"line{at}": line})), None, some(1 << 40))
        assert f"A quote that opens on line {at:,} of" in error.what
        assert f"sed -n {at}p" in error.fix


def test_a_quote_that_is_closed_lines_later_makes_no_id(tmp_path: Path) -> None:
    text = table_of(2000, line9='u0,"i1,5,fine', line19='u0,"i2,6,fine')
    assert "A quote that opens on line 9 of" in refused(put(tmp_path, "t.csv", text), None, some(1000)).what


def test_a_bad_row_over_several_lines_counts_as_all_of_them(tmp_path: Path) -> None:
    text = table_of(2000, line9='u0,"i1,5,fine', line19='u0",i2')
    bad = some(11)
    assert len(read(put(tmp_path, "t.csv", text), None, bad)) == 2000 - 11
    assert (bad.facts()["count"], bad.first[0].line) == (11, 9)
    assert "has 3 columns in place of 4, over 11 lines" in bad.notes()[0]
    assert "more" not in bad.notes()[0]
    assert "more than 10 may be left out" in refused(put(tmp_path, "t.csv", text), None, some(10)).what


@pytest.mark.parametrize("n", [300, 300_000])
def test_line_breaks_inside_quotes_are_text(n: int, tmp_path: Path) -> None:
    events = read(put(tmp_path, "t.csv", table_of(n, text='"so,\n""good""\n"')))
    assert (len(events), len(events.item_ids)) == (n, n)
    assert events.notes == (f"{2 * n:,} line breaks in the source stand inside cells in quotes.",)
