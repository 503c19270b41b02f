"""How often each test rejects a true null on users shaped like Beauty's, and a true difference.

``python -m benchmarks false_positives``: 2,000 repeats, a minute of CPU; ``--quick``: 300.

Nine users in ten score 0 under both systems. One system hits more often, the other higher up; their means are equal.
"""

from __future__ import annotations

import numpy as np

from recbench.stats.corrections import CORRECTIONS
from recbench.stats.counting_tests import sign_test, wilcoxon
from recbench.stats.crossed import resampled_run_means, two_way_bootstrap
from recbench.stats.intervals import (
    Spread,
    bca,
    bootstrap_test,
    over_users_and_seeds,
    percentile,
    resampled_means,
    together,
)
from recbench.stats.paired import Differences, paired_t, randomisation, t_test
from recbench.stats.power import minimum_detectable
from tests.stats.shaped import samples, shape

SIZES = (50, 1_000, 22_363)
TESTS = ("paired t", "bootstrap test", "percentile interval", "BCa interval", "randomisation", "Wilcoxon", "sign test")
WAYS = ("independent", "paired")
"""How runs that went on from one another may be taken."""


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


def with_training_noise(repeats: int, runs: int, n: int = 2_000, tau: float = 0.006) -> tuple[float, float, float]:
    """Rejections of a true null where training moves each run's mean by ``tau``: users alone, t over both, crossed."""
    rng = np.random.default_rng(5)
    hits = np.zeros(3)
    for _ in range(repeats):
        easy = np.where(rng.random((n, 1)) < 0.2, rng.random((n, 1)), 0.0)
        noise = 1 + rng.normal(0, tau / easy.mean(), 2 * runs) + rng.normal(0, 0.5, (n, 2 * runs))
        values = easy * noise
        ours, theirs = values[:, :runs], values[:, runs:]
        d = Differences.between(ours.mean(axis=1), theirs.mean(axis=1))
        spread = over_users_and_seeds(d, list(ours.mean(axis=0)), list(theirs.mean(axis=0)))
        drawn = resampled_run_means(values, 600, int(rng.integers(1 << 30)))
        crossed = two_way_bootstrap(drawn[:, :runs], drawn[:, runs:])
        both = t_test(d.mean, spread.standard_error, spread.df).p < 0.05
        hits += [paired_t(d).p < 0.05, both, crossed.excludes(0)]
    share = hits / repeats
    return float(share[0]), float(share[1]), float(share[2])


def few_runs(repeats: int, runs: int, other: int, noise: float) -> tuple[float, float]:
    """How often t over users and runs rejects a true null, and how often it finds the smallest visible difference.

    Args:
        repeats: how many comparisons are drawn.
        runs: of one system.
        other: of the other; 0: deterministic.
        noise: what training moves the mean of a run by, over what the draw of users moves the difference by.
    """
    rng = np.random.default_rng(7)
    d = Differences(np.array([-0.2, 0.2]), np.array([11_181, 11_182]))
    tau = noise * d.standard_error
    truth = together([(d.standard_error**2, d.n - 1), *((tau**2 / n, n - 1) for n in (runs, other) if n)])
    found = np.zeros(2)
    for _ in range(repeats):
        ours, theirs = rng.normal(0, tau, runs), rng.normal(0, tau, other)
        mean = rng.normal(0, d.standard_error) + ours.mean() - (theirs.mean() if other else 0.0)
        spread = over_users_and_seeds(d, list(ours), list(theirs))
        shifts = (0.0, minimum_detectable(truth))
        found += [t_test(mean + shift, spread.standard_error, spread.df).p < 0.05 for shift in shifts]
    return float(found[0] / repeats), float(found[1] / repeats)


def from_one_another(repeats: int, runs: int, start: float, gain: float) -> np.ndarray:
    """Runs that went on from the other system's: how often t rejects a true null and finds one difference, (2, 2).

    First row: runs taken as independent; second: in pairs. The difference is the smallest that pairs should see.

    Args:
        repeats: how many comparisons are drawn.
        runs: of each system.
        start: what the training before moves the mean of a run by, over what the draw of users moves the difference by.
        gain: the same of the training after.
    """
    rng = np.random.default_rng(11)
    d = Differences(np.array([-0.2, 0.2]), np.array([11_181, 11_182]))
    se = d.standard_error
    shift = minimum_detectable(together([(se**2, d.n - 1), ((gain * se) ** 2 / runs, runs - 1)]))
    found = np.zeros((2, 2))
    for _ in range(repeats):
        theirs, gains = rng.normal(0, start * se, runs), rng.normal(0, gain * se, runs)
        mean = rng.normal(0, se) + gains.mean()
        for way, sides in enumerate(((theirs + gains, theirs), (gains, np.empty(0)))):
            spread = over_users_and_seeds(d, *(list(side) for side in sides))
            found[way] += [t_test(mean + by, spread.standard_error, spread.df).p < 0.05 for by in (0.0, shift)]
    return found / repeats


def main(quick: bool = False) -> None:
    """Print the tables."""
    repeats = 300 if quick else 2_000
    values, chances = shape()
    print(f"zero for {chances[values == 0][0]:.1%} of users, mean {values @ chances:.1e}; {repeats} repeats")
    print(f"limits at 5 %: +-{3 * np.sqrt(0.05 * 0.95 / repeats):.1%}\n")
    print(f"{'true null':<20}", *(f"n={n:>6}" for n in SIZES))
    table = [np.mean([rejects(d, i) for i, d in enumerate(samples(n, repeats))], axis=0) for n in SIZES]
    for place, name in enumerate(TESTS):
        print(f"{name:<20}", *(f"{rates[place]:>8.1%}" for rates in table))
    sd = float(np.sqrt(values**2 @ chances))
    gain = minimum_detectable(Spread(sd / np.sqrt(22_363), 22_362))
    power = np.mean([rejects(d, i) for i, d in enumerate(samples(22_363, repeats, gain))], axis=0)
    print(f"\npower at the smallest visible difference, {gain:.4f}, n=22363 (80 % wanted)")
    for name, share in zip(TESTS, power, strict=True):
        print(f"{name:<20} {share:>8.1%}")
    print("\nany of 5 true nulls rejected, paired t")
    for name, share in family_wise(repeats).items():
        print(f"{name:<20} {share:>8.1%}")
    print("\ntraining noise as large as that of users: users alone, t over users and runs, crossed bootstrap")
    for runs in (2, 3, 5, 10):
        print(f"{runs:>2} runs a system    ", *(f"{share:>8.1%}" for share in with_training_noise(repeats // 5, runs)))
    print("\nt over users and runs: true null rejected, smallest visible difference found (80 % wanted)")
    print("training noise over that of users", *(f"{noise:>17}" for noise in (1, 3)))
    for runs, other in ((2, 2), (3, 3), (5, 5), (2, 0), (3, 0), (5, 0)):
        cells = [few_runs(10 * repeats, runs, other, noise) for noise in (1, 3)]
        against = f"{other} runs" if other else "deterministic"
        print(f"{runs} runs against {against:<17}", *(f"{share:>8.1%}" for cell in cells for share in cell))
    print("\nruns that went on from the other system's, training before 3 times as noisy as users: the same two shares")
    print("training after over users, taken as", *(f"{noise:>8} {way:<11}" for noise in (0.5, 1) for way in WAYS))
    for runs in (2, 3, 5):
        cells = [from_one_another(10 * repeats, runs, 3, noise).ravel() for noise in (0.5, 1)]
        print(f"{runs} runs", *(f"{share:>8.1%}" for cell in cells for share in cell))


if __name__ == "__main__":
    main()
