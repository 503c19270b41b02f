from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recbench.data import catalog
from recbench.data.catalog import Counts, DatasetCard
from recbench.errors import Exit, RecbenchError
from recbench.registry import SOURCES


def write(home: Path, name: str, text: str) -> Path:
    path = home / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(home: Path, name: str) -> RecbenchError:
    with pytest.raises(RecbenchError) as caught:
        catalog.find(name, home)
    assert caught.value.code == Exit.DATA
    assert str(home / f"{name}.toml") in caught.value.what
    return caught.value


def found(home: Path, name: str) -> DatasetCard:
    card = catalog.find(name, home)
    assert card is not None
    return card


def test_every_amazon_2014_category_and_synthetic_are_known(tmp_path: Path) -> None:
    names = catalog.names(tmp_path)
    assert len([name for name in names if not name.startswith(("amazon2", "ml-"))]) == 24 + 5
    assert names[:3] == ["beauty", "sports", "toys"]
    assert names[-3:] == ["synthetic", "yelp", "yelp-all"]


def test_beauty_is_the_published_file(tmp_path: Path) -> None:
    card = found(tmp_path, "beauty")
    assert card.format == "amazon2014-reviews"
    assert card.family == "amazon"
    assert card.core == 5
    assert card.counts == Counts(users=22_363, items=12_101, interactions=198_502)
    assert card.urls[0] == ("https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/reviews_Beauty_5.json.gz")
    assert card.bytes == 44_819_276
    assert card.sha256 is not None
    assert not card.sha256_confirmed
    assert card.sequence_sha256 == "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8"


@pytest.mark.parametrize("alias", ["amazon2014/video-games", "amazon2014/Video_Games"])
def test_an_alias_finds_the_card_by_the_name_of_its_folder(tmp_path: Path, alias: str) -> None:
    assert found(tmp_path, alias).name == "video-games"


def test_no_two_shipped_cards_share_a_name_or_alias(tmp_path: Path) -> None:
    names = [name for card in catalog.cards(tmp_path) for name in {card.name, *card.aliases}]
    assert len(names) == len(set(names))


def test_shipped_cards_obey_the_rules_for_a_users_card(tmp_path: Path) -> None:
    for card in catalog.cards(tmp_path):
        assert catalog.PLAIN.fullmatch(card.name)
        assert card.title
        assert card.licence
        assert card.how_to_get
        assert "{" not in repr(card).replace("{'", "")
        assert catalog._complaint("format", card.format) is None
        assert catalog._complaint("urls", list(card.urls)) is None
        for digest in (card.sha256, card.sequence_sha256):
            assert digest is None or catalog._complaint("sha256", digest) is None
        assert card.counts is None or min(card.counts.users, card.counts.items, card.counts.interactions) > 0


def test_an_unknown_name_has_no_card(tmp_path: Path) -> None:
    assert catalog.find("nothing", tmp_path) is None
    assert catalog.find("nothing", tmp_path / "no such home") is None


def test_a_required_name_that_is_unknown_offers_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecbenchError, match=r"Unknown dataset 'beuty'\.") as caught:
        catalog.require("beuty", tmp_path)
    assert "Did you mean beauty?" in caught.value.fix
    assert "--source PATH" in caught.value.fix
    assert catalog.require("beauty", tmp_path).name == "beauty"


@pytest.mark.parametrize("name", ["../secret", "a/b", "", ".hidden", "a b"])
def test_a_name_that_is_no_plain_word_is_never_a_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "home" / "a").mkdir(parents=True)
    for place in ("secret.toml", "home/a/b.toml", "home/.toml", "home/.hidden.toml", "home/a b.toml"):
        (tmp_path / place).write_text('format = "table"\n')
    assert catalog.find(name, tmp_path / "home") is None
    assert catalog.names(tmp_path / "home") == catalog.names(tmp_path / "none")


