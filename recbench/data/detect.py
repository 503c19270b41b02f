"""Which raw format a file is in, found from its content."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbench.data.sources.archives import is_archive, members
from recbench.data.sources.bad import BadRows
from recbench.data.sources.base import Source
from recbench.data.sources.json_events import has_field
from recbench.data.sources.packing import OTHERS
from recbench.data.sources.places import File, name_of
from recbench.data.sources.reading import head_of, shown
from recbench.data.sources.siblings import fits
from recbench.errors import Exit, RecbenchError
from recbench.registry import SOURCES

BUILT_IN = "synthetic"
"""The one format that needs no file."""


def open_source(
    path: Path | None, source_format: str | None, options: Mapping[str, Any], bad: BadRows | None = None
) -> tuple[str, Source]:
    """The name of the format and a source ready to read.

    Args:
        path: a file, an archive, or a folder that stands for one file; None for the built-in format.
        source_format: None to find it from the content.
        options: for the source.
        bad: how many bad rows are bearable.

    Raises:
        RecbenchError: no such path, nothing in it, a content no format fits, or an option that the format lacks.
    """
    if path is None:
        if source_format is None:
            raise ValueError("a path or a format is needed")
        return source_format, SOURCES.load(source_format)(None, dict(options), bad)
    check_readable(path)
    file = _inside(path, source_format)
    if source_format is None:
        source_format = "table" if options.get("columns") else find_format(file)
    made = SOURCES.load(source_format)(file, dict(options), bad)
    _check_options(source_format, made, options)
    return source_format, made


def _check_options(name: str, source: Source, options: Mapping[str, Any]) -> None:
    unknown = [option for option in options if option not in source.takes]
    if not unknown:
        return
    if unknown[0] == "columns":
        raise RecbenchError(
            f"--columns cannot be used with the format {name}.",
            why=f"{name} knows its own columns; only tables have to be told.",
            fix="Leave --columns out, or say --source-format table",
        )
    raise RecbenchError(
        f"The format {name} has no setting {unknown[0]!r}.",
        why=f"Settings of a source are: {', '.join(source.takes) or 'none at all'}.",
        fix="Leave --set out; it is for the synthetic data.",
    )


def find_format(file: File) -> str:
    """The first format in the table that recognises the file."""
    head = head_of(file)
    for name in SOURCES.entries():
        if name != BUILT_IN and SOURCES.load(name).recognises(file, head):
            return name
    why, fix = _hint(head_of(file, strict=True))  # where it is damaged, that is the reason
    raise RecbenchError(f"The format of {file} is not known.", why=why, fix=fix, code=Exit.DATA)


def file_of(path: Path, source_format: str | None, usual: str | None = None) -> Path:
    """The one file a folder of a dataset stands for, where a format says which; else the path as it is.

    Args:
        usual: format of the dataset that is asked for, which comes before others.
    """
    if not path.is_dir():
        return path
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    own = _fitting(files, usual, "*", sure=False) if usual and not source_format else []
    found = None if own else _stands_for(files, *([source_format] if source_format else []))
    if len(own) == 1:
        found = own[0]
    return found if isinstance(found, Path) else path


def _inside(path: Path, source_format: str | None) -> File:
    """The file itself, or the member that an archive stands for.

    Raises:
        RecbenchError: none of its members is known, or several are.
    """
    if not is_archive(head_of(path)):
        return path
    held = members(path)
    found = _stands_for(held, *([source_format] if source_format else []))
    if found is None:
        listed = ", ".join(member.name for member in held[:6]) + (f" and {len(held) - 6} more" if len(held) > 6 else "")
        raise RecbenchError(
            f"{path} is an archive, and which file in it holds the events is not known.",
            why=f"Inside are: {listed or 'no files at all'}.",
            fix="Unpack it and name the file: --source FILE",
            code=Exit.DATA,
        )
    return found


def _stands_for(files: Sequence[File], *formats: str) -> File | None:
    """The one file that fits a format's patterns, best pattern first; the only file there is, of whatever format.

    None where formats fit different files, or one fits several: which of them is meant is not to be guessed.

    Args:
        formats: the only ones in question; none: all, each of which has to recognise its file.
    """
    found = {
        name_of(file): file
        for name in formats or SOURCES.entries()
        for file in _fitting(files, name, sure=bool(formats))
    }
    if len(found) == 1:
        return next(iter(found.values()))
    return files[0] if len(files) == 1 else None


def _fitting(files: Sequence[File], name: str, *patterns: str, sure: bool) -> list[File]:
    """The files of a format by the first of its patterns that some fit.

    Args:
        patterns: for a format that has none.
        sure: it is known to be the format, so the names do.
    """
    source = SOURCES.load(name)
    for pattern in source.files or (() if sure else patterns):
        fitting = [file for file in files if fits(name_of(file), pattern)]
        found = [file for file in fitting if sure or source.recognises(file, head_of(file))]
        if found:
            return found
    return []


def check_readable(path: Path, option: str = "--source") -> None:
    """Refuse what cannot be read at all: a missing path, a folder, a pipe, an empty file."""
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
    if not path.is_file():
        raise RecbenchError(
            f"{path} is a pipe or a device.",
            why="It is read more than once: to find its format, to hash it, and for what it holds.",
            fix=f"Save it to a file, then {option} FILE",
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
    if not head.strip():
        return "It holds nothing but blanks.", "Get the file again."
    if b"\0" in head or head.startswith(tuple(OTHERS)):
        return _binary(head), "Unpack it first, or get the file again."
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "It is a web page, probably an error page saved in place of the file.", "Get the file again."
    if described := _describes(head):
        return f"It looks like {described}, which hold no events.", "--source EVENTS --metadata THIS_FILE"
    formats = ", ".join(name for name in SOURCES.entries() if name != BUILT_IN)
    first = shown(head.partition(bytes([10]))[0])
    return f"No format fits its first line: {first}", f"Say what it is: --source-format one of {formats}"


def _binary(head: bytes) -> str:
    packed = next((kind for magic, kind in OTHERS.items() if head.startswith(magic)), None)
    if packed:
        return f"It is packed with {packed}; gzip, zstandard, zip and tar are read."
    return f"It is binary, and none of gzip, zstandard, zip, tar and Parquet: it starts with {head[:8].hex(' ')}."


def _describes(head: bytes) -> str | None:
    """What a file describes that is about items alone."""
    if re.match(rb'\s*\{\s*"\d+"\s*:\s*[\[{]', head):
        return "attributes or texts of items"
    about_items = has_field(head, b"asin") and has_field(head, b"title") and not has_field(head, b"reviewerID")
    return "lines of item metadata" if about_items else None
