"""The page, in order: what was found first, how it came about later."""

from __future__ import annotations

import shlex

from recbench import __version__
from recbench.data.describe import number_of
from recbench.report import words
from recbench.report.blocks import Page, Section
from recbench.report.material import Material
from recbench.report.sections import cost, data, over_datasets, provenance, results, training, verdict


def assemble(material: Material) -> Page:
    """All sections that have something to show."""
    sections: list[Section] = [
        verdict.section(material),
        results.section(material),
        over_datasets.section(material),
        training.learning(material),
        training.steps(material),
        training.beams(material),
        training.depth(material),
        cost.section(material),
        data.section(material),
        provenance.runs(material),
        provenance.missing(material),
    ]
    n = len(material.evidence)
    systems = len({(e.label) for e in material.evidence})
    subtitle = (
        f"{number_of(n, 'run')} of {number_of(systems, 'system')} on "
        f"{', '.join(material.datasets)}; {_rule(material)}. recbench {__version__}"
    )
    return Page(
        title=f"recbench: {', '.join(material.datasets)}",
        subtitle=f"{subtitle}{':' if material.command else '.'}",
        command=tuple(map(shlex.quote, material.command)),
        sections=tuple(section for section in sections if section.blocks),
    )


def _rule(material: Material) -> str:
    s = material.settings
    ranked = "all items ranked" if s.candidates == "all" else "unseen items ranked"
    return f"{', '.join(m.label for m in s.metrics)}, {ranked}, smallest effect of interest {words.chosen(s.rope)}"
