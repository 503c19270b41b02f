"""Runs to a frozen comparison: which systems there are, how they score, and which differences are real.

Pure data: nothing here is formatted. ``recbench.report`` turns a ``Comparison`` into text, Markdown, CSV and JSON.
Metrics are averaged over users here and nowhere earlier.
"""

from recbench.comparison.build import compare
from recbench.comparison.model import Comparison, Contrast, Row, Score, Settings, System, Table, Verdict

__all__ = ["Comparison", "Contrast", "Row", "Score", "Settings", "System", "Table", "Verdict", "compare"]
