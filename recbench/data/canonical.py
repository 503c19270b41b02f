"""Is a prepared dataset the one everybody quotes? Compared with the catalogue, in words."""

from __future__ import annotations

from recbench.data.card import Step
from recbench.data.catalog import DatasetCard
from recbench.data.filtering import Filters


def verdict(known: DatasetCard | None, final: Step, sequence_sha256: str, filters: Filters) -> str | None:
    """One sentence: canonical, or which number differs and the likely cause; None where nothing is published."""
    if known is None or (known.counts is None and known.sequence_sha256 is None):
        return None
    title = known.title or known.name
    if known.sequence_sha256 == sequence_sha256:
        return f"canonical: users, items, events and their order are those of {title} as published."
    published = known.counts
    if published is None:
        return f"not canonical: the events or their order differ from {title} as published; {_cause(known, filters)}."
    pairs = [(key, getattr(final, key), getattr(published, key)) for key in ("users", "items", "interactions")]
    differ = [f"{here:,} {key} (published: {there:,})" for key, here, there in pairs if here != there]
    if differ:
        return f"not canonical: {', '.join(differ)}; {_cause(known, filters)}."
    if known.sequence_sha256 is None:
        return f"canonical counts: those of {title} as published; no hash of its order is."
    return (
        f"not canonical: the counts are those of {title} as published, but not the order of events. Likely another tie "
        "order in the source; test items differ, so numbers do not compare."
    )


def _cause(known: DatasetCard, filters: Filters) -> str:
    """Why the numbers differ, as far as one can tell from what was asked for."""
    asked = []
    if known.core is not None and filters.core != known.core:
        asked.append(f"--core {filters.core} (published: {known.core})")
    if filters.min_rating is not None:
        asked.append(f"--min-rating {filters.min_rating:g} (published: none)")
    if filters.duplicates != known.duplicates:
        asked.append(f"--duplicates {filters.duplicates} (published: {known.duplicates})")
    asked += [
        f"--{name} {getattr(filters, name)} (published: {getattr(known, name) or 'none'})"
        for name in ("since", "until")
        if getattr(filters, name) != getattr(known, name)
    ]
    if asked:
        return f"likely cause: {', '.join(asked)}"
    return f"likely cause: {known.cause or 'another edition or another category of the source'}"
