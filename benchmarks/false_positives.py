"""How often each test rejects a true null on users shaped like Beauty's, and a true difference.

``python -m benchmarks.false_positives [REPEATS]``.

Nine users in ten score 0 under both systems. One system hits more often, the other higher up; their means are equal.
"""

from __future__ import annotations

import sys

import numpy as np

from recbench.stats.corrections import CORRECTIONS
from recbench.stats.counting_tests import sign_test, wilcoxon
from recbench.stats.intervals import bca, bootstrap_test, percentile, resampled_means
from recbench.stats.paired import Differences, paired_t, randomisation
from tests.stats.shaped import samples, shape

SIZES = (50, 1_000, 22_363)
TESTS = ("paired t", "bootstrap test", "percentile interval", "BCa interval", "randomisation", "Wilcoxon", "sign test")


def rejects(d: Differences, seed: int, alpha: float = 0.05, resamples: int = 999) -> list[bool]:
    """Whether each of ``TESTS`` rejects equal means."""
    means = resampled_means(d, resamples, seed)
    return [
        paired_t(d).p < alpha,
        bootstrap_test(d, means).p <= alpha,
        percentile(means).excludes(0),
        bca(d, means).excludes(0),
        randomisation(d, resamples=resamples, seed=seed).p <= alpha,
        wilcoxon(d).p < alpha,
        sign_test(d).p < alpha,
    ]


def family_wise(repeats: int, systems: int = 5) -> dict[str, float]:
    """Share of families of true nulls in which at least one is rejected, by correction."""
    p = np.array([paired_t(d).p for d in samples(22_363, repeats * systems, seed=3)]).reshape(repeats, systems)
    return {name: float(np.mean([min(adjust(list(row))) < 0.05 for row in p])) for name, adjust in CORRECTIONS.items()}


def main(repeats: int) -> None:
    """Print the tables."""
    values, chances = shape()
    print(f"zero for {chances[values == 0][0]:.1%} of users, mean {values @ chances:.1e}; {repeats} repeats")
    print(f"limits at 5 %: +-{3 * np.sqrt(0.05 * 0.95 / repeats):.1%}\n")
    print(f"{'true null':<20}", *(f"n={n:>6}" for n in SIZES))
    table = [np.mean([rejects(d, i) for i, d in enumerate(samples(n, repeats))], axis=0) for n in SIZES]
    for place, name in enumerate(TESTS):
        print(f"{name:<20}", *(f"{rates[place]:>8.1%}" for rates in table))
    sd = float(np.sqrt(values**2 @ chances))
    gain = 2.8016 * sd / np.sqrt(22_363)
    power = np.mean([rejects(d, i) for i, d in enumerate(samples(22_363, repeats, gain))], axis=0)
    print(f"\npower at the smallest visible difference, {gain:.4f}, n=22363 (80 % wanted)")
    for name, share in zip(TESTS, power, strict=True):
        print(f"{name:<20} {share:>8.1%}")
    print("\nany of 5 true nulls rejected, paired t")
    for name, share in family_wise(repeats).items():
        print(f"{name:<20} {share:>8.1%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000)
