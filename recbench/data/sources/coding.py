"""Raw ids to integer codes, column by column, without keeping the text of every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Coder:
    """Codes from 0 in order of first appearance. Internal: prepared ids are drawn in another order."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._parts: list[np.ndarray] = []

    def add(self, ids: Sequence[str]) -> None:
        """Code one batch of ids."""
        codes = self._codes
        part = [codes.setdefault(raw, len(codes)) for raw in ids]
        self._parts.append(np.array(part, dtype=np.int32))

    def add_encoded(self, distinct: Sequence[str], indices: np.ndarray) -> None:
        """Code one batch that is already dictionary-encoded."""
        codes = self._codes
        part = np.array([codes.setdefault(raw, len(codes)) for raw in distinct], dtype=np.int32)
        self._parts.append(part[indices])

    def codes(self) -> np.ndarray:
        """All codes so far, (E,) int32."""
        return joined(self._parts, np.int32)

    def ids(self) -> list[str]:
        """Raw ids in order of code."""
        return list(self._codes)


def joined(parts: list[np.ndarray], dtype: Any) -> np.ndarray:
    """The parts behind one another; an empty array where there is none."""
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)
