"""Where raw content stands: a file on the disk, or a member of an archive. Members are read as streams, never unpacked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside an archive; ``archive`` may be a member itself (Yelp's tar in a zip)."""

    archive: Path | Member
    name: str

    def __str__(self) -> str:
        return f"{self.archive}:{self.name}"

    @property
    def root(self) -> Path:
        """The file on the disk that it stands in."""
        return self.archive if isinstance(self.archive, Path) else self.archive.root


File = Path | Member


def name_of(file: File) -> str:
    """The name without its folders."""
    return file.name if isinstance(file, Path) else PurePosixPath(file.name).name
