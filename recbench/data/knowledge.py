"""What is known of a dataset's items besides their ids, for heads that learn from it. Validation and test are never opened."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from recbench import columns
from recbench.data.dataset import Dataset
from recbench.data.text import texts
from recbench.data.vectors import VectorConfig, Vectors, fields, item_vectors


class ItemKnowledge:
    """Texts, groups and vectors of the items of one dataset. Nothing is read before it is asked for."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._table: pd.DataFrame | None = None

    def vectors(self, config: VectorConfig) -> Vectors:
        """Vectors of all items; row i is item i + 1."""
        return item_vectors(self._dataset, config)

    def texts(self) -> list[str]:
        """One text an item, in order of id; empty where nothing is known of it."""
        return texts(self._items)

    def titles(self) -> list[str]:
        """The title of each item, in order of id; empty where it has none."""
        return [" ".join(title.split()) if isinstance(title, str) else "" for title in self._items[columns.TITLE]]

    def fields(self) -> list[str]:
        """What the texts are made of: columns that some item has something in."""
        return fields(self._items)

    def categories(self) -> list[str]:
        """The most special category of each item, in order of id; empty where it has none."""
        return [_leaf(names) for names in self._items[columns.CATEGORIES]]

    def users(self) -> dict[str, int]:
        """Ids of users by their names in the source."""
        table = self._dataset.users()
        return dict(zip(table[columns.RAW_ID].astype(str), table[columns.USER].astype(int), strict=True))

    @property
    def _items(self) -> pd.DataFrame:
        if self._table is None:
            self._table = self._dataset.items()
        return self._table


def _leaf(names: Sequence[str] | np.ndarray | None) -> str:
    return "" if names is None or not len(names) else str(names[-1])
