"""What was found, in words, before any number; and what a reader must know before believing it."""

from __future__ import annotations

from collections import Counter

from recbench.comparison import Settings, Table, Verdict
from recbench.report import words
from recbench.report.blocks import Block, Judged, Section
from recbench.report.material import Material

KINDS = {
    Verdict.BETTER: "better",
    Verdict.WORSE: "worse",
    Verdict.BETTER_BUT_SMALL: "better",
    Verdict.WORSE_BUT_SMALL: "worse",
    Verdict.EQUIVALENT: "equivalent",
    Verdict.NOT_WORSE: "not worse",
    Verdict.UNDECIDED: "undecided",
    Verdict.TOO_FEW: "undecided",
}
_ORDER = list(dict.fromkeys(KINDS.values()))
"""What is decided first."""


def section(material: Material) -> Section:
    """A block a dataset."""
    comparison = material.comparison
    if comparison is None:
        alone = ", ".join(dict.fromkeys(e.label for e in material.evidence))
        lead = f"Nothing is compared: there are no two systems on one dataset. This page shows {alone} alone."
        return Section(name="verdict", title="Verdict", blocks=(Block(lead=(lead,)),))
    blocks = [_block(table, material.settings) for table in comparison.tables]
    if comparison.warnings:
        blocks.append(Block(warnings=comparison.warnings))
    return Section(name="verdict", title="Verdict", blocks=tuple(blocks))


def _block(table: Table, settings: Settings) -> Block:
    metric = settings.metrics[0]
    kinds = [KINDS[row.contrast.verdict] for row in table.on(metric) if row.contrast is not None]
    texts = words.sentences(table, settings, metric)
    judged = [Judged(kind=kind, text=text) for kind, text in zip(kinds, texts, strict=True)]
    return Block(
        title=table.dataset,
        lead=(_headline(table, settings, Counter(kinds)),),
        verdicts=tuple(sorted(judged, key=lambda v: _ORDER.index(v.kind))),
        warnings=table.warnings,
    )


def _headline(table: Table, settings: Settings, kinds: Counter[str]) -> str:
    """``Of 4 systems held against a baseline, 2 are better, 1 is worse, 1 is undecided. ...``."""
    metric = settings.metrics[0]
    told = ", ".join(f"{kinds[kind]} {'is' if kinds[kind] == 1 else 'are'} {kind}" for kind in _ORDER if kinds[kind])
    n = sum(kinds.values())
    best = max(table.on(metric), key=lambda row: row.score.mean)
    one = n == 1
    return (
        f"{f'Of {n} systems' if not one else 'The one system'} held against a baseline on {metric.label}"
        f"{f', {told}' if not one else f' {told[2:]}'}. "
        f"The highest mean is that of {best.system.label}, {words.score(best)}; "
        "whether a difference is real is what each line below says."
    )
