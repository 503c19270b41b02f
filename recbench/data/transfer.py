"""One request to one mirror: the bytes that ``NAME.part`` still lacks, and why they did not come.

What is needed to go on later stands beside the ``.part`` in ``NAME.part.json``: the address, its ETag or date, and the
length. A part is continued only if the server says that it is still the same file; else it is begun again.
"""

from __future__ import annotations

import errno
import http.client
import json
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recbench import __version__
from recbench.errors import Exit, RecbenchError
from recbench.files import write_text

BLOCK = 1 << 16
SPARE = 64 << 20
"""Bytes that must stay free on the disk when the download is done."""
REDIRECTS = 5
MOMENTARY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may be other in a moment."""

Progress = Callable[[int, int | None], None]
"""Told the bytes there are so far and the total, if the server says. The first may fall: a part can prove useless."""


class MirrorError(Exception):
    """Why one mirror did not give the file. Told to the user together with the reasons of the other mirrors."""


class RefusedError(MirrorError):
    """This mirror will not give the file; asking again would change nothing. The text is the reason."""


class BrokenOffError(MirrorError):
    """This mirror may give the file if asked again. ``wait``: seconds it asked for, if it did."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class StaleError(BrokenOffError):
    """The part does not fit what the server has now, and is gone: ask for the whole, at once."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, wait=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A file on its way: where it is written, and what it is a part of."""

    path: Path
    url: str = ""
    etag: str | None = None
    modified: str | None = None
    total: int | None = None

    @property
    def size(self) -> int:
        """Bytes there so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def validator(self) -> str | None:
        """What ``If-Range`` may hold: a strong ETag, else the date; None if the server gave neither."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    @classmethod
    def at(cls, path: Path) -> Part:
        """The part at ``path`` with what is remembered of it; nothing, if that cannot be read."""
        try:
            raw = json.loads(_memory(path).read_text(encoding="utf-8"))
            return cls(path=path, **{key: raw[key] for key in (field.name for field in fields(cls)) if key != "path"})
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path=path)

    def remember(self) -> None:
        """Write down what the part is a part of."""
        raw = {key: value for key, value in asdict(self).items() if key != "path"}
        write_text(_memory(self.path), json.dumps(raw, indent=2) + "\n")

    def drop(self) -> None:
        """Forget the part."""
        self.path.unlink(missing_ok=True)
        _memory(self.path).unlink(missing_ok=True)


def _memory(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def pull(
    url: str, path: Path, *, timeout: float, refuse: Callable[[bytes, int | None], None], progress: Progress
) -> bool:
    """Make the part at ``path`` complete; True if it was continued, so that old bytes are in it.

    Args:
        url: of one mirror.
        path: the part.
        timeout: seconds to wait for a connection, and for each block.
        refuse: told the first bytes and the announced length of the whole before anything old is overwritten; raises
            :class:`RefusedError`.
        progress: told after every block.

    Raises:
        RefusedError: this mirror is of no use.
        BrokenOffError: it may be in a moment; what came so far is kept.
        RecbenchError: the disk is too small for the file.
        OSError: the part cannot be written.
    """
    part = Part.at(path)
    headers = {"User-Agent": f"recbench/{__version__}", "Accept-Encoding": "identity"}
    if part.size and part.url == url and part.validator:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.validator}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  cards hold http(s) addresses only
    try:
        answer = urllib.request.build_opener(_Redirects).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        return _status(error, part)
    except (http.client.HTTPException, OSError) as error:
        raise _broken(error) from error
    with answer:
        return _receive(answer, part, url, refuse, progress)


def _receive(
    answer: http.client.HTTPResponse,
    part: Part,
    url: str,
    refuse: Callable[[bytes, int | None], None],
    progress: Progress,
) -> bool:
    """Write what the server sends behind the part, or in its place."""
    if answer.headers.get("Content-Encoding", "identity") != "identity" and not part.path.name.endswith(".gz.part"):
        raise RefusedError("it sends the file packed although it was asked not to")
    continued = answer.status == 206
    length = _number(answer.headers.get("Content-Length"))
    begin = part.size if continued else 0
    total = None if length is None else begin + length
    if continued:
        total = _continues(answer.headers, part, length)
    block = _read(answer)
    if not continued:
        if total and not block:
            raise BrokenOffError(f"it sent 0 of {total:,} bytes")
        refuse(block, total)
        part = Part(
            path=part.path,
            url=url,
            etag=answer.headers.get("ETag"),
            modified=answer.headers.get("Last-Modified"),
            total=total,
        )
    _room(part.path.parent, None if total is None else total - begin)
    done = begin
    with part.path.open("ab" if continued else "wb") as handle:
        if not continued:
            part.remember()
        progress(done, total)
        while block:
            handle.write(block)
            done += len(block)
            progress(done, total)
            block = _read(answer)
    if total is not None and done != total:
        raise BrokenOffError(f"it sent {done:,} of {total:,} bytes")
    return continued


