"""A comparison as CSV: one line a system and metric, of all users and of each slice; full precision, all that was computed.

Behind these stand the tests over datasets, a line each; see :func:`_across`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import combinations
from math import isfinite

from recbench.comparison import Across, Comparison, Contrast, Row, Settings, Slice, Table
from recbench.comparison.costs import COSTS
from recbench.comparison.model import TEST_NAMES, AgainstControl
from recbench.report.words import ORACLE
from recbench.stats.intervals import Interval

_CONTRAST = (
    *("against", "relative", "seeds_covered", "paired_runs", "standard_error", "df", "t", "p", "p_adjusted", "p_seeds"),
    *("p_seeds_adjusted", "d_z", "better", "worse", "equal", "minimum_detectable", "users_needed", "rope", "verdict"),
)
"""Fields of a contrast that are written as they are."""
_INTERVALS = {"ci": "interval", "inner": "inner_interval", "bootstrap": "bootstrap", "bca": "bca", "two_way": "two_way"}
"""Name in the table to field: ``ci_low``, ``ci_high``."""
_SYSTEM = ("backbone", "head", "loss", "source", *COSTS)
COLUMNS = (
    *("dataset", "fingerprint", "candidates", "ties", "slice_by", "slice", "n_users", "metric", "system"),
    *("backbone", "head", "runs", "seeds", "mean", "sd_seeds", "against", "difference", "relative"),
    *("ci_low", "ci_high", "ci_level", "seeds_covered", "paired_runs", "standard_error", "df"),
    *(f"{name}_{end}" for name in ("inner", "bootstrap", "bca", "two_way") for end in ("low", "high")),
    *("test", "t", "p", "p_adjusted", "p_seeds", "p_seeds_adjusted", "correction", "family", "claim"),
    *("p_superiority", "p_equivalence", "p_non_inferiority", "d_z", "better", "worse", "equal"),
    *("posterior_worse", "posterior_rope", "posterior_better", "minimum_detectable", "users_needed", "rope", "verdict"),
    *(f"p_{name}" for name in TEST_NAMES),
    *("loss", "source", *COSTS),
    *("n_datasets", "mean_rank", "critical_difference", "df2"),
)
"""``p_<test>`` is uncorrected, of the tests that were asked for."""


def render(comparison: Comparison) -> str:
    """A header and a line a system and metric; what does not apply or is not finite is left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    settings = comparison.settings
    for table in comparison.tables:
        for row in table.rows:
            writer.writerow(_plain(_record(table, row, settings, table.family(row.metric))))
        for part in table.slices:
            of_slice = {"slice_by": part.by, "slice": part.name, "n_users": part.n_users}
            for row in part.rows:
                writer.writerow(_plain(_record(table, row, settings, _family(table, part, row)) | of_slice))
        for name, best in table.oracle.items():
            writer.writerow(_plain(_common(table, settings, name) | {"system": ORACLE, "mean": best}))
    for across in comparison.across:
        writer.writerows(_plain(record) for record in _across(across, settings))
    return text.getvalue()


def _family(table: Table, part: Slice, row: Row) -> int:
    """All slices of the same kind are one family."""
    same = [other for slice_ in table.slices if slice_.by == part.by for other in slice_.rows]
    return sum(other.contrast is not None and other.metric == row.metric for other in same)


def _common(table: Table, settings: Settings, metric: str) -> dict[str, object]:
    return {
        "dataset": table.dataset,
        "fingerprint": table.fingerprint,
        "n_users": table.n_users,
        "candidates": settings.candidates,
        "ties": settings.ties,
        "metric": metric,
    }


def _record(table: Table, row: Row, settings: Settings, family: int) -> dict[str, object]:
    system = row.system
    scored: dict[str, object] = {
        "system": system.label,
        "runs": len(system.seeds),
        "seeds": " ".join(map(str, system.seeds)),
        "mean": row.score.mean,
        "sd_seeds": row.score.sd,
    }
    scored |= _common(table, settings, str(row.metric)) | {name: getattr(system, name) for name in _SYSTEM}
    return scored if row.contrast is None else scored | _contrast(row.contrast, settings, family)


