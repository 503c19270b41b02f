"""A dataset by name brings what is known of its items; where that cannot be had, the events still come."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from recbench import columns
from recbench.cli.app import run
from recbench.data import catalog
from recbench.data.card import Card
from recbench.data.dataset import Dataset
from recbench.data.sources.amazon import described_beside
from tests.data.http_server import Server, file, status
from tests.data.sources.files import old, rows

DAY = 86_400
USERS = [f"A2IBPI20UZIR{n:02d}" for n in range(6)]
ITEMS = [f"B0000000{n:02d}" for n in range(6)]
REVIEWS = rows(
    *(old(user, ITEMS[(u + t) % 6], 1_393_545_600 + t * DAY) for u, user in enumerate(USERS) for t in range(5))
)
METADATA = "".join(f"{{'asin': '{item}', 'title': 'Thing {n}'}}\n" for n, item in enumerate(ITEMS))


def packed(text: str) -> bytes:
    return gzip.compress(text.encode(), mtime=0)


def known(home: Path, server: Server, *more: str) -> None:
    """A card like those of Amazon 2014; the server has the events."""
    events = server.on("/reviews_Toy_5.json.gz", file(packed(REVIEWS)))
    metadata = server.on("/meta_Toy.json.gz", file(packed(METADATA)))
    lines = ['format = "amazon2014-reviews"', f'urls = ["{events}"]', f'metadata_urls = ["{metadata}"]', *more]
    (home / "toy.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def prepare(home: Path, *options: str) -> int:
    return run(["prepare", "toy", "--datasets", str(home), *options])


def titles(home: Path) -> set[str]:
    return set(Dataset(home / "toy").items()[columns.TITLE].dropna())


def asked(server: Server) -> list[str]:
    return [path for path, _ in server.asked]


def test_items_have_titles_and_the_card_says_from_where(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    known(tmp_path, server)
    assert prepare(tmp_path) == 0
    assert "6 of 6 items are described by the metadata, 6 with a title" in capsys.readouterr().out
    assert titles(tmp_path) == {f"Thing {n}" for n in range(6)}
    told = Card.read(tmp_path / "toy").source["metadata"]
    assert told["sha256"] == hashlib.sha256(packed(METADATA)).hexdigest()
    assert told["urls"][0].endswith("/meta_Toy.json.gz")
    assert run(["verify", "toy", "--datasets", str(tmp_path)]) == 0
    assert "meta_Toy.json.gz" in capsys.readouterr().out
    assert prepare(tmp_path) == 0
    assert asked(server) == ["/reviews_Toy_5.json.gz", "/meta_Toy.json.gz"]  # both are at hand the second time


def test_metadata_that_cannot_be_had_costs_the_titles_and_nothing_else(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    known(tmp_path, server)
    server.on("/meta_Toy.json.gz", status(404))
    assert prepare(tmp_path) == 0
    told = capsys.readouterr()
    words = " ".join(told.err.split())
    assert "The item metadata of toy could not be downloaded. Items go without titles." in words
    assert "recbench prepare toy --metadata PATH" in words
    assert "404" in words
    assert titles(tmp_path) == set()
    assert any("their metadata could not be downloaded" in note for note in Card.read(tmp_path / "toy").notes)
    assert "metadata" not in Card.read(tmp_path / "toy").source
    without = Card.read(tmp_path / "toy").fingerprint
    server.on("/meta_Toy.json.gz", file(packed(METADATA)))
    assert prepare(tmp_path) == 0
    assert len(titles(tmp_path)) == 6
    assert Card.read(tmp_path / "toy").fingerprint == without  # texts do not make another exam


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (METADATA.replace("B0000", "C0000"), "describes none of the items"),
        ("{'asin': exit()}\n" * 60, "too many bad rows"),
    ],
)
def test_metadata_that_is_of_no_use_costs_the_titles_unless_somebody_named_it(
    content: str, words: str, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    known(tmp_path, server)
    server.on("/meta_Toy.json.gz", file(packed(content)))
    assert prepare(tmp_path) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert words in told
    assert "Items go without titles." in told
    assert any("their metadata cannot be used" in note for note in Card.read(tmp_path / "toy").notes)
    fetched = tmp_path / ".downloads" / "toy" / "meta_Toy.json.gz"
    assert prepare(tmp_path, "--metadata", str(fetched)) == 3
    assert words in " ".join(capsys.readouterr().err.split())


def test_metadata_can_be_left_out_or_named(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    known(tmp_path, server)
    assert prepare(tmp_path, "--no-metadata") == 0
    assert titles(tmp_path) == set()
    (tmp_path / "mine.json").write_text(METADATA.replace("Thing", "Mine"))
    assert prepare(tmp_path, "--metadata", str(tmp_path / "mine.json")) == 0
    assert titles(tmp_path) == {f"Mine {n}" for n in range(6)}
    assert asked(server) == ["/reviews_Toy_5.json.gz"]
    capsys.readouterr()
    assert prepare(tmp_path, "--no-metadata", "--metadata", str(tmp_path / "mine.json")) == 2
    assert "do not go together" in capsys.readouterr().err


def test_a_metadata_checksum_that_differs_is_told_by_an_unconfirmed_card_and_refused_by_others(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = f'metadata_sha256 = "{"0" * 64}"'
    known(tmp_path, server, wrong)
    assert prepare(tmp_path) == 0
    assert "published is 000000" in " ".join(capsys.readouterr().err.split())
    assert titles(tmp_path) == set()
    known(tmp_path, server, wrong, "sha256_confirmed = false")
    assert prepare(tmp_path) == 0
    assert "one unconfirmed source says 000000" in " ".join(capsys.readouterr().err.split())
    assert len(titles(tmp_path)) == 6


def test_a_local_source_asks_no_network_and_finds_the_file_beside_it(tmp_path: Path, server: Server) -> None:
    known(tmp_path, server)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "reviews_Toy_5.json").write_text(REVIEWS)
    assert prepare(tmp_path, "--source", str(tmp_path / "raw" / "reviews_Toy_5.json")) == 0
    assert titles(tmp_path) == set()
    (tmp_path / "raw" / "meta_Toy.json.gz").write_bytes(packed(METADATA))
    assert prepare(tmp_path, "--source", str(tmp_path / "raw" / "reviews_Toy_5.json")) == 0
    assert len(titles(tmp_path)) == 6
    assert set(Card.read(tmp_path / "toy").source["beside"]) == {"metadata"}
    assert asked(server) == []


@pytest.mark.parametrize(
    ("events", "metadata"),
    [
        ("reviews_Toy_Cars_5.json.gz", "meta_Toy_Cars.json.gz"),
        ("ratings_Toy_Cars.csv", "meta_Toy_Cars.json"),
        ("Toy_Cars_5.json.gz", "meta_Toy_Cars.json.gz"),
        ("Toy_Cars.csv.gz", "meta_Toy_Cars.jsonl.gz"),
        ("Toy_Cars.train.csv.gz", "meta_Toy_Cars.jsonl"),
        ("Toy_Cars.jsonl", "meta_Toy_Cars.jsonl"),
    ],
)
def test_the_file_beside_is_that_of_the_same_category(events: str, metadata: str, tmp_path: Path) -> None:
    for name in (events, metadata, "meta_Cars.json", "meta_Toy.json"):
        (tmp_path / name).touch()
    assert described_beside(tmp_path / events) == tmp_path / metadata
    assert described_beside(tmp_path / "meta_Cars.json") is None


def test_every_amazon_category_has_an_address_of_its_metadata(tmp_path: Path) -> None:
    cards = [card for card in catalog.cards(tmp_path) if card.format.startswith("amazon")]
    assert len(cards) == 24 + 29 + 34 + 34
    for card in cards:
        category = next(alias for alias in card.aliases if alias != alias.lower()).partition("/")[2]
        names = {url.rpartition("/")[2].partition(".")[0] for url in card.metadata_urls}
        assert names == {f"meta_{category}"}
        assert all(url.startswith("https://") for url in card.metadata_urls)
    assert catalog.require("beauty", tmp_path).metadata_bytes == 99_156_148


def test_the_file_beside_may_stand_there_packed_too(tmp_path: Path) -> None:
    for name in ("meta_Toy.json", "meta_Toy.json.gz"):
        (tmp_path / name).touch()
    assert described_beside(tmp_path / "reviews_Toy_5.json.gz") == tmp_path / "meta_Toy.json"
    (tmp_path / "meta_Toy.jsonl.gz").touch()  # that of another edition
    assert described_beside(tmp_path / "reviews_Toy_5.json.gz") is None
