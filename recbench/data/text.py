"""Item text: what is known of an item as one text, and texts as vectors by TF-IDF and a truncated SVD."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import svds

from recbench import columns

WORD = re.compile(r"[^\W_]+")
UNKNOWN = "unknown item"
"""Stands for a missing title where the item has something else."""
NO_NAMES = ("", "unknown", "n/a", "none")
"""What data say where they know no brand."""


def texts(items: pd.DataFrame, *, description: bool = False) -> list[str]:
    """Title, brand, categories and price of each item as one text; empty where nothing but a price is known.

    Args:
        items: the table of a prepared dataset, one row an item in order of id. Neither id nor raw id gets into a text.
        description: what the source says of an item at length stands behind these, or alone.
    """
    fields = [columns.TITLE, columns.BRAND, columns.CATEGORIES, columns.PRICE]
    short = [_text(*row) for row in zip(*(items[name] for name in fields), strict=True)]
    if not description:
        return short
    long = (text.strip() if isinstance(text, str) else "" for text in items[columns.TEXT])
    return [". ".join(part for part in both if part) for both in zip(short, long, strict=True)]


def words(text: str) -> list[str]:
    """The words of a text in lower case, in order; a number is a word."""
    return WORD.findall(text.lower())


def maker(brand: object) -> str:
    """The name of a brand; empty where the data know none."""
    return brand.strip() if isinstance(brand, str) and brand.strip().lower() not in NO_NAMES else ""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that stand in two of some texts at least, in alphabetical order, and how rare each is."""

    column: dict[str, int]
    idf_W: np.ndarray
    """1 + ln((1 + V) / (1 + df)) of each word, V texts."""

    @classmethod
    def of(cls, texts_V: Sequence[str]) -> Vocabulary:
        """The vocabulary of these texts."""
        df: dict[str, int] = {}
        for text in texts_V:
            for word in set(words(text)):
                df[word] = df.get(word, 0) + 1
        kept = sorted(word for word, n in df.items() if n > 1)
        df_W = np.array([df[word] for word in kept], dtype=np.int64)
        column = {word: place for place, word in enumerate(kept)}
        return cls(column, 1 + np.log((1 + len(texts_V)) / (1 + df_W)))

    def counts(self, texts_V: Sequence[str]) -> sparse.csr_array:
        """How often each word stands in each text, (V, W)."""
        kept = [[self.column[word] for word in words(text) if word in self.column] for text in texts_V]
        row_E = np.repeat(np.arange(len(kept)), [len(row) for row in kept])
        column_E = np.fromiter((place for row in kept for place in row), np.int64, len(row_E))
        counts = sparse.coo_array((np.ones(len(row_E)), (row_E, column_E)), shape=(len(kept), len(self.column))).tocsr()
        counts.sum_duplicates()
        return counts


class TextSpace:
    """Texts as vectors that add up: the vector of two texts one behind the other is the sum of theirs.

    An entry of a row is tf times idf, without a logarithm of tf and without a norm; the directions are the strongest of ``tf_idf``.

    Args:
        texts_V: they make the vocabulary and the directions.
        width: directions at most.
    """

    def __init__(self, texts_V: Sequence[str], width: int) -> None:
        self._vocabulary = Vocabulary.of(texts_V)
        matrix = tf_idf(texts_V)
        u, s = truncated_svd(matrix, width)
        self._directions_WA = np.asarray(matrix.T @ u) / s

    def vectors(self, texts_N: Sequence[str]) -> np.ndarray:
        """(N, A) float64."""
        counts = self._vocabulary.counts(texts_N)
        return np.asarray((counts * self._vocabulary.idf_W) @ self._directions_WA)


def tf_idf(texts_V: Sequence[str]) -> sparse.csr_array:
    """One row a text, one column a word that stands in two texts at least; rows have length 1, or 0 where no word is left.

    An entry is (1 + ln tf) (1 + ln((1 + V) / (1 + df))); columns are in alphabetical order.
    """
    vocabulary = Vocabulary.of(texts_V)
    counts = vocabulary.counts(texts_V)
    counts.data = (1 + np.log(counts.data)) * vocabulary.idf_W[counts.indices]
    norm_V = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
    scale_V = np.divide(1.0, norm_V, out=np.zeros_like(norm_V), where=norm_V > 0)
    return sparse.csr_array(sparse.diags_array(scale_V) @ counts)


def telling_words(texts_V: Sequence[str], group_V: np.ndarray, count: int) -> list[str]:
    """For each group from 0 the ``count`` words that its texts say most above the mean of all, as one text, the most telling first.

    Measured by ``tf_idf``; equal words come in alphabetical order. Empty for a group whose texts hold no known word.
    """
    names = list(Vocabulary.of(texts_V).column)
    matrix = tf_idf(texts_V)
    size_C = np.bincount(group_V)
    member = sparse.csr_array(
        (1 / size_C[group_V], (group_V, np.arange(len(group_V)))), shape=(len(size_C), len(group_V))
    )
    mean_CW, mean_W = sparse.csr_array(member @ matrix), np.asarray(matrix.mean(axis=0)).ravel()
    said = []
    for start, stop in pairwise(mean_CW.indptr):
        columns_E = mean_CW.indices[start:stop]
        above_E = mean_CW.data[start:stop] - mean_W[columns_E]
        order = np.lexsort((columns_E, -above_E.round(9)))[:count]
        said.append(" ".join(names[columns_E[place]] for place in order if above_E[place] > 0))
    return said


def truncated_svd(matrix: sparse.csr_array, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors (rows, A) and the A largest singular values, largest first; A is ``width`` or what there is.

    The same matrix gives the same answer: the start is fixed, and the largest entry of each vector is positive.
    """
    rank = min(width, min(matrix.shape) - 1)
    if rank < 1 or not matrix.nnz:
        return np.zeros((matrix.shape[0], 0)), np.zeros(0)
    start = np.random.default_rng(0).standard_normal(min(matrix.shape))
    u, s, _ = svds(matrix, k=rank, v0=start)
    u, s = u[:, ::-1], s[::-1]
    real = s > 1e-9 * s[0]
    u, s = u[:, real], s[real]
    sign = np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])
    return u * sign, s


def tf_idf_vectors(texts_V: Sequence[str], width: int) -> np.ndarray:
    """TF-IDF rows in their ``width`` strongest directions, (V, A) float32: U S of the truncated SVD."""
    u, s = truncated_svd(tf_idf(texts_V), width)
    return (u * s).astype(np.float32)


def _text(title: object, brand: object, categories: object, price: object) -> str:
    by = brand if isinstance(brand, str) and maker(brand) else None
    names = [str(name) for name in categories] if isinstance(categories, list | tuple | np.ndarray) else []
    if not (isinstance(title, str) and title.strip()) and not by and not names:
        return ""
    parts = [title if isinstance(title, str) and title.strip() else UNKNOWN, by, ", ".join(names)]
    if isinstance(price, float | int) and np.isfinite(price):
        parts.append(f"${price:.0f}")
    return ". ".join(part for part in parts if part)
