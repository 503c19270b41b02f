"""Reading a file that may be gzipped and may be damaged: blocks, lines, and an error that names the last good line."""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from recbench.data.sources.base import Progress
from recbench.errors import Exit, RecbenchError

inflate: Any = zlib
with contextlib.suppress(ImportError):  # the extra "fast" may not be installed
    inflate = import_module("isal.isal_zlib")

BROKEN: tuple[type[Exception], ...] = (EOFError, zlib.error, inflate.error)
GZIP = b"\x1f\x8b"
PACKED_BLOCK = 1 << 18
PLAIN_BLOCK = 1 << 20
HEAD = 1 << 16


def blocks(path: Path, progress: Progress) -> Iterator[bytes]:
    """The content in blocks, gzip undone.

    Raises:
        RecbenchError: the gzip stream is cut off or damaged. All that could be unpacked has been yielded by then.
    """
    n_lines, recent = 0, (b"", b"")
    with path.open("rb") as raw:
        packed = raw.peek(2)[:2] == GZIP
        try:
            for block in _unpacked(raw, progress) if packed else _plain(raw, progress):
                n_lines += block.count(b"\n")
                recent = (recent[1], block)
                yield block
        except BROKEN as error:
            raise _damaged(path, n_lines, b"".join(recent), error) from error


def head_of(path: Path) -> bytes:
    """The first 64 KiB, gzip undone; shorter where the file is, or where its gzip stream breaks."""
    head = b""
    try:
        for block in blocks(path, lambda _: None):
            head += block
            if len(head) >= HEAD:
                break
    except RecbenchError:
        pass  # reading the file in full says where it breaks
    return head[:HEAD]


def lines(path: Path, progress: Progress) -> Iterator[list[bytes]]:
    """The lines in batches, line ends removed (a carriage return stays). The last one may lack its line end."""
    rest = b""
    for block in blocks(path, progress):
        batch = (rest + block).split(b"\n")
        rest = batch.pop()
        yield batch
    if rest:
        yield [rest]


def stream(path: Path, progress: Progress) -> BinaryIO:
    """The content as a file object, for readers that want one."""
    return io.BufferedReader(_Stream(blocks(path, progress)), buffer_size=PLAIN_BLOCK)


class _Stream(io.RawIOBase):
    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            block = next(self._source, None)
            if block is None:
                return 0
            self._left = memoryview(block)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def _plain(raw: BinaryIO, progress: Progress) -> Iterator[bytes]:
    while block := raw.read(PLAIN_BLOCK):
        progress(len(block))
        yield block


def _unpacked(raw: BinaryIO, progress: Progress) -> Iterator[bytes]:
    """Every member of a gzip file, up to the very cut if there is one: GzipFile would lose the last of it."""
    member = None
    while block := raw.read(PACKED_BLOCK):
        progress(len(block))
        while block:
            if member is None:
                if not block.strip(b"\0"):
                    break  # zero padding behind the last member is allowed
                member = inflate.decompressobj(31)
            if data := member.decompress(block):
                yield data
            block = member.unused_data if member.eof else b""
            member = None if member.eof else member
    if member is not None:
        raise EOFError


def _damaged(path: Path, n_lines: int, recent: bytes, error: Exception) -> RecbenchError:
    whole = recent.rpartition(b"\n")[0].rpartition(b"\n")[2]
    upto = f"readable up to line {n_lines:,} ({shown(whole)})" if n_lines else "readable, but not one whole line of it"
    cut = isinstance(error, EOFError)
    return RecbenchError(
        f"{path} {'is cut off: its gzip stream has no end' if cut else 'is damaged: its gzip stream does not check'}.",
        why=f"It is {upto}, then {'stops' if cut else f'breaks ({error})'}. Half a file would be another dataset.",
        fix=f"Get the file again; gzip -t {path} says nothing when it is whole.",
        code=Exit.DATA,
    )


def shown(line: bytes, width: int = 60) -> str:
    """The start of a raw line, fit for a message."""
    text = line.decode("utf-8", errors="replace").strip()
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return text if len(text) <= width else text[: width - 3] + "..."
