"""The comparison, in order: refuse, group, score, contrast, correct, judge."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recbench import columns
from recbench.comparison import checks
from recbench.comparison import slices as slicing
from recbench.comparison.across import across
from recbench.comparison.contrast import Raw, contrasts
from recbench.comparison.costs import costs
from recbench.comparison.model import Comparison, Contrast, Row, Settings, Slice, System, Table, Verdict
from recbench.comparison.scored import Scored, raw_contrasts, scored
from recbench.comparison.systems import Group, controls, group
from recbench.data.dataset import HOME
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.by_user import Places
from recbench.evaluation.metrics import Metric
from recbench.runs.folder import Run


def compare(runs: Sequence[Run], settings: Settings | None = None, *, datasets: Path = HOME) -> Comparison:
    """One table a dataset, in order of name, and from five datasets on a test over them.

    Args:
        runs: finished runs, or what other tools found.
        settings: how they are compared.
        datasets: home of prepared datasets; only slices need it.

    Raises:
        RecbenchError: a run is unfinished or damaged, runs of a dataset sat different exams or ranked different users,
            or no dataset has two systems.
    """
    settings = settings or Settings()
    checks.refuse_unfinished(runs)
    checks.refuse_changed(runs)
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
            tables.append(_table(dataset, groups, settings, datasets))
    if not tables:
        raise RecbenchError(
            "There are no two systems to compare.",
            why=" ".join(lonely) or "No runs were given.",
            fix=_another(runs),
            code=Exit.COMPARISON,
        )
    tested, refused = across(tables, settings)
    return Comparison(
        settings=settings, tables=tuple(tables), warnings=tuple(lonely), across=tested, across_refused=refused
    )


def _another(runs: Sequence[Run]) -> str:
    """What to train beside the only system there is."""
    if not runs:
        return "recbench train --backbone markov"
    other = "popularity" if runs[0].manifest.backbone == "markov" else "markov"
    name = shlex.quote(str(runs[0].manifest.dataset.get("name")))
    return f"Train another on the same data: recbench train --backbone {other} --dataset {name}"


@dataclass(frozen=True, slots=True, eq=False)
class _Contest:
    """The systems of one dataset, with the counts of each of their runs, and who is held against whom."""

    groups: Mapping[str, Group]
    places: Mapping[str, tuple[Places, ...]]
    systems: Mapping[str, System]
    baselines: Mapping[str, Group]

    def scored(self, settings: Settings, rows: np.ndarray | None = None) -> dict[str, Scored]:
        """Every system's metrics, on all rows or on some."""
        chosen = {
            label: places if rows is None else tuple(place.only(rows) for place in places)
            for label, places in self.places.items()
        }
        return {label: scored(self.systems[label], places, settings) for label, places in chosen.items()}


def _table(dataset: str, groups: Sequence[Group], settings: Settings, datasets: Path) -> Table:
    reference, baselines = controls(groups, settings.baseline)
    places = _places(groups)
    systems = {g.label: _system(g, places[g.label], settings) for g in groups}
    contest = _Contest({g.label: g for g in groups}, places, systems, baselines)
    found = contest.scored(settings)
    leader = next((run for g in groups for run in g.runs if run.given is None), groups[0].runs[0])
    n_users = len(places[groups[0].label][0].users)
    quality = {label: s.score(settings.metrics[0]).mean for label, s in found.items()}
    return Table(
        dataset=dataset,
        fingerprint=str(leader.manifest.dataset.get("fingerprint", "not stated")),
        protocol=leader.manifest.protocol,
        n_users=n_users,
        n_items=leader.manifest.dataset.get("items"),
        systems=tuple(systems.values()),
        rows=tuple(row for metric in settings.metrics for row in _rows(metric, found, baselines, settings)),
        reference=reference.label,
        oracle=_oracle(leader.manifest.dataset, settings),
        warnings=checks.warnings(groups, n_users, dataset, settings),
        slices=tuple(part for asked in settings.slices for part in _slices(asked, contest, settings, datasets)),
        costs=costs(list(systems.values()), quality),
    )


def _places(groups: Sequence[Group]) -> dict[str, tuple[Places, ...]]:
    """The test counts of every run, all of the same users with the same targets, and these sets in all or in none."""
    found = {g.label: tuple(_of_test(run) for run in g.runs) for g in groups}
    every = [place for places in found.values() for place in places]
    for other in every[1:]:
        _refuse_other_users(every[0], other)
    if not any(place.together for place in every):
        return found
    checks.refuse_single_targets([place.run for place in every])
    # a table of ranks does not say whether the targets of a user are a set: it is read as what stands beside it
    return {label: tuple(replace(place, together=True) for place in places) for label, places in found.items()}


