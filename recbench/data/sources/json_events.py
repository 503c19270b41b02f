"""Events from JSON lines: which fields of a record hold user, item, rating and time is all that a format says."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from operator import attrgetter
from typing import Any, ClassVar

import msgspec
import numpy as np
import pyarrow as pa

from recbench.data.sources.bad import BadRow
from recbench.data.sources.base import Events, Progress, Source
from recbench.data.sources.building import Builder, Lines
from recbench.data.sources.reading import Text, cut_line, shown
from recbench.data.sources.records import UNREADABLE, UnreadableError, batches, parse

Fields = Mapping[str, tuple[str, ...]]


class JsonEvents(Source):
    """One record a line. A subclass names its fields and what marks its files."""

    fields: ClassVar[Fields]
    """Role (user, item, rating, timestamp) -> names of its field, the usual one first."""

    @classmethod
    @abstractmethod
    def marks(cls) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Fields that a file of this format has, and fields that it has not."""

    @classmethod
    def recognises(cls, path: Any, head: bytes) -> bool:
        del path  # the content decides
        there, absent = cls.marks()
        text = head.lstrip(b"\xef\xbb\xbf \r\n\t")
        return (
            text.startswith((b"{", b"["))
            and all(has_field(head, key) for key in there)
            and not any(has_field(head, key) for key in absent)
        )

    def read(self, progress: Progress) -> Events:
        builder = Builder(self.file, self.bad)
        n_blank = 0
        for number, text, last in batches(self.file, progress):
            columns, at, blank = self._columns(number, text, last)
            builder.add(columns, at)
            n_blank += blank
        return builder.finish((f"{n_blank:,} blank lines in the source hold no event.",) if n_blank else ())

    @cached_property
    def _record(self) -> msgspec.json.Decoder[Any]:
        """Reads the fields of a record and skips the others, most of its bytes, without making them Python objects."""
        names = {role: options[0] for role, options in self.fields.items()}
        return msgspec.json.Decoder(
            msgspec.defstruct("Record", [(role, Any) for role in names], rename=names, gc=False)
        )

    def _columns(self, number: int, text: Text, last: bool) -> tuple[dict[str, pa.Array], Lines, int]:
        """The columns of a batch, the line of each row, and how many lines are blank. Line by line only where need be."""
        try:
            if not text.lines.isascii():
                text.lines.decode()  # the bytes of skipped fields, too, must be text
            records = self._record.decode_lines(text.lines)
            if len(records) != text.n:
                raise ValueError("a line without a record")
            arrays = {role: _array(role, list(map(attrgetter(role), records))) for role in self.fields}
        except (*UNREADABLE, TypeError, OverflowError, pa.ArrowException):
            return self._slowly(number, text.lines.split(b"\n"), last)
        return arrays, range(number, number + text.n), 0

    def _slowly(self, number: int, lines: list[bytes], last: bool) -> tuple[dict[str, pa.Array], Lines, int]:
        n_blank = 0
        rows: list[list[str]] = []
        at: list[int] = []
        for place, line in enumerate(lines, start=number):
            if not line.strip():
                n_blank += 1
                continue
            row = self._row(place, line, last=last and line is lines[-1])
            if row is not None:
                rows.append(row)
                at.append(place)
        columns = {
            role: pa.array([row[place] for row in rows], pa.string()) for place, role in enumerate(self.fields)
        }  # text of any kind: the builder tells what is no number or time
        return columns, np.array(at, dtype=np.int64), n_blank

    def _row(self, number: int, line: bytes, *, last: bool) -> list[str] | None:
        """One record's fields as text, None where it is a bad row.

        Raises:
            RecbenchError: it is one bad row too many, or the file ends in the middle of it.
        """
        try:
            record = parse(line)
        except UnreadableError as error:
            if last and not line.rstrip().endswith(b"}"):
                raise cut_line(self.file, number, line) from error
            self._bad(number, f"is neither JSON nor Python-dict text: {shown(line)}", f"{error}.")
            return None
        row = []
        for role, names in self.fields.items():
            value = next((record[name] for name in names if record.get(name) not in (None, "")), None)
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                had = ", ".join(map(str, record))[:200] or "nothing"
                self._bad(number, f"has no {names[0]}", f"Every event needs its {role}; the record has: {had}.")
                return None
            text = repr(value) if isinstance(value, float) else str(value)
            if not text.isascii() and not _encodable(text):
                self._bad(number, f"has no {names[0]} that is text", "It holds half a character (a lone surrogate).")
                return None
            row.append(text)
        return row

    def _bad(self, number: int, what: str, why: str) -> None:
        self.bad.add(BadRow(file=str(self.file), line=number, what=what, why=f"{why[:1].upper()}{why[1:]}"))


def _array(role: str, values: list[Any]) -> pa.Array:
    """A column of one type. Anything odd is an error here, and looked at one by one."""
    array = pa.array(values, pa.string() if role in ("user", "item") else None)
    if array.null_count or pa.types.is_boolean(array.type) or pa.types.is_nested(array.type):
        raise ValueError(role)
    return array


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def has_field(head: bytes, key: bytes) -> bool:
    """Does the text name this field, in quotes of either kind?"""
    return re.search(rb"[\"']%b[\"']\s*:" % re.escape(key), head) is not None
