"""A body that is not the file never takes its place: web pages, cut archives, wrong lengths."""

from __future__ import annotations

import io
import random
import zipfile

import pytest

from tests.data.downloading import BODY, HALF, OTHER, PAGE, PATH, Bench
from tests.data.http_server import Server, file


def test_a_web_page_with_status_200_is_not_the_file(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(PAGE, headers={"Content-Type": "application/gzip"}))
    assert "web page" in bench.refused(url).why
    assert len(server.asked) == 1


def test_a_web_page_does_not_take_the_place_of_a_part(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY, stop=HALF), file(PAGE, ranges=False))
    bench.refused(url)
    assert bench.part.read_bytes() == BODY[:HALF]
    server.on(PATH, file(BODY))
    bench.fetch(url)
    assert server.ranges()[-1] == f"bytes={HALF}-"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (BODY[:-1], "cut off"),
        (BODY[:-8], "cut off"),
        (BODY[:-8] + b"\0\0\0\0" + BODY[-4:], "CRC"),
        (BODY[:-4] + b"\0\0\0\0", "length"),
        (BODY + b"more", "Not a gzipped file"),
        (b"{}\n" * 50, "does not begin like a gzip file"),
        (b"", "empty"),
    ],
)
def test_a_damaged_gzip_never_becomes_the_file(server: Server, bench: Bench, body: bytes, reason: str) -> None:
    error = bench.refused(server.on(PATH, file(body)))
    assert reason in error.why
    assert not bench.target.exists()
    assert not bench.lock.exists()


def test_a_zip_that_is_damaged_inside_never_becomes_the_file(server: Server, bench: Bench) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml/ratings.csv", random.Random(0).randbytes(20_000))
    whole = packed.getvalue()
    hole = whole[:9_000] + bytes(2_000) + whole[11_000:]  # its list of members, at the end, is sound
    url = server.on("/ml.zip", file(hole), file(whole))
    assert "ml/ratings.csv in the zip archive is damaged" in bench.refused(url).why
    assert bench.files() == []
    assert bench.fetch(url).read_bytes() == whole
    assert "cut off or damaged" in bench.refused(server.on("/cut.zip", file(whole[:-30]))).why


def test_a_gzip_of_several_members_is_whole(server: Server, bench: Bench) -> None:
    bench.fetch(server.on(PATH, file(BODY + OTHER)))
    assert bench.target.read_bytes() == BODY + OTHER


def test_a_length_that_is_announced_too_short_is_found(server: Server, bench: Bench) -> None:
    assert "cut off" in bench.refused(server.on(PATH, file(BODY, length=len(BODY) - 3))).why


def test_a_length_that_is_announced_too_long_is_found(server: Server, bench: Bench) -> None:
    error = bench.refused(server.on(PATH, file(BODY, length=len(BODY) + 3, ranges=False)))
    assert f"{len(BODY):,} of {len(BODY) + 3:,} bytes" in error.why


def test_a_file_packed_for_the_way_is_refused(server: Server, bench: Bench) -> None:
    url = server.on("/data.csv", file(BODY, headers={"Content-Encoding": "gzip"}))
    assert "packed" in bench.refused(url).why
