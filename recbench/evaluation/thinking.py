"""Where a head decides how long to think: how long it thought, about whom, and what that bought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbench.data.dataset import Queries
from recbench.evaluation.evaluate import Ranks, evaluate
from recbench.evaluation.latency import latency, ordered_latency
from recbench.recommender import Reasoned, Recommender


def thinking(
    model: Recommender, queries: Queries, ranks: Ranks, sizes: Sequence[int], device: torch.device
) -> dict[str, Any] | None:
    """Steps over the queries of one split, and the same weights without any step; None where the head decides nothing.

    What ``depths`` says; Spearman's correlation of the steps with the length of the history (None where one of the two is
    constant); milliseconds a user, by the number ranked at once, where those are ranked together who think equally long: a batch
    takes the steps of its longest. Of a head that may skip thinking also what it is with no step at all: metrics, milliseconds,
    and the correlation of the steps with the rank of the target then.
    """
    if ranks.steps is None:
        return None
    order = np.argsort(ranks.steps, kind="stable")
    told = {
        **depths(ranks.steps),
        "with_history_length": _spearman(ranks.steps, queries.histories.lengths),
        "sorted_latency_ms": {
            str(size): ordered_latency(model, queries, size, device, order) for size in sizes if size > 1
        },
    }
    if not isinstance(model, Reasoned) or not model.head.may_skip:
        return told
    plain = evaluate(model, queries, device, steps=0)
    return told | {
        "with_plain_rank": _spearman(ranks.steps, plain.above + plain.tied / 2),
        "plain": plain.means(["hr@10", "ndcg@10"]),
        "plain_latency_ms": {str(size): latency(model, queries, size, device, steps=0) for size in sizes},
    }


def depths(steps: np.ndarray) -> dict[str, Any]:
    """``mean``, ``p50``, ``p95``, ``max``; ``share`` of queries by number of steps."""
    values, counts = np.unique(steps, return_counts=True)
    return {
        "mean": float(steps.mean()),
        "p50": float(np.quantile(steps, 0.5)),
        "p95": float(np.quantile(steps, 0.95)),
        "max": int(steps.max()),
        "share": {str(k): float(n) / len(steps) for k, n in zip(values, counts, strict=True)},
    }


def _spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    if len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
        return None
    return float(np.corrcoef(pd.Series(x).rank(), pd.Series(y).rank())[0, 1])
