"""zip and tar: what is inside, and one member as a stream. Nothing is ever written to the disk from an archive.

Names inside an archive are only compared with patterns, never taken as a place. A tar may be packed (gzip, zstandard)
or stand inside a zip, as Yelp's does; a zip inside anything is not read, because it cannot be read as a stream.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from recbench.data.sources.base import Progress
from recbench.data.sources.packing import BombError, DamageError, Guard, Stream, unpacked
from recbench.data.sources.places import File, Member
from recbench.errors import Exit, RecbenchError

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
TAR_MARK, TAR_PLACE = b"ustar", 257
TARS = (".tar", ".tar.gz", ".tgz", ".tar.zst")
MOST = 100_000
"""Members an archive may list."""
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)
BROKEN_TAR = (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, KeyError, IndexError)


def is_archive(head: bytes) -> bool:
    """Does a file of this (unpacked) head hold files?"""
    return _is_zip(head) or _is_tar(head)


def members(path: Path) -> list[Member]:
    """The regular files in an archive, in its order; a tar inside a zip stands for what is in it.

    Raises:
        RecbenchError: it is damaged, locked, a bomb by its number of members, or has a name that leads outside.
    """
    state = path.stat()
    return list(_listed(path, state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=8)
def _listed(path: Path, size: int, changed: int) -> tuple[Member, ...]:
    del size, changed  # of the key: another file of that name is listed anew
    found = []
    for member in _inside(path):
        found += _inside(member) if member.name.lower().endswith(TARS) else [member]
    if len({member.name for member in found}) < len(found):
        names = [member.name for member in found]
        twice = next(name for name in names if names.count(name) > 1)
        raise _refused(path, f"holds {twice!r} twice", "Which of the two is meant cannot be told.")
    return tuple(found)


def _inside(archive: File) -> list[Member]:
    try:
        with stored(archive, lambda _: None) as raw:
            if isinstance(archive, Path) and _is_zip(_start(raw)):
                names = _zip_names(archive, raw)
            else:
                with _tar(raw) as tar:
                    names = _tar_names(archive, tar)
    except DamageError as error:
        raise damaged(archive, error) from error
    except BROKEN_TAR + BROKEN_ZIP as error:
        raise damaged(archive, _damage(error)) from error
    return [Member(archive, name) for name in names if _meant(archive, name)]


def _zip_names(archive: Path, raw: BinaryIO) -> list[str]:
    with zipfile.ZipFile(raw) as packed:
        infos = [info for info in packed.infolist() if not info.is_dir()]
    if locked := next((info.filename for info in infos if info.flag_bits & 1), None):
        raise _refused(archive, f"is locked: {locked!r} needs a password", "Nothing here asks for one.")
    _few(archive, len(infos))
    return [info.filename for info in infos]


def _tar_names(archive: File, tar: tarfile.TarFile) -> list[str]:
    names = []
    for info in tar:
        if info.isreg():
            names.append(info.name)
        _few(archive, len(names))
        _forget(tar)
    return names


def _forget(tar: Any) -> None:
    """A list of all members is not needed, and would grow with the archive."""
    tar.members = []


def _few(archive: File, n: int) -> None:
    if n > MOST:
        raise _refused(archive, f"lists more than {MOST:,} files", "No dataset has so many; it may be a bomb.")


def _meant(archive: File, name: str) -> bool:
    """False for what a file manager left; a name that leads outside is refused, even though nothing is unpacked."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or parts[:1] == ("/",) or (parts and parts[0].endswith(":")):
        raise _refused(archive, f"holds a file named {name!r}", "That name leads outside of the archive: a trap.")
    return bool(parts) and parts[0] != "__MACOSX" and not parts[-1].startswith(".")


@contextmanager
def stored(file: File, progress: Progress) -> Iterator[BinaryIO]:
    """The bytes of a file or member as they stand there; ``progress`` is told what is read from the disk.

    Raises:
        DamageError: the archive does not give the member whole.
    """
    if isinstance(file, Path):
        with io.BufferedReader(_Counted(file, progress), buffer_size=1 << 18) as raw:
            yield raw
        return
    with stored(file.archive, progress) as raw:
        if isinstance(file.archive, Path) and _is_zip(_start(raw)):
            yield io.BufferedReader(Stream(_zip_blocks(raw, file.name)))
        else:
            with _tar(raw) as tar:
                yield _tar_member(tar, file)


