"""The comparison, in order: refuse, group, score, contrast, correct, judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recbench import columns
from recbench.comparison import checks
from recbench.comparison.contrast import Raw, contrasts, raw_contrast
from recbench.comparison.model import Comparison, Row, Score, Settings, System, Table
from recbench.comparison.systems import Group, controls, group
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.metrics import Metric, of_users
from recbench.runs.folder import Run
from recbench.stats.paired import FloatArray

_COUNTS = {"all": (columns.ABOVE, columns.TIED), "unseen": (columns.ABOVE_UNSEEN, columns.TIED_UNSEEN)}


def compare(runs: Sequence[Run], settings: Settings | None = None) -> Comparison:
    """One table a dataset, in order of name.

    Raises:
        RecbenchError: a run is unfinished or damaged, runs of a dataset sat different exams or ranked different users,
            or no dataset has two systems.
    """
    settings = settings or Settings()
    checks.refuse_unfinished(runs)
    by_dataset: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_dataset[str(run.manifest.dataset.get("name"))].append(run)
    tables, lonely = [], []
    for dataset in sorted(by_dataset):
        checks.refuse_other_exams(dataset, by_dataset[dataset])
        groups = group(by_dataset[dataset])
        if len(groups) == 1:
            lonely.append(f"{dataset}: {groups[0].label} is the only system, nothing to compare it with.")
        else:
            tables.append(_table(dataset, groups, settings))
    if not tables:
        raise RecbenchError(
            "There are no two systems to compare.",
            why=" ".join(lonely) or "No runs were given.",
            fix="Train another on the same data: recbench train --backbone markov",
            code=Exit.COMPARISON,
        )
    return Comparison(settings=settings, tables=tuple(tables), warnings=tuple(lonely))


@dataclass(frozen=True, slots=True)
class _Scored:
    """A system with the metric of each user, averaged over seeds, and of each seed, averaged over users."""

    system: System
    users: dict[Metric, FloatArray]
    seeds: dict[Metric, tuple[float, ...]]

    def spread(self, metric: Metric) -> tuple[float, ...]:
        """The runs whose spread is training noise: none for a deterministic system."""
        return () if self.system.deterministic else self.seeds[metric]


def _table(dataset: str, groups: Sequence[Group], settings: Settings) -> Table:
    first = _ranks(groups[0].runs[0])
    queries = (groups[0].runs[0], first)
    scored = {g.label: _score(g, queries, settings) for g in groups}
    reference, baselines = controls(groups, settings.baseline)
    manifest = groups[0].runs[0].manifest
    n_users = int(first[columns.USER].nunique())
    rows = [row for metric in settings.metrics for row in _rows(metric, scored, baselines, settings)]
    return Table(
        dataset=dataset,
        fingerprint=str(manifest.dataset.get("fingerprint")),
        protocol=manifest.protocol,
        n_users=n_users,
        n_items=manifest.dataset.get("items"),
        systems=tuple(s.system for s in scored.values()),
        rows=tuple(rows),
        reference=reference.label,
        oracle=_oracle(manifest.dataset, settings),
        warnings=checks.warnings(groups, n_users, dataset),
    )


def _rows(
    metric: Metric, scored: Mapping[str, _Scored], baselines: Mapping[str, Group], settings: Settings
) -> list[Row]:
    """All systems on one metric, their contrasts corrected as one family."""
    raw: dict[str, Raw] = {}
    for label, baseline in baselines.items():
        ours, theirs = scored[label], scored[baseline.label]
        raw[label] = raw_contrast(
            baseline.label, (ours.users[metric], theirs.users[metric]), (ours.spread(metric), theirs.spread(metric))
        )
    done = contrasts(raw, settings)
    return [
        Row(system=s.system, metric=metric, score=_over_seeds(s.seeds[metric]), contrast=done.get(label))
        for label, s in scored.items()
    ]


def _score(g: Group, queries: tuple[Run, pd.DataFrame], settings: Settings) -> _Scored:
    above, tied = _COUNTS[settings.candidates]
    by_seed: dict[Metric, list[FloatArray]] = {metric: [] for metric in settings.metrics}
    ties = []
    for run in g.runs:
        ranks = _ranks(run)
        _refuse_other_users(queries, (run, ranks))
        a, t = ranks[above].to_numpy(np.int64), ranks[tied].to_numpy(np.int64)
        ties.append(float((t > 0).mean()))
        user, together = ranks[columns.USER].to_numpy(np.int64), _together(run)
        for metric in settings.metrics:
            by_seed[metric].append(of_users(metric, a, t, user, together=together, ties=settings.ties))
    users = {metric: np.mean(values, axis=0) for metric, values in by_seed.items()}
    seeds = {metric: tuple(float(v.mean()) for v in values) for metric, values in by_seed.items()}
    return _Scored(_system(g, float(np.mean(ties))), users, seeds)


def _ranks(run: Run) -> pd.DataFrame:
    ranks = run.ranks("test").sort_values([columns.USER, columns.TARGET], kind="stable", ignore_index=True)
    if ranks.empty:
        raise RecbenchError(
            f"{run.folder} ranked no test user.",
            why=f"Its {columns.SPLIT} column never says test.",
            fix=f"recbench evaluate {run.folder}",
            code=Exit.COMPARISON,
        )
    return ranks


def _together(run: Run) -> bool:
    """Are the targets of a user one set, as the run's protocol says?"""
    split = run.manifest.protocol.get("split")
    return isinstance(split, Mapping) and split.get("target") == "all"


def _refuse_other_users(one: tuple[Run, pd.DataFrame], other: tuple[Run, pd.DataFrame]) -> None:
    keys = [columns.USER, columns.TARGET]
    mine, theirs = one[1][keys], other[1][keys]
    if np.array_equal(mine.to_numpy(), theirs.to_numpy()):
        return
    shared = len(mine.drop_duplicates().merge(theirs.drop_duplicates(), on=keys))
    checks.refuse_other_users(one[0], mine[columns.USER].nunique(), other[0], theirs[columns.USER].nunique(), shared)


def _system(g: Group, tied: float) -> System:
    manifests = [run.manifest for run in g.runs]
    times = [m.ms_per_user for m in manifests if m.ms_per_user is not None]
    return System(
        label=g.label,
        backbone=g.backbone,
        head=g.head,
        config_sha256=manifests[0].config_sha256,
        loss=g.loss,
        inputs=manifests[0].inputs,
        seeds=tuple(m.seed for m in manifests),
        folders=tuple(str(run.folder) for run in g.runs),
        deterministic=g.deterministic,
        tied=tied,
        n_parameters=manifests[0].n_parameters,
        ms_per_user=float(np.mean(times)) if times else None,
    )


def _over_seeds(means: tuple[float, ...]) -> Score:
    sd = float(np.std(means, ddof=1)) if len(means) > 1 else None
    return Score(mean=float(np.mean(means)), sd=sd, by_seed=means)


def _oracle(dataset: Mapping[str, object], settings: Settings) -> dict[str, float]:
    oracle = dataset.get("oracle")
    if not isinstance(oracle, Mapping) or settings.ties != "expected":
        return {}
    best = oracle.get("test" if settings.candidates == "all" else "test_unseen")
    if not isinstance(best, Mapping):
        return {}
    return {str(metric): float(best[str(metric)]) for metric in settings.metrics if str(metric) in best}
