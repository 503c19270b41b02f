"""Records in any dress: JSON, Python-dict text, one array, pretty-printed. Nothing is evaluated, nothing grows without bound."""

from __future__ import annotations

import ast
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbench.data.sources.records import UnreadableError, _objects, parse
from tests.data.sources.files import REVIEWS_2014, put, read, refused, triples

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, VALUE, max_size=5))
@settings(max_examples=300, deadline=None)
def test_python_dict_text_means_what_python_says(record: dict[str, Any]) -> None:
    assert parse(repr(record).encode()) == ast.literal_eval(repr(record)) == record


@given(st.dictionaries(TEXT, VALUE, max_size=5))
@settings(max_examples=100, deadline=None)
def test_json_is_read_as_json(record: dict[str, Any]) -> None:
    assert parse(json.dumps(record).encode()) == record


@given(TEXT)
@settings(max_examples=100, deadline=None)
def test_python_2_wrote_its_strings_with_escapes_that_still_mean_the_same(text: str) -> None:
    written = "u'" + text.encode("unicode_escape").decode().replace("'", "\\'") + "'"
    assert parse(f"{{u'a': {written}}}".encode()) == {"a": ast.literal_eval(written)}


@given(st.binary(max_size=60) | st.text("{}[]'\"\\u: ,1eE-()None", max_size=60).map(str.encode))
@settings(max_examples=500, deadline=None)
def test_any_line_is_a_record_or_unreadable(line: bytes) -> None:
    with contextlib.suppress(UnreadableError):
        assert isinstance(parse(line), dict)


@pytest.mark.parametrize(
    "line",
    [
        "{'a': __import__('os').system('id')}",
        "{'a': open('/etc/passwd').read()}",
        "{'a': [x for x in ()]}",
        "{'a': f'{1}'}",
        "{'a': 9**9**9}",
        "{'a': b'x'}",
        "{'a': 'x'.upper()}",
        "{'a': 'x' 'y'}",
        "{'a': (1, 2)}",
        "{'a': lambda: 1}",
        "{'a': inf}",
        "{'a': '\\U00110000'}",
        "{'a': 1",
        "{'a': 'x",
    ],
)
def test_what_is_no_literal_is_refused_and_never_run(line: str) -> None:
    with pytest.raises(UnreadableError):
        parse(line.encode())


@pytest.mark.parametrize(
    "line",
    [
        "{'a': " + "[" * 200_000,
        "{'a': " + "[" * 200_000 + "]" * 200_000 + "}",
        "{'a': " + "-" * 500_000 + "1}",
        "{'a': " + "9" * 500_000 + "}",
        "{'a': '" + "\\" * 500_001,
        "{" + "'a" * 300_000,
        "'" * 500_001,
        "{'a': " + "1+" * 300_000 + "1}",
        "e" * 500_000,
    ],
)
def test_hostile_text_takes_no_time_to_speak_of(line: str) -> None:
    began = time.process_time()
    with pytest.raises(UnreadableError):
        parse(line.encode())
    assert time.process_time() - began < 2


def records() -> list[dict[str, Any]]:
    return [json.loads(line) | {"nested": {"a": ["}", '"{']}} for line in REVIEWS_2014.splitlines()]


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(records()),
        json.dumps(records(), indent=2),
        "\n".join(json.dumps(record, indent=4) for record in records()),
        ",\n".join(json.dumps(record) for record in records()),
        json.dumps(records(), indent=2).replace("\n", "\r\n"),
        "\ufeff" + json.dumps(records(), indent=1),
    ],
)
def test_a_re_saved_copy_gives_the_same_events(written: str, tmp_path: Path) -> None:
    assert triples(read(put(tmp_path, "r", written))) == triples(read(put(tmp_path, "g", REVIEWS_2014)))


def test_a_pretty_printed_file_that_is_cut_is_refused_with_the_record(tmp_path: Path) -> None:
    error = refused(put(tmp_path, "r", json.dumps(records(), indent=2)[:-60]))
    assert "Record 3 of" in error.what
    assert "2 whole records stand before it" in error.why


@given(st.lists(st.dictionaries(TEXT, VALUE, max_size=3), max_size=4), st.integers(0, 400))
@settings(max_examples=200, deadline=None)
def test_objects_are_found_whole_wherever_a_block_ends(objects: list[dict[str, Any]], cut: int) -> None:
    text = json.dumps(objects, indent=1).encode()
    first, rest = _objects(text[:cut])
    second, rest = _objects(rest + text[cut:])
    assert [json.loads(found) for found in first + second] == objects
    assert not rest.strip(b" \r\n,[]")
