"""Which raw format a file is in, found from its content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbench.data.sources.base import Source
from recbench.data.sources.reading import head_of, shown
from recbench.errors import Exit, RecbenchError
from recbench.registry import SOURCES

BUILT_IN = "synthetic"
"""The one format that needs no file."""


def open_source(path: Path | None, source_format: str | None, options: Mapping[str, Any]) -> tuple[str, Source]:
    """The name of the format and a source ready to read.

    Raises:
        RecbenchError: no such path, nothing in it, or a content no format fits.
    """
    if path is None:
        if source_format is None:
            raise ValueError("a path or a format is needed")
        return source_format, SOURCES.load(source_format)(None, dict(options))
    check_readable(path)
    if source_format is None:
        source_format = "table" if options.get("columns") else find_format(path)
    return source_format, SOURCES.load(source_format)(path, dict(options))


def find_format(path: Path) -> str:
    """The first format in the table that recognises the file."""
    head = head_of(path)
    for name in SOURCES.entries():
        if name != BUILT_IN and SOURCES.load(name).recognises(path, head):
            return name
    why, fix = _hint(head)
    raise RecbenchError(f"The format of {path} is not known.", why=why, fix=fix, code=Exit.DATA)


def file_of(path: Path, source_format: str | None) -> Path:
    """The one file a folder of a dataset stands for, where a format says which; else the path as it is."""
    if not path.is_dir():
        return path
    formats = [source_format] if source_format else SOURCES.entries()
    patterns = [SOURCES.load(name).folder_file for name in formats]
    found = [file for pattern in patterns if pattern for file in path.glob(pattern)]
    return found[0] if len(found) == 1 else path


def check_readable(path: Path, option: str = "--source") -> None:
    """Refuse what cannot be read at all: a missing path, a folder, an empty file."""
    if path.is_dir():
        inside = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in path.iterdir())
        listed = ", ".join(inside[:6]) + (f" and {len(inside) - 6} more" if len(inside) > 6 else "")
        files = [name for name in inside if not name.endswith("/")]
        raise RecbenchError(
            f"{path} is a folder.",
            why=f"One file is needed; inside are: {listed or 'no files at all'}.",
            fix=f"{option} {path / (files[0] if files else 'FILE')}",
            code=Exit.DATA,
        )
    if not path.exists():
        near = _near(path)
        raise RecbenchError(
            f"There is no file {path}.",
            why=f"{path.parent} holds: {near}." if near else f"The folder {path.parent} is not there or is empty.",
            fix=f"{option} PATH of a file that exists",
            code=Exit.DATA,
        )
    try:
        with path.open("rb") as raw:
            start = raw.read(1)
    except OSError as error:
        raise RecbenchError(
            f"{path} cannot be read.", why=error.strerror or str(error), fix=f"ls -l {path}", code=Exit.DATA
        ) from error
    if not start:
        raise RecbenchError(
            f"{path} is empty.", why="It has 0 bytes.", fix=f"Get the file again, then {option} PATH", code=Exit.DATA
        )


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    from difflib import get_close_matches

    names = [entry.name for entry in path.parent.iterdir()]
    return ", ".join(get_close_matches(path.name, names, n=3, cutoff=0.3) or sorted(names)[:3])


def _hint(head: bytes) -> tuple[str, str]:
    """Why no format fits, and what to do, for the cases people meet."""
    formats = ", ".join(SOURCES.entries())
    fix = f"Say what it is: --source-format one of {formats}"
    if not head.strip():
        return (
            "It unpacks to nothing but blanks, or its gzip stream breaks at the start.",
            "Get the file again; gzip -t checks it.",
        )
    if head.startswith(b"PK\x03\x04"):
        return "It is a zip archive.", "Unpack it and name the file inside: unzip -l lists them"
    if b"\0" in head:
        return f"It is binary, and not gzip or Parquet: it starts with {head[:8].hex(' ')}.", fix
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "It is a web page, probably an error page saved in place of the file.", "Get the file again."
    if b"asin" in head and b"title" in head and b"reviewerID" not in head:
        return "It looks like Amazon item metadata, which holds no events.", "--source REVIEWS --metadata THIS_FILE"
    return f"No format fits its first line: {shown(head.partition(bytes([10]))[0])}", fix
