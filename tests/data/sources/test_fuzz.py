"""Readers under fire: whatever the bytes, they give events or an error that a user can act on, never a traceback."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pyarrow as pa
import pytest

from recbench.data.detect import open_source
from recbench.data.sources.bad import BadRows
from recbench.data.sources.building import Lines
from recbench.data.sources.json_events import JsonEvents
from recbench.data.sources.metadata import read_metadata
from recbench.data.sources.reading import Text
from recbench.errors import RecbenchError
from recbench.registry import SOURCES
from tests.data.sources.files import (
    BUSINESSES,
    INTER,
    MOVIES_DAT,
    RATINGS_DAT,
    REVIEWS_2014,
    REVIEWS_2018,
    REVIEWS_2023,
    SPLIT_INTER,
    STEAM,
    U_DATA,
    YELP,
    tarred,
    triples,
)

zstandard = pytest.importorskip("zstandard")
LOGS = {
    "amazon2014-reviews": REVIEWS_2014,
    "amazon2018-reviews": REVIEWS_2018,
    "amazon2023-reviews": REVIEWS_2023,
    "amazon2014-ratings": "A2IBPI20UZIR0U,0205616461,5.0,1393545600\nA14VAT5EAX3D9S,0205616461,4.0,1393545600\n",
    "amazon2018-ratings": "0205616461,A2IBPI20UZIR0U,5.0,1393545600\n0205616461,A14VAT5EAX3D9S,4.0,1393545600\n",
    "amazon2023-ratings": "user_id,parent_asin,rating,timestamp\nAFSKPY37N3C4,B07J3GH1W1,5.0,1547589356557\n",
    "amazon2023-split": "user_id,parent_asin,rating,timestamp,history\nAFSKPY37N3C4,B07J3GH1W1,5.0,1547589356557,\n",
    "yelp": YELP,
    "movielens": RATINGS_DAT,
    "steam": STEAM,
    "recbole": INTER,
    "sequences": "1 1 2 3\n2 4 5\n",
    "letter": '{"0": [0, 781, 1083], "1": [332, 5]}',
    "table": 'user,item,timestamp\n"u, 1",i,5\nv,j,1.4e9\nw,k,2014-05-13\n',
}
MORE = {
    "movielens-100k": U_DATA,
    "recbole-split": SPLIT_INTER,
    "pretty": "[\n" + REVIEWS_2014.replace("\n", ",\n") + "]",
}
DESCRIPTIONS = [
    BUSINESSES,
    MOVIES_DAT,
    'movieId,title,genres\n11,"American President, The (1995)",Comedy|Drama\n',
    "242|Kolya (1996)|24-Jan-1997||http://x|" + "|".join("0" * 19) + "\n",
    "item_id:token\ttitle:token_seq\nb1\tx y\n",
    '{"1": [1, 2], "b1": [3]}',
    "{'asin': 'b1', 'title': 'Memory of Trees', 'price': 9.49, 'categories': [['CDs', 'New Age']]}\n",
]
NASTY = (b"\0", b"\xff", b'"', b"'", b"\n", b"\r", b",", b"{", b"[", b"]", b"}", b"\\", b"\t", b"::", b"\xed\xa0\x80",
         b"9" * 400, b"-1", b"nan", b"1e999", b"\xef\xbb\xbf", b"\x1f\x8b", b"PK\x03\x04", b"null", b" ")  # fmt: skip
ROUNDS = 40


def mutated(data: bytes, drawn: random.Random) -> bytes:
    """A few cuts, copies, flips and insertions."""
    out = bytearray(data)
    for _ in range(drawn.randint(1, 4)):
        place = drawn.randrange(len(out) + 1)
        kind = drawn.randrange(5)
        if kind == 0:
            out[place:place] = drawn.choice(NASTY)
        elif kind == 1 and place < len(out):
            out[place] = drawn.randrange(256)
        elif kind == 2:
            del out[place : place + drawn.randint(1, 30)]
        elif kind == 3:
            out[place:place] = out[place // 2 : place]
        else:
            del out[place:]
    return bytes(out)


def told(error: RecbenchError) -> None:
    assert error.what
    assert error.why
    assert error.fix


def survives(path: Path, name: str | None) -> None:
    """Read it; only an error for users may come."""
    for bad in (BadRows(limit=0), BadRows(limit=1000, share=None)):
        try:
            _, source = open_source(path, name, {}, bad)
            events = source.read(lambda _: None)
        except RecbenchError as error:
            told(error)
            continue
        assert len(events.user) == len(events.item)
        assert len(set(events.user.tolist())) == len(events.user_ids)
        assert len(set(events.item.tolist())) == len(events.item_ids)
        assert all(raw and raw.encode() for raw in [*events.user_ids, *events.item_ids])


def test_every_format_is_under_fire() -> None:
    assert set(LOGS) == set(SOURCES.entries()) - {"synthetic"}


@pytest.mark.parametrize("name", [*LOGS, *MORE])
def test_no_bytes_give_a_traceback(name: str, tmp_path: Path) -> None:
    drawn = random.Random(name)
    path = tmp_path / "X.train.csv"
    for part in ("valid", "test"):
        (tmp_path / f"X.{part}.csv").write_text(LOGS["amazon2023-split"])
    for number in range(ROUNDS):
        path.write_bytes(mutated((LOGS | MORE)[name].encode(), drawn) or b" ")
        survives(path, name if number % 2 and name in LOGS else None)


@pytest.mark.parametrize("name", ["amazon2014-reviews", "amazon2018-reviews", "amazon2023-reviews", "yelp", "steam"])
def test_lines_read_at_once_give_what_each_gives_by_itself(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = random.Random(name)
    path = tmp_path / "x.json"
    n_good = 0
    for _ in range(10 * ROUNDS):
        lines = LOGS[name].encode().splitlines()
        place = drawn.randrange(len(lines))
        lines[place] = mutated(lines[place], drawn).replace(b"1e999", b"")  # harmless in a field that is not read
        path.write_bytes(b"\n".join(lines))
        at_once = outcome(path, name)
        with monkeypatch.context() as patched:
            patched.setattr(JsonEvents, "_columns", one_by_one)
            assert outcome(path, name) == at_once
        n_good += isinstance(at_once, tuple) and not at_once[1]
    assert n_good >= 10


def one_by_one(source: JsonEvents, number: int, text: Text, last: bool) -> tuple[dict[str, pa.Array], Lines, int]:
    return source._slowly(number, text.lines.split(b"\n"), last)


def outcome(path: Path, name: str) -> object:
    """Events and bad rows, or what is said against the file."""
    bad = BadRows(limit=1000, share=None)
    try:
        events = open_source(path, name, {}, bad)[1].read(lambda _: None)
    except RecbenchError as error:
        return error.what
    return triples(events), bad.first, events.notes, None if events.rating is None else events.rating.tolist()


@pytest.mark.parametrize("kind", ["gz", "zst", "zip", "tar", "tar.gz"])
def test_no_packed_bytes_give_a_traceback(kind: str, tmp_path: Path) -> None:
    from tests.data.sources.test_archives import packed

    data = packed(kind, REVIEWS_2014)
    drawn = random.Random(kind)
    path = tmp_path / "x"
    for _ in range(ROUNDS):
        path.write_bytes(mutated(data, drawn) or b" ")
        survives(path, None)


@pytest.mark.parametrize("place", range(len(DESCRIPTIONS)))
def test_no_metadata_gives_a_traceback(place: int, tmp_path: Path) -> None:
    drawn = random.Random(place)
    path = tmp_path / "meta"
    for _ in range(ROUNDS):
        path.write_bytes(mutated(DESCRIPTIONS[place].encode(), drawn) or b" ")
        try:
            read_metadata(path, ["b1", "1", "11", "242", "1193"], lambda _: None)
        except RecbenchError as error:
            told(error)


def test_a_zip_of_a_tar_under_fire(tmp_path: Path) -> None:
    drawn = random.Random(7)
    data = gzip.compress(tarred({"a/review.json": YELP, "a/business.json": BUSINESSES}))
    for _ in range(ROUNDS):
        (tmp_path / "x.tgz").write_bytes(mutated(data, drawn) or b" ")
        survives(tmp_path / "x.tgz", None)
