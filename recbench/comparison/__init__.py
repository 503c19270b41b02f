"""Runs to a frozen comparison: which systems there are, how they score, and which differences are real.

Pure data: nothing here is formatted. ``recbench.report`` turns a ``Comparison`` into text, Markdown, CSV and JSON.
Metrics are averaged over users here and nowhere earlier.
"""

from recbench.comparison.build import compare
from recbench.comparison.model import (
    Across,
    AgainstControl,
    Claims,
    Comparison,
    Contrast,
    Cost,
    Row,
    Score,
    Settings,
    Slice,
    System,
    Table,
    Tested,
    Verdict,
)

__all__ = [
    "Across",
    "AgainstControl",
    "Claims",
    "Comparison",
    "Contrast",
    "Cost",
    "Row",
    "Score",
    "Settings",
    "Slice",
    "System",
    "Table",
    "Tested",
    "Verdict",
    "compare",
]
