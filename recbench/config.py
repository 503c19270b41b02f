"""Settings: dataclass defaults < recipe < TOML file < ``--set a.b=v``, with refusals that name what would have been right."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
import tomllib
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from recbench.errors import RecbenchError, meant, nearest

Table = dict[str, Any]
C = TypeVar("C")


def read_toml(path: Path) -> Table:
    """A TOML file as nested dicts."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecbenchError(
            f"Config file {path} cannot be read.", why=str(error), fix="Check the path after --config."
        ) from error
    except UnicodeDecodeError as error:
        raise RecbenchError(
            f"{path} is not TOML.",
            why=f"It has bytes that are not UTF-8, the first at {error.start}.",
            fix="Write the file again as UTF-8.",
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise RecbenchError(f"{path} is not TOML.", why=f"{error}.", fix=f"Mend it there: {path}") from error


def shipped_configs() -> dict[str, Path]:
    """Configs that come with recbench, by the name that ``--config`` takes."""
    folder = Path(str(files("recbench") / "configs"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_config(named: Path) -> Table:
    """The settings of a TOML file, or of a shipped config by its name. A file of that name goes first.

    Raises:
        RecbenchError: there is neither.
    """
    shipped = shipped_configs()
    if named.exists() or named.suffix or named.name != str(named):
        return read_toml(named)
    if named.name not in shipped:
        raise RecbenchError(
            f"No config file {named} here, and none of that name is shipped.",
            why=f"Shipped: {', '.join(shipped)}.",
            fix=meant(named.name, shipped, "--config {}") or "Name a TOML file: --config my.toml",
        )
    return read_toml(shipped[named.name])


def write_toml(table: Mapping[str, Any]) -> str:
    """TOML text of nested dicts; unset values (None) are left out, as TOML has none."""
    return tomli_w.dumps(_without_none(table))


def parse_assignments(assignments: Iterable[str]) -> Table:
    """``["train.epochs=5", "backbone.name=sasrec"]`` as nested dicts. Values are TOML; a bare word is text."""
    merged: Table = {}
    seen: set[str] = set()
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise RecbenchError(
                f"--set {assignment} cannot be read.", why="It takes NAME=VALUE.", fix="--set train.epochs=50"
            )
        if path in seen:
            raise RecbenchError(
                f"--set {path} is given twice.", why="Only one of the values could be used.", fix="Leave one."
            )
        seen.add(path)
        nested: Any = _value(text.strip())
        for key in reversed(keys):
            nested = {key: nested}
        merged = merge(merged, nested)
    return merged


def typed(value: Any) -> str:
    """A value as one types it in a shell after ``--set NAME=``; ``parse_assignments`` reads it back."""
    return shlex.quote(value if isinstance(value, str) and _value(value.strip()) == value else json.dumps(value))


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """``base`` with the values of ``over`` in their places; tables are merged, all else replaced."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def build(cls: type[C], table: Mapping[str, Any], where: str) -> C:
    """The config dataclass ``cls`` from a table of settings.

    Args:
        where: the table's name as the user writes it, for refusals: ``train``, ``backbone``.

    Raises:
        RecbenchError: an unknown name, a value of the wrong type, or one that the dataclass itself refuses.
    """
    hints = get_type_hints(cls)
    takes = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key in table:
        if key not in takes:
            raise RecbenchError(
                f"Unknown setting {where}.{key}.",
                why=f"[{where}] takes: {', '.join(takes) or 'nothing'}.",
                fix=meant(key, takes, f"{where}.{{}}") or f"Remove {where}.{key}.",
            )
    values = {key: _checked(value, hints[key], f"{where}.{key}") for key, value in table.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise RecbenchError(
            f"A setting of [{where}] is out of range.",
            why=str(error),
            fix=f"Change it: {_where_to_turn(str(error), list(table), takes, where)}.",
        ) from error


def _where_to_turn(refusal: str, given: list[str], takes: list[str], where: str) -> str:
    """What to type: the settings that a refusal names, those the user gave first; all that were given where it names none."""
    named = [name for name in takes if re.search(rf"\b{name}\b", refusal)]
    turn = sorted(named, key=lambda name: name not in given)[:3] or given[:3]
    return " or ".join(f"--set {where}.{name}=VALUE" for name in turn) or f"--set {where}.NAME=VALUE"


def known_tables(table: Mapping[str, Any], known: list[str], where: str) -> None:
    """Refuse a top-level name that no part of the job reads."""
    for key in table:
        if key not in known:
            raise RecbenchError(
                f"Unknown setting {key}{' in ' + where if where else ''}.",
                why=f"The tables are: {', '.join(known)}.",
                fix=meant(key, known)
                or f"Remove {key}, or name its table, as in train.epochs: recbench show train lists them.",
            )


def as_table(config: Any) -> Table:
    """A config dataclass as a table, every default filled in."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}


def digest(table: Mapping[str, Any]) -> str:
    """Hex sha256 of a table, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(_without_none(table), sort_keys=True).encode()).hexdigest()


def system_digest(table: Mapping[str, Any], origin: str | None = None) -> str:
    """Hash of what a system is: every setting but seed and dataset.

    A run that went on from another is known by what that one was, not by the path where it lay: runs that went on from
    seeds of one system are seeds of one system.

    Args:
        table: the resolved config.
        origin: this hash of the run it went on from; None: it went on from none, or that run's hash is not known.
    """
    settings = {name: value for name, value in table.items() if name not in ("dataset", "seed")}
    return digest(settings if origin is None else settings | {"from": origin})


def flat(tree: Mapping[str, Any], prefix: str = "") -> Table:
    """A nested table as dotted names: ``{"train": {"epochs": 5}}`` is ``{"train.epochs": 5}``."""
    found: Table = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        found.update(flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value})
    return found


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Dotted names whose values differ, with both values."""
    found: list[tuple[str, Any, Any]] = []
    for key in sorted(set(one) | set(other)):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append((f"{prefix}{key}", a, b))
    return found


def as_typed(value: object) -> str:
    """A setting's value as ``--set`` takes it; None: unset."""
    return "unset" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def in_words(differ: Sequence[tuple[str, Any, Any]], most: int = 3) -> str:
    """What ``differences`` found, as a sentence."""
    named = "; ".join(f"{name}: there {as_typed(old)}, here {as_typed(new)}" for name, old, new in differ[:most])
    return f"{named}{f' and {len(differ) - most} more' if len(differ) > most else ''}."


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _without_none(table: Mapping[str, Any]) -> Table:
    return {k: _without_none(v) if isinstance(v, Mapping) else v for k, v in table.items() if v is not None}


def _checked(value: Any, hint: Any, name: str) -> Any:
    """``value`` as ``hint`` wants it; ints stand for floats, lists for tuples."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _one_kind_of(value, choices, name)
    if origin is Literal:
        return _one_of(value, choices, name)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_checked(element, choices[0], name) for element in value)
    if hint is float and type(value) is int:
        return float(value)
    if hint is float and type(value) is float and not math.isfinite(value):
        raise RecbenchError(f"{name} cannot be {value}.", why="It takes a finite number.", fix=f"--set {name}=0.1")
    plain = origin or hint
    if type(value) is not plain and not (plain is dict and isinstance(value, dict)):
        raise RecbenchError(
            f"{name} cannot be {value!r}.", why=f"It takes {_words(hint)}.", fix=f"--set {name}={_example(hint)}"
        )
    return value


def _one_kind_of(value: Any, kinds: Sequence[Any], name: str) -> Any:
    """``value`` as one of several kinds wants it: None, a word from a list, or the one kind that is neither."""
    if value is None and type(None) in kinds:
        return None
    named = [word for kind in kinds for word in get_args(kind) if get_origin(kind) is Literal]
    others = [kind for kind in kinds if kind is not type(None) and get_origin(kind) is not Literal]
    if not others:
        return _one_of(value, named, name)
    a_word = named and isinstance(value, str) and others[0] is not str
    return _one_of(value, named, name, f"{_words(others[0])}, or ") if a_word else _checked(value, others[0], name)


def _one_of(value: Any, choices: Sequence[Any], name: str, or_else: str = "") -> Any:
    """``value``, if it is one of these; ``or_else`` says what else a refusal should name."""
    if value not in choices:
        near = nearest(str(value), [str(choice) for choice in choices])
        raise RecbenchError(
            f"{name} cannot be {value!r}.",
            why=f"It is {or_else}one of: {', '.join(map(str, choices))}.",
            fix=f"--set {name}={near or choices[0]}",
        )
    return value


def _words(hint: Any) -> str:
    named = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return named.get(hint, f"a list of {get_args(hint)[0].__name__}" if get_origin(hint) is tuple else str(hint))


def _example(hint: Any) -> str:
    return {int: "10", float: "0.1", bool: "true", str: "NAME"}.get(hint, "[...]")
