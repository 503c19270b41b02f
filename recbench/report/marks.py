"""Which numbers of a column are best and second best."""

from __future__ import annotations

from collections.abc import Sequence

from recbench.report.blocks import Mark

_DECIMALS = 4
"""Values that print alike are marked alike."""


def marks(values: Sequence[float]) -> list[Mark]:
    """``best`` for the largest, ``second`` for the next; values equal as printed share a mark. Where all are equal none has one."""
    rounded = [round(value, _DECIMALS) for value in values]
    order = sorted(set(rounded), reverse=True)
    if len(order) < 2:
        return [""] * len(rounded)
    names: dict[float, Mark] = dict(zip(order, ("best", "second"), strict=False))  # zip ends at the shorter
    return [names.get(value, "") for value in rounded]
