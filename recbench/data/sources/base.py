"""What every raw format is turned into, and the contract of the code that does it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from recbench.data.sources.bad import BadRows
from recbench.data.sources.places import File

Progress = Callable[[int], None]
"""Told the number of (compressed) bytes read since the last call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Interactions in source order, ids coded from 0 by first appearance (codes are internal and never leave preparation).

    ``user`` and ``item`` (E,) int32 codes into ``user_ids`` and ``item_ids`` (raw ids, always text); ``rating`` (E,) float32
    or None; ``timestamp`` (E,) int64 or None, in ``time_unit``.
    """

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray | None
    timestamp: np.ndarray | None
    user_ids: Sequence[str]
    item_ids: Sequence[str]
    time_unit: str | None
    items: pd.DataFrame | None = None
    """Metadata where the source has it: raw_id, title, brand, categories (list of text), price, text."""
    notes: tuple[str, ...] = ()
    """What a reader of the card should know, for example rows the source itself marks as odd."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Facts for the card (the oracle of synthetic data)."""

    def __len__(self) -> int:
        return len(self.user)


class Source(ABC):
    """A raw format. One instance reads one file, or one member of an archive."""

    family = "generic"
    """Which shipped recipes fit data of this format."""
    files: ClassVar[tuple[str, ...]] = ()
    """Patterns of the one file that a folder or archive of this format stands for, best first; none: such is refused."""
    takes: ClassVar[tuple[str, ...]] = ()
    """Names of the options it understands."""

    def __init__(self, path: File | None, options: dict[str, Any], bad: BadRows | None = None) -> None:
        self.path = path
        self.options = options
        self.bad = BadRows() if bad is None else bad

    @property
    def file(self) -> File:
        """What to read.

        Raises:
            ValueError: the source was made without a path.
        """
        if self.path is None:
            raise ValueError(f"{type(self).__name__} needs a path")
        return self.path

    @classmethod
    @abstractmethod
    def recognises(cls, path: File, head: bytes) -> bool:
        """Is this file of my format? ``head``: its first 64 KiB, unpacked. Looks at content, not at the name."""

    def metadata(self) -> File | None:
        """The file beside this one that describes the items, where the format has such a thing and it is there."""
        return None

    def beside(self) -> dict[str, Path]:
        """Other files on the disk that are read with the path, by what they hold. A member's bytes are the archive's."""
        found = self.metadata()
        return {"metadata": found} if isinstance(found, Path) else {}

    @abstractmethod
    def read(self, progress: Progress) -> Events:
        """All events, in source order.

        Raises:
            RecbenchError: the file is damaged, with its name, the line and the last good line.
        """