def _across(across: Across, settings: Settings) -> Iterator[dict[str, object]]:
    """The tests over datasets on one metric, a line each, told apart by ``test``.

    No line has a dataset or a mean, for scores are never averaged over datasets: ``slice_by`` is ``datasets``, ``slice``
    their names. ``t`` is the statistic of the test.

    * ``friedman``, ``iman-davenport``: of all systems; the F has ``df`` and ``df2``.
    * ``nemenyi``: of a pair, the one with the better mean rank first; p is for all pairs together.
    * ``rank z``: of a system against the control, Holm over the systems.
    * ``signed-rank``: the Bayesian posterior of the relative difference to the control; ``rope`` is relative, too.
    """
    common: dict[str, object] = {
        "slice_by": "datasets",
        "slice": " ".join(across.datasets),
        "n_datasets": len(across.datasets),
        "candidates": settings.candidates,
        "ties": settings.ties,
        "metric": across.metric,
    }
    if (found := across.friedman) is not None:
        yield common | {"test": "friedman", "t": found.chi2, "df": found.df, "p": found.p}
        first, second = found.f_df
        yield common | {"test": "iman-davenport", "t": found.f, "df": first, "df2": second, "p": found.f_p}
    ranks = dict(zip(across.labels, across.mean_ranks, strict=True))
    for (i, one), (j, other) in combinations(enumerate(across.labels), 2):
        pair = {"system": one, "against": other, "mean_rank": ranks[one], "test": "nemenyi"}
        told = {"p_adjusted": across.nemenyi[i][j], "critical_difference": across.critical_difference}
        yield common | pair | told | {"correction": "nemenyi", "family": len(ranks) * (len(ranks) - 1) // 2}
    for versus in across.against:
        yield from _against_control(common | {"against": across.control}, ranks, versus, across, settings)


def _against_control(
    common: dict[str, object], ranks: dict[str, float], found: AgainstControl, across: Across, settings: Settings
) -> Iterator[dict[str, object]]:
    common = common | {"system": found.label, "mean_rank": ranks[found.label]}
    z = {"t": found.z, "p": found.p, "p_adjusted": found.p_adjusted, "correction": "holm"}
    yield common | z | {"test": "rank z", "family": len(across.against)}
    posterior = {f"posterior_{name}": getattr(found.posterior, name) for name in ("worse", "rope", "better")}
    interval = found.posterior.interval
    ends = {"ci_low": interval.low, "ci_high": interval.high, "ci_level": interval.level}
    yield common | posterior | ends | {"test": "signed-rank", "rope": settings.rope}


def _contrast(c: Contrast, settings: Settings, family: int) -> dict[str, object]:
    found: dict[str, object] = {name: getattr(c, name) for name in _CONTRAST}
    found |= {"difference": c.mean, "ci_level": c.interval.level, "test": settings.tests[0], "claim": settings.claim}
    found |= {"correction": settings.correction, "family": family}
    for name, field in _INTERVALS.items():
        interval: Interval | None = getattr(c, field)
        if interval is not None:
            found |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    if c.claims is not None:
        found |= {f"p_{name}": getattr(c.claims, name) for name in ("superiority", "equivalence", "non_inferiority")}
    if c.posterior is not None:
        found |= {f"posterior_{name}": getattr(c.posterior, name) for name in ("worse", "rope", "better")}
    return found | {f"p_{test.name}": test.p for test in c.tests}


def _plain(record: dict[str, object]) -> dict[str, object]:
    return {name: "" if value is None or _infinite(value) else value for name, value in record.items()}


def _infinite(value: object) -> bool:
    return isinstance(value, float) and not isfinite(value)
