"""Sequence text: a user and then items, oldest first (S3-Rec), or one ``user item`` pair a line (SASRec, BERT4Rec)."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import final

from recbench.data.sources.bad import BadRow
from recbench.data.sources.base import Events, Progress, Source
from recbench.data.sources.coding import Coder
from recbench.data.sources.places import File, name_of
from recbench.data.sources.reading import lines, shown
from recbench.data.sources.siblings import sibling
from recbench.errors import Exit, RecbenchError


@final
class Sequences(Source):
    """Lists without times: the order of a list is the order of its events. Attributes from ``X_item2attributes.json``."""

    @classmethod
    def recognises(cls, path: File, head: bytes) -> bool:
        del path  # the content decides
        rows = head.removeprefix(b"\xef\xbb\xbf").replace(b"\r", b"").split(b"\n")[:200]
        rows = [row for row in (rows[:-1] if len(rows) > 1 else rows) if row]
        fits = [re.fullmatch(rb"\d+( \d+)+ ?", row) is not None for row in rows]
        return len(rows) > 0 and fits[0] and sum(fits) >= 0.9 * len(rows)

    def metadata(self) -> File | None:
        return sibling(self.file, f"{PurePosixPath(name_of(self.file)).stem}_item2attributes.json")

    def read(self, progress: Progress) -> Events:
        user, item = Coder(), Coder()
        line_of: dict[str, int] = {}
        repeated: tuple[str, int] | None = None
        only_pairs = True
        number = n_blank = 0
        for batch in lines(self.file, progress):
            for line in batch:
                number += 1
                words = self._words(number, line)
                if not words:
                    n_blank += words is not None
                    continue
                only_pairs = only_pairs and len(words) == 2
                if line_of.setdefault(words[0], number) != number and repeated is None:
                    repeated = (words[0], number)
                user.add([words[0]] * (len(words) - 1))
                item.add(words[1:])
        if repeated and not only_pairs:
            raise _on_two_lines(self.file, *repeated, line_of[repeated[0]])
        self.bad.check(number - n_blank)
        notes = [f"{n_blank:,} blank lines in the source hold no event."] if n_blank else []
        if repeated:
            notes.append("Read as one `user item` pair a line; each user's pairs in file order.")
        codes = user.codes()
        return Events(
            user=codes,
            item=item.codes(),
            rating=None,
            timestamp=None,
            user_ids=user.ids(),
            item_ids=item.ids(),
            time_unit=None,
            notes=(*notes, *self.bad.notes()),
        )

    def _words(self, number: int, line: bytes) -> list[str] | None:
        """The words of a line, none of them where it is blank; None where it is a bad row."""
        try:
            words = line.decode("utf-8-sig" if number == 1 else "utf-8").split()
        except UnicodeDecodeError:
            words = [""]
        if len(words) == 1:
            why = "Expected a user and then at least one item, separated by blanks."
            self.bad.add(BadRow(file=str(self.file), line=number, what=f"holds no list: {shown(line)}", why=why))
            return None
        return words


def _on_two_lines(path: File, raw: str, number: int, first: int) -> RecbenchError:
    return RecbenchError(
        f"User {raw} stands on lines {first:,} and {number:,} of {path}.",
        why="Lists have no times, so which of the two comes first is unknown.",
        fix="Join the two lines in the right order, or prepare a table with times: --source-format table",
        code=Exit.DATA,
    )
