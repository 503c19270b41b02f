"""Tests that look at signs and ranks of differences only. Offered because papers use them; most users agree, and these
tests throw those users away, so here they answer another question than whether the mean differs."""

from __future__ import annotations

import numpy as np

from recbench.stats.paired import Differences, FloatArray, IntArray, Outcome

EXACT_UP_TO = 50
"""Differing users up to which Wilcoxon's p is exact, ties included; a normal approximation above."""


def sign_test(d: Differences) -> Outcome:
    """Exact two-sided sign test of the users who differ; its statistic is the number who are better."""
    return _binomial(int(d.counts[d.values > 0].sum()), int(d.counts[d.values < 0].sum()))


def mcnemar(d: Differences) -> Outcome:
    """Exact two-sided test of paired hits: of the users on whom two systems disagree, do as many hit with either?

    Source: McNemar, Psychometrika, 1947; the exact form is binomial.

    Raises:
        ValueError: a difference is not -1, 0 or 1, so it is not one of hits.
    """
    if not np.isin(d.values, (-1.0, 0.0, 1.0)).all():
        raise ValueError("McNemar's test compares hits; some differences are neither -1, 0 nor 1.")
    return sign_test(d)


def wilcoxon(d: Differences) -> Outcome:
    """Two-sided signed-rank test; users without a difference are left out, equal sizes share their mean rank.

    Its statistic is the sum of the ranks of users who are better. Exact up to ``EXACT_UP_TO`` differing users, whether
    or not sizes tie; above, normal with the variance corrected for ties and no continuity correction.

    Source: Wilcoxon, Biometrics Bulletin, 1945; ties: Lehmann, "Nonparametrics", 1975.
    """
    sizes, place = np.unique(np.abs(d.values), return_inverse=True)
    users = np.bincount(place, weights=d.counts).astype(np.int64)
    better = np.bincount(place, weights=d.counts * (d.values > 0)).astype(np.int64)
    differ = sizes > 0
    users, better = users[differ], better[differ]
    n = int(users.sum())
    if n == 0:
        return Outcome(0.0, 1.0)
    twice = 2 * np.cumsum(users) - users + 1  # the mean rank of each size, doubled: a whole number
    doubled = int(better @ twice)
    statistic = doubled / 2
    if n <= EXACT_UP_TO:
        return Outcome(statistic, _exact(np.repeat(twice, users), doubled))
    from scipy.special import ndtr

    variance = float((users * (twice / 2) ** 2).sum()) / 4  # sum of r^2 / 4, which is the tie-corrected variance
    z = (statistic - n * (n + 1) / 4) / np.sqrt(variance)
    return Outcome(statistic, float(2 * ndtr(-abs(z))))


def _exact(ranks: IntArray, observed: int) -> float:
    """Share of the 2^n sign patterns whose rank sum is as far out, by adding one rank after the other."""
    chances: FloatArray = np.zeros(int(ranks.sum()) + 1)
    chances[0] = 1.0
    for rank in ranks:
        moved = np.zeros_like(chances)
        moved[rank:] = chances[: len(chances) - rank]
        chances = (chances + moved) / 2
    return float(min(1.0, 2 * min(chances[: observed + 1].sum(), chances[observed:].sum())))


def _binomial(better: int, worse: int) -> Outcome:
    from scipy.special import bdtr

    n = better + worse
    p = 1.0 if n == 0 else min(1.0, 2 * float(bdtr(float(min(better, worse)), n, 0.5)))
    return Outcome(float(better), p)
