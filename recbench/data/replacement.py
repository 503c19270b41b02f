"""How a new folder takes the place of an old one, and how a killed attempt is cleared away.

A folder cannot be replaced in one move, so there is a moment between two moves at which neither the old nor the new one
is in its place. Both are whole then, side by side in the work folder; whoever comes next puts the old one back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from recbench.errors import Exit, RecbenchError

LOCK, NEW, OLD = "lock", "new", "old"


@contextlib.contextmanager
def taking_the_place_of(folder: Path) -> Iterator[Path]:
    """An empty folder to fill. It takes the place of ``folder`` when the block ends well; if not, nothing changes.

    Raises:
        RecbenchError: it cannot be written: no space, no permission.
    """
    work = folder.parent / f".{folder.name}.{os.getpid()}.part"
    new, old = work / NEW, work / OLD
    lock: IO[str] | None = None
    try:
        mend(folder)
        lock = _held(work)
        new.mkdir()
        yield new
        _flush(new)
        if folder.exists():
            folder.replace(old)
        try:
            new.replace(folder)
        except OSError:
            if old.exists():
                old.replace(folder)
            raise
    except OSError as error:
        raise RecbenchError(
            f"{folder} cannot be written.",
            why=f"{error.strerror or error}."
            + (" What was prepared before is still there." if folder.exists() else ""),
            fix="Free some space or mend the permissions, or take another place: --datasets DIR",
            code=Exit.DATA,
        ) from error
    finally:
        if lock is not None:
            lock.close()
        shutil.rmtree(work, ignore_errors=True)


def mend(folder: Path) -> None:
    """Clear away what killed attempts left beside ``folder``; if it was moved aside and nothing took its place, put it back."""
    for work in folder.parent.glob(f".{folder.name}.*.part"):
        if not _abandoned(work):
            continue
        if (work / OLD).exists() and not folder.exists():
            (work / OLD).replace(folder)
        shutil.rmtree(work, ignore_errors=True)


def mend_all(home: Path) -> None:
    """``mend`` every folder of ``home`` that a killed attempt may have left."""
    for name in {work.name[1:].rsplit(".", 2)[0] for work in home.glob(".*.*.part")}:
        mend(home / name)


def _held(work: Path) -> IO[str]:
    """The lock of a new work folder; made again if another process took it for abandoned before it was locked."""
    while True:
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (work / LOCK).exists() and os.path.samestat(os.fstat(lock.fileno()), (work / LOCK).stat()):
            return lock
        lock.close()


def _abandoned(work: Path) -> bool:
    """Does no process hold the work folder? The lock falls with its process, however that ends."""
    try:
        with (work / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:  # killed before it had a lock, or about to have one
        return work.is_dir() and not Path(f"/proc/{work.name.split('.')[-2]}").exists()
    except OSError:
        return False
    return True


def _flush(folder: Path) -> None:
    """Bring every file to the disk before the folder is named: after a power cut it is whole or not there."""
    for path in folder.iterdir():
        with path.open("rb+") as handle:
            os.fsync(handle.fileno())
