"""Ranking metrics from counts. The counts hold every cut-off and tie rule; nothing is averaged over users here.

With one relevant item per query, ``a`` = above and ``t`` = tied, the target's place is uniform on a+1 .. a+t+1. The
default value of a metric is its expectation under that random tie-breaking (McSherry & Najork, ECIR 2008). ``mid``,
``pess`` and ``opt`` put the target at one place instead: 1 + a + t/2, 1 + a + t, 1 + a.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from recbench.errors import RecbenchError, meant

Ties = Literal["expected", "mid", "pess", "opt"]
TIES: tuple[Ties, ...] = get_args(Ties)


def _hit(place: np.ndarray) -> np.ndarray:
    return np.ones_like(place)


def _discount(place: np.ndarray) -> np.ndarray:
    return 1.0 / np.log2(place + 1.0)


def _reciprocal(place: np.ndarray) -> np.ndarray:
    return 1.0 / place


_GAINS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hr": _hit,
    "recall": _hit,
    "precision": _hit,
    "ndcg": _discount,
    "mrr": _reciprocal,
    "map": _reciprocal,
}
"""What a target at a place is worth. With one target Recall = HR and MAP = MRR; Precision is HR / k."""
FAMILIES = tuple(_GAINS)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with its cut-off, for example NDCG@10."""

    family: str
    """One of ``FAMILIES``."""
    k: int

    def __str__(self) -> str:
        return f"{self.family}@{self.k}"

    @property
    def label(self) -> str:
        """As a table prints it: ``NDCG@10``, ``Recall@5``."""
        return f"{self.family.capitalize() if len(self.family) > 4 else self.family.upper()}@{self.k}"

    def values(self, above: np.ndarray, tied: np.ndarray, ties: Ties = "expected") -> np.ndarray:
        """The metric of each query with one target, float64 of the shape of ``above``."""
        value = _expected(self, above, tied) if ties == "expected" else _at_one_place(self, above, tied, ties)
        return value / self.k if self.family == "precision" else value


def parse(name: str) -> Metric:
    """The metric a name such as ``ndcg@10`` stands for; case does not matter.

    Raises:
        RecbenchError: no such metric, or no cut-off.
    """
    family, at, k = name.strip().lower().partition("@")
    if family not in FAMILIES:
        raise RecbenchError(
            f"Unknown metric {name!r}.",
            why=f"The metrics are: {', '.join(FAMILIES)}, each with a cut-off, as in ndcg@10.",
            fix=meant(family, FAMILIES, f"{{}}@{k or 10}") or "ndcg@10",
        )
    if not re.fullmatch(r"[1-9][0-9]{0,8}", k):
        raise RecbenchError(
            f"Metric {name!r} has no cut-off." if not at else f"Metric {name!r} has no usable cut-off.",
            why="A cut-off is a whole number from 1.",
            fix=f"{family}@10",
        )
    return Metric(family, int(k))


def metric(name: str, above: np.ndarray, tied: np.ndarray, ties: Ties = "expected") -> np.ndarray:
    """The metric of that name of each query with one target, ``(B,)`` float64.

    Args:
        name: for example ``ndcg@10``.
        above: items that beat the target.
        tied: other items that equal it.
        ties: how ties are broken.
    """
    return parse(name).values(above, tied, ties)


def of_users(
    which: Metric, above: np.ndarray, tied: np.ndarray, user: np.ndarray, *, together: bool, ties: Ties = "expected"
) -> np.ndarray:
    """The metric of each user, ``(U,)`` float64, users ascending: the unit of every mean and of every paired test.

    A user with several targets counts once. Its targets are questions of their own and averaged, or, ``together``, one
    question with a set of targets (protocol 1.4).

    Args:
        which: the metric.
        above: ``(N,)`` for each target the items that beat it.
        tied: ``(N,)`` the other items that equal it.
        user: ``(N,)`` whose target it is.
        together: are the targets of a user one set?
        ties: how ties are broken.

    Raises:
        RecbenchError: sets of targets with ties at one place; only the expectation is defined for them.
    """
    users, place, n_targets = np.unique(user, return_inverse=True, return_counts=True)
    if not together:
        return np.bincount(place, weights=which.values(above, tied, ties), minlength=len(users)) / n_targets
    if ties != "expected":
        raise RecbenchError(
            f"Ties cannot be broken as {ties!r} where a user has a set of targets.",
            why="Targets that tie with one another have no one place; their expectation over random ties has a formula.",
            fix="--ties expected",
        )
    return of_several(which, above, tied, place, _lost(which, above, tied, place))


def _lost(which: Metric, above: np.ndarray, tied: np.ndarray, query: np.ndarray) -> np.ndarray:
    """True for targets that add nothing: beyond the cut-off, or, as only a NaN or a repeated target can be, in a group of
    equals that has no room for them."""
    pair = query * (int(above.max(initial=0)) + 1) + above
    _, group, members = np.unique(pair, return_inverse=True, return_counts=True)
    return (above >= which.k) | (members[group] > tied + 1)


def _expected(which: Metric, above: np.ndarray, tied: np.ndarray) -> np.ndarray:
    """(C(hi) - C(lo)) / g, with C the cumulative gain, lo = min(a, k), hi = min(a + t + 1, k), g = t + 1."""
    total = cumulative_gain(which, above, tied)
    last = len(total) - 1
    return (total[np.minimum(above + tied + 1, last)] - total[np.minimum(above, last)]) / (tied + 1)


