"""Whom to ask next: mirrors, attempts, statuses, redirects, and what is said where nobody answers."""

from __future__ import annotations

import io
import threading

import pytest

from tests.data.downloading import BODY, HALF, LATE, PAGE, PATH, Bench
from tests.data.http_server import Server, file, silence, status


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
