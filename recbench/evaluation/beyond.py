"""What accuracy does not show: how much of the catalogue a system uses, how popular its lists are, and whom it serves.

Shapes: **U** lists, **K** places of a list (item ids; 0 where a list is shorter), **V** items, **M** attributes.
Coverage and Gini belong to the system; the other measures come per list, NaN where a list has none, and are averaged
later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recbench.data.dataset import Histories, ranges

HEAD_SHARE = 0.2
"""The head is at most this share of the items."""
LENGTH_BANDS = {"length 1-4": (1, 4), "length 5-9": (5, 9), "length 10-19": (10, 19), "length 20+": (20, None)}
"""Slices by the number of events in the query, both ends included."""


@dataclass(frozen=True, slots=True)
class TrainingCounts:
    """How often each item occurs in training. Column j is item j + 1."""

    events_V: np.ndarray
    users_V: np.ndarray
    """Users with the item in training: n_i."""
    n_users: int

    @classmethod
    def of(cls, train: Histories, n_items: int) -> TrainingCounts:
        """Counted over the training part."""
        items, row = _events(train)
        distinct = np.unique(row * (n_items + 1) + items) % (n_items + 1)
        events_V, users_V = (np.bincount(of, minlength=n_items + 1)[1:] for of in (items, distinct))
        return cls(events_V, users_V, len(train))

    @property
    def head_threshold(self) -> int:
        """The smallest number of training events that at most a fifth of the items reach."""
        n_reaching = np.cumsum(np.bincount(self.events_V)[::-1])[::-1]  # [c]: items with at least c events
        return int(np.count_nonzero(n_reaching > HEAD_SHARE * len(self.events_V)))

    @property
    def is_head(self) -> np.ndarray:
        """Which items belong to the head, ``(V,)``."""
        return self.events_V >= self.head_threshold


def exposure(lists_UK: np.ndarray, n_items: int) -> np.ndarray:
    """Lists that contain each item, ``(V,)``: c_i."""
    return np.bincount(lists_UK.ravel(), minlength=n_items + 1)[1:]


def coverage(lists_UK: np.ndarray, n_items: int) -> float:
    """Share of the catalogue that stands in some list."""
    return float(np.count_nonzero(exposure(lists_UK, n_items)) / n_items)


def gini(lists_UK: np.ndarray, n_items: int) -> float:
    """0 when every item stands in equally many lists, towards 1 when few items take every place."""
    ascending_V = np.sort(exposure(lists_UK, n_items))
    j_V = np.arange(1, n_items + 1)
    return float((2 * j_V - n_items - 1) @ ascending_V / (n_items * ascending_V.sum()))


def novelty(lists_UK: np.ndarray, counts: TrainingCounts) -> np.ndarray:
    """Mean over a list of -log2(max(n_i, 1) / users), in bits, ``(U,)``. Higher = rarer items."""
    return _list_mean(lists_UK, -np.log2(np.maximum(counts.users_V, 1) / counts.n_users))


def popularity(lists_UK: np.ndarray, counts: TrainingCounts) -> np.ndarray:
    """Mean over a list of n_i, ``(U,)``."""
    return _list_mean(lists_UK, counts.users_V)


def lift(lists_UK: np.ndarray, histories: Histories, counts: TrainingCounts) -> np.ndarray:
    """How much more popular a list is than the query it answers, P(list) / P(query) - 1, ``(U,)``.

    NaN where no item of the query occurs in training.
    """
    items, row = _events(histories)
    total_U = np.bincount(row, weights=counts.users_V[items - 1], minlength=len(histories))
    mean_U = np.divide(total_U, histories.lengths, out=np.zeros(len(histories)), where=histories.lengths > 0)
    return np.divide(popularity(lists_UK, counts), mean_U, out=np.full(len(mean_U), np.nan), where=mean_U > 0) - 1.0


def tail_share(lists_UK: np.ndarray, counts: TrainingCounts) -> np.ndarray:
    """Share of a list's places that items outside the head take, ``(U,)``."""
    return _list_mean(lists_UK, ~counts.is_head)


def diversity(lists_UK: np.ndarray, attributes_VM: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean over the pairs of a list of 1 - Jaccard of their attributes, ``(U,)``; and the share of places left out.

    Places whose item has no attributes are left out. A list with fewer than two others is NaN.

    Args:
        lists_UK: the lists.
        attributes_VM: attribute numbers of each item, distinct within a row, filled up with -1.
    """
    of_nothing_1M = np.full((1, attributes_VM.shape[1]), -1)
    attributes_UKM = np.concatenate([of_nothing_1M, attributes_VM])[lists_UK]
    n_UK = (attributes_UKM >= 0).sum(axis=2)
    total_U, pairs_U = np.zeros(len(lists_UK)), np.zeros(len(lists_UK), dtype=np.int64)
    for i in range(lists_UK.shape[1]):
        for j in range(i + 1, lists_UK.shape[1]):
            own_UM, other_UM = attributes_UKM[:, i], attributes_UKM[:, j]
            both_U = ((own_UM[:, :, None] == other_UM[:, None]) & (own_UM >= 0)[:, :, None]).sum(axis=(1, 2))
            counted_U = (n_UK[:, i] > 0) & (n_UK[:, j] > 0)
            total_U += np.where(counted_U, 1.0 - both_U / np.maximum(n_UK[:, i] + n_UK[:, j] - both_U, 1), 0.0)
            pairs_U += counted_U
    is_place_UK = lists_UK > 0
    left_out = float(((n_UK == 0) & is_place_UK).sum() / max(int(is_place_UK.sum()), 1))
    return np.divide(total_U, pairs_U, out=np.full(len(total_U), np.nan), where=pairs_U > 0), left_out


def slices(targets: np.ndarray, lengths: np.ndarray, counts: TrainingCounts) -> dict[str, np.ndarray]:
    """Which queries belong to each slice, by name: target cold, head or tail, and the query's length.

    Args:
        targets: ``(Q,)`` item ids.
        lengths: ``(Q,)`` events in each query.
        counts: of the training part.
    """
    is_cold, is_head = counts.events_V[targets - 1] == 0, counts.is_head[targets - 1]
    masks = {"cold": is_cold, "head": is_head & ~is_cold, "tail": ~is_head & ~is_cold}
    for name, (least, most) in LENGTH_BANDS.items():
        masks[name] = (lengths >= least) & (lengths <= (np.inf if most is None else most))
    return masks


def _list_mean(lists_UK: np.ndarray, value_V: np.ndarray) -> np.ndarray:
    is_place_UK = lists_UK > 0
    total_U = np.concatenate([[0.0], value_V])[lists_UK].sum(axis=1)
    n_U = is_place_UK.sum(axis=1)
    return np.divide(total_U, n_U, out=np.full(len(n_U), np.nan), where=n_U > 0)


def _events(histories: Histories) -> tuple[np.ndarray, np.ndarray]:
    """Items of all rows, one row after the other, and the row of each."""
    items = histories.items[ranges(histories.starts, histories.lengths)]
    return items.astype(np.int64), np.repeat(np.arange(len(histories)), histories.lengths)
