"""Columns that grow batch by batch without a copy of themselves, and raw ids as integer codes.

A log may hold tens of millions of rows and of ids. So rows go into arrays that grow in place, and raw ids stay Arrow text,
each once: as Python objects every one of them would take five times its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa

LEAST = 1 << 16
"""Rows that a column makes room for at first, and texts that a coder collects before it encodes them."""
PENDING = 1 << 18
"""Ids of batches that are put off before all of them are encoded at once."""
SLICE = 1 << 16
"""Raw ids that are Python objects at one time, where Python must see them all."""


class Column:
    """One value a row, (E,), growing in place."""

    def __init__(self, dtype: Any) -> None:
        self._held = np.empty(0, dtype=dtype)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def extend(self, values: np.ndarray) -> None:
        """Add rows. Numbers that the column cannot hold make it one of wider numbers."""
        kind = np.promote_types(self._held.dtype, values.dtype)
        if self._held.dtype.kind != kind.kind:
            self._held = self._held.astype(kind)
        n = self._n + len(values)
        if n > len(self._held):
            self._held.resize(
                max(n, len(self._held) * 5 // 4, LEAST), refcheck=False
            )  # no view of it is given away yet
        self._held[self._n : n] = values
        self._n = n

    def part(self, begin: int, stop: int) -> np.ndarray:
        """Rows ``begin`` to ``stop``, to be changed in place. Good until the next ``extend``."""
        return self._held[begin:stop]

    def values(self) -> np.ndarray:
        """All rows; nothing may be added afterwards."""
        self._held.resize(self._n, refcheck=False)
        return self._held


class RawIds(Sequence[str]):
    """Raw ids in order of code, as Arrow text."""

    def __init__(self, text: pa.Array) -> None:
        self.text = text

    @classmethod
    def made(cls, ids: Sequence[str]) -> RawIds:
        """Of any sequence of texts."""
        return ids if isinstance(ids, RawIds) else cls(pa.array(list(ids), pa.large_string()))

    def __len__(self) -> int:
        return len(self.text)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> RawIds: ...
    def __getitem__(self, place: int | slice) -> str | RawIds:
        """One id, or a stretch of them."""
        return RawIds(self.text[place]) if isinstance(place, slice) else str(self.text[int(place)].as_py())

    def __iter__(self) -> Iterator[str]:
        """Every id, a slice of them at a time."""
        for begin in range(0, len(self.text), SLICE):
            yield from self.text.slice(begin, SLICE).to_pylist()

    def __eq__(self, other: object) -> bool:
        """Equal to any sequence of the same texts."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list has none

    def take(self, codes: np.ndarray) -> RawIds:
        """The ids of some codes, in their order."""
        return RawIds(self.text.take(pa.array(codes)))


class Coder:
    """Codes from 0 in order of first appearance. Internal: prepared ids are drawn in another order.

    The ids of a batch are put off until there are many: then those known and those new are encoded in one go, the known
    ones first, so that they keep their codes. Waiting for as many as are known makes that linear in all.
    """

    def __init__(self) -> None:
        self._known: pa.Array = pa.array([], pa.large_string())
        self._codes = Column(np.int32)
        self._waiting: list[tuple[int, pa.Array]] = []
        self._n_waiting = 0
        self._texts: list[str] = []

    def add(self, ids: Sequence[str]) -> None:
        """Code some ids."""
        self._texts += ids
        if len(self._texts) >= LEAST:
            self._encode()

    def add_encoded(self, distinct: pa.Array, indices: np.ndarray) -> None:
        """Code one batch that is already dictionary-encoded: each id once, and the place of each row's."""
        if len(indices):
            self._waiting.append((len(self._codes), distinct.cast(pa.large_string())))
            self._n_waiting += len(distinct)
            self._codes.extend(indices)
        if self._n_waiting >= max(PENDING, len(self._known)):
            self._merge()

    def codes(self) -> np.ndarray:
        """All codes, (E,) int32. Nothing may be added afterwards."""
        self._encode()
        self._merge()
        return self._codes.values()

    def ids(self) -> RawIds:
        """Raw ids in order of code."""
        self._encode()
        self._merge()
        return RawIds(self._known)

    def _encode(self) -> None:
        if self._texts:
            encoded = pa.array(self._texts, pa.large_string()).dictionary_encode()
            self._texts = []
            self.add_encoded(encoded.dictionary, encoded.indices.to_numpy())

    def _merge(self) -> None:
        """Turn the places of all waiting batches into codes."""
        if not self._waiting:
            return
        known = [self._known] if len(self._known) else []
        encoded = pa.chunked_array([*known, *(ids for _, ids in self._waiting)], pa.large_string()).dictionary_encode()
        stops = [*(begin for begin, _ in self._waiting[1:]), len(self._codes)]
        for (begin, _), stop, chunk in zip(self._waiting, stops, encoded.chunks[len(known) :], strict=True):
            places = self._codes.part(begin, stop)
            places[:] = chunk.indices.to_numpy()[places]
        self._known = encoded.chunk(0).dictionary
        self._waiting, self._n_waiting = [], 0