def _zip_blocks(raw: BinaryIO, name: str) -> Iterator[bytes]:
    """Unpacked blocks of a member; the ratio is held against what the archive says it stores."""
    guard = Guard("zip")
    try:
        with zipfile.ZipFile(raw) as packed, packed.open(info := packed.getinfo(name)) as inner:
            guard.take(info.compress_size, 0)
            while block := inner.read(1 << 20):
                guard.take(0, len(block))
                yield block
    except (*BROKEN_ZIP, KeyError) as error:
        raise DamageError("zip", str(error), cut=isinstance(error, EOFError)) from error


def _tar_member(tar: tarfile.TarFile, file: Member) -> BinaryIO:
    for info in tar:
        if info.name == file.name and info.isreg():
            found = tar.extractfile(info)
            if found is not None:
                return io.BufferedReader(Stream(_tar_blocks(found)))
        _forget(tar)
    raise DamageError("tar", f"{file.name} is no longer in it")


def _tar_blocks(found: Any) -> Iterator[bytes]:
    try:
        while block := found.read(1 << 20):
            yield block
    except BROKEN_TAR as error:
        raise DamageError("tar", str(error), cut="end of data" in str(error)) from error


def _tar(raw: BinaryIO) -> tarfile.TarFile:
    head = _start(raw)
    if _is_tar(head):
        return tarfile.open(fileobj=raw, mode="r:" if raw.seekable() else "r|")
    return tarfile.open(fileobj=io.BufferedReader(Stream(unpacked(raw)), buffer_size=1 << 20), mode="r|")


def _start(raw: Any) -> bytes:
    return bytes(raw.peek(TAR_PLACE + len(TAR_MARK)))


def _is_zip(head: bytes) -> bool:
    return head.startswith(ZIP)


def _is_tar(head: bytes) -> bool:
    return head[TAR_PLACE : TAR_PLACE + len(TAR_MARK)] == TAR_MARK


def _damage(error: Exception) -> DamageError:
    kind = "zip" if isinstance(error, zipfile.BadZipFile) else "tar"
    cut = "end of data" in str(error) or isinstance(error, EOFError) or "not a zip file" in str(error)
    return DamageError(kind, str(error) or type(error).__name__, cut=cut)


CHECKS = {"gzip": "gzip -t", "zstd": "zstd -t", "zip": "unzip -t", "tar": "tar tf"}


def damaged(file: File, error: DamageError, upto: str = "Nothing of it can be used.") -> RecbenchError:
    """The error for a packed file or archive that cannot be trusted."""
    root = file if isinstance(file, Path) else file.root
    if isinstance(error, BombError):
        why = f"{str(error)[:1].upper()}{str(error)[1:]}, so it is probably made to fill a disk or a memory."
        return _refused(file, "unpacks to more than any dataset would", why)
    stream = f"its {error.kind} stream has no end" if error.cut else f"its {error.kind} stream does not check"
    why = f"{upto} Half a file would be another dataset."
    return RecbenchError(
        f"{file} is {'cut off' if error.cut else 'damaged'}: {stream}.",
        why=why if error.cut else f"{why} ({error})",
        fix=f"Get the file again; {CHECKS[error.kind]} {root} says nothing when it is whole.",
        code=Exit.DATA,
    )


def _refused(file: File, what: str, why: str) -> RecbenchError:
    return RecbenchError(
        f"{file} {what}.", why=why, fix="Get it again from its publisher. If you trust it all the same, unpack it and name the "
        "file inside: --source FILE", code=Exit.DATA,
    )  # fmt: skip


class _Counted(io.RawIOBase):
    """A file on the disk that tells how much of it is read."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._file = path.open("rb", buffering=0)
        self._progress = progress

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._file.readinto(buffer)
        self._progress(size)
        return size

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()
