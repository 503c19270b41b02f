"""What may not be compared, and what a reader must be warned of."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from recbench.comparison.model import CAUTIONS, TEST_NAMES, Settings
from recbench.comparison.systems import TRIVIAL, Group
from recbench.config import flat
from recbench.data.describe import number_of
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.by_user import asks_for_sets
from recbench.runs.folder import CONFIG, LOG, MODEL, Run
from recbench.runs.manifest import NAME as MANIFEST
from recbench.stats.corrections import CORRECTIONS

_SHOWN_RUNS = 3
FEW_USERS = 500
"""Below this a table says that p and interval rest on few users."""


def refuse_unfinished(runs: Sequence[Run]) -> None:
    """Every run must have ended well.

    Raises:
        RecbenchError: one has not; it names them all and the way to finish the first.
    """
    unfinished = [run for run in runs if run.manifest.status != "finished"]
    if not unfinished:
        return
    listed = "; ".join(f"{run.folder} ({run.manifest.status})" for run in unfinished)
    alive = any(run.manifest.status == "running" for run in unfinished)
    raise RecbenchError(
        f"{len(unfinished)} of {len(runs)} runs {'is' if len(unfinished) == 1 else 'are'} not finished.",
        why=f"{listed}.{' What is called running may still be at work, or was killed.' if alive else ''}",
        fix=f"{'Wait, or ' if alive else ''}{finishing(unfinished[0])}, or leave "
        f"{'it' if len(unfinished) == 1 else 'them'} out",
        code=Exit.COMPARISON,
    )


def refuse_changed(runs: Sequence[Run]) -> None:
    """What stands beside the ranks in a table or page, settings and curves, must be the run's own; ranks are held as they are read.

    Raises:
        RecbenchError: a file is another than its run states.
    """
    for run in runs:
        for name in (CONFIG, LOG):
            if run.given is None and run.changed(name):
                raise RecbenchError(
                    f"{run.folder / name} is changed.",
                    why="run.json states its sha256, and it does not agree.",
                    fix=f"Put it back as it was, or leave {run.folder} out; recbench verify {run.folder} says what else is changed",
                    code=Exit.RUN,
                )


def finishing(run: Run) -> str:
    """The command that takes a run to its end."""
    command, typed = run.manifest.command, run.manifest.argv[1:]
    if typed[:1] != ["train"]:  # made by another command, or from Python
        return f"make it again as it was made ({run.folder / MANIFEST}: argv)"
    named = any(word.partition("=")[0] == "--dataset" for word in typed)
    here = "" if named else f" --dataset {shlex.quote(str(run.manifest.dataset['name']))}"
    return f"{command}{here}{'' if '--resume' in typed else ' --resume'}"


def refuse_other_exams(dataset: str, runs: Sequence[Run]) -> None:
    """Runs on a dataset must share data, catalogue, split, tie rules, candidates and metric definition.

    Raises:
        RecbenchError: they differ; it names the first field that does, its values, and the runs with each.
    """
    conditions = [_conditions(run) for run in runs]
    names = list(dict.fromkeys(name for condition in conditions for name in condition))
    for name in names:
        holders: dict[str, list[Run]] = defaultdict(list)
        for run, condition in zip(runs, conditions, strict=True):
            if run.given is None or condition.get(name) is not None:  # what a table leaves unsaid is warned of
                holders[_plain(condition.get(name))].append(run)
        if len(holders) > 1:
            most = max(holders.values(), key=len)
            raise RecbenchError(
                f"Runs on {dataset} differ in {name}.",
                why="; ".join(f"{value}: {_folders(those)}" for value, those in holders.items()) + ".",
                fix=f"Compare like with like: recbench compare {shlex.join(str(run.folder) for run in most)}"
                if len(most) > 1
                else "Compare like with like: train them on the same data, prepared the same way",
                code=Exit.COMPARISON,
            )


def refuse_other_users(one: Run, n_one: int, other: Run, n_other: int, shared: int) -> None:
    """Paired statistics need the same users with the same targets on both sides.

    Raises:
        RecbenchError: always; called where they differ.
    """
    why = f"users: {n_one:,} and {n_other:,} tested; {shared:,} pairs of user and target stand in both."
    if not other.given:
        fix = f"recbench evaluate {other.folder}, or leave it out"
    elif shared:
        fix = f"Leave out {other.folder}"
    else:
        why += " Tables name users and items by recbench's numbers, as users.parquet of a run does."
        fix = f"Give {other.folder} these numbers (users.parquet and items.parquet of the dataset have raw ids), or leave it out"
    raise RecbenchError(
        f"{one.folder} and {other.folder} do not rank the same targets.", why=why, fix=fix, code=Exit.COMPARISON
    )


def refuse_single_targets(runs: Sequence[Run]) -> None:
    """Where the targets of a user are one set for some, they are no queries of their own for others.

    Raises:
        RecbenchError: a run folder asks for them one by one.
    """
    single = [run for run in runs if run.given is None and not asks_for_sets(run)]
    if single:
        sets = [run for run in runs if asks_for_sets(run)]
        raise RecbenchError(
            f"{sets[0].folder} has several targets a query, and {single[0].folder} has a query for each.",
            why="A metric of a set is not the mean over its targets.",
            fix="Compare with runs of a dataset prepared by --split temporal --target all",
            code=Exit.COMPARISON,
        )


def warnings(groups: Sequence[Group], n_users: int, dataset: str, settings: Settings) -> tuple[str, ...]:
    """What makes a table weaker than it looks, most serious first."""
    neural = [g for g in groups if not g.deterministic]
    found = [*_chosen_by_test(neural), *_on_trust(groups, settings), *_mixed(neural), *_unequal_tuning(neural)]
    found += [*_one_seed(neural), *_one_start(neural), *_trained_on(neural), *_unconverged(neural)]
    found += [CAUTIONS[name] for name in settings.tests if name in CAUTIONS]
    found += _too_few_resamples(len(groups) - 1, settings)
    absent = [name for name in TRIVIAL if name not in {g.name for g in groups}]
    if absent:
        command = f": recbench train --dataset {dataset} --backbone {absent[0]}"
        ours = any(run.given is None for g in groups for run in g.runs)
        found.append(
            f"Missing trivial baselines: {', '.join(absent)}. They often beat printed neural results"
            f"{command if ours else '.'}"
        )
    if n_users < FEW_USERS:
        found.append(
            f"Only {number_of(n_users, 'user')}: p and intervals rest on means of many, so read them with care."
        )
    return (*found, *_told_by_runs([run for g in groups for run in g.runs]))


def trials(group: Group) -> int | None:
    """Settings tried before this one was chosen, the most any of its runs states."""
    stated = [run.manifest.tuning.get("trials") for run in group.runs]
    known = [int(number) for number in stated if isinstance(number, int)]
    return max(known) if known else None


def _chosen_by_test(neural: Sequence[Group]) -> list[str]:
    """Settings picked by the very users that now judge, said by a run or possible in this table."""
    found = []
    told = [g.label for g in neural if any(run.manifest.tuning.get("selected_on") == "test" for run in g.runs)]
    if told:
        found.append(f"Chosen on test: {', '.join(told)}. What was picked by these users cannot be judged by them.")
    variants: dict[str, list[Group]] = defaultdict(list)
    for g in neural:
        variants[g.name].append(g)
    for name, those in variants.items():
        best = _best_on_validation(those)
        if len(those) > 1:
            pick = f" Validation picks {best}." if best else ""
            found.append(
                f"{len(those)} variants of {name}: taking the best of this table would be selection on test.{pick}"
            )
    return found


def _best_on_validation(variants: Sequence[Group]) -> str | None:
    means = {}
    for g in variants:
        stated = [run.manifest.metrics.get("valid", {}).get("ndcg@10") for run in g.runs]
        known = [value for value in stated if value is not None]
        if len(known) < len(stated):
            return None
        means[g.label] = sum(known) / len(known)
    return max(means, key=lambda label: means[label])


def _on_trust(groups: Sequence[Group], settings: Settings) -> list[str]:
    """What tables of other tools do not say of themselves."""
    given = [g for g in groups if g.runs[0].given is not None]
    if not given:
        return []
    unsaid = [g.label for g in given if any(run.given and run.given.candidates is None for run in g.runs)]
    candidates = (
        f" That {', '.join(unsaid)} ranked {settings.candidates} items is taken on trust, too." if unsaid else ""
    )
    read = f"Read from other tools: {', '.join(g.label for g in given)}."
    return [f"{read} Users and targets agree; that data, split and tie rule do is taken on trust.{candidates}"]


def _unequal_tuning(neural: Sequence[Group]) -> list[str]:
    budgets = {g.label: trials(g) for g in neural}
    if len(set(budgets.values())) < 2:
        return []
    told = "; ".join(
        f"{label}: {'not stated' if number is None else f'{number} trials'}" for label, number in budgets.items()
    )
    return [f"Unequal tuning budgets, and every method looks best against untuned rivals. {told}."]


def _mixed(neural: Sequence[Group]) -> list[str]:
    found = []
    losses: dict[str, list[str]] = defaultdict(list)
    for g in neural:
        losses[g.loss].append(g.label)
    if len(losses) > 1:
        told = "; ".join(f"{loss}: {', '.join(labels)}" for loss, labels in losses.items())
        found.append(f"Mixed training losses, which alone can decide the order. {told}.")
    inputs = {g.label: flat(g.runs[0].manifest.inputs) for g in neural}
    for name in dict.fromkeys(name for seen in inputs.values() for name in seen):
        values: dict[str, list[str]] = defaultdict(list)
        for label, seen in inputs.items():
            values[_plain(seen.get(name))].append(label)
        if len(values) > 1:
            told = "; ".join(f"{value}: {', '.join(labels)}" for value, labels in values.items())
            found.append(f"Unequal inputs: {name} differs. {told}.")
    return found


def _one_seed(neural: Sequence[Group]) -> list[str]:
    single = [g.label for g in neural if len(g.runs) == 1]
    if not single:
        return []
    return [
        f"One seed only: {', '.join(single)}. Training noise is not covered; three seeds are the least for a claim."
    ]


def _one_start(neural: Sequence[Group]) -> list[str]:
    """Runs that all went on from the same weights: their spread holds the noise of what came after only."""
    starts = {g.label: {run.manifest.started_from.get("model_sha256") for run in g.runs} for g in neural}
    same = [g.label for g in neural if len(g.runs) > 1 and len(starts[g.label]) == 1 and None not in starts[g.label]]
    if not same:
        return []
    told = f"All runs of {', '.join(same)} went on from the same weights: their spread leaves out the training before."
    return [f"{told} One start a seed: recbench train --from 'PATH-s{{seed}}'"]


def _trained_on(neural: Sequence[Group]) -> list[str]:
    """Systems that went on from runs of another one here, and so were trained longer than it."""
    weights = {run.manifest.files[MODEL]: g.label for g in neural for run in g.runs if MODEL in run.manifest.files}
    more: dict[tuple[str, str], list[int]] = defaultdict(list)
    for g in neural:
        for m in (run.manifest for run in g.runs):
            start = weights.get(m.started_from.get("model_sha256", ""))
            if start is not None and m.best_epoch != 0:  # 0: what it began with was kept
                more[g.label, start].append(m.epochs)
    told = []
    for (label, start), epochs in more.items():
        least = "" if len(set(epochs)) == 1 else f"{min(epochs)} to "
        longer = f"{label} went on from {start}, {least}{number_of(max(epochs), 'epoch')} longer"
        alone = "part of the difference may be what more training alone brings"
        told.append(f"{longer}: {alone}. A control: as many epochs without what is new.")
    return told


def _unconverged(neural: Sequence[Group]) -> list[str]:
    still = [run for g in neural for run in g.runs if _best_is_last(run)]
    if not still:
        return []
    return [f"Best epoch is the last one: {_folders(still)}. More epochs may do better: --set train.epochs=..."]


def _too_few_resamples(n_contrasts: int, settings: Settings) -> list[str]:
    """A deciding test whose p, one in so many resamples at least, cannot fall below alpha once it is corrected."""
    if settings.tests[0] not in ("bootstrap", "randomisation"):
        return []
    least = CORRECTIONS[settings.correction]([1 / (settings.resamples + 1)] * n_contrasts)[0]
    if least < settings.alpha:
        return []
    told = f"{TEST_NAMES[settings.tests[0]]} of {number_of(settings.resamples, 'resample')} can decide nothing here"
    return [f"{told}: its least corrected p is {least:.3g}, and alpha {settings.alpha:g}. More would: --resamples ..."]


def _told_by_runs(runs: Sequence[Run]) -> list[str]:
    """What runs warned of themselves, each text once."""
    tellers: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        for text in run.manifest.warnings:
            tellers[text].append(run)
    return [f"{_folders(those)}: {text}" for text, those in tellers.items()]


def _best_is_last(run: Run) -> bool:
    told = any("epoch" in text for text in run.manifest.warnings)  # the run says so itself
    return run.manifest.best_epoch is not None and run.manifest.best_epoch >= run.manifest.epochs > 0 and not told


def _conditions(run: Run) -> dict[str, Any]:
    """What must agree, the telling fields first: another split changes the fingerprint too."""
    protocol = {f"protocol.{name}": value for name, value in flat(run.manifest.protocol).items()}
    data = {f"dataset.{name}": run.manifest.dataset.get(name) for name in ("items", "sequence_sha256", "fingerprint")}
    return protocol | data


def _plain(value: Any) -> str:
    return "absent" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)


def _folders(runs: Sequence[Run]) -> str:
    shown = ", ".join(str(run.folder) for run in runs[:_SHOWN_RUNS])
    return shown if len(runs) <= _SHOWN_RUNS else f"{shown} and {len(runs) - _SHOWN_RUNS} more"
