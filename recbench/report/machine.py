"""A comparison as JSON.

Schema 1::

    {schema, settings: {metrics, baseline, correction, candidates, ties, alpha, power, rope, resamples, seed},
     warnings: [...],
     tables: [{dataset, fingerprint, protocol, n_users, n_items, reference,
               family: {metric: contrasts corrected together}, oracle: {metric: best reachable}, warnings: [...],
               systems: [{label, backbone, head, config_sha256, loss, inputs, seeds, folders, deterministic, tied,
                          n_parameters, ms_per_user}],
               rows: [{system: label, metric, score: {mean, sd, by_seed},
                       contrast: null (the baseline) |
                                 {against, control_mean, mean, relative, interval, inner_interval, bootstrap,
                                  seeds_covered, standard_error, df, t, p, p_adjusted, p_seeds, p_seeds_adjusted,
                                  d_z, better, worse, equal, minimum_detectable, rope, verdict}}]}]}

Intervals are ``{low, high, level}``. What is not finite is null. Fields are described in ``recbench.comparison.model``.
The histogram of differences is left out: it follows from the runs. A change that breaks a reader raises ``schema``.
"""

from __future__ import annotations

import json
from dataclasses import fields
from math import isfinite
from typing import Any

from recbench.comparison import Comparison, Contrast, Row, Table

SCHEMA = 1


def render(comparison: Comparison) -> str:
    """The document, indented, ending in a newline."""
    return json.dumps(tree(comparison), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def tree(comparison: Comparison) -> dict[str, Any]:
    """The document as dicts, lists, strings and finite numbers."""
    settings = _fields(comparison.settings) | {"metrics": [str(metric) for metric in comparison.settings.metrics]}
    document = {
        "schema": SCHEMA,
        "settings": settings,
        "warnings": comparison.warnings,
        "tables": [_table(table) for table in comparison.tables],
    }
    found: dict[str, Any] = _finite(document)
    return found


def _table(table: Table) -> dict[str, Any]:
    return _fields(table) | {
        "family": {str(metric): table.family(metric) for metric in dict.fromkeys(row.metric for row in table.rows)},
        "systems": [_fields(system) for system in table.systems],
        "rows": [_row(row) for row in table.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "system": row.system.label,
        "metric": str(row.metric),
        "score": _fields(row.score),
        "contrast": None if row.contrast is None else _contrast(row.contrast),
    }


def _contrast(contrast: Contrast) -> dict[str, Any]:
    tree_ = _fields(contrast)
    del tree_["differences"]
    return tree_ | {name: _fields(tree_[name]) for name in ("interval", "inner_interval", "bootstrap")}


def _fields(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def _finite(value: Any) -> Any:
    """The same with null for what JSON has no number for, and plain lists and strings."""
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
