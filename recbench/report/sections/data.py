"""What each dataset is: the card, its counts step by step, and the audit."""

from __future__ import annotations

from recbench.report import words
from recbench.report.blocks import Block, Cell, Grid, Section, slug
from recbench.report.material import DataFacts, Material


def section(material: Material) -> Section:
    """A block a dataset whose card is at hand."""
    blocks = [_block(name, facts) for name, facts in sorted(material.cards.items())]
    return Section(name="data", title="Data", blocks=tuple(blocks))


def _block(name: str, facts: DataFacts) -> Block:
    card = facts.card
    grid = Grid(
        name=slug("steps-of", name),
        caption=f"{name}: what was left after each step of preparation",
        heads=("step", "users", "items", "interactions"),
        rows=tuple(
            (Cell(s.step), *(Cell(words.count(n), sort=float(n)) for n in (s.users, s.items, s.interactions)))
            for s in card.steps
        ),
    )
    hashes = (
        ("fingerprint", card.fingerprint),
        ("sequences", f"sha256 {card.sequence_sha256}"),
        ("ids", card.id_rule),
        ("made by", f"recbench {card.recbench}"),
    )
    return Block(title=name, grids=(grid,), terms=(*_merged(facts.facts), *((k, v) for k, v in hashes if v)))


def _merged(facts: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """A label said once, its further sentences without one."""
    merged = []
    before = None
    for label, text in facts:
        merged.append((label if label != before else "", text))
        before = label
    return merged
