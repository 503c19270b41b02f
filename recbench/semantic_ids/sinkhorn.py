"""Codes spread evenly: Sinkhorn's scaling, the repair of collisions by it, and clusters of nearly equal size."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp


def sinkhorn(distances_BC: np.ndarray, eps: float, rounds: int = 50) -> np.ndarray:
    """Log of a plan Q (B, C) whose columns sum to B / C exactly and whose rows sum to 1 once the rounds converge.

    Distances are first brought to [-1, 1]. All in the log domain and float64: exp(1 / .003) does not fit a float32.

    Args:
        eps: entropy; the smaller, the harder the choice. At .003 fifty rounds do not converge in the rows, which is harmless
            where only each row's largest entry is used.

    Source: Cuturi, "Sinkhorn distances", NeurIPS 2013; as used by Zheng et al., "LC-Rec", ICDE 2024.
    """
    d = distances_BC.astype(np.float64)
    low, high = d.min(), d.max()
    log_q = np.zeros_like(d) if high == low else -(d - (low + high) / 2) / ((high - low) / 2) / eps
    n_rows, n_columns = d.shape
    for _ in range(rounds):
        log_q = log_q - logsumexp(log_q, axis=1, keepdims=True)
        log_q = log_q - logsumexp(log_q, axis=0, keepdims=True) + np.log(n_rows / n_columns)
    return log_q


def spread(distances_BC: np.ndarray, eps: float, rounds: int = 50) -> np.ndarray:
    """Codes (B,) int64: the largest entry of each row of the plan. Equal rows get equal codes."""
    return sinkhorn(distances_BC, eps, rounds).argmax(axis=1)


def balanced(cost_NC: np.ndarray, low: int, high: int, rounds: int = 20) -> np.ndarray:
    """Codes (N,) int64 of low cost, each code taken by ``low`` to ``high`` rows.

    Sinkhorn's plan prices the codes. Every row then takes its cheapest; a code that too many take keeps the rows that would lose
    most elsewhere, the others go to the cheapest code with room, and codes with too few are filled the same way. The sizes hold
    exactly; the cost is near its least, not proved to be.

    Raises:
        ValueError: no assignment has such sizes.
    """
    n_rows, n_codes = cost_NC.shape
    if not n_codes * low <= n_rows <= n_codes * high:
        raise ValueError(f"{n_rows} rows cannot be put in {n_codes} groups of {low} to {high}")
    priced_NC = -sinkhorn(cost_NC, 0.02, rounds)
    codes_N = priced_NC.argmin(axis=1)
    _empty_the_full(priced_NC, codes_N, high)
    _fill_the_empty(priced_NC, codes_N, low)
    return codes_N


def _empty_the_full(priced_NC: np.ndarray, codes_N: np.ndarray, high: int) -> None:
    """Move rows out of codes that more than ``high`` take."""
    counts = np.bincount(codes_N, minlength=priced_NC.shape[1])
    loss_N = np.partition(priced_NC, 1, axis=1)[:, 1] - priced_NC.min(axis=1) if len(counts) > 1 else codes_N * 0.0
    released = []
    for full in np.flatnonzero(counts > high):
        members = np.flatnonzero(codes_N == full)
        released.append(members[np.argsort(-loss_N[members], kind="stable")[high:]])
        counts[full] = high
    if not released:
        return
    rows = np.concatenate(released)
    for row in rows[np.argsort(-loss_N[rows], kind="stable")]:
        code = np.where(counts < high, priced_NC[row], np.inf).argmin()
        codes_N[row] = code
        counts[code] += 1


def _fill_the_empty(priced_NC: np.ndarray, codes_N: np.ndarray, low: int) -> None:
    """Move rows into codes that fewer than ``low`` take, from codes that can spare them."""
    counts = np.bincount(codes_N, minlength=priced_NC.shape[1])
    rows = np.arange(len(codes_N))
    for code in np.flatnonzero(counts < low):
        while counts[code] < low:
            extra_N = np.where(counts[codes_N] > low, priced_NC[:, code] - priced_NC[rows, codes_N], np.inf)
            row = extra_N.argmin()
            counts[codes_N[row]] -= 1
            codes_N[row] = code
            counts[code] += 1


def repair(codes_NL: np.ndarray, distances: np.ndarray, eps: float = 0.003, rounds: int = 20) -> np.ndarray:
    """Codes (N, L) with fewer equal rows: each group of them is spread over the last level's codes by Sinkhorn, again and again.

    A moved item may meet another, so the round with the fewest collisions counts, or none. Items of equal distances never part, so
    a group of nothing else stays where it is; what is left needs a suffix.

    Args:
        distances: (N, C), of what is left before the last level to the last codebook.
        rounds: passes over all groups at most.

    Source: Zheng et al., "LC-Rec", ICDE 2024, uniform semantic mapping.
    """
    best_NL, codes_NL = codes_NL, codes_NL.copy()
    fewest = _collisions(equal_rows(best_NL))
    for _ in range(rounds):
        groups = [group for group in equal_rows(codes_NL) if (distances[group] != distances[group[0]]).any()]
        before_NL = codes_NL.copy()
        for group in groups:
            codes_NL[group, -1] = spread(distances[group], eps)
        if np.array_equal(before_NL, codes_NL):
            break
        if (left := _collisions(equal_rows(codes_NL))) < fewest:
            best_NL, fewest = codes_NL.copy(), left
    return best_NL


def _collisions(groups: list[np.ndarray]) -> int:
    """Items beyond the first of each group."""
    return sum(len(group) - 1 for group in groups)


def equal_rows(codes_NL: np.ndarray) -> list[np.ndarray]:
    """Places of the rows that are equal, one array a group of two and more."""
    _, path_N, counts = np.unique(codes_NL, axis=0, return_inverse=True, return_counts=True)
    path_N = path_N.ravel()
    order = np.argsort(path_N, kind="stable")
    parts = np.split(order, np.cumsum(counts)[:-1])
    return [part for part in parts if len(part) > 1]
