"""gzip and zstandard undone block by block, in bounded memory; what is cut, damaged or a bomb is told apart."""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, BinaryIO

from recbench.errors import Exit, RecbenchError

inflate: Any = zlib
with contextlib.suppress(ImportError):  # the extra "fast" may not be installed
    inflate = import_module("isal.isal_zlib")

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"7z\xbc\xaf\x27\x1c": "7-Zip", b"Rar!": "RAR"}
"""Packings that are recognised and not read."""
PACKED_BLOCK = 1 << 18
PLAIN_BLOCK = 1 << 20
ZSTD_SLICE = 1 << 11
"""Four bytes of zstandard can hold 128 KiB, so that a slice of this size unpacks to 64 MiB at most."""
BOMB_FROM = 1 << 28
"""Bytes from which the ratio counts: a small file may pack well by chance."""
BOMB_RATIO = 200
"""Unpacked to packed. Logs of any kind stay below 50; gzip reaches 1,032 on zeros."""
LARGEST = 1 << 40
"""Bytes that one file may unpack to. The largest public log of this field has 0.1 of it."""


class DamageError(Exception):
    """A packed stream that cannot be trusted. ``kind``: gzip, zip ...; ``cut``: it stops too early."""

    def __init__(self, kind: str, reason: str, *, cut: bool = False) -> None:
        super().__init__(reason)
        self.kind = kind
        self.cut = cut


class BombError(DamageError):
    """It unpacks to more than anything honest would."""


class Guard:
    """Adds up packed and unpacked bytes and stops what grows out of proportion."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.packed = 0
        self.unpacked = 0

    def take(self, packed: int, unpacked: int) -> None:
        """Count some more.

        Raises:
            BombError: the ratio or the size is out of bounds.
        """
        self.packed += packed
        self.unpacked += unpacked
        if self.unpacked > LARGEST:
            raise BombError(self.kind, f"more than {LARGEST:,} bytes come out of it")
        if self.unpacked > BOMB_FROM and self.unpacked > BOMB_RATIO * self.packed:
            raise BombError(self.kind, f"{self.unpacked:,} bytes come out of its first {self.packed:,}")


def unpacked(raw: BinaryIO) -> Iterator[bytes]:
    """The content of a stream in blocks: gzip or zstandard undone, all else as it is.

    Raises:
        DamageError: the stream is cut off or damaged. All that could be unpacked has been yielded by then.
        RecbenchError: zstandard is not installed.
    """
    first = raw.read(PACKED_BLOCK)
    if first.startswith(GZIP):
        yield from _members(raw, first, "gzip", lambda: inflate.decompressobj(31), PACKED_BLOCK)
    elif first.startswith(ZSTD):
        yield from _members(raw, first, "zstd", _zstandard().decompressobj, ZSTD_SLICE)
    else:
        while first:
            yield first
            first = raw.read(PLAIN_BLOCK)


def _members(raw: BinaryIO, block: bytes, kind: str, new: Callable[[], Any], size: int) -> Iterator[bytes]:
    """Every member of a packed stream, up to the very cut if there is one: GzipFile would lose the last of it."""
    guard, member = Guard(kind), None
    while block:
        for begin in range(0, len(block), size):
            part = block[begin : begin + size]
            while part:
                if member is None:
                    if not part.strip(b"\0"):
                        break  # zero padding behind the last member is allowed
                    member = new()
                try:
                    data = member.decompress(part)
                except Exception as error:
                    if not isinstance(error, _broken()):
                        raise
                    raise DamageError(kind, str(error)) from error
                left = member.unused_data if member.eof else b""
                guard.take(len(part) - len(left), len(data))
                if data:
                    yield data
                part, member = left, None if member.eof else member
        block = raw.read(PACKED_BLOCK)
    if member is not None:
        raise DamageError(kind, "it stops before its end", cut=True)


def _broken() -> tuple[type[Exception], ...]:
    found: tuple[type[Exception], ...] = (zlib.error, inflate.error)
    with contextlib.suppress(ImportError):
        found += (import_module("zstandard").ZstdError,)
    return found


def _zstandard() -> Any:
    try:
        return import_module("zstandard").ZstdDecompressor()
    except ImportError as error:
        raise RecbenchError(
            "The file is packed with zstandard, which cannot be undone here.",
            why="The library zstandard is not installed; it comes with an extra.",
            fix="pip install 'recbench[zstd]', or unpack the file first: zstd -d FILE",
            code=Exit.DATA,
        ) from error


class Stream(io.RawIOBase):
    """Blocks as a file object, for readers that want one."""

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
