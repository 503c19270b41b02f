"""Systems ranked over datasets: Friedman's test, and what may be said of pairs after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recbench.stats.paired import FloatArray


@dataclass(frozen=True, slots=True)
class Friedman:
    """Do the systems rank alike over the datasets? The statistic of Iman and Davenport is the less conservative."""

    chi2: float
    df: int
    p: float
    f: float
    """Iman and Davenport's F; infinite where every dataset ranks the systems in the same order."""
    f_df: tuple[int, int]
    f_p: float


def ranked(scores: FloatArray) -> FloatArray:
    """Ranks within each row of ``(datasets, systems)``, 1 for the highest score; ties share their mean."""
    mine, other = np.round(scores, 12)[:, :, None], np.round(scores, 12)[:, None, :]
    above, equal = (other > mine).sum(axis=2), (other == mine).sum(axis=2)
    return above + (equal + 1) / 2


def friedman(ranks: FloatArray) -> Friedman:
    """Friedman's chi-square corrected for ties, and the F of Iman and Davenport.

    Args:
        ranks: ``(N datasets, k systems)``, as ``ranked`` gives them.

    Raises:
        ValueError: fewer than two datasets or three systems: with two systems it is a sign test.

    Source: Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 2006, section 3.2.2.
    """
    from scipy.special import chdtrc, fdtrc

    n, k = ranks.shape
    if n < 2 or k < 3:
        raise ValueError(f"Friedman's test needs two datasets and three systems; got {n} and {k}.")
    between = float(((ranks.mean(axis=0) - (k + 1) / 2) ** 2).sum()) * n
    within = float(((ranks - (k + 1) / 2) ** 2).sum()) / (n * (k - 1))  # k(k+1)/12 without ties
    chi2 = between / within if within > 0 else 0.0
    dfs = (k - 1, (k - 1) * (n - 1))
    rest = n * (k - 1) - chi2
    f = float("inf") if rest <= 1e-9 * n * k else (n - 1) * chi2 / rest
    f_p = 0.0 if np.isinf(f) else float(fdtrc(*dfs, f))
    return Friedman(chi2, k - 1, float(chdtrc(k - 1, chi2)), f, dfs, f_p)


def critical_difference(n_systems: int, n_datasets: int, alpha: float = 0.05) -> float:
    """Nemenyi: mean ranks that differ by more than this differ, over all pairs together."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - alpha, n_systems, np.inf)) / np.sqrt(2)
    return q * _standard_error(n_systems, n_datasets)


def nemenyi(mean_ranks: FloatArray, n_datasets: int) -> FloatArray:
    """p of each pair, ``(k, k)``, the family of all pairs accounted for; 1 on the diagonal."""
    from scipy.stats import studentized_range

    k = len(mean_ranks)
    gaps = np.abs(mean_ranks[:, None] - mean_ranks[None, :]) / _standard_error(k, n_datasets) * np.sqrt(2)
    p = np.ones((k, k))
    upper = np.triu_indices(k, 1)
    p[upper] = np.clip(studentized_range.sf(gaps[upper], k, np.inf), 0.0, 1.0)
    return np.minimum(p, p.T)


def against_control(mean_ranks: FloatArray, control: int, n_datasets: int) -> tuple[FloatArray, FloatArray]:
    """z and two-sided p of each system against the control, uncorrected; z > 0 where it ranks better."""
    from scipy.special import ndtr

    z = (mean_ranks[control] - mean_ranks) / _standard_error(len(mean_ranks), n_datasets)
    return z, 2 * ndtr(-np.abs(z))


def cliques(mean_ranks: Sequence[float], width: float) -> list[tuple[int, int]]:
    """First and last place of every maximal run of ascending mean ranks that spans at most ``width``, runs of two on."""
    found: list[tuple[int, int]] = []
    for first in range(len(mean_ranks)):
        last = max(at for at in range(first, len(mean_ranks)) if mean_ranks[at] - mean_ranks[first] <= width + 1e-12)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def _standard_error(k: int, n: int) -> float:
    """Of the difference of two mean ranks."""
    return float(np.sqrt(k * (k + 1) / (6 * n)))
