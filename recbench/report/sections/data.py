"""What each dataset is: the card, its counts step by step, and the audit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from recbench.data.describe import HISTOGRAMS, REORDERED, REORDERED_TITLE, count, reordered, reordered_note
from recbench.report.blocks import Block, Cell, Grid, Panel, Section, slug
from recbench.report.figures.drawing import Drawing
from recbench.report.figures.shapes import Bins, Moved
from recbench.report.material import DataFacts, Material

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recbench.data.card import Card


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
            (Cell(s.step), *(Cell(count(n), sort=float(n)) for n in (s.users, s.items, s.interactions)))
            for s in card.steps
        ),
    )
    hashes = (
        ("fingerprint", card.fingerprint),
        ("sequences", f"sha256 {card.sequence_sha256}"),
        ("ids", card.id_rule),
        ("made by", f"recbench {card.recbench}"),
    )
    found = list(_bins(card))
    panels = (*((_panel(name, found),) if found else ()), *_ties(name, card))
    return Block(
        title=name, grids=(grid,), panels=panels, terms=(*_merged(facts.facts), *((k, v) for k, v in hashes if v))
    )


def _bins(card: Card) -> Iterator[Bins]:
    """The histograms of the audit; a card without has none."""
    told = card.audit.get("histograms", {})
    for key, (title, rows, counted) in HISTOGRAMS.items():
        if told.get(key):
            names, counts = zip(*told[key], strict=True)
            of = "date" if rows == "from" else rows
            yield Bins(title=title, names=tuple(map(str, names)), counts=counts, rows=of, counted=counted)


def _panel(name: str, histograms: list[Bins]) -> Panel:
    def draw() -> Figure:
        from recbench.report.figures.bars import holdings

        return holdings(histograms)

    told = "; ".join(
        f"{bins.title.lower()}: most {bins.counted} at {bins.names[bins.counts.index(max(bins.counts))]}"
        for bins in histograms
    )
    return Panel(
        drawing=Drawing(slug("holds", name), f"{name}: what it holds", f"Histograms. {told}.", draw),
        numbers=Grid(
            name=slug("holds-numbers", name),
            caption=f"{name}: counts by bin",
            heads=("bin", "of", "count"),
            rows=tuple(
                (Cell(bin_), Cell(f"{bins.counted} by {bins.rows}"), Cell(count(n), sort=float(n)))
                for bins in histograms
                for bin_, n in zip(bins.names, bins.counts, strict=True)
            ),
            texts=frozenset({1}),
        ),
    )


def _ties(name: str, card: Card) -> Iterator[Panel]:
    """What another order of equal times does to the baselines; nothing where nobody looked or nothing is tied."""
    rows = reordered(card)
    moved = [
        Moved(
            label=f"{row.baseline} {row.metric}",
            mean=row.change,
            low=min(row.shuffled) / row.as_prepared - 1,
            high=max(row.shuffled) / row.as_prepared - 1,
        )
        for row in rows
        if row.change is not None
    ]

    def draw() -> Figure:
        from recbench.report.figures.forest import moves

        return moves(moved, "change when equal times are shuffled")

    if moved:
        told = "; ".join(f"{one.label} {100 * one.mean:+.1f} %" for one in moved)
        yield Panel(
            drawing=Drawing(
                slug("ties", name), f"{name}: {REORDERED_TITLE[0].lower()}{REORDERED_TITLE[1:]}", f"{told}.", draw
            ),
            numbers=Grid(
                name=slug("ties-numbers", name),
                caption=f"{name}: baselines as prepared, and with equal times shuffled",
                heads=REORDERED,
                rows=tuple(tuple(Cell(text) for text in row.texts()) for row in rows),
                texts=frozenset({1}),
            ),
            notes=(reordered_note(card),),
        )


def _merged(facts: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """A label said once, its further sentences without one."""
    merged = []
    before = None
    for label, text in facts:
        merged.append((label if label != before else "", text))
        before = label
    return merged