def _of_test(run: Run) -> Places:
    places = Places.of(run)
    if not len(places.users):
        raise RecbenchError(
            f"{run.folder} ranked no test user.",
            why=f"Its {columns.SPLIT} column never says test.",
            fix=f"recbench evaluate {run.folder}",
            code=Exit.COMPARISON,
        )
    return places


def _rows(metric: Metric, found: Mapping[str, Scored], baselines: Mapping[str, Group], settings: Settings) -> list[Row]:
    """All systems on one metric, their contrasts corrected as one family."""
    done = contrasts(raw_contrasts(metric, found, baselines, settings, two_way=True), settings)
    return [replace(s.row(metric), contrast=done.get(label)) for label, s in found.items()]


def _slices(asked: str, contest: _Contest, settings: Settings, datasets: Path) -> list[Slice]:
    """Every part of a slice; the contrasts of all its parts on one metric are one family."""
    first = _naming_targets([place for places in contest.places.values() for place in places])
    masks = slicing.masks(first, asked, datasets)
    parts = {name: contest.scored(settings, mask) for name, mask in masks.items()}
    sizes = {name: len(np.unique(first.frame[columns.USER].to_numpy()[mask])) for name, mask in masks.items()}
    rows: dict[str, list[Row]] = {name: [] for name in parts}
    for metric in settings.metrics:
        raw: dict[tuple[str, str], Raw] = {}
        for name, found in parts.items():
            of_part = raw_contrasts(metric, found, contest.baselines, settings, two_way=False)
            raw |= {(name, label): contrast for label, contrast in of_part.items()}
        done = contrasts(raw, settings)
        for name, found in parts.items():
            few = sizes[name] < checks.FEW_USERS
            rows[name] += [
                replace(s.row(metric), contrast=_unjudged(done.get((name, label)), few)) for label, s in found.items()
            ]
    return [Slice(by=slicing.title(asked), name=name, n_users=sizes[name], rows=tuple(rows[name])) for name in parts]


def _naming_targets(every: Sequence[Places]) -> Places:
    """The first that names its targets, as a table of metrics need not; else the first."""
    return next((place for place in every if place.frame[columns.TARGET].any()), every[0])


def _unjudged(contrast: Contrast | None, few: bool) -> Contrast | None:
    return replace(contrast, verdict=Verdict.TOO_FEW) if few and contrast is not None else contrast


def _refuse_other_users(one: Places, other: Places) -> None:
    keys = [columns.USER, columns.TARGET]
    mine, theirs = one.frame[keys], other.frame[keys]
    if np.array_equal(mine.to_numpy(), theirs.to_numpy()) or _same_without_targets(one, other):
        return
    pairs = (frame.astype(str).drop_duplicates() for frame in (mine, theirs))
    shared = len(next(pairs).merge(next(pairs), on=keys))
    checks.refuse_other_users(one.run, len(one.users), other.run, len(other.users), shared)


def _same_without_targets(one: Places, other: Places) -> bool:
    """A table of metrics may not name its targets; then the users must do."""
    nameless = any(
        place.run.given is not None and place.run.given.measured and not place.frame[columns.TARGET].any()
        for place in (one, other)
    )
    return nameless and np.array_equal(one.users, other.users)


def _system(g: Group, places: Sequence[Places], settings: Settings) -> System:
    manifests = [run.manifest for run in g.runs]
    first = g.runs[0]
    times = [m.ms_per_user for m in manifests if m.ms_per_user is not None]
    seconds = [m.training_seconds for m in manifests if m.training_seconds is not None]
    memory = [m.peak_memory_mb for m in manifests if m.peak_memory_mb]
    return System(
        label=g.label,
        backbone=g.backbone,
        head=g.head,
        config_sha256=first.manifest.config_sha256,
        loss=g.loss,
        inputs=first.manifest.inputs,
        seeds=tuple(m.seed for m in manifests),
        folders=tuple(str(run.folder) for run in g.runs),
        deterministic=g.deterministic,
        tied=float(np.mean([place.tied(settings.candidates) for place in places])),
        n_parameters=first.manifest.n_parameters or None,  # closed form has none
        ms_per_user=float(np.mean(times)) if times else None,
        training_seconds=float(np.mean(seconds)) if seconds else None,
        peak_memory_mb=max(memory) if memory else None,
        trials=checks.trials(g),
        source="run" if first.given is None else first.given.kind,
    )


def _oracle(dataset: Mapping[str, object], settings: Settings) -> dict[str, float]:
    oracle = dataset.get("oracle")
    if not isinstance(oracle, Mapping) or settings.ties != "expected":
        return {}
    best = oracle.get("test" if settings.candidates == "all" else "test_unseen")
    if not isinstance(best, Mapping):
        return {}
    return {str(metric): float(best[str(metric)]) for metric in settings.metrics if str(metric) in best}
