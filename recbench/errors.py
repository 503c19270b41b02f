"""What a user is told when something is wrong: what, why, fix, and the exit code."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the command line. They are part of the interface: scripts branch on them."""

    OK = 0
    USAGE = 2
    DATA = 3
    RUN = 4
    COMPARISON = 5
    STOPPED = 130


class RecbenchError(Exception):
    """A mistake or mishap that the user can mend. Caught once, by the command line; a traceback means a bug of ours.

    Args:
        what: one sentence that names the value that was wrong.
        why: what was expected, found or measured.
        fix: something to type or to edit.
        code: the exit code.
    """

    def __init__(self, what: str, *, why: str, fix: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix
        self.code = code

    def __str__(self) -> str:
        return f"{self.what} {self.why} {self.fix}"


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The known word a user most likely meant, or None if nothing is near."""
    from difflib import get_close_matches

    lowered = {known.lower(): known for known in words}
    found = get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.5)
    return lowered[found[0]] if found else None


def meant(word: str, words: Iterable[str], form: str = "{}") -> str | None:
    """A fix that asks for the known word a user most likely meant, or None if nothing is near.

    Args:
        form: how it is typed, for example ``--ties {}``.
    """
    near = nearest(word, words)
    return None if near is None else "Did you mean " + form.replace("{}", near) + "?"
