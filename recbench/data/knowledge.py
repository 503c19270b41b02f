"""What is known of a dataset's items besides their ids, for heads that learn from it. Validation and test are never opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

from recbench import columns
from recbench.data.dataset import Dataset
from recbench.data.text import TextSpace, maker, texts
from recbench.data.vectors import WORDS, VectorConfig, Vectors, encoded, fields, item_vectors

T = TypeVar("T", bound=Sequence[str])


class ItemKnowledge:
    """Texts, groups and vectors of the items of one dataset. Nothing is read before it is asked for."""

    told_words = False
    """Has anybody been told what stands in words of items, or asked of whom something is written? ``texts`` alone also
    says which items have any, and does not count."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._table: pd.DataFrame | None = None
        self._spaces: dict[int, TextSpace] = {}

    def vectors(self, config: VectorConfig) -> Vectors:
        """Vectors of all items; row i is item i + 1."""
        found = item_vectors(self._dataset, config)
        self.told_words |= found.facts["source"] in WORDS
        return found

    def texts(self) -> list[str]:
        """One text an item, in order of id; empty where nothing is known of it."""
        return texts(self._items)

    def text_space(self, width: int) -> TextSpace:
        """The space that the texts of the items span by TF-IDF; made once."""
        if width not in self._spaces:
            self._spaces[width] = TextSpace(self._telling(self.texts()), width)
        return self._spaces[width]

    def encoded(self, encoder: str, texts_N: Sequence[str]) -> np.ndarray:
        """Vectors of any texts by a sentence encoder, (N, A) float32; kept beside the dataset.

        Raises:
            RecbenchError: the encoder cannot be used.
        """
        return encoded(self._dataset, encoder, self._telling(texts_N))

    def titles(self) -> list[str]:
        """The title of each item, in order of id; empty where it has none."""
        titles = self._items[columns.TITLE]
        return self._telling([" ".join(title.split()) if isinstance(title, str) else "" for title in titles])

    def brands(self) -> list[str]:
        """The brand of each item, in order of id; empty where it has none."""
        return self._telling([maker(brand) for brand in self._items[columns.BRAND]])

    def prices(self) -> np.ndarray:
        """The price of each item, in order of id, (N,) float64; NaN where it is not known."""
        return pd.to_numeric(self._items[columns.PRICE], errors="coerce").to_numpy(dtype=np.float64)

    def fields(self) -> list[str]:
        """What the texts are made of: columns that some item has something in."""
        return fields(self._items)

    def categories(self) -> list[str]:
        """The most special category of each item, in order of id; empty where it has none."""
        return self._telling([_leaf(names) for names in self._items[columns.CATEGORIES]])

    def users(self) -> dict[str, int]:
        """Ids of users by their names in the source, for who reads what is written of them."""
        self.told_words = True
        table = self._dataset.users()
        return dict(zip(table[columns.RAW_ID].astype(str), table[columns.USER].astype(int), strict=True))

    def _telling(self, words: T) -> T:
        """The same, noting whether there is a word in it."""
        self.told_words |= any(words)
        return words

    @property
    def _items(self) -> pd.DataFrame:
        if self._table is None:
            self._table = self._dataset.items()
        return self._table


def _leaf(names: Sequence[str] | np.ndarray | None) -> str:
    return "" if names is None or not len(names) else str(names[-1])
