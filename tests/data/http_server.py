"""An HTTP server on loopback that misbehaves as told: each path has a list of answers; the last is given for ever."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """``with Server() as server``; ``server.on(path, *answers)`` gives an address; ``server.asked`` is what came."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of every request, in order."""

    def __enter__(self) -> Server:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
                answers = outer.answers[self.path]
                (answers.pop(0) if len(answers) > 1 else answers[0])(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name the base class gives it
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=lambda: self.http.serve_forever(poll_interval=0.005), daemon=True)
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def on(self, path: str, *answers: Answer) -> str:
        """Let ``path`` give these answers in turn; its address."""
        self.answers[path] = list(answers)
        return f"http://127.0.0.1:{self.http.server_port}{path}"

    def ranges(self) -> list[str | None]:
        """The Range header of every request."""
        return [headers.get("range") for _, headers in self.asked]


def file(
    body: bytes,
    *,
    etag: str | None = '"v1"',
    modified: str | None = None,
    ranges: bool = True,
    stop: int | None = None,
    reset: bool = False,
    length: int | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """A file as a good server sends it, or with one fault.

    Args:
        body: the whole file.
        etag: sent, and compared with If-Range.
        modified: the same for Last-Modified.
        ranges: False: Range is ignored.
        stop: hang up after this many bytes.
        reset: hang up with a reset, not politely.
        length: announce this many bytes instead of the true number.
        headers: sent as well.
    """

    def answer(request: BaseHTTPRequestHandler) -> None:
        begin = 0
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if ranges and wanted and request.headers.get("If-Range") in {None, etag, modified}:
            begin = int(wanted[1])
        if begin and begin >= len(body):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(body)}")
            request.end_headers()
            return
        request.send_response(206 if begin else 200)
        if begin:
            request.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Length", str(len(body) - begin if length is None else length))
        for key, value in {"ETag": etag, "Last-Modified": modified, **(headers or {})}.items():
            if value is not None:
                request.send_header(key, value)
        request.end_headers()
        request.wfile.write(body[begin:stop])
        if reset:
            request.wfile.flush()
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()

    return answer


def status(code: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
    """A status, for example 404, or 302 with a Location."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for key, value in (headers or {}).items():
            request.send_header(key, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def silence(until: threading.Event) -> Answer:
    """Headers, then nothing until the event."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.flush()
        until.wait(5)

    return answer
