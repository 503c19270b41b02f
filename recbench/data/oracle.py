"""The best possible ranking of generated data, and how well it does: what a model is measured against.

Ranking by p(next | history) maximises expected HR@k and NDCG@k of one target (``docs/synthetic.md`` has the proof).
Letters as in ``synthetic.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
import pandas as pd

from recbench import columns
from recbench.data.dataset import Queries
from recbench.data.synthetic import World

K = 10
"""Cut-off of the metrics on the card."""
ROWS = 512
"""Histories filtered at once, to bound memory."""


@final
class Oracle:
    """p(next item | history), exact: the forward filter over (taste, intent, step). On average no ranking is better.

    Args:
        world: where the histories come from.
        raw_ids: the catalogue; code i is ``raw_ids[i]``. Left out: every item, in the order of ``world``. Other items
            are no candidates: the rest is renormalised, which changes no order.
    """

    def __init__(self, world: World, raw_ids: Sequence[str] | None = None) -> None:
        index = {raw_id: i for i, raw_id in enumerate(world.raw_ids())}
        self.world = world
        self.items = np.array([index[raw_id] for raw_id in (index if raw_ids is None else raw_ids)], dtype=np.int64)

    def probabilities(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """p(next | history) of each code of the catalogue, ``(R, V)``; an item of the history has 0.

        Raises:
            ValueError: a history that nothing can follow: an item twice, or ``max_length`` items.
        """
        lengths_R = np.array([len(history) for history in histories])
        order = np.argsort(-lengths_R, kind="stable")  # longest first, so that those still going are always a slice
        items_RT = np.zeros((len(histories), int(lengths_R.max(initial=0))), dtype=np.int64)
        for row, r in enumerate(order):
            items_RT[row, : lengths_R[r]] = self.items[histories[r]]
            if len(np.unique(histories[r])) < lengths_R[r] or lengths_R[r] >= self.world.settings.max_length:
                raise ValueError(f"history {r} has an item twice or {self.world.settings.max_length} items and more")
        p_RV = np.empty((len(histories), len(self.items)))
        p_RV[order] = self._next(items_RT, lengths_R[order])[:, self.items]
        return p_RV / p_RV.sum(axis=1, keepdims=True)

    def _next(self, items_RT: np.ndarray, lengths_R: np.ndarray) -> np.ndarray:
        """p(next) over all items, ``(R, V)``, of histories sorted by length, longest first."""
        w, astray = self.world, self.world.settings.distraction
        n_tastes, n_leaves, n = w.weight_GCN.shape
        rows, (leaf_RT, rank_RT) = len(items_RT), np.divmod(items_RT, n)
        belief_RGZS = np.zeros((rows, *w.leaf_GZS.shape))
        belief_RGZS[..., 0] = w.first_Z / n_tastes
        left_RGC, left_R = np.ones((rows, n_tastes, n_leaves)), np.ones(rows)  # mass of the items not taken yet
        seen_RCN = np.zeros((rows, n_leaves, n), dtype=bool)
        for t in range(items_RT.shape[1]):
            on = int((lengths_R > t).sum())
            row, leaf, rank = np.arange(on), leaf_RT[:on, t], rank_RT[:on, t]
            weight_RG, popularity_R = w.weight_GCN[:, leaf, rank].T, w.popularity_CN[leaf, rank]
            likelihood_RGC = np.zeros((on, n_tastes, n_leaves))
            likelihood_RGC[row, :, leaf] = (1 - astray) * weight_RG / left_RGC[row, :, leaf]
            likelihood_RGC += (astray * popularity_R / left_R[:on])[:, None, None]
            belief_RGZS[:on] = self._moved(self._updated(belief_RGZS[:on], likelihood_RGC))
            left_RGC[row, :, leaf] -= weight_RG
            left_R[:on] -= popularity_R
            seen_RCN[row, leaf, rank] = True
        p_RCN = (1 - astray) * np.einsum("rgc,gcn->rcn", self._leaves(belief_RGZS) / left_RGC, w.weight_GCN)
        p_RCN += astray * w.popularity_CN / left_R[:, None, None]
        return np.where(seen_RCN, 0, p_RCN).reshape(rows, -1)

    def _updated(self, belief_RGZS: np.ndarray, likelihood_RGC: np.ndarray) -> np.ndarray:
        """The belief once an item is seen: Bayes' rule, each state read at the leaf where it shops."""
        row_R111 = np.arange(len(belief_RGZS))[:, None, None, None]
        taste_G11 = np.arange(len(self.world.leaf_GZS))[:, None, None]
        joint_RGZS = belief_RGZS * likelihood_RGC[row_R111, taste_G11, self.world.leaf_GZS]
        return joint_RGZS / joint_RGZS.sum(axis=(1, 2, 3), keepdims=True)

    def _leaves(self, belief_RGZS: np.ndarray) -> np.ndarray:
        """p(taste, leaf of the step), ``(R, G, C)``."""
        n_tastes, n_leaves = self.world.weight_GCN.shape[:2]
        at_GXC = (self.world.leaf_GZS[..., None] == np.arange(n_leaves)).reshape(n_tastes, -1, n_leaves)
        return np.einsum("rgx,gxc->rgc", belief_RGZS.reshape(len(belief_RGZS), n_tastes, -1), at_GXC)

    def _moved(self, belief_RGZS: np.ndarray) -> np.ndarray:
        """The belief one event later: ``synthetic._move``, summed over what may happen."""
        w, s = self.world, self.world.settings
        on = 1 - s.repeat - s.skip
        moved = s.repeat * belief_RGZS
        moved[..., 1:] += on * belief_RGZS[..., :-1]
        moved[..., 2:] += s.skip * belief_RGZS[..., :-2]
        over_RGZ = (on + s.skip) * belief_RGZS[..., -1] + s.skip * belief_RGZS[..., -2]
        before_GZ = np.argsort(w.successor_GZ, axis=1)  # the inverse permutation: whom each intent follows
        follow_RGZ = np.take_along_axis(over_RGZ, before_GZ[None], axis=2)
        moved[..., 0] += s.follow * follow_RGZ + (1 - s.follow) * over_RGZ.sum(axis=2, keepdims=True) * w.first_Z
        return moved


