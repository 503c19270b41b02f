"""What a baseline is: fitted in one step, scored in float64, saved as plain arrays.

Shapes: **B** queries, **V** items (column j scores item j + 1), **U** training users.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from recbench.data.dataset import Histories, ranges

Rows = slice | np.ndarray
"""Which rows of some histories."""
ALL = slice(None)


class Baseline(ABC):
    """A recommender without a training loop. Every class holds its ``Config``, a frozen dataclass."""

    Config: ClassVar[type[Any]]

    @abstractmethod
    def fit(self, train: Histories, n_items: int) -> None:
        """Learn from the training part; item ids are 1..n_items."""

    @abstractmethod
    def scores(self, histories: Histories, rows: Rows = ALL) -> np.ndarray:
        """The score of every item after each history, ``(B, V)`` float64, higher is better. The caller's to keep."""

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """What ``restore`` needs to score as this fitted baseline does."""

    @abstractmethod
    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Become the fitted baseline whose ``state`` this is; its config must be the same."""


def events(histories: Histories, rows: Rows = ALL) -> tuple[np.ndarray, np.ndarray]:
    """Items of the chosen rows, one row after the other, and the place of each item's row among the chosen."""
    starts, lengths = histories.starts[rows], histories.lengths[rows]
    return histories.items[ranges(starts, lengths)], np.repeat(np.arange(len(lengths)), lengths)


def item_counts(train: Histories, n_items: int) -> np.ndarray:
    """Training events of each item, ``(V,)`` float64."""
    return np.bincount(events(train)[0], minlength=n_items + 1)[1:].astype(np.float64)


def binary_matrix(histories: Histories, rows: Rows, n_items: int) -> sparse.csr_array:
    """1 where a row holds an item, however often, ``(rows, V)`` float64."""
    items, row = events(histories, rows)
    n_rows = len(histories.starts[rows])
    matrix = sparse.csr_array((np.ones(len(items)), (row, items - 1)), shape=(n_rows, n_items))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def co_occurrence(train: Histories, n_items: int) -> sparse.csr_array:
    """Users who have both items, X'X of the binary users x items matrix X, ``(V, V)`` float64."""
    x_UV = binary_matrix(train, ALL, n_items)
    return sparse.csr_array(x_UV.T @ x_UV)


def pack(matrix: sparse.csr_array, name: str) -> dict[str, np.ndarray]:
    """A sparse matrix as plain arrays, for ``state``."""
    return {
        f"{name}.data": matrix.data,
        f"{name}.indices": matrix.indices,
        f"{name}.indptr": matrix.indptr,
    }


def unpack(state: dict[str, np.ndarray], name: str) -> sparse.csr_array:
    """The square matrix that ``pack`` took apart."""
    indptr = state[f"{name}.indptr"]
    n_items = len(indptr) - 1
    return sparse.csr_array((state[f"{name}.data"], state[f"{name}.indices"], indptr), shape=(n_items, n_items))
