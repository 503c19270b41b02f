"""A file from its address to its place: whole, checked, locked, and never half there."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
import threading
from typing import Any

import pytest

from recbench.data.catalog import DatasetCard
from recbench.data.download import fetch
from tests.data.downloading import BODY, NAME, OTHER, PATH, Bench, digest
from tests.data.http_server import Server, file


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
