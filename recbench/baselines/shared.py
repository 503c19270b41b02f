"""Baselines that score most items alike for everybody: ranked exactly without a users x items matrix."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np

from recbench.baselines.base import ALL, Baseline, Rows
from recbench.data.dataset import Histories, Queries

ROWS = 2048
"""Queries whose own scores are held at once."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The scores of B queries: ``shared_V``, and on top of it ``more_N`` where a query has scores of its own."""

    shared_V: np.ndarray
    """(V,) float64, finite; column j scores item j + 1. The same for any queries."""
    row_N: np.ndarray
    """(N,) query of each own score."""
    column_N: np.ndarray
    """(N,) column of each own score; a pair of row and column stands there once."""
    more_N: np.ndarray
    """(N,) float64, finite."""


class SharedBaseline(Baseline):
    """One score of an item for all queries, and few that differ."""

    @abstractmethod
    def parts(self, histories: Histories, rows: Rows = ALL) -> Parts:
        """The scores after the chosen histories, taken apart."""

    @final
    def scores(self, histories: Histories, rows: Rows = ALL) -> np.ndarray:
        parts = self.parts(histories, rows)
        scores_BV = np.tile(parts.shared_V, (len(histories.starts[rows]), 1))
        scores_BV[parts.row_N, parts.column_N] += parts.more_N
        return scores_BV


def above_and_tied(baseline: SharedBaseline, queries: Queries) -> tuple[np.ndarray, np.ndarray]:
    """How many items beat each target and how many equal it, over all items, both (Q,) int64.

    The same counts as ``scoring.counting.count`` finds in the whole matrix: an item's place among the shared scores is
    looked up, and only the scores that are a query's own are compared one by one.
    """
    above, tied = np.zeros(len(queries), np.int64), np.zeros(len(queries), np.int64)
    ascending_V = np.sort(baseline.parts(queries.histories, slice(0, 0)).shared_V)
    for first in range(0, len(queries), ROWS):
        rows = slice(first, first + ROWS)
        parts = baseline.parts(queries.histories, rows)
        above[rows], tied[rows] = _counts(parts, ascending_V, queries.targets[rows] - 1)
    return above, tied


def _counts(parts: Parts, ascending_V: np.ndarray, target_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = len(target_B)
    own_B = parts.shared_V[target_B]
    is_target = parts.column_N == target_B[parts.row_N]
    own_B[parts.row_N[is_target]] += parts.more_N[is_target]
    at_most_B = np.searchsorted(ascending_V, own_B, side="right")
    above_B = len(ascending_V) - at_most_B
    tied_B = at_most_B - np.searchsorted(ascending_V, own_B, side="left")
    own_N, before_N = own_B[parts.row_N], parts.shared_V[parts.column_N]
    after_N = before_N + parts.more_N
    above_B += _sum(parts.row_N, after_N > own_N, n) - _sum(parts.row_N, before_N > own_N, n)
    tied_B += _sum(parts.row_N, after_N == own_N, n) - _sum(parts.row_N, before_N == own_N, n)
    return above_B, tied_B - 1  # the target equals itself


def _sum(row_N: np.ndarray, holds_N: np.ndarray, n: int) -> np.ndarray:
    return np.bincount(row_N[holds_N], minlength=n)
