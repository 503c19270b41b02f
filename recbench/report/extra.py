"""The libraries of the extra ``report``: a page and figures need them, the other formats do not."""

from __future__ import annotations

from importlib.util import find_spec

from recbench.errors import RecbenchError


def require(*modules: str) -> None:
    """Refuse early, in words, where a library is missing.

    Raises:
        RecbenchError: it names what is missing and the command that installs it.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise RecbenchError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed.",
            why="The page and its figures need the extra report; recbench itself does not.",
            fix='python -m pip install "recbench[report]"',
        )