def test_a_card_of_ones_own_needs_only_a_format(tmp_path: Path) -> None:
    write(tmp_path, "shop", 'format = "table"\n')
    assert catalog.find("shop", tmp_path) == DatasetCard(name="shop", format="table")
    assert catalog.names(tmp_path)[-1] == "shop"
    assert catalog.cards(tmp_path)[-1].name == "shop"


def test_a_card_of_ones_own_may_say_everything(tmp_path: Path) -> None:
    write(
        tmp_path,
        "shop",
        f"""
        name = "shop"
        title = "Our shop"
        format = "table"
        family = "generic"
        urls = ["https://example.org/a/shop.csv.gz?v=1", "http://mirror.example.org/shop.csv.gz"]
        sha256 = "{"0" * 64}"
        bytes = 10
        sha256_confirmed = false
        core = 5
        counts = {{ users = 1, items = 2, interactions = 3 }}
        licence = "ours {{name}}"
        """,
    )
    card = found(tmp_path, "shop")
    assert card.urls == ("https://example.org/a/shop.csv.gz?v=1", "http://mirror.example.org/shop.csv.gz")
    assert card.counts == Counts(users=1, items=2, interactions=3)
    assert card.licence == "ours {name}"


def test_an_unknown_key_is_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "shop", 'format = "table"\nlicense = "MIT"\n')
    error = refused(tmp_path, "shop")
    assert "unknown key 'license'" in error.what
    assert "licence" in error.why
    assert error.fix == "Did you mean licence?"


def test_a_card_without_a_format_is_told_the_formats(tmp_path: Path) -> None:
    write(tmp_path, "shop", 'title = "Our shop"\n')
    error = refused(tmp_path, "shop")
    assert "names no format" in error.what
    assert ", ".join(SOURCES.entries()) in error.why


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('format = "tabel"', "Did you mean table?"),
        ("format = 3", "The formats are"),
        ("title = 3", "must be text"),
        ('urls = "https://example.org/a.csv"', "list of texts"),
        ("urls = [1]", "list of texts"),
        ('urls = ["file:///etc/passwd"]', "--source PATH"),
        ('urls = ["ftp://example.org/a.csv"]', "not the http(s) address"),
        ('urls = ["https://example.org/"]', "not the http(s) address"),
        ('urls = ["https://example.org/a/%2e%2e"]', "not the http(s) address"),
        ('urls = ["https:///a.csv"]', "not the http(s) address"),
        ('sha256 = "ABC"', "64 characters"),
        ("bytes = 0", "whole number above 0"),
        ("core = true", "whole number, 0 for no k-core"),
        ("core = 5.0", "whole number, 0 for no k-core"),
        ("core = -1", "whole number, 0 for no k-core"),
        ('sha256_confirmed = "no"', "true or false"),
        ("counts = { users = 1, items = 2 }", "users, items, interactions"),
        ("counts = { users = 1, items = 2, interactions = -3 }", "interactions: It must be a whole number"),
        ("counts = 3", "users, items, interactions"),
    ],
)
def test_a_bad_value_is_refused_with_what_would_be_right(tmp_path: Path, line: str, reason: str) -> None:
    write(tmp_path, "shop", line + ("" if line.startswith("format") else '\nformat = "table"'))
    error = refused(tmp_path, "shop")
    assert reason in error.why
    assert line.partition(" = ")[0] in error.what


def test_a_card_that_is_no_toml_is_refused_with_the_line(tmp_path: Path) -> None:
    write(tmp_path, "shop", "format = table\n")
    assert "line 1" in refused(tmp_path, "shop").why


def test_a_card_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_bytes(b"\xff\xfe\x00")
    assert "not readable TOML" in refused(tmp_path, "shop").what


def test_a_name_inside_must_be_the_name_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, "shop", 'name = "shop2"\nformat = "table"\n')
    assert "'shop2'" in refused(tmp_path, "shop").what


def test_a_card_of_ones_own_never_replaces_a_shipped_one(tmp_path: Path) -> None:
    path = write(tmp_path, "beauty", 'format = "table"\n')
    error = refused(tmp_path, "beauty")
    assert "comes with recbench" in error.what
    assert f"my-{path.name}" in error.fix
    assert catalog.names(tmp_path).count("beauty") == 1


