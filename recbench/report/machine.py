"""A comparison as JSON.

Schema 1::

    {schema, settings: {metrics, baseline, correction, candidates, ties, alpha, power, rope, resamples, seed, tests,
                        interval, claim, wish, slices},
     warnings: [...],
     tables: [{dataset, fingerprint, protocol, n_users, n_items, reference,
               family: {metric: contrasts corrected together}, oracle: {metric: best reachable}, warnings: [...],
               systems: [{label, backbone, head, config_sha256, loss, inputs, seeds, folders, deterministic, tied,
                          n_parameters, ms_per_user, training_seconds, peak_memory_mb, trials, source}],
               rows: [ROW],
               slices: [{by, name, n_users, rows: [ROW]}],
               costs: [{label, n_parameters, training_seconds, ms_per_user, peak_memory_mb, trials,
                        on_front: {cost: true | false}}]}],
     across: [{metric, datasets, labels, ranks, mean_ranks, friedman: null | {chi2, df, p, f, f_df, f_p},
               critical_difference, cliques, nemenyi, control,
               against: [{label, z, p, p_adjusted, posterior: POSTERIOR, differences}]}],
     across_refused: null | why}

    ROW = {system: label, metric, score: {mean, sd, by_seed},
           contrast: null (the baseline) |
                     {against, control_mean, mean, relative, interval, inner_interval, bootstrap, bca, two_way,
                      seeds_covered, paired_runs, standard_error, df, t, p, p_adjusted, p_seeds, p_seeds_adjusted,
                      tests: [{name, statistic, p, p_adjusted, caution}],
                      claims: {superiority, equivalence, non_inferiority}, posterior: POSTERIOR,
                      d_z, better, worse, equal, minimum_detectable, users_needed, rope, verdict}}
    POSTERIOR = {worse, rope, better, interval}

Intervals are ``{low, high, level}``. What is not finite is null. Fields are described in ``recbench.comparison.model``.
The histogram of differences is left out: it follows from the runs. A change that breaks a reader raises ``schema``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from typing import Any

from recbench.comparison import Comparison, Contrast, Row, Table
from recbench.evaluation.metrics import Metric

SCHEMA = 1


def render(comparison: Comparison) -> str:
    """The document, indented, ending in a newline."""
    return json.dumps(tree(comparison), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def tree(comparison: Comparison) -> dict[str, Any]:
    """The document as dicts, lists, strings and finite numbers."""
    found: dict[str, Any] = _plain(comparison)
    return {"schema": SCHEMA} | found


def _table(table: Table) -> dict[str, Any]:
    family = {str(metric): table.family(metric) for metric in dict.fromkeys(row.metric for row in table.rows)}
    return _fields(table) | {"family": family}


def _row(row: Row) -> dict[str, Any]:
    return _fields(row) | {"system": row.system.label}


def _contrast(contrast: Contrast) -> dict[str, Any]:
    return {name: value for name, value in _fields(contrast).items() if name != "differences"}


def _fields(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


_SHAPED: dict[type, Callable[[Any], Any]] = {Table: _table, Row: _row, Contrast: _contrast, Metric: str}
"""What is not simply the fields of its class."""


def _plain(value: Any) -> Any:
    """Plain lists, dicts and strings, with null for what JSON has no number for."""
    shape: Callable[[Any], Any] = _SHAPED.get(type(value), _fields)
    if is_dataclass(value):
        return _plain(shape(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
