"""The JSON Schema of ``compare --json``, read off the classes that are written: what a field means stands in one place.

``python -m recbench.report.schema`` prints it; ``docs/compare.schema.json`` is that text.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from itertools import pairwise
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from recbench.comparison import Comparison, Contrast, Row, Table
from recbench.evaluation.metrics import Metric
from recbench.report.machine import SCHEMA

_INSTEAD: dict[tuple[type, str], tuple[dict[str, Any], str]] = {
    (Row, "system"): ({"type": "string"}, "Label of the system; the rest stands under systems."),
}
"""Fields that are written otherwise than they are held."""
_MORE: dict[type, dict[str, Any]] = {
    Table: {
        "family": {
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "description": "Contrasts that were corrected together, by metric.",
        }
    }
}
_LEFT_OUT = {(Contrast, "differences")}
_SIMPLE: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    float: {"type": ["number", "null"]},
    NoneType: {"type": "null"},
    Any: {},
    Metric: {"type": "string", "pattern": "^[a-z]+@[1-9][0-9]*$"},
}
"""A number that is not finite is null."""


def schema() -> dict[str, Any]:
    """The schema, draft 2020-12."""
    known: dict[str, dict[str, Any]] = {}
    root = _object(Comparison, known)
    root["properties"] = {"schema": {"const": SCHEMA, "description": "Raised when a reader would break."}} | root[
        "properties"
    ]
    root["required"] = ["schema", *root["required"]]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "recbench compare --json"}
    return head | root | {"$defs": dict(sorted(known.items()))}


def _object(of: type, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A class as it is written; the classes of its fields go to ``known``."""
    hints, told = get_type_hints(of), _docstrings(of)
    properties = {}
    for field in fields(of):
        if (of, field.name) in _LEFT_OUT:
            continue
        shape, text = _INSTEAD.get((of, field.name), (None, told.get(field.name, "")))
        properties[field.name] = {
            **(shape or _shape(hints[field.name], known)),
            **({"description": text} if text else {}),
        }
    properties |= _MORE.get(of, {})
    return {
        "description": (of.__doc__ or "").strip(),
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _shape(hint: Any, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if hint in _SIMPLE:
        return dict(_SIMPLE[hint])
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, UnionType):
        return {"anyOf": [_shape(one, known) for one in inner]}
    if origin is tuple:
        several = inner[-1] is Ellipsis
        items = _shape(inner[0], known) if several else [_shape(one, known) for one in inner]
        return {"type": "array", **({"items": items} if several else {"prefixItems": items, "items": False})}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _shape(inner[1], known)}
    return _named(hint, known)


def _named(hint: Any, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"enum": [str(value) for value in hint]}
    if not is_dataclass(hint) or not isinstance(hint, type):
        raise TypeError(f"{hint} has no shape in JSON")
    if hint.__name__ not in known:
        known[hint.__name__] = {}  # before its fields, which may hold it again
        known[hint.__name__] = _object(hint, known)
    return {"$ref": f"#/$defs/{hint.__name__}"}


def _docstrings(of: type) -> dict[str, str]:
    """The text below each field."""
    (body,) = ast.parse(inspect.getsource(of)).body
    found = {}
    statements = body.body if isinstance(body, ast.ClassDef) else []
    for field, text in pairwise(statements):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).replace("``", "").split())
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
