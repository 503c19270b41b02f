"""Item-based nearest neighbours.

Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from scipy import sparse

from recbench.baselines.base import ALL, Baseline, Rows, binary_matrix, co_occurrence, pack, unpack
from recbench.data.dataset import Histories


@final
class ItemKNN(Baseline):
    """Score = sum, over the query's distinct items, of the cosine between their users and the item's users."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """How many neighbours count."""

        neighbours: int = 0
        """Neighbours kept for each scored item, those tied with the last one included. 0: all."""

        def __post_init__(self) -> None:
            if self.neighbours < 0:
                raise ValueError(f"neighbours is {self.neighbours}; it must be a number of items, or 0 for all")

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def fit(self, train: Histories, n_items: int) -> None:
        gram_VV = co_occurrence(train, n_items)
        users_V = gram_VV.diagonal()
        inverse_norm_V = np.divide(1.0, np.sqrt(users_V), out=np.zeros(n_items), where=users_V > 0)
        scale_VV = sparse.diags_array(inverse_norm_V)
        cosine_VV = (scale_VV @ gram_VV @ scale_VV).tocsr()
        cosine_VV.setdiag(0.0)
        cosine_VV.eliminate_zeros()
        self._cosine_VV = nearest(cosine_VV, self.config.neighbours) if self.config.neighbours else cosine_VV

    def scores(self, histories: Histories, rows: Rows = ALL) -> np.ndarray:
        query_BV = binary_matrix(histories, rows, self._cosine_VV.shape[0])
        return (query_BV @ self._cosine_VV).toarray()

    def state(self) -> dict[str, np.ndarray]:
        return pack(self._cosine_VV, "cosine")

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._cosine_VV = unpack(state, "cosine")


def nearest(similarity_VV: sparse.csr_array, n: int) -> sparse.csr_array:
    """Each column's n largest entries and those equal to the n-th: no item is preferred for its id."""
    columns = similarity_VV.tocsc()
    column = np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr))
    largest_first = columns.data[np.lexsort((-columns.data, column))]
    nth = columns.indptr[:-1] + n - 1
    is_cut = nth < columns.indptr[1:]
    threshold_V = np.full(columns.shape[1], -np.inf)
    threshold_V[is_cut] = largest_first[nth[is_cut]]
    columns.data[columns.data < threshold_V[column]] = 0.0
    columns.eliminate_zeros()
    return columns.tocsr()