def cumulative_gain(which: Metric, above: np.ndarray, tied: np.ndarray) -> np.ndarray:
    """Gain of places 1..m summed, for m = 0 .. the cut-off (or the last place that occurs, if that is nearer)."""
    furthest = int((above + tied).max(initial=0)) + 1
    places = np.arange(1, min(which.k, furthest) + 1, dtype=np.float64)
    return np.concatenate([[0.0], np.cumsum(_GAINS[which.family](places))])


def of_several(which: Metric, above: np.ndarray, tied: np.ndarray, query: np.ndarray, nan: np.ndarray) -> np.ndarray:
    """The expectation of the metric of each query that has several targets, ``(Q,)`` float64, ties broken at random.

    Args:
        which: the metric.
        above: ``(N,)`` for each target the items that beat it, the query's other targets counted like any item.
        tied: ``(N,)`` the other items that equal it.
        query: ``(N,)`` which query each target belongs to, 0..Q-1, at least one each.
        nan: ``(N,)`` True where the target's score is NaN: it adds nothing, but counts among the targets.
    """
    n_targets = np.bincount(query)
    if not n_targets.all():
        raise ValueError(f"query {int(np.argmin(n_targets))} has no target")
    above, tied, query = above[~nan], tied[~nan], query[~nan]
    if which.family in _OF_GROUPS:
        return _OF_GROUPS[which.family](_groups(above, tied, query), n_targets, which.k)
    total = np.bincount(query, weights=_expected(which, above, tied), minlength=len(n_targets))
    if which.family == "precision":
        return total / which.k
    if which.family == "recall":
        return total / n_targets
    most = np.minimum(n_targets, which.k)
    return total / cumulative_gain(which, most - 1, np.zeros_like(most))[most]


@dataclass(frozen=True, slots=True)
class _Groups:
    """Targets of one query with equal scores, sorted by query and then best first."""

    query: np.ndarray
    above: np.ndarray
    size: np.ndarray
    """Items of that score, g."""
    targets: np.ndarray
    """Targets among them, m."""
    before: np.ndarray
    """The query's targets in better groups, r."""

    def best(self) -> _Groups:
        """The best group of each query that has one."""
        first = np.unique(self.query, return_index=True)[1]
        return _Groups(*(column[first] for column in (self.query, self.above, self.size, self.targets, self.before)))


def _groups(above: np.ndarray, tied: np.ndarray, query: np.ndarray) -> _Groups:
    order = np.lexsort((above, query))
    above, tied, query = above[order], tied[order], query[order]
    starts = np.flatnonzero(np.diff(query, prepend=-1) | np.diff(above, prepend=-1))
    targets = np.diff(starts, append=len(query))
    before = starts - np.searchsorted(query, query[starts])
    return _Groups(query[starts], above[starts], tied[starts] + 1, targets, before)


def _any_hit(groups: _Groups, n_targets: np.ndarray, k: int) -> np.ndarray:
    """1 - C(g-m, s) / C(g, s) of the best group: that its s listed items are not all others."""
    best = groups.best()
    listed = np.clip(k - best.above, 0, best.size)
    miss = np.ones(len(best.query))
    for j in range(int(best.targets.max(initial=0))):  # C(g-m, s) / C(g, s) = C(g-s, m) / C(g, m)
        fits = j < best.targets
        miss[fits] *= np.maximum(best.size - listed - j, 0)[fits] / (best.size - j)[fits]
    return np.bincount(best.query, weights=1.0 - miss, minlength=len(n_targets))


def _first_hit(groups: _Groups, n_targets: np.ndarray, k: int) -> np.ndarray:
    """Sum over j, a + j <= k, of C(g-j, m-1) / C(g, m) / (a+j) in the best group: its first target is its j-th item."""
    best = groups.best()
    value = np.zeros(len(best.query))
    chance = best.targets / best.size
    for j in range(1, min(k, int((best.size - best.targets).max(initial=0)) + 1) + 1):
        value += np.where(best.above + j <= k, chance / (best.above + j), 0.0)
        chance *= np.maximum(best.size - j - best.targets + 1, 0) / np.maximum(best.size - j, 1)
    return np.bincount(best.query, weights=value, minlength=len(n_targets))


def _average_precision(groups: _Groups, n_targets: np.ndarray, k: int) -> np.ndarray:
    """Over min(|T|, k): sum over groups and places i of (m/g) (r + 1 + (i-1)(m-1)/(g-1)) / (a+i), i <= min(g, k-a)."""
    value = np.zeros(len(groups.query))
    for i in range(1, min(k, int(groups.size.max(initial=0))) + 1):
        earlier = (i - 1) * (groups.targets - 1) / np.maximum(groups.size - 1, 1)
        gain = groups.targets / groups.size * (groups.before + 1 + earlier) / (groups.above + i)
        value += np.where(i <= np.minimum(groups.size, k - groups.above), gain, 0.0)
    return np.bincount(groups.query, weights=value, minlength=len(n_targets)) / np.minimum(n_targets, k)


_OF_GROUPS: dict[str, Callable[[_Groups, np.ndarray, int], np.ndarray]] = {
    "hr": _any_hit,
    "mrr": _first_hit,
    "map": _average_precision,
}
"""Metrics of several targets that are no sum over the targets."""


def _at_one_place(which: Metric, above: np.ndarray, tied: np.ndarray, ties: Ties) -> np.ndarray:
    shift = {"mid": 0.5, "pess": 1.0, "opt": 0.0}[ties]
    place = 1.0 + above + shift * tied
    return np.where(place <= which.k, _GAINS[which.family](place), 0.0)
