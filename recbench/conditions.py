"""Settings that count only beside certain others. A config class lists them in ``only_with``: condition -> settings, spaced.

A condition is ``depth=fixed``, with several words ``depth=policy|sample``; ``mix!=state``; ``grpo``: switched on, not 0, false or
empty; or some of these with `` and `` or `` or `` between them. Of a list, ``skip!=rl`` says that it does not name rl. A setting
that is unset is as any word: what it stands for is decided later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from recbench.config import as_typed

OnlyWith = Mapping[str, str]
_PART = re.compile(r"(\w+)(?:(!?=)(.+))?")


@dataclass(frozen=True, slots=True)
class Part:
    """What a condition says of one setting."""

    name: str
    sign: str
    """``=``, ``!=``, or empty: switched on."""
    words: tuple[str, ...]

    def holds(self, config: Any) -> bool:
        """Is it so?"""
        value = getattr(config, self.name)
        if not self.sign:
            return bool(value)
        named = bool(set(self.words) & set(value if isinstance(value, tuple) else [value]))
        return value is None or named == (self.sign == "=")

    def in_words(self, config: Any, prefix: str = "") -> str:
        """As one types it: ``head.depth=policy|sample`` with ``prefix`` head and a dot. ``config``: any of that class."""
        value, typed, words = getattr(config, self.name), f"{prefix}{self.name}", "|".join(self.words)
        if not self.sign:
            return f"{typed}=true" if isinstance(value, bool) else f"{typed} above 0"
        if isinstance(value, tuple):
            return f"{words} {'in' if self.sign == '=' else 'not in'} {typed}"
        return f"{typed}={words}" if self.sign == "=" else f"{typed} other than {words}"


@dataclass(frozen=True, slots=True)
class Condition:
    """Some parts, all of which must hold; or any of them."""

    parts: tuple[Part, ...]
    any: bool

    def holds(self, config: Any) -> bool:
        """Is it met by these settings?"""
        return (any if self.any else all)(part.holds(config) for part in self.parts)

    def in_words(self, config: Any, prefix: str = "") -> str:
        """As one types what meets it."""
        return (" or " if self.any else " and ").join(part.in_words(config, prefix) for part in self.parts)


def read(text: str) -> Condition:
    """A condition as a config class writes it.

    Raises:
        ValueError: it is none.
    """
    found = [_PART.fullmatch(part) for part in re.split(" and | or ", text)]
    parts = [Part(m[1], m[2] or "", tuple(m[3].split("|") if m[3] else ())) for m in found if m]
    if len(parts) < len(found):
        raise ValueError(f"{text!r} is no condition of a setting")
    return Condition(tuple(parts), any=" or " in text)


def conditions(config: type) -> dict[str, Condition]:
    """The condition of each setting of a config class that has one."""
    listed: OnlyWith = getattr(config, "only_with", {})
    return {name: read(text) for text, names in listed.items() for name in names.split()}


def idle(config: Any, names: Iterable[str]) -> dict[str, Condition]:
    """Those of the settings ``names`` that do nothing beside the others, each with its condition.

    One at its default is left out: nobody chose it.
    """
    default, known = type(config)(), conditions(type(config))
    chosen = [name for name in names if name in known and getattr(config, name) != getattr(default, name)]
    return {name: known[name] for name in chosen if not known[name].holds(config)}


def without_effect(given: Mapping[str, Any], configs: Mapping[str, Any]) -> list[str]:
    """What is to be told of settings that do nothing beside the others: a sentence each.

    Args:
        given: what was typed, table by table.
        configs: what was built of it, by the same names.
    """
    told = []
    for table, config in configs.items():
        typed = given.get(table)
        for name, condition in idle(config, typed if isinstance(typed, Mapping) else ()).items():
            setting = f"{table}.{name}={as_typed(getattr(config, name))}"
            told.append(f"{setting} does nothing here: it counts only where {condition.in_words(config, f'{table}.')}")
    return told
