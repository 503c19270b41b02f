from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recbench.data.catalog import DatasetCard
from recbench.data.download import Patience, fetch
from recbench.errors import Exit, RecbenchError
from tests.data.http_server import Server, file, silence, status

NAME = "reviews_Toy_5.json.gz"
PATH = f"/{NAME}"
BODY = gzip.compress(random.Random(0).randbytes(20_000), mtime=0)
OTHER = gzip.compress(random.Random(1).randbytes(20_000), mtime=0)
HALF = len(BODY) // 2
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"
LATE = "Wed, 01 Jan 2020 00:00:00 GMT"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    with Server() as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class Bench:
    """A home, a clock that nobody waits for, and what was said."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.slept: list[float] = []
        self.said: list[str] = []
        self.progress: list[tuple[int, int | None]] = []
        self.folder = home / ".downloads" / "toy"
        self.target = self.folder / NAME
        self.part = self.folder / f"{NAME}.part"
        self.lock = self.folder / f"{NAME}.lock.json"

    def fetch(self, *urls: str, accept_changed: bool = False, timeout: float = 5.0, **known: Any) -> Path:
        return fetch(
            DatasetCard(name="toy", format="amazon2014-reviews", urls=urls, **known),
            self.home,
            lambda done, total: self.progress.append((done, total)),
            accept_changed=accept_changed,
            say=self.said.append,
            patience=Patience(timeout=timeout, sleep=self.slept.append),
        )

    def refused(self, *urls: str, **known: Any) -> RecbenchError:
        with pytest.raises(RecbenchError) as caught:
            self.fetch(*urls, **known)
        assert caught.value.code == Exit.DATA
        return caught.value

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_a_good_download_is_whole_locked_and_leaves_no_part(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY))
    assert bench.fetch(url) == bench.target
    assert bench.target.read_bytes() == BODY
    assert json.loads(bench.lock.read_text()) == {"sha256": digest(BODY), "bytes": len(BODY), "url": url}
    assert bench.files() == sorted([NAME, bench.lock.name])
    assert bench.progress[0] == (0, len(BODY))
    assert bench.progress[-1] == (len(BODY), len(BODY))
    assert server.asked[0][1]["accept-encoding"] == "identity"


def test_a_good_file_is_used_again_without_a_request(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY))
    bench.fetch(url)
    bench.fetch(url)
    assert len(server.asked) == 1


def test_a_file_that_rotted_on_disk_is_downloaded_again(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY))
    bench.fetch(url)
    bench.target.write_bytes(BODY[:-1] + b"?")
    bench.fetch(url)
    assert bench.target.read_bytes() == BODY
    assert digest(BODY) in bench.said[0]


def test_a_file_put_there_by_hand_is_checked_and_locked(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY))
    bench.folder.mkdir(parents=True)
    bench.target.write_bytes(OTHER)
    bench.fetch(url)
    assert json.loads(bench.lock.read_text())["sha256"] == digest(OTHER)
    assert server.asked == []


def test_a_damaged_file_put_there_by_hand_is_replaced(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY))
    bench.folder.mkdir(parents=True)
    bench.target.write_bytes(OTHER[:-9])
    bench.fetch(url)
    assert bench.target.read_bytes() == BODY


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


def test_a_complete_part_is_recognised_by_its_416(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY))
    bench.fetch(url)
    bench.target.rename(bench.part)
    (bench.folder / f"{NAME}.part.json").write_text(json.dumps(memory(url)))
    bench.fetch(url)
    assert server.ranges() == [None, f"bytes={len(BODY)}-"]
    assert bench.target.read_bytes() == BODY


def memory(url: str) -> dict[str, Any]:
    return {"url": url, "etag": '"v1"', "modified": None, "total": len(BODY)}


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


def test_a_mirror_that_keeps_dropping_is_left_after_three_attempts(server: Server, bench: Bench) -> None:
    error = bench.refused(server.on(PATH, file(BODY, stop=0)))
    assert len(server.asked) == 3
    assert bench.slept == [1.0, 2.0]
    assert "it is empty" not in error.why
    assert f"0 of {len(BODY):,} bytes" in error.why


def test_progress_gives_a_dropping_mirror_new_attempts(
    server: Server, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbench.data.download.GAIN", 1000)
    stops = range(2000, len(BODY), 2000)
    url = server.on(PATH, *(file(BODY, stop=stop) for stop in stops), file(BODY))
    bench.fetch(url)
    assert bench.target.read_bytes() == BODY
    assert bench.slept == [1.0] * len(stops)


def test_a_silent_server_is_given_up(server: Server, bench: Bench) -> None:
    done = threading.Event()
    error = bench.refused(server.on(PATH, silence(done)), timeout=0.05)
    done.set()
    assert "did not answer in time" in error.why
    assert len(server.asked) == 3


def test_a_404_goes_to_the_next_mirror_at_once(server: Server, bench: Bench) -> None:
    bench.fetch(server.on("/gone.gz", status(404)), server.on(PATH, file(BODY)))
    assert [path for path, _ in server.asked] == ["/gone.gz", PATH]
    assert bench.slept == []
    assert "404" in bench.said[0]


def test_a_503_is_asked_again_after_the_time_it_names(server: Server, bench: Bench) -> None:
    bench.fetch(server.on(PATH, status(503, {"Retry-After": "7"}), file(BODY)))
    assert bench.slept == [7.0]


@pytest.mark.parametrize("after", ["86400", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_nobody_waits_longer_than_a_minute_for_a_503(server: Server, bench: Bench, after: str) -> None:
    bench.fetch(server.on(PATH, status(503, {"Retry-After": after}), file(BODY)))
    assert bench.slept == [60.0]


@pytest.mark.parametrize(("after", "waited"), [("soon", 1.0), (LATE, 0.0)])
def test_a_retry_after_of_no_use_does_no_harm(server: Server, bench: Bench, after: str, waited: float) -> None:
    bench.fetch(server.on(PATH, status(503, {"Retry-After": after}), file(BODY)))
    assert bench.slept == [waited]


def test_redirects_are_followed_with_the_range(server: Server, bench: Bench) -> None:
    server.on("/real", file(BODY, stop=HALF), file(BODY))
    url = server.on(PATH, status(302, {"Location": "/real"}))
    bench.fetch(url)
    assert bench.target.read_bytes() == BODY
    assert server.ranges()[-1] == f"bytes={HALF}-"


def test_a_redirect_loop_ends(server: Server, bench: Bench) -> None:
    url = server.on(PATH, status(302, {"Location": "/b"}))
    server.on("/b", status(302, {"Location": PATH}))
    assert "redirects in a circle" in bench.refused(url).why
    assert len(server.asked) <= 6


def test_endless_redirects_end(server: Server, bench: Bench) -> None:
    for step in range(20):
        server.on(f"/{step}", status(302, {"Location": f"/{step + 1}"}))
    assert "more than 5 times" in bench.refused(server.on(PATH, status(302, {"Location": "/0"}))).why
    assert len(server.asked) == 6


def test_a_redirect_to_a_file_or_ftp_is_refused(server: Server, bench: Bench) -> None:
    for place in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        assert "redirect" in bench.refused(server.on(PATH, status(302, {"Location": place}))).why


def test_a_redirect_from_https_to_http_is_refused() -> None:
    import urllib.request
    from email.message import Message

    from recbench.data.transfer import RefusedError, _Redirects

    request = urllib.request.Request("https://example.org/x")
    with pytest.raises(RefusedError, match="not as safe"):
        _Redirects().redirect_request(request, io.BytesIO(), 302, "", Message(), "http://example.org/x")


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


def test_a_published_checksum_must_hold(server: Server, bench: Bench) -> None:
    error = bench.refused(server.on(PATH, file(OTHER)), sha256=digest(BODY))
    assert digest(BODY) in error.why
    assert digest(OTHER) in error.why
    assert bench.files() == []


def test_the_next_mirror_is_asked_where_the_checksum_differs(server: Server, bench: Bench) -> None:
    bench.fetch(server.on(PATH, file(OTHER)), server.on("/b.gz", file(BODY)), sha256=digest(BODY))
    assert bench.target.read_bytes() == BODY


def test_a_published_checksum_is_stronger_than_the_lock(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(OTHER), file(BODY))
    bench.fetch(url)
    bench.fetch(url, sha256=digest(BODY))
    assert bench.target.read_bytes() == BODY
    assert json.loads(bench.lock.read_text())["sha256"] == digest(BODY)


def test_an_unconfirmed_checksum_only_warns(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY))
    bench.fetch(url, sha256=digest(OTHER), bytes=1, sha256_confirmed=False)
    assert bench.target.read_bytes() == BODY
    assert any(digest(BODY) in line and digest(OTHER) in line for line in bench.said)
    assert any("one unconfirmed source says 1." in line for line in bench.said)


def test_a_published_length_that_differs_is_refused_before_the_transfer(server: Server, bench: Bench) -> None:
    error = bench.refused(server.on(PATH, file(BODY)), bytes=len(BODY) + 1)
    assert f"offers {len(BODY):,} bytes, published are {len(BODY) + 1:,}" in error.why
    assert bench.progress == []


def test_a_file_that_changed_since_the_first_download_is_refused_with_both_hashes(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY), file(OTHER, etag='"v2"'))
    bench.fetch(url)
    bench.target.unlink()
    error = bench.refused(url)
    assert digest(BODY) in error.why
    assert digest(OTHER) in error.why
    assert "--accept-changed" in error.fix
    assert json.loads(bench.lock.read_text())["sha256"] == digest(BODY)


def test_a_changed_file_can_be_accepted_without_a_second_transfer(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY), file(OTHER, etag='"v2"'))
    bench.fetch(url)
    bench.target.unlink()
    bench.refused(url)
    bench.fetch(url, accept_changed=True)
    assert bench.target.read_bytes() == OTHER
    assert json.loads(bench.lock.read_text())["sha256"] == digest(OTHER)
    assert server.ranges()[-1] == f"bytes={len(OTHER)}-"
    assert bench.files() == sorted([NAME, bench.lock.name])


def test_a_failed_download_leaves_the_old_file_alone(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY), file(OTHER[:-8]))
    bench.fetch(url)
    bench.lock.write_text(json.dumps({"sha256": digest(OTHER), "bytes": 1, "url": url}))
    bench.refused(url)
    assert bench.target.read_bytes() == BODY


def test_an_unreadable_lock_is_named_and_not_ignored(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY))
    bench.fetch(url)
    bench.lock.write_text("{")
    assert str(bench.lock) in bench.refused(url).fix


def test_when_every_mirror_fails_each_is_listed_with_its_reason_and_the_way_out(server: Server, bench: Bench) -> None:
    gone, page = server.on("/a.gz", status(404)), server.on("/b.gz", file(PAGE))
    error = bench.refused(gone, page, "http://127.0.0.1:1/c.gz", how_to_get="Ask the author.")
    assert error.what == "Dataset toy could not be downloaded."
    assert f"{gone}: it answers 404" in error.why
    assert f"{page}: it is a web page" in error.why
    assert "http://127.0.0.1:1/c.gz: no connection" in error.why
    assert "recbench prepare toy --source PATH" in error.fix
    assert "Ask the author." in error.fix


def test_without_a_network_one_error_comes_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def no_name(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    error = bench.refused("https://one.invalid/x.gz", "https://two.invalid/x.gz")
    assert error.why.count("no network?") == 2
    assert "--source PATH" in error.fix
    assert bench.slept == []


def test_a_proxy_that_refuses_is_asked_once(server: Server, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", server.on("/", file(BODY)).removesuffix("/"))
    assert "no connection: Tunnel connection failed: 501" in bench.refused(f"https://one.invalid{PATH}").why
    assert bench.slept == []


def test_a_card_without_addresses_says_how_to_get_the_file(bench: Bench) -> None:
    error = bench.refused(how_to_get="Fill in the form.")
    assert error.why == "Fill in the form."
    assert error.fix == "recbench prepare toy --source PATH"


def test_a_full_disk_is_seen_before_the_transfer(server: Server, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 10**9, 10))
    assert "too full" in bench.refused(server.on(PATH, file(BODY))).what
    assert bench.progress == []


def test_a_disk_that_fills_up_is_not_taken_for_a_network_error(
    server: Server, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recbench.data.transfer.Part.remember", full)
    error = bench.refused(server.on(PATH, file(BODY)))
    assert error.why == "No space left on device."
    assert len(server.asked) == 1


def test_ctrl_c_leaves_a_part_that_is_continued(server: Server, bench: Bench) -> None:
    body = gzip.compress(random.Random(2).randbytes(300_000), mtime=0)
    url = server.on(PATH, file(body))

    def stop(done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    card = DatasetCard(name="toy", format="amazon2014-reviews", urls=(url,))
    with pytest.raises(KeyboardInterrupt):
        fetch(card, bench.home, stop)
    size = bench.part.stat().st_size
    assert 0 < size < len(body)
    bench.fetch(url)
    assert server.ranges()[-1] == f"bytes={size}-"
    assert bench.target.read_bytes() == body


def test_a_published_md5_is_held_against_the_file(server: Server, bench: Bench) -> None:
    url = server.on(PATH, file(BODY), file(BODY))
    right = hashlib.md5(BODY).hexdigest()  # noqa: S324  as its publisher gives it
    error = bench.refused(url, md5="0" * 32)
    assert f"its md5 is {right}, published is {'0' * 32}" in error.why
    assert bench.fetch(url, md5=right).read_bytes() == BODY


def test_two_who_want_a_file_at_once_fetch_it_once(server: Server, bench: Bench) -> None:
    begun, waiting = threading.Event(), threading.Event()

    def late(request: Any) -> None:
        begun.set()
        waiting.wait(5)
        file(BODY)(request)

    url = server.on(PATH, late, file(OTHER))
    first = threading.Thread(target=bench.fetch, args=(url,))
    first.start()
    begun.wait(5)
    card = DatasetCard(name="toy", format="amazon2014-reviews", urls=(url,))
    said: list[str] = []
    second = fetch(card, bench.home, say=lambda line: (said.append(line), waiting.set())[0])
    first.join()
    assert second.read_bytes() == BODY
    assert len(server.asked) == 1
    assert said == [f"{bench.folder} is being filled by another process; waiting for it."]
