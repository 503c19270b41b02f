"""From runs to systems: which runs are seeds of one system, what it is called, and what it is held against."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from recbench.config import as_typed, flat
from recbench.errors import Exit, RecbenchError, nearest
from recbench.registry import BACKBONES, HEADS, Registry
from recbench.runs.folder import Run

TRIVIAL = ("popularity", "markov", "itemknn", "ease")
"""The baselines every table should hold, in the order in which they serve as the control of last resort."""
CLOSED_FORM = "closed form"
_SHOWN_SETTINGS = 3
_TELLING = ("from", "until")
"""Settings that go before all others in a label: a stage that was not run makes another system than any number says."""
SEED = re.compile(r"-s(\d+|\{seed\})$")
"""End of the name of a run folder."""


@dataclass(frozen=True, slots=True)
class Group:
    """The runs of one system, by seed."""

    label: str
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """Its label without settings: ``sasrec+lares``."""
        return self.runs[0].manifest.system

    @property
    def backbone(self) -> str:
        """Name of the backbone."""
        return self.runs[0].manifest.backbone

    @property
    def head(self) -> str:
        """Name of the reasoning head."""
        return self.runs[0].manifest.head

    @property
    def loss(self) -> str:
        """The training loss."""
        return self.runs[0].manifest.loss

    @property
    def deterministic(self) -> bool:
        """Nothing is drawn at random, so another seed would give the same."""
        return self.loss == CLOSED_FORM


def group(runs: Iterable[Run]) -> list[Group]:
    """Runs of one dataset as systems, equal in all but seed. Trivial baselines first, then by the tables of names.

    Raises:
        RecbenchError: a seed of a system is there twice; it would count double.
    """
    found: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        found[run.manifest.backbone, run.manifest.head, run.manifest.config_sha256].append(run)
    members = [sorted(those, key=lambda run: run.manifest.seed) for those in found.values()]
    for those in members:
        _refuse_repeated_seeds(those)
    labelled = zip(_labels(members), members, strict=True)
    return sorted((Group(label, tuple(those)) for label, those in labelled), key=_place)


def controls(groups: Sequence[Group], asked: str | None) -> tuple[Group, dict[str, Group]]:
    """The reference, and the baseline of each other system by label.

    A system asked for is the baseline of all. Otherwise a system with a reasoning head is held against its own backbone
    with head ``none``, and everything else against the reference: the first control (in the order of ``recbench list``)
    whose backbone also has heads in the table, else the first neural control, else the first trivial baseline, else the
    first system. Never the one that scores best: that would be choosing by the test.

    Raises:
        RecbenchError: no system has the label ``asked``, or several do.
    """
    if asked is not None:
        reference = _named(asked, groups)
        return reference, {g.label: reference for g in groups if g is not reference}
    plain = [g for g in groups if g.head == "none" and not g.deterministic]
    with_heads = {g.backbone for g in groups if g.head != "none"}
    trivial = [g for name in TRIVIAL for g in groups if g.name == name]
    reference = [*[g for g in plain if g.backbone in with_heads], *plain, *trivial, *groups][0]
    own: dict[str, Group] = {}
    for control in plain:
        own.setdefault(control.backbone, control)
    baselines = {g.label: own.get(g.backbone, reference) if g.head != "none" else reference for g in groups}
    return reference, {label: baseline for label, baseline in baselines.items() if label != reference.label}


def _refuse_repeated_seeds(runs: Sequence[Run]) -> None:
    for one, other in pairwise(runs):
        if one.manifest.seed == other.manifest.seed:
            raise RecbenchError(
                f"Seed {one.manifest.seed} of {one.manifest.system} is given twice.",
                why=f"{one.folder} and {other.folder} have the same config and seed: one run would pass for two.",
                fix=f"Leave out {other.folder}",
                code=Exit.COMPARISON,
            )


def _labels(members: Sequence[Sequence[Run]]) -> list[str]:
    shared = Counter(those[0].manifest.system for those in members)
    labels = []
    for those in members:
        name = those[0].manifest.system
        rivals = [other for other in members if other[0].manifest.system == name]
        labels.append(name if shared[name] == 1 else f"{name} ({_difference(those, rivals)})")
    return labels


def _difference(those: Sequence[Run], rivals: Sequence[Sequence[Run]]) -> str:
    """The settings that tell a system from others of its name; its hash where the settings do not."""
    configs = [_settings(other[0]) for other in rivals]
    names = sorted({name for config in configs for name in config}, key=lambda name: (name not in _TELLING, name))
    differing = [name for name in names if len({repr(config.get(name)) for config in configs}) > 1]
    mine = configs[next(place for place, other in enumerate(rivals) if other is those)]
    told = [", ".join(f"{n}={as_typed(config.get(n))}" for n in differing[:_SHOWN_SETTINGS]) for config in configs]
    text = ", ".join(f"{n}={as_typed(mine.get(n))}" for n in differing[:_SHOWN_SETTINGS])
    if text and told.count(text) == 1:
        return text
    return f"config {those[0].manifest.config_sha256[:8]}"


def _settings(run: Run) -> dict[str, Any]:
    try:
        config = flat(run.config())
    except RecbenchError:
        return {}
    settings = {name: value for name, value in config.items() if name.rpartition(".")[2] != "seed"}
    if "from" in settings:  # a system is told from others by what it went on from: the path without its seed
        settings["from"] = SEED.sub("", Path(str(settings["from"])).name)
    return settings


def _place(group_: Group) -> tuple[int, int, int, str]:
    trivial = group_.name in TRIVIAL
    return (not trivial, _order(BACKBONES, group_.backbone), _order(HEADS, group_.head), group_.label)


def _order(registry: Registry, name: str) -> int:
    names = list(registry.entries())
    return names.index(name) if name in names else len(names)


def _named(asked: str, groups: Sequence[Group]) -> Group:
    exact = [g for g in groups if g.label == asked]
    named = exact or [g for g in groups if asked in (g.name, f"{g.backbone}+{g.head}")]
    if len(named) == 1:
        return named[0]
    labels = [g.label for g in named or groups]
    near = nearest(asked, labels)
    dataset = groups[0].runs[0].manifest.dataset.get("name")
    raise RecbenchError(
        f"{len(named)} systems on {dataset} are called {asked!r}."
        if named
        else f"No system on {dataset} is called {asked!r}.",
        why=f"The systems are: {'; '.join(labels)}.",
        fix=f"--baseline {near or labels[0]!r}"
        if " " not in (near or labels[0])
        else f'--baseline "{near or labels[0]}"',
        code=Exit.COMPARISON,
    )
