"""What can be set: of a backbone, a head, a loss, a tokeniser, of training and of semantic ids, read off the code that takes it."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import pairwise
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from recbench.conditions import conditions
from recbench.config import as_table, typed
from recbench.data.vectors import VectorConfig
from recbench.registry import BACKBONES, HEADS, LOSSES, TOKENISERS, Registry
from recbench.semantic_ids.build import IdConfig
from recbench.settings import recipe
from recbench.training.settings import Settings

REGISTRIES: dict[str, Registry] = {"backbone": BACKBONES, "head": HEADS, "loss": LOSSES, "method": TOKENISERS}
"""Tables that take a name, with what it may be. Earlier ones go first where two know a name."""
TABLES: dict[str, tuple[type, str]] = {
    "train": (Settings, "optimiser, budget and stopping rule, of every stage or in [train.STAGE] of one"),
    "features": (VectorConfig, "what semantic ids are made of"),
    "ids": (IdConfig, "the shape of semantic ids, and how equal ones are told apart"),
}
"""Tables that are the same for all."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of a table."""

    name: str
    """As ``--set`` takes it: ``head.max_depth``."""
    default: str
    """As it is typed; ``unset`` where it has none."""
    words: tuple[str, ...]
    """What may be typed, where it is a word from a list, the default among them; ``a number`` where that does as well."""
    meaning: str
    only_with: str = ""
    """What must hold of others of its table that it counts: ``depth=policy|sample``; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something that has settings."""

    name: str
    kind: str
    """``backbone``, ``head``, ``loss``, ``method``; ``table`` of what is the same for all."""
    summary: str
    settings: tuple[Setting, ...]
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of a head: the settings of training that each stage begins with, over those of all."""
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By family of datasets, and by the pair where a recipe is of one (``amazon, hf-lm+lasar``): what it sets."""


def names() -> list[str]:
    """Everything that ``part`` knows."""
    return list(dict.fromkeys([name for table in REGISTRIES.values() for name in table.entries()] + list(TABLES)))


def config_class(name: str) -> tuple[str, type]:
    """The table that a part's settings stand in, and the class that holds them.

    Raises:
        KeyError: there is no such part.
    """
    for table, registry in REGISTRIES.items():
        if name in registry.entries():
            return table, registry.load(name).Config
    return name, TABLES[name][0]


def part(name: str) -> Part:
    """What can be set of the part of that name.

    Raises:
        KeyError: there is none.
    """
    table, config = config_class(name)
    settings = tuple(_settings(config, table))
    if table not in REGISTRIES:
        return Part(name, "table", TABLES[name][1], settings)
    stages = HEADS.load(name).stages if table == "head" else ()
    began = {stage.name: stage.defaults for stage in stages}
    return Part(name, table, REGISTRIES[table].entry(name).summary, settings, began, dict(_recipes(name)))


def _settings(config: type, table: str) -> Iterator[Setting]:
    meanings, hints, known = _meanings(config), get_type_hints(config), conditions(config)
    for name, default in as_table(config()).items():
        typed_default = "unset" if default is None else typed(default)
        only_with = known[name].in_words(config()) if name in known else ""
        yield Setting(f"{table}.{name}", typed_default, tuple(_words(hints[name])), meanings.get(name, ""), only_with)


def _words(hint: Any) -> Iterator[str]:
    if get_origin(hint) is Literal:
        yield from map(str, get_args(hint))
    elif isinstance(hint, types.UnionType) or get_origin(hint) is Union:
        words = [word for kind in get_args(hint) for word in _words(kind)]
        number = words and {int, float} & set(get_args(hint))
        yield from [*words, "a number"] if number else words


def _recipes(name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What shipped recipes say of a part, alone or in a pair."""
    folder = files("recbench") / "recipes"
    families = sorted(path.name.removesuffix(".toml") for path in folder.iterdir() if path.name.endswith(".toml"))
    for family in families:
        pairs = [f"{backbone}+{head}" for backbone in BACKBONES.entries() for head in HEADS.entries()]
        for key in [name, *(pair for pair in pairs if name in pair.split("+"))]:
            if found := recipe(family, key):
                yield (family if key == name else f"{family}, {key}"), found


def _meanings(config: type) -> dict[str, str]:
    """The text below each field of a dataclass, and of those it extends; nothing where their source is not at hand."""
    found: dict[str, str] = {}
    for cls in reversed(config.__mro__[:-1]):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        except (OSError, TypeError, SyntaxError):
            continue
        lines = body.body if isinstance(body, ast.ClassDef) else []
        for line, below in pairwise(lines):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(below, ast.Expr):
                text = below.value.value if isinstance(below.value, ast.Constant) else None
                if isinstance(text, str):
                    found[line.target.id] = " ".join(text.replace("``", "").split())
    return found
