"""Ranges of settings, in one wording that names the setting and its value. A setting that is None is unset, and within any range.

All raise ValueError about the first setting that is out of range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def at_least(low: float, config: Any, *names: str) -> None:
    """Refuse a value below ``low``."""
    _refuse(config, names, lambda value: value >= low, f"is at least {low:g}")


def above(low: float, config: Any, *names: str) -> None:
    """Refuse a value that is not above ``low``."""
    _refuse(config, names, lambda value: value > low, f"is above {low:g}")


def shares(config: Any, *names: str) -> None:
    """Refuse what is no part of a whole."""
    _refuse(config, names, lambda value: 0 <= value <= 1, "lies in [0, 1]")


def below_one(config: Any, *names: str) -> None:
    """Refuse a rate that would leave nothing over, as a dropout of 1 does."""
    _refuse(config, names, lambda value: 0 <= value < 1, "lies in [0, 1)")


def goes_into(config: Any, part: str, whole: str) -> None:
    """Refuse a ``whole`` that cannot be cut into ``part`` equal parts."""
    if getattr(config, whole) % getattr(config, part):
        raise ValueError(f"{whole} {getattr(config, whole)} is not a multiple of {part} {getattr(config, part)}.")


def _refuse(config: Any, names: tuple[str, ...], within: Callable[[float], bool], rule: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not within(value):
            raise ValueError(f"{name} is {value if isinstance(value, int) else f'{value:g}'}; it {rule}.")
