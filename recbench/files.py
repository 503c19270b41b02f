"""Files that are either whole or absent, and their hashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes the place of ``path`` when the block ends well, and is removed if not."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        with beside.open("rb+") as handle:
            os.fsync(handle.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def usual_mode(path: Path) -> Iterator[None]:
    """What is written to ``path`` inside gets the mode that a new file has; safetensors would leave it to its owner alone."""
    path.touch()
    mode = path.stat().st_mode
    yield
    path.chmod(mode)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def sha256(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """Hex sha256 of a file, read in blocks of 1 MiB; ``progress`` is told the bytes of each block."""
    return file_hash(path, "sha256", progress)


def file_hash(path: Path, kind: str, progress: Callable[[int], None] | None = None) -> str:
    """Hex hash of a file, of any kind hashlib knows; md5 is good against mishaps only."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
            if progress is not None:
                progress(len(block))
    return digest.hexdigest()


def file_facts(path: Path) -> dict[str, Any]:
    """What a card says of a file: where it lay, its length and hash."""
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256(path)}
