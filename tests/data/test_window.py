"""Filters by time: both ends included, a bare date is a whole day, and what cannot be a date is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbench.data.filtering import Filters, moment
from recbench.data.prepare import Request, prepare
from recbench.errors import Exit, RecbenchError


def test_a_bare_date_begins_and_ends_with_its_day() -> None:
    day = 1_577_750_400_000  # 2019-12-31 00:00 UTC in ms
    assert moment("since", "2019-12-31") == moment("until", "2019-12-31 00:00:00") == day
    assert moment("until", "2019-12-31") == day + 86_400_000 - 1
    assert moment("since", "2019-12-31T01:00:00+01:00") == day


@pytest.mark.parametrize(
    ("window", "words"),
    [
        ({"since": "soon"}, "--since 'soon' is no date"),
        ({"until": "2019-13-01"}, "--until '2019-13-01' is no date"),
        ({"since": "2020-01-01", "until": "2019-01-01"}, "is later than --until 2019-01-01"),
    ],
)
def test_a_window_that_is_none_is_refused(window: dict[str, str], words: str) -> None:
    with pytest.raises(RecbenchError) as error:
        Filters(**window)  # type: ignore[arg-type]
    assert words in error.value.what
    assert error.value.code == Exit.USAGE


def test_a_window_over_a_source_without_times_is_refused(tmp_path: Path) -> None:
    home = tmp_path
    (home / "s.txt").write_text("1 1 2 3\n")
    with pytest.raises(RecbenchError, match="--since and --until cannot be applied") as error:
        prepare(Request(name="x", home=home, source=home / "s.txt", core=0, since="2019-01-01"))
    assert "no times" in error.value.why


def test_an_empty_window_names_its_filter(tmp_path: Path) -> None:
    home = tmp_path
    (home / "t.csv").write_text("user,item,timestamp\nu,i,2014-01-01\n")
    with pytest.raises(RecbenchError, match="Nothing is left after the filter 'since 2019-01-01'") as error:
        prepare(Request(name="x", home=home, source=home / "t.csv", core=0, since="2019-01-01"))
    assert "an earlier --since" in error.value.fix


def test_the_catalogues_window_is_not_asked_of_lists_without_times(tmp_path: Path) -> None:
    (tmp_path / "Yelp.txt").write_text("1 1 2 3\n2 2 3 1\n")
    card = prepare(Request(name="yelp", home=tmp_path, source=tmp_path / "Yelp.txt", core=0))
    assert (card.interactions, card.filters["since"]) == (6, None)
