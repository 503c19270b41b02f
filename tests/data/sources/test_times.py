"""Times: one unit a column, found by magnitude; ISO, scientific notation, zones; mixtures refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbench.data.sources.times import Times
from tests.data.sources.files import put, read, refused

S = 1_400_000_000


def settled(*batches: list[object]) -> tuple[list[int], str]:
    times = Times(Path("t"))
    for batch in batches:
        values, bad = times.read(pa.array(batch))
        assert not bad
        times.keep(values)
    values, unit, bad = times.settle()
    assert not bad
    return values.tolist(), unit


@pytest.mark.parametrize(
    ("texts", "values", "unit"),
    [
        (["1400000000", "1400000001"], [S, S + 1], "s"),
        (["1400000000000", "1400000000001"], [S * 1000, S * 1000 + 1], "ms"),
        (["1.4e9", "1.400000001E9"], [S, S + 1], "s"),
        (["1.4e12", "1400000000001"], [S * 1000, S * 1000 + 1], "ms"),
        (["1400000000.0", "1400000001.0"], [S, S + 1], "s"),
        (["1400000000.5", "1400000001"], [S * 1000 + 500, S * 1000 + 1000], "ms"),
        ([" 1400000000 ", "0"], [S, 0], "s"),
        (["2014-05-13", "2014-05-14"], [1_399_939_200, 1_400_025_600], "s"),
        (["2014-05-13 08:30:00", "2014-05-13T08:30:01Z"], [1_399_969_800, 1_399_969_801], "s"),
        (["2014-05-13T10:30:00+02:00"], [1_399_969_800], "s"),
        (["2014-05-13T08:30:00.250Z"], [1_399_969_800_250], "ms"),
        (["1", "2", "3"], [1, 2, 3], "s"),
        (["20140513", "20141301"], [20_140_513, 20_141_301], "s"),
    ],
)
def test_times_of_any_writing_get_one_unit(texts: list[object], values: list[int], unit: str) -> None:
    assert settled(texts) == (values, unit)
    assert settled(*([text] for text in texts)) == (values, unit)  # however the file is cut into batches


@given(st.lists(st.datetimes(datetime(1971, 1, 1), datetime(2026, 1, 1)), min_size=1, max_size=20))
def test_a_date_means_the_same_as_its_seconds(moments: list[datetime]) -> None:
    whole = [at.replace(microsecond=0, tzinfo=UTC) for at in moments]
    seconds = [int(at.timestamp()) for at in whole]
    assert settled([at.isoformat() for at in whole]) == (seconds, "s")
    assert settled([str(second) for second in seconds])[0] == seconds


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (("1400000000", "1400000000000"), "1400000000 looks like seconds, 1400000000000 like milliseconds"),
        (("1400000000", "2014-05-13"), "1400000000 is a number, 2014-05-13 a date"),
        (("1400000000000000", "1400000000000001"), "microseconds or nanoseconds"),
        (("20140513", "20150101"), "20140513 would be 233 days after the beginning of 1970"),
    ],
)
def test_a_column_in_two_units_is_refused(times: tuple[str, ...], words: str, tmp_path: Path) -> None:
    text = "user,item,timestamp\n" + "".join(f"u,{n},{at}\n" for n, at in enumerate(times))
    error = refused(put(tmp_path, "t.csv", text))
    assert words in error.why
    assert str(tmp_path / "t.csv") in error.what


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parquet_timestamps_of_any_fineness_are_read(unit: str, tmp_path: Path) -> None:
    moments = np.array(["2014-05-13T08:30:00", "2014-05-13T08:30:01"], dtype="datetime64[s]")
    table = pa.table({"user": ["u", "u"], "item": ["a", "b"], "timestamp": pa.array(moments).cast(pa.timestamp(unit))})
    pq.write_table(table, tmp_path / "t.parquet")
    events = read(tmp_path / "t.parquet")
    assert events.timestamp is not None
    assert events.timestamp.tolist() == [1_399_969_800, 1_399_969_801]


def test_a_parquet_row_without_a_time_or_user_is_a_bad_row(tmp_path: Path) -> None:
    for column, words in (("timestamp", "Line 2 of"), ("user", "has no user")):
        held = {"user": ["u", "v"], "item": ["a", "b"], "timestamp": [1, 2]} | {
            column: [{"user": "u"}.get(column, 1), None]
        }
        pq.write_table(pa.table(held), tmp_path / "t.parquet")
        assert words in refused(tmp_path / "t.parquet").what


def test_parquet_times_of_no_use_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": ["u"], "item": ["a"], "timestamp": [[1]]}), tmp_path / "t.parquet")
    assert "times are of type list" in refused(tmp_path / "t.parquet").what
