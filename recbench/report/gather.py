"""From runs to the material of a page: compare what can be compared, read what else their folders hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from recbench.comparison import Comparison, Settings, compare
from recbench.comparison.checks import finishing
from recbench.comparison.systems import Group, group
from recbench.data.again import by_name
from recbench.data.card import NAME as CARD
from recbench.data.card import Card
from recbench.data.describe import facts, passed_on
from recbench.errors import Exit, RecbenchError
from recbench.report.evidence import Evidence, Missing, absent
from recbench.report.evidence import gather as read
from recbench.report.figures.style import styles
from recbench.report.material import DataFacts, Material
from recbench.runs.folder import Run

SLICES = ("popularity", "length")
"""What a page shows unless told otherwise."""


def gather(runs: Sequence[Run], settings: Settings, datasets: Path, command: Sequence[str] = ()) -> Material:
    """Everything a page shows.

    Args:
        runs: unfinished ones are left out, and named on the page.
        settings: of the comparison.
        datasets: home of prepared datasets, where their cards are looked for.
        command: what was typed; stands on the page.

    Raises:
        RecbenchError: no run is finished, or the runs cannot be compared.
    """
    finished = [run for run in runs if run.manifest.status == "finished"]
    missing = [_unfinished(run) for run in runs if run.manifest.status != "finished"]
    if not finished:
        raise RecbenchError(
            "No run is finished, so there is nothing to report.",
            why=" ".join(m.why for m in missing) or "No runs were given.",
            fix=missing[0].fix if missing else "recbench train --backbone markov",
            code=Exit.COMPARISON,
        )
    groups = _groups(finished)
    evidence, unread = read([(g.label, run) for name in sorted(groups) for g in groups[name] for run in g.runs])
    cards, uncarded = _cards(evidence, datasets)
    comparison: Comparison | None = None
    unsliced: list[Missing] = []
    if any(len(those) > 1 for those in groups.values()):
        comparison, unsliced = _compared(finished, settings, datasets, carded=len(cards) == len(groups))
    return Material(
        settings=comparison.settings if comparison is not None else settings,
        comparison=comparison,
        evidence=tuple(evidence),
        styles=styles(_labels(groups), _first(comparison)),
        cards=cards,
        missing=(*missing, *unread, *uncarded, *unsliced, *_never_asked(evidence)),
        command=tuple(command),
    )


def _compared(
    runs: Sequence[Run], settings: Settings, datasets: Path, *, carded: bool
) -> tuple[Comparison, list[Missing]]:
    """The comparison, with slices that were asked for; else with ``SLICES`` where every dataset is at hand."""
    if settings.slices:
        return compare(runs, settings, datasets=datasets), []
    why, fix = "They need every dataset the runs were made on.", "Prepare them, or name their home: --datasets DIR"
    if carded:
        try:
            return compare(runs, replace(settings, slices=SLICES), datasets=datasets), []
        except RecbenchError as error:
            why, fix = f"{error.what} {error.why}", error.fix
    return compare(runs, settings, datasets=datasets), [Missing(what="Slices of users", why=why, fix=fix)]


def _groups(runs: Sequence[Run]) -> dict[str, list[Group]]:
    by_dataset: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_dataset[str(run.manifest.dataset.get("name"))].append(run)
    return {name: group(those) for name, those in by_dataset.items()}


def _labels(groups: Mapping[str, Sequence[Group]]) -> list[str]:
    return list(dict.fromkeys(g.label for name in sorted(groups) for g in groups[name]))


def _first(comparison: Comparison | None) -> list[str]:
    """Who is drawn distinctly where not all can be: baselines, then the best of each table, turn by turn."""
    if comparison is None:
        return []
    metric = comparison.settings.metrics[0]
    ordered = [sorted(t.on(metric), key=lambda row: -row.score.mean) for t in comparison.tables]
    best = [
        rows[place].system.label for place in range(max(map(len, ordered))) for rows in ordered if place < len(rows)
    ]
    return list(dict.fromkeys([*[t.reference for t in comparison.tables], *best]))


def _cards(evidence: Sequence[Evidence], home: Path) -> tuple[dict[str, DataFacts], list[Missing]]:
    """The cards of the very data the runs were made on: another preparation of that name is no evidence."""
    cards: dict[str, DataFacts] = {}
    missing = []
    manifests = {str(e.run.manifest.dataset.get("name")): e.run.manifest for e in evidence}
    for name, manifest in sorted(manifests.items()):
        what, elsewhere = f"Data audit of {name}", "name the home of the one they were made on: --datasets DIR"
        if not (home / name / CARD).exists():
            fix = f"{by_name(name, home)}, or {elsewhere}"
            missing.append(Missing(what=what, why=f"{home / name} holds no {CARD}.", fix=fix))
            continue
        try:
            card = Card.read(home / name)
        except RecbenchError as error:
            missing.append(absent(error, what))
            continue
        if card.fingerprint != manifest.dataset.get("fingerprint"):
            why = f"{home / name} is another preparation than the one the runs were made on: the fingerprints differ."
            missing.append(Missing(what=what, why=why, fix=f"{elsewhere[0].upper()}{elsewhere[1:]}"))
            continue
        cards[name] = DataFacts(card=card, facts=tuple(facts(passed_on(card))))
    return cards, missing


def _unfinished(run: Run) -> Missing:
    m = run.manifest
    why = f"{run.folder} is {m.status}{': ' + m.error['what'] if m.error.get('what') else ''}."
    return Missing(what=f"{m.system} on {m.dataset.get('name')}, seed {m.seed}", why=why, fix=finishing(run))


def _never_asked(evidence: Sequence[Evidence]) -> list[Missing]:
    """Figures that need a command nobody has run yet."""
    thinking = [e for e in evidence if e.run.manifest.head != "none"]
    if not thinking or any(e.steps for e in thinking):
        return []
    fix = f"recbench evaluate {thinking[0].run.folder} --steps 1,2,4,8"
    return [Missing(what="Reasoning steps at test", why="No run was ranked with other numbers of steps.", fix=fix)]
