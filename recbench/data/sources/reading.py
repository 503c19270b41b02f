"""Reading raw content that may be packed, inside an archive or damaged: blocks, lines, an error that names the last good line."""

from __future__ import annotations

import codecs
import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, NamedTuple

import numpy as np

from recbench.data.sources.archives import damaged, stored
from recbench.data.sources.base import Progress
from recbench.data.sources.packing import PLAIN_BLOCK, DamageError, Stream, unpacked
from recbench.data.sources.places import File
from recbench.errors import Exit, RecbenchError

HEAD = 1 << 16
WRONG = re.compile("[\udc80-\udcff]")
"""What the decoder makes of bytes that are not UTF-8."""
LONGEST = 1 << 26
"""Bytes of a line. A longer one is no record, and would be held in memory as a whole."""


def blocks(file: File, progress: Progress) -> Iterator[bytes]:
    """The content in blocks, archive and packing undone.

    Raises:
        RecbenchError: it is cut off, damaged or a bomb. All that could be unpacked has been yielded by then.
    """
    try:
        with stored(file, progress) as raw:
            yield from unpacked(raw)
    except DamageError as error:
        raise damaged(file, error, _upto(file, error)) from error
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise damaged(file, DamageError("tar" if isinstance(error, tarfile.TarError) else "zip", str(error))) from error


def _upto(file: File, error: DamageError) -> str:
    """Up to where it can be read: it is read again, since counting all along is paid for by every whole file."""
    n_lines, recent = 0, (b"", b"")
    with suppress(DamageError), stored(file, lambda _: None) as raw:
        for block in unpacked(raw):
            n_lines += n_breaks(block)
            recent = (recent[1], block)
    whole = b"".join(recent).rpartition(b"\n")[0].rpartition(b"\n")[2]
    upto = f"readable up to line {n_lines:,} ({shown(whole)})" if n_lines else "readable, but not one whole line of it"
    return f"It is {upto}, then {'stops' if error.cut else 'breaks'}."


def head_of(file: File, *, strict: bool = False) -> bytes:
    """The first 64 KiB, packing undone; shorter where the file is.

    Raises:
        RecbenchError: if ``strict``, that its stream breaks there; else the head ends where it breaks.
    """
    head = b""
    try:
        for block in blocks(file, lambda _: None):
            head += block
            if len(head) >= HEAD:
                break
    except RecbenchError:
        if strict:
            raise
    return head[:HEAD]


class Text(NamedTuple):
    """Whole lines, and how many."""

    lines: bytes
    """Without the last line break. A carriage return stays."""
    n: int


def n_breaks(text: bytes) -> int:
    """Line breaks in it: ``bytes.count`` takes three times as long."""
    return int(np.count_nonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n")))


def whole_lines(file: File, progress: Progress) -> Iterator[Text]:
    """The content, some lines at a time. The last line may lack its break.

    Raises:
        RecbenchError: as :func:`blocks`, or a line is longer than any record.
    """
    rest, n = b"", 0
    for block in blocks(file, progress):
        text, broken, rest = (rest + block).rpartition(b"\n")
        if broken:
            yield (found := Text(text, n_breaks(text) + 1))
            n += found.n
        if len(rest) > LONGEST:
            raise RecbenchError(
                f"Line {n + 1:,} of {file} does not end.",
                why=f"It has more than {LONGEST:,} bytes, and one record a line is expected.",
                fix="Mend the line ends of the file, or name another --source-format.",
                code=Exit.DATA,
            )
    if rest:
        yield Text(rest, 1)


def lines(file: File, progress: Progress) -> Iterator[list[bytes]]:
    """The lines in batches, line ends removed (a carriage return stays). The last one may lack its line end.

    Raises:
        RecbenchError: as :func:`whole_lines`.
    """
    for text in whole_lines(file, progress):
        yield text.lines.split(b"\n")


def text_stream(source: Iterator[bytes]) -> BinaryIO:
    """Blocks as a file object that is UTF-8 for certain: a byte that is none becomes NUL, which no id may hold."""
    return io.BufferedReader(Stream(_valid(source)), buffer_size=PLAIN_BLOCK)


def _valid(source: Iterator[bytes]) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for block in source:
        if block.isascii() and not decoder.getstate()[0]:
            yield block
            continue
        yield WRONG.sub("\0", decoder.decode(block)).encode()
    yield WRONG.sub("\0", decoder.decode(b"", final=True)).encode()


def shown(line: bytes, width: int = 60) -> str:
    """The start of a raw line, fit for a message."""
    text = line[: 4 * width].decode("utf-8", errors="replace").strip()
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return text if len(text) <= width else text[: width - 3] + "..."


def cut_line(file: File, number: int, line: bytes) -> RecbenchError:
    """The error for a file that ends in the middle of a record. No number of bad rows excuses it."""
    good = f"The last good line is {number - 1:,}." if number > 1 else "No line before it was good."
    return RecbenchError(
        f"Line {number:,} of {file} ends in the middle of a record: {shown(line)}",
        why=f"It is the last line, and the file stops there. {good} Half a file would be another dataset.",
        fix="The file was probably cut: get it again.",
        code=Exit.DATA,
    )
