"""Items as vectors from what stands near them in training sequences: the stand-in where items have no text."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from recbench.data.dataset import Histories, ranges
from recbench.data.text import truncated_svd

REACH = 5
"""Places between two events that still count as near."""


def near_counts(train: Histories, n_items: int, reach: int = REACH) -> sparse.csr_array:
    """Sum of 1 / distance over the pairs of events within ``reach`` places of one row, (V - 1, V - 1), symmetric, no diagonal.

    Args:
        train: the training part; ids are 1..n_items, column j is item j + 1.
    """
    items = train.items[ranges(train.starts, train.lengths)].astype(np.int64) - 1
    row = np.repeat(np.arange(len(train)), train.lengths)
    total = sparse.csr_array((n_items, n_items))
    for distance in range(1, reach + 1):
        near = row[distance:] == row[:-distance]
        before, after = items[:-distance][near], items[distance:][near]
        weight = np.full(len(before), 1.0 / distance)
        total = total + sparse.coo_array((weight, (before, after)), shape=(n_items, n_items)).tocsr()
    both = sparse.csr_array(total + total.T)
    both.setdiag(0.0)
    both.eliminate_zeros()
    return both


def ppmi(counts: sparse.csr_array) -> sparse.csr_array:
    """Positive pointwise mutual information, max(0, ln C_ij C.. / (C_i. C_.j)); no entry where C_ij is 0.

    Source: Levy and Goldberg, "Neural word embedding as implicit matrix factorization", NeurIPS 2014, section 3.3.
    """
    counts = counts.tocsr()
    row_V, column_V = np.asarray(counts.sum(axis=1)).ravel(), np.asarray(counts.sum(axis=0)).ravel()
    row_E = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    data = np.log(counts.data * counts.sum() / (row_V[row_E] * column_V[counts.indices]))
    positive = sparse.csr_array((np.maximum(data, 0.0), counts.indices, counts.indptr), shape=counts.shape)
    positive.eliminate_zeros()
    return positive


def cooccurrence_vectors(train: Histories, n_items: int, width: int) -> np.ndarray:
    """U sqrt(S) of the truncated SVD of PPMI, (V - 1, A) float32; a row of zeros for an item that training never shows."""
    near = ppmi(near_counts(train, n_items))
    known = np.flatnonzero(np.diff(near.indptr))
    u, s = truncated_svd(near[known][:, known], width)
    vectors = np.zeros((n_items, u.shape[1]), dtype=np.float32)
    vectors[known] = u * np.sqrt(s)
    return vectors
