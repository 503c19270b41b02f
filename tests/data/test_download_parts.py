"""What a broken transfer left behind is continued where it is the same file, and else begun again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.data.downloading import BODY, HALF, LATE, NAME, OTHER, PATH, Bench
from tests.data.http_server import Server, file, status


@pytest.mark.parametrize("reset", [False, True])
def test_a_dropped_connection_is_continued_where_it_broke(server: Server, bench: Bench, reset: bool) -> None:
    url = server.on(PATH, file(BODY, stop=HALF, reset=reset), file(BODY))
    bench.fetch(url)
    assert bench.target.read_bytes() == BODY
    if not reset:  # a reset may take bytes with it that were on the way
        assert server.ranges() == [None, f"bytes={HALF}-"]
        assert (HALF, len(BODY)) in bench.progress
    assert bench.slept == [1.0]


def test_the_etag_goes_into_if_range(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY, stop=HALF), file(BODY))
    bench.fetch(url)
    assert server.asked[1][1]["if-range"] == '"v1"'


def test_the_date_goes_into_if_range_where_the_etag_is_weak(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY, etag='W/"v"', modified=LATE, stop=HALF), file(BODY, etag='W/"v"', modified=LATE))
    bench.fetch(url)
    assert server.asked[1][1]["if-range"] == LATE
    assert server.ranges()[1] == f"bytes={HALF}-"


def test_a_part_that_nothing_identifies_is_begun_again(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY, etag=None, stop=HALF), file(BODY, etag=None))
    bench.fetch(url)
    assert server.ranges() == [None, None]
    assert bench.target.read_bytes() == BODY


def test_a_server_without_ranges_is_read_from_the_start(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY, stop=HALF), file(BODY, ranges=False))
    bench.fetch(url)
    assert server.ranges() == [None, f"bytes={HALF}-"]
    assert bench.target.read_bytes() == BODY


def test_a_file_that_changed_between_part_and_rest_is_not_glued_together(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY, stop=HALF), file(OTHER, etag='"v2"'))
    bench.fetch(url)
    assert bench.target.read_bytes() == OTHER


def test_a_rest_with_another_etag_is_not_glued_to_the_part(server: Server, bench: Bench) -> None:
    old, new = b"u1,i1\n" * 100, b"u2,i2\n" * 100  # equal lengths and no CRC: nothing else would tell
    careless = file(new, etag='"v2"')

    def ignoring(request: Any) -> None:
        del request.headers["If-Range"]
        careless(request)

    url = server.on("/data.csv", file(old, stop=300), ignoring, careless)
    assert bench.fetch(url).read_bytes() == new
    assert server.ranges() == [None, "bytes=300-", None]


def test_a_rest_that_begins_elsewhere_is_not_glued_to_the_part(server: Server, bench: Bench) -> None:
    off = status(206, {"Content-Range": f"bytes {HALF + 1}-{len(BODY) - 1}/{len(BODY)}"}, BODY[HALF + 1 :])
    url = server.on(PATH, file(BODY, stop=HALF), off, file(BODY))
    bench.fetch(url)
    assert bench.target.read_bytes() == BODY


def test_a_part_of_another_mirror_is_not_continued(server: Server, bench: Bench) -> None:
    first = server.on(PATH, file(BODY, stop=HALF), status(404))
    second = server.on(f"/b{PATH}", file(OTHER))
    bench.fetch(first, second)
    assert server.ranges() == [None, f"bytes={HALF}-", None]
    assert bench.target.read_bytes() == OTHER


def test_a_part_longer_than_the_file_is_thrown_away_on_416(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY + b"x" * 100, stop=len(BODY) + 50), file(BODY))
    bench.fetch(url)
    assert bench.target.read_bytes() == BODY
    assert server.ranges() == [None, f"bytes={len(BODY) + 50}-", None]


def memory(url: str) -> dict[str, Any]:
    return {"url": url, "etag": '"v1"', "modified": None, "total": len(BODY)}


def test_a_complete_part_is_recognised_by_its_416(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY))
    bench.fetch(url)
    bench.target.rename(bench.part)
    (bench.folder / f"{NAME}.part.json").write_text(json.dumps(memory(url)))
    bench.fetch(url)
    assert server.ranges() == [None, f"bytes={len(BODY)}-"]
    assert bench.target.read_bytes() == BODY


def test_a_part_with_wrong_bytes_is_found_and_the_whole_asked_for(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY))
    bench.folder.mkdir(parents=True)
    bench.part.write_bytes(BODY[: HALF - 5] + b"wrong")
    (bench.folder / f"{NAME}.part.json").write_text(json.dumps(memory(url)))
    bench.fetch(url)
    assert server.ranges() == [f"bytes={HALF}-", None]
    assert bench.target.read_bytes() == BODY


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 1}'])
def test_an_unreadable_memory_of_a_part_starts_over(server: Server, bench: Bench, text: str) -> None:
    url = server.on(PATH, file(BODY))
    bench.folder.mkdir(parents=True)
    bench.part.write_bytes(BODY[:HALF])
    (bench.folder / f"{NAME}.part.json").write_text(text)
    bench.fetch(url)
    assert server.ranges() == [None]
    assert bench.target.read_bytes() == BODY