def test_one_broken_card_does_not_hide_the_others(tmp_path: Path) -> None:
    write(tmp_path, "broken", "?")
    assert found(tmp_path, "beauty").name == "beauty"
    assert "broken" in catalog.names(tmp_path)


def test_the_catalogue_is_light() -> None:
    code = "import sys, recbench.data.catalog; print(*sorted({'torch', 'pandas', 'typer', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("family", "n", "one"),
    [
        ("amazon2014/", 24, "Video_Games"),
        ("amazon2018/", 29, "Gift_Cards"),
        ("amazon2023/", 34, "All_Beauty"),
        ("amazon2023-0core/", 34, "Books"),
    ],
)
def test_every_category_of_every_release_is_found_under_its_names(
    tmp_path: Path, family: str, n: int, one: str
) -> None:
    known = [card for card in catalog.cards(tmp_path) if any(alias.startswith(family) for alias in card.aliases)]
    assert len(known) == n
    spelt = found(tmp_path, family + one)
    assert spelt == found(tmp_path, family + one.lower().replace("_", "-"))
    assert one in spelt.urls[0]
    assert all(card.urls[0].startswith("https://") for card in known)


def test_checksums_are_those_that_are_published_and_nothing_else(tmp_path: Path) -> None:
    said = {name: catalog.check_of(found(tmp_path, name)) for name in ("ml-1m", "beauty", "toys", "amazon2018/books")}
    assert said == {
        "ml-1m": "md5",
        "beauty": "unconfirmed",
        "toys": "none published",
        "amazon2018/books": "none published",
    }
    assert found(tmp_path, "amazon2023/video-games").sha256 is not None
    assert found(tmp_path, "amazon2023-0core/books").md5 == "9d5d693dae385efa9053961675e1f14a"


def test_yelp_has_no_address_but_a_way_to_get_it_and_the_published_slice(tmp_path: Path) -> None:
    from recbench.data.download import fetch

    card = found(tmp_path, "yelp")
    assert (card.since, card.until, card.duplicates) == ("2019-01-01 00:00:00", "2019-12-31 00:00:00", "keep")
    with pytest.raises(RecbenchError, match="yelp cannot be downloaded") as caught:
        fetch(card, tmp_path)
    assert "https://www.yelp.com/dataset" in caught.value.why
    assert caught.value.fix == "recbench prepare yelp --source PATH"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('md5 = "abc"', "32 characters"),
        ('duplicates = "drop"', "keep, first, last"),
        ('since = "yesterday"', "a date in quotes"),
        ("until = 2019", "a date in quotes"),
        ("until = 2019-12-31", "a date in quotes"),
        ("terms = 3", "must be text"),
    ],
)
def test_a_bad_value_of_the_newer_keys_is_refused_too(tmp_path: Path, line: str, reason: str) -> None:
    write(tmp_path, "shop", f'{line}\nformat = "table"')
    assert reason in refused(tmp_path, "shop").why


def test_a_card_of_ones_own_may_want_no_core(tmp_path: Path) -> None:
    write(tmp_path, "shop", 'format = "table"\ncore = 0\n')
    assert found(tmp_path, "shop").core == 0


def test_a_card_of_ones_own_sets_window_and_duplicates_of_its_preparation(tmp_path: Path) -> None:
    from recbench.data.prepare import Request, prepare

    write(tmp_path, "shop", 'format = "table"\ncore = 1\nduplicates = "last"\nsince = "2014-05-13"\n')
    text = "user,item,timestamp\n" + "".join(
        f"u,{item},2014-05-1{day}\n" for item, day in zip("abcab", "23456", strict=True)
    )
    (tmp_path / "log.csv").write_text(text)
    card = prepare(Request(name="shop", home=tmp_path, source=tmp_path / "log.csv"))
    assert [(step.step, step.interactions) for step in card.steps] == [
        ("read", 5),
        ("since 2014-05-13", 4),
        ("last of each user and item", 3),
    ]
