"""Differences shaped like those of real users: nine in ten are 0, the rest asymmetric and of many sizes."""

from __future__ import annotations

import numpy as np

from recbench.stats.paired import Differences

GAINS = 1 / np.log2(np.arange(2, 12))
"""NDCG@10 of a hit at places 1 .. 10."""


def shape(gain: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Distinct differences and their chances. One system hits higher up, the other oftener; the means differ by ``gain``."""
    front, back = GAINS**3 / (GAINS**3).sum(), np.full(10, 0.1)
    both = 0.03 * np.outer(front, back)
    steps = GAINS[:, None] - GAINS[None, :]
    other = (0.02 * front @ GAINS + (both * steps).sum() - gain) / (back @ GAINS)
    values = np.round(np.concatenate([GAINS, -GAINS, steps.ravel(), [0.0]]), 12)
    chances = np.concatenate([0.02 * front, other * back, both.ravel()])
    values, place = np.unique(values, return_inverse=True)
    return values, np.bincount(place, np.append(chances, 1 - chances.sum()))


def samples(n: int, repeats: int, gain: float = 0.0, seed: int = 1) -> list[Differences]:
    """``repeats`` samples of n users."""
    values, chances = shape(gain)
    counts = np.random.default_rng(seed).multinomial(n, chances, size=repeats)
    return [Differences(values[c > 0], c[c > 0]) for c in counts]


def kinds(seed: int = 0) -> dict[str, np.ndarray]:
    """One set of differences of every kind that has broken a test somewhere."""
    rng = np.random.default_rng(seed)
    return {
        "random": rng.normal(0.05, 1.0, 80),
        "tied": rng.choice([-0.5, -0.2, 0.2, 0.3, 0.5], 300),
        "zero-inflated": np.where(rng.random(2_000) < 0.1, rng.choice(GAINS, 2_000) * rng.choice([-1, 1], 2_000), 0.0),
        "tiny": np.array([0.3, -0.1, 0.5, 0.7]),
        "skewed": rng.gamma(0.5, 0.2, 200) - 0.08,
        "hits": rng.choice([-1.0, 0.0, 0.0, 0.0, 1.0], 500),
    }