def oracle_table(
    oracle: Oracle, queries: Sequence[Queries], raw_ids: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Where the best ranking puts each target (``columns.RANKS``, a row a query), and the metrics for the card.

    Exact only where preparation dropped no event: a history with holes is not one the generator speaks of.

    Args:
        oracle: of the generated data.
        queries: of the prepared dataset; item ids from 1.
        raw_ids: raw id of each prepared item, from id 1 on.
    """
    oracle = Oracle(oracle.world, raw_ids)
    tables: list[pd.DataFrame] = []
    card: dict[str, Any] = {}
    for asked in queries:
        parts = list(_places(oracle, asked))
        tables.append(pd.concat([table for table, _ in parts], ignore_index=True))
        best = np.concatenate([best_2R for _, best_2R in parts], axis=1).mean(axis=1)
        card[asked.split] = {
            "queries": len(asked),
            "all": expected_metrics(tables[-1][columns.ABOVE], tables[-1][columns.TIED]),
            "unseen": expected_metrics(tables[-1][columns.ABOVE_UNSEEN], tables[-1][columns.TIED_UNSEEN]),
            "expected": {f"hr@{K}": float(best[0]), f"ndcg@{K}": float(best[1])},
        }
    return pd.concat(tables, ignore_index=True), card


def _places(oracle: Oracle, asked: Queries) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """Counts of ``ROWS`` queries at a time, and the expected HR and NDCG (2, R) of ranking by the oracle."""
    for start in range(0, len(asked), ROWS):
        rows = range(start, min(start + ROWS, len(asked)))
        histories = [asked.histories.row(r) - 1 for r in rows]
        target_R1 = asked.targets[rows.start : rows.stop, None].astype(np.int64) - 1
        p_RV = oracle.probabilities(histories)
        p_R1 = np.take_along_axis(p_RV, target_R1, axis=1)
        miss_R = p_R1[:, 0] == 0  # any item that a user does not have may come: a distraction
        above_R, tied_R = (p_RV > p_R1).sum(axis=1), (p_RV == p_R1).sum(axis=1) - 1
        table = {
            columns.SPLIT: asked.split,
            columns.USER: asked.histories.users[rows.start : rows.stop],
            columns.TARGET: asked.targets[rows.start : rows.stop],
            columns.ABOVE: above_R,
            columns.TIED: tied_R,
            columns.ABOVE_UNSEEN: np.where(miss_R, p_RV.shape[1], above_R),
            columns.TIED_UNSEEN: np.where(miss_R, 0, tied_R),
        }
        top_RK = -np.sort(-p_RV, axis=1)[:, :K]
        yield pd.DataFrame(table), np.stack([top_RK.sum(axis=1), top_RK @ _discounts()[: top_RK.shape[1]]])


def expected_metrics(above: Any, tied: Any) -> dict[str, float]:
    """Mean HR@10 and NDCG@10 under random tie-breaking (McSherry & Najork, ECIR 2008)."""
    above_R, tied_R = np.asarray(above), np.asarray(tied)
    gain = np.concatenate([[0.0], np.cumsum(_discounts())])
    low, high = np.minimum(above_R, K), np.minimum(above_R + tied_R + 1, K)
    group = tied_R + 1
    return {
        f"hr@{K}": float(((high - low) / group).mean()),
        f"ndcg@{K}": float(((gain[high] - gain[low]) / group).mean()),
    }


def _discounts() -> np.ndarray:
    return 1 / np.log2(np.arange(2, K + 2))
