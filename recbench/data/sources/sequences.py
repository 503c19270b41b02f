"""Sequence text: a user and then items, oldest first (S3-Rec), or one ``user item`` pair a line (SASRec)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import final

import numpy as np

from recbench.data.sources.base import Events, Progress, Source
from recbench.data.sources.coding import Coder
from recbench.data.sources.reading import lines, shown
from recbench.errors import Exit, RecbenchError


@final
class Sequences(Source):
    """Lists without times: the order of a list is the order of its events."""

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        del path  # the content decides
        rows = head.replace(b"\r", b"").split(b"\n")[:200]
        rows = [row for row in (rows[:-1] if len(rows) > 1 else rows) if row]
        return bool(rows) and all(re.fullmatch(rb"\d+( \d+)+ ?", row) for row in rows)

    def read(self, progress: Progress) -> Events:
        path = self.path
        if path is None:
            raise ValueError("sequence text needs a path")
        user, item = Coder(), Coder()
        line_of: dict[str, int] = {}
        repeated: tuple[str, int] | None = None
        only_pairs = True
        number = n_blank = 0
        for batch in lines(path, progress):
            for line in batch:
                number += 1
                words = _words(path, number, line)
                if not words:
                    n_blank += 1
                    continue
                only_pairs = only_pairs and len(words) == 2
                if line_of.setdefault(words[0], number) != number and repeated is None:
                    repeated = (words[0], number)
                user.add([words[0]] * (len(words) - 1))
                item.add(words[1:])
        if repeated and not only_pairs:
            raise _on_two_lines(path, *repeated, line_of[repeated[0]])
        notes = [f"{n_blank:,} blank lines in the source hold no event."] if n_blank else []
        if repeated:
            notes.append("Read as one `user item` pair a line; each user's pairs in file order.")
        codes = user.codes()
        return Events(
            user=codes,
            item=item.codes(),
            rating=None,
            timestamp=None,
            order=np.arange(len(codes), dtype=np.int64),
            user_ids=user.ids(),
            item_ids=item.ids(),
            time_unit=None,
            notes=tuple(notes),
        )


def _words(path: Path, number: int, line: bytes) -> list[str]:
    try:
        words = line.decode("utf-8-sig" if number == 1 else "utf-8").split()
    except UnicodeDecodeError:
        words = [""]
    if len(words) == 1:
        raise RecbenchError(
            f"Line {number:,} of {path} holds no list: {shown(line)}",
            why="Expected a user and then at least one item, separated by blanks.",
            fix=f"Mend or remove line {number:,}, or name another --source-format.",
            code=Exit.DATA,
        )
    return words


def _on_two_lines(path: Path, raw: str, number: int, first: int) -> RecbenchError:
    return RecbenchError(
        f"User {raw} stands on lines {first:,} and {number:,} of {path}.",
        why="Lists have no times, so which of the two comes first is unknown.",
        fix="Join the two lines in the right order, or prepare a table with times: --source-format table",
        code=Exit.DATA,
    )
