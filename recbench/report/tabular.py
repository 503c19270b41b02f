"""A comparison as CSV: one line a system and metric, full precision, everything that was computed."""

from __future__ import annotations

import csv
import io
from math import isfinite

from recbench.comparison import Comparison, Row, Settings, Table
from recbench.report.words import ORACLE

COLUMNS = (
    *(
        "dataset",
        "fingerprint",
        "n_users",
        "candidates",
        "ties",
        "metric",
        "system",
        "backbone",
        "head",
        "runs",
        "seeds",
    ),
    *("mean", "sd_seeds", "against", "difference", "relative", "ci_low", "ci_high", "ci_level", "seeds_covered"),
    *("standard_error", "df", "inner_low", "inner_high", "bootstrap_low", "bootstrap_high"),
    *("t", "p", "p_adjusted", "p_seeds", "p_seeds_adjusted", "correction", "family"),
    *(
        "d_z",
        "better",
        "worse",
        "equal",
        "minimum_detectable",
        "rope",
        "verdict",
        "loss",
        "n_parameters",
        "ms_per_user",
    ),
)


def render(comparison: Comparison) -> str:
    """A header and a line a system and metric; what does not apply or is not finite is left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for table in comparison.tables:
        for row in table.rows:
            writer.writerow(
                _plain(_common(table, comparison.settings, str(row.metric)) | _record(table, row, comparison.settings))
            )
        for name, best in table.oracle.items():
            writer.writerow(_plain(_common(table, comparison.settings, name) | {"system": ORACLE, "mean": best}))
    return text.getvalue()


def _common(table: Table, settings: Settings, metric: str) -> dict[str, object]:
    return {
        "dataset": table.dataset,
        "fingerprint": table.fingerprint,
        "n_users": table.n_users,
        "candidates": settings.candidates,
        "ties": settings.ties,
        "metric": metric,
    }


def _record(table: Table, row: Row, settings: Settings) -> dict[str, object]:
    system, c = row.system, row.contrast
    scored: dict[str, object] = {
        "system": system.label,
        "backbone": system.backbone,
        "head": system.head,
        "runs": len(system.seeds),
        "seeds": " ".join(map(str, system.seeds)),
        "mean": row.score.mean,
        "sd_seeds": row.score.sd,
        "loss": system.loss,
        "n_parameters": system.n_parameters,
        "ms_per_user": system.ms_per_user,
    }
    if c is None:
        return scored
    same: tuple[str, ...] = (
        "against",
        "relative",
        "seeds_covered",
        "standard_error",
        "df",
        "t",
        "p",
        "p_adjusted",
        "p_seeds",
    )
    same += ("p_seeds_adjusted", "d_z", "better", "worse", "equal", "minimum_detectable", "rope", "verdict")
    return (
        scored
        | {name: getattr(c, name) for name in same}
        | {
            "difference": c.mean,
            "ci_low": c.interval.low,
            "ci_high": c.interval.high,
            "ci_level": c.interval.level,
            "inner_low": c.inner_interval.low,
            "inner_high": c.inner_interval.high,
            "bootstrap_low": c.bootstrap.low,
            "bootstrap_high": c.bootstrap.high,
            "correction": settings.correction,
            "family": table.family(row.metric),
        }
    )


def _plain(record: dict[str, object]) -> dict[str, object]:
    return {name: "" if value is None or _infinite(value) else value for name, value in record.items()}


def _infinite(value: object) -> bool:
    return isinstance(value, float) and not isfinite(value)
