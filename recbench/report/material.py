"""All that a page is made from, gathered before anything is laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from recbench.comparison import Comparison, Settings
from recbench.data.card import Card
from recbench.report.evidence import Evidence, Missing
from recbench.report.figures.style import Style


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """A dataset's card, and the card in words."""

    card: Card
    facts: tuple[tuple[str, str], ...]
    """Label and sentence, in order; a label may come again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What is known of the runs."""

    settings: Settings
    comparison: Comparison | None
    """None where no dataset has two systems."""
    evidence: tuple[Evidence, ...]
    styles: Mapping[str, Style]
    """By label, for all datasets."""
    cards: Mapping[str, DataFacts] = field(default_factory=dict)
    missing: tuple[Missing, ...] = ()
    command: tuple[str, ...] = ()

    @property
    def datasets(self) -> list[str]:
        """Names, in order."""
        return sorted({dataset_of(e) for e in self.evidence})

    def of(self, dataset: str) -> list[Evidence]:
        """The runs on one dataset."""
        return [e for e in self.evidence if dataset_of(e) == dataset]

    def systems(self, dataset: str) -> dict[str, list[Evidence]]:
        """The runs on one dataset, by label of their system."""
        found: dict[str, list[Evidence]] = {}
        for e in self.of(dataset):
            found.setdefault(e.label, []).append(e)
        return found


def dataset_of(evidence: Evidence) -> str:
    """Name of the dataset of a run."""
    return str(evidence.run.manifest.dataset.get("name"))
