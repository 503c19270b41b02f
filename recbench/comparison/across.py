"""Systems over several datasets: by rank, never by an average of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from recbench.comparison.model import Across, AgainstControl, Settings, Table
from recbench.evaluation.metrics import Metric
from recbench.stats.bayes import signed_rank
from recbench.stats.corrections import holm
from recbench.stats.paired import FloatArray
from recbench.stats.ranks import against_control, cliques, critical_difference, friedman, nemenyi, ranked

FEWEST_DATASETS = 5
"""Below this the chi-square of Friedman's test and the normal ranks after it are not to be trusted (Demsar, 2006)."""


def across(tables: Sequence[Table], settings: Settings) -> tuple[tuple[Across, ...], str | None]:
    """One test a metric over all tables, or the reason why there is none. One table needs neither."""
    if len(tables) < 2:
        return (), None
    labels = [s.label for s in tables[0].systems if all(_has(table, s.label) for table in tables)]
    if (reason := _reason(tables, labels)) is not None:
        return (), reason
    control = _control(tables, labels, settings)
    scores = {metric: _scores(tables, labels, metric) for metric in settings.metrics}
    if any((found[:, labels.index(control)] <= 0).any() for found in scores.values()):
        return (), f"The control {control} scores 0 on a dataset, so no relative difference can be had."
    datasets = tuple(table.dataset for table in tables)
    return tuple(_across(m, datasets, labels, control, found, settings) for m, found in scores.items()), None


def _reason(tables: Sequence[Table], labels: Sequence[str]) -> str | None:
    n = len(tables)
    if n < FEWEST_DATASETS:
        return (
            f"{n} datasets are too few for a test over datasets: it needs {FEWEST_DATASETS}. With fewer, its p cannot "
            "be trusted, and an average of scores would be decided by the dataset with the largest ones."
        )
    if len(labels) < 2:
        return f"No two systems stand on all of the {n} datasets."
    for name in ("split", "candidates", "metrics"):
        values = {repr(_kind(table.protocol, name)) for table in tables}
        if len(values) > 1:
            return f"The datasets differ in {name} ({'; '.join(sorted(values))}), so their ranks mean different things."
    return None


def _kind(protocol: Mapping[str, object], name: str) -> object:
    """A split by its name: where it cuts is the dataset's own."""
    value = protocol.get(name)
    return value.get("name") if isinstance(value, Mapping) else value


def _has(table: Table, label: str) -> bool:
    return any(s.label == label for s in table.systems)


def _control(tables: Sequence[Table], labels: Sequence[str], settings: Settings) -> str:
    wanted = [settings.baseline or "", *[table.reference for table in tables]]
    return next((label for label in wanted if label in labels), labels[0])


def _scores(tables: Sequence[Table], labels: Sequence[str], metric: Metric) -> FloatArray:
    return np.array([[table.row(label, metric).score.mean for label in labels] for table in tables])


def _across(
    metric: Metric,
    datasets: tuple[str, ...],
    names: Sequence[str],
    control: str,
    scores: FloatArray,
    settings: Settings,
) -> Across:
    n, k = scores.shape
    order = np.argsort(ranked(scores).mean(axis=0), kind="stable")
    labels, scores = tuple(names[place] for place in order), scores[:, order]
    ranks = ranked(scores)
    mean_ranks = ranks.mean(axis=0)
    width = critical_difference(k, n, settings.alpha)
    return Across(
        metric=metric,
        datasets=datasets,
        labels=labels,
        ranks=_tuples(ranks),
        mean_ranks=tuple(map(float, mean_ranks)),
        friedman=friedman(ranks) if k > 2 else None,
        critical_difference=width,
        cliques=tuple(labels[first : last + 1] for first, last in cliques(list(mean_ranks), width)),
        nemenyi=_tuples(nemenyi(mean_ranks, n)),
        control=control,
        against=_against(labels, labels.index(control), scores, mean_ranks, settings),
    )


def _against(
    labels: Sequence[str], control: int, scores: FloatArray, mean_ranks: FloatArray, settings: Settings
) -> tuple[AgainstControl, ...]:
    z, p = against_control(mean_ranks, control, len(scores))
    others = [place for place in range(len(labels)) if place != control]
    adjusted = holm([float(p[place]) for place in others])
    relative = scores / scores[:, [control]] - 1
    return tuple(
        AgainstControl(
            label=labels[place],
            z=float(z[place]),
            p=float(p[place]),
            p_adjusted=p_adjusted,
            posterior=signed_rank(
                list(relative[:, place]), settings.rope, level=1 - settings.alpha, seed=settings.seed
            ),
            differences=tuple(map(float, relative[:, place])),
        )
        for place, p_adjusted in zip(others, adjusted, strict=True)
    )


def _tuples(values: FloatArray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, row)) for row in values)