def _read(answer: http.client.HTTPResponse) -> bytes:
    """The next bytes; nothing at the end. Network errors come from here only: a full disk is not taken for one."""
    try:
        return answer.read(BLOCK)
    except (http.client.HTTPException, OSError) as error:
        raise _broken(error) from error


def _continues(headers: Message, part: Part, length: int | None) -> int | None:
    """The length of the whole, if the server goes on where the part ends, in the file that it is a part of."""
    said = headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", said.strip())
    first, last = (int(found[1]), int(found[2])) if found else (-1, -1)
    total = _number(found[3]) if found else None
    fits = first == part.size and length in {None, last + 1 - first} and part.total in {None, total or part.total}
    same = headers.get("ETag", part.etag) == part.etag and headers.get("Last-Modified", part.modified) == part.modified
    if not fits or not same:
        part.drop()
        raise StaleError(f"it continues with other bytes than asked for ({said or 'no Content-Range'})")
    return total if total is not None else part.total


def _status(error: urllib.error.HTTPError, part: Part) -> bool:
    """What an answer that is no success means; True if the part was complete all along."""
    with error:
        if error.code == 416:
            found = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", "").strip())
            if found and int(found[1]) == part.size and part.total in {None, part.size}:
                return True
            part.drop()
            raise StaleError("what was there does not fit the file it has now") from error
        said = f"it answers {error.code} {error.reason}".rstrip()
        if error.code in MOMENTARY:
            raise BrokenOffError(said, _retry_after(error.headers.get("Retry-After"))) from error
        if 300 <= error.code < 400:
            said = f"it redirects in a circle, to nowhere, or more than {REDIRECTS} times"
        raise RefusedError(said) from error


def _retry_after(text: str | None) -> float | None:
    """Seconds that a server asked to wait: it may give seconds or a date."""
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _broken(error: Exception) -> RefusedError | BrokenOffError:
    """Whether asking again could help a connection that failed."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, socket.gaierror):
        return RefusedError("its name could not be found (no network?)")
    refused = isinstance(reason, ssl.SSLCertVerificationError | ConnectionRefusedError)
    refused = refused or str(reason).startswith("Tunnel connection failed")  # what a proxy says, as a bare OSError
    if refused or getattr(reason, "errno", None) in {errno.ENETUNREACH, errno.EHOSTUNREACH}:
        return RefusedError(f"no connection: {reason}")
    if isinstance(reason, TimeoutError):
        return BrokenOffError("it did not answer in time")
    if isinstance(reason, http.client.IncompleteRead):
        return BrokenOffError("the connection was lost before the end")
    return BrokenOffError(f"the connection failed: {reason or type(reason).__name__}")


def _room(folder: Path, needed: int | None) -> None:
    """Refuse a file that the disk cannot take.

    Raises:
        RecbenchError: with both sizes.
    """
    free = shutil.disk_usage(folder).free
    if needed is not None and free < needed + SPARE:
        raise RecbenchError(
            f"The disk is too full for this download: {needed / 1e6:,.0f} MB are still to come.",
            why=f"{folder} has {free / 1e6:,.0f} MB free, and {SPARE / 1e6:,.0f} MB should stay free.",
            fix="Free some space and say the same again, or keep the datasets on another disk.",
            code=Exit.DATA,
        )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdigit() else None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, but never from https to http, and to nothing else."""

    max_redirections = REDIRECTS
    max_repeats = 2

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme not in {"http", "https"} or (req.type == "https" and scheme != "https"):
            raise RefusedError(f"it redirects from {req.type} to {newurl}, which is not as safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
