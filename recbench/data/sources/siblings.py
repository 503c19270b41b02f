"""Files that stand beside another one, in its folder or its archive."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from recbench.data.sources.archives import members
from recbench.data.sources.places import File, Member, name_of

PACKED = (".gz", ".zst")


def sibling(file: File, pattern: str) -> File | None:
    """The file of that name, or the one that fits the pattern, beside ``file``; None where there is none or several.

    One that stands there packed, too, is one.
    """
    if isinstance(file, Member):
        folder = PurePosixPath(file.name).parent
        inside = [member for member in members(file.root) if PurePosixPath(member.name).parent == folder]
        found: list[File] = [member for member in inside if fits(PurePosixPath(member.name).name, pattern)]
    elif not any(mark in pattern for mark in "*?"):
        found = [other] if (other := file.with_name(pattern)).is_file() else []
    else:
        found = [other for other in sorted(file.parent.iterdir()) if other.is_file() and fits(other.name, pattern)]
    return found[0] if len({_unpacked(other) for other in found}) == 1 else None


def _unpacked(file: File) -> str:
    return next((name_of(file).removesuffix(end) for end in PACKED if name_of(file).endswith(end)), name_of(file))


def fits(name: str, pattern: str) -> bool:
    """Letter case does not matter."""
    return fnmatchcase(name.lower(), pattern.lower())
