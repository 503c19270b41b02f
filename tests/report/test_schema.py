"""The documented schema of ``compare --json``, and that what is written keeps to it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import recbench
from recbench.comparison import Settings, compare
from recbench.report import machine
from recbench.report.schema import schema
from recbench.runs.sources import read
from tests.report.given import cuts, study

DOCUMENTED = Path(recbench.__file__).parents[1] / "docs" / "compare.schema.json"
KINDS = {
    "string": str,
    "integer": int,
    "boolean": bool,
    "number": (int, float),
    "null": type(None),
    "array": list,
    "object": dict,
}


def faults(value: Any, rule: dict[str, Any], root: dict[str, Any], at: str = "") -> list[str]:
    """Where ``value`` breaks ``rule``: the part of JSON Schema that the document uses."""
    if "$ref" in rule:
        return faults(value, root["$defs"][rule["$ref"].rpartition("/")[2]], root, at)
    if "anyOf" in rule:
        tried = [faults(value, one, root, at) for one in rule["anyOf"]]
        return [] if [] in tried else min(tried, key=len)
    if "enum" in rule or "const" in rule:
        return [] if value in rule.get("enum", [rule.get("const")]) else [f"{at}: {value!r}"]
    kinds = rule.get("type", [])
    names = [kinds] if isinstance(kinds, str) else kinds
    if names and not any(isinstance(value, KINDS[n]) and (n == "boolean" or value is not True) for n in names):
        return [f"{at}: {value!r} is no {names}"]
    if "pattern" in rule:
        return [] if re.search(rule["pattern"], value) else [f"{at}: {value!r}"]
    return _inside(value, rule, root, at)


def _inside(value: Any, rule: dict[str, Any], root: dict[str, Any], at: str) -> list[str]:
    if isinstance(value, list):
        rules = rule.get("prefixItems") or [rule.get("items", {})] * len(value)
        wrong = [] if len(rules) == len(value) else [f"{at}: {len(value)} items"]
        return wrong + [
            f for i, (one, r) in enumerate(zip(value, rules, strict=False)) for f in faults(one, r, root, f"{at}/{i}")
        ]
    return _of_object(value, rule, root, at) if isinstance(value, dict) else []


def _of_object(value: dict[str, Any], rule: dict[str, Any], root: dict[str, Any], at: str) -> list[str]:
    own, other = rule.get("properties", {}), rule.get("additionalProperties", {})
    wrong = [f"{at}: no {name}" for name in rule.get("required", []) if name not in value]
    for name, inner in value.items():
        if name not in own and other is False:
            wrong.append(f"{at}: {name} is unknown")
        else:
            wrong += faults(inner, own.get(name, other), root, f"{at}/{name}")
    return wrong


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Everything a comparison can hold: slices, costs, several tests, five datasets, an oracle-less table."""
    home = tmp_path_factory.mktemp("json")
    study(home / "runs", ("beauty", "office", "toys", "games", "sports"), n=300)
    settings = Settings(tests=("t", "wilcoxon", "sign"), slices=(f"{cuts(home / 'cuts.csv', 300)}:age",))
    return json.loads(machine.render(compare(read([home / "runs"]), settings)))


def test_the_documented_schema_is_that_of_the_code() -> None:
    assert json.loads(DOCUMENTED.read_text(encoding="utf-8")) == schema(), (
        "python -m recbench.report.schema > docs/compare.schema.json"
    )


def test_a_whole_document_keeps_to_the_schema(document: Any) -> None:
    assert faults(document, schema(), schema()) == []
    assert document["across"]
    assert document["tables"][0]["slices"]


def test_every_part_of_the_schema_says_what_it_is() -> None:
    for name, part in schema()["$defs"].items():
        assert part["description"], name


@pytest.mark.parametrize("broken", ["more", "less", "other", "metric"])
def test_a_document_that_breaks_the_schema_is_seen(document: Any, broken: str) -> None:
    copy = json.loads(json.dumps(document))
    row = copy["tables"][0]["rows"][0]
    if broken == "more":
        row["contrast"]["new"] = 1
    elif broken == "less":
        del row["score"]["sd"]
    elif broken == "other":
        copy["tables"][0]["n_users"] = "300"
    else:
        row["metric"] = "ndcg"
    assert len(faults(copy, schema(), schema())) >= 1
