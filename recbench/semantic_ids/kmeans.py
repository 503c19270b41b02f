"""k-means: k-means++, then Lloyd; and k-means on what is left, level by level. Distances in float32, means in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recbench.semantic_ids.base import Quantised

Assign = Callable[[np.ndarray], np.ndarray]
"""From squared distances (N, C) to codes (N,)."""
BLOCK = 1 << 24
"""Entries of a distance matrix held at once."""


def kmeans(
    x_NA: np.ndarray, n_clusters: int, rng: np.random.Generator, iterations: int = 25, assign: Assign | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N,) int64 and centroids (C, A) float32. It ends on a mean update, so each centroid is its cluster's mean.

    A cluster that nothing chooses takes the point farthest from its own centroid.

    Args:
        assign: how codes follow from distances; None: each point takes the nearest centroid.

    Raises:
        ValueError: fewer points than clusters.

    Source: Lloyd, "Least squares quantization in PCM", 1982; Arthur and Vassilvitskii, "k-means++", SODA 2007.
    """
    if len(x_NA) < n_clusters:
        raise ValueError(f"{len(x_NA)} points cannot make {n_clusters} clusters")

    def choose(x_NA: np.ndarray, centroids: np.ndarray) -> np.ndarray:
        if assign is not None:
            return assign(squared_distances(x_NA, centroids))
        return refill(*nearest(x_NA, centroids), n_clusters)

    centroids = plus_plus(x_NA, n_clusters, rng)
    codes_N = np.full(len(x_NA), -1)
    for _ in range(max(iterations, 1)):
        before_N = codes_N
        codes_N = choose(x_NA, centroids)
        if np.array_equal(before_N, codes_N):
            break
        centroids = means(x_NA, codes_N, n_clusters)
    return codes_N, centroids


def residual_kmeans(
    x_NA: np.ndarray,
    levels: int,
    codes: int,
    seed: int,
    *,
    iterations: int,
    assign: Assign | None = None,
    renormalise: bool = False,
) -> Quantised:
    """R_0 = x; at level l: k-means on R_l, c_l the cluster, R_(l+1) = R_l - centroid of c_l.

    Centroids are means, so the sum over items of ||R_(l+1)||^2 is that of ||R_l||^2 less n_k ||centroid k||^2 over the clusters:
    no level makes the reconstruction worse.

    Args:
        renormalise: bring R_l to length 1 before level l. Centroids then add up to no reconstruction.
    """
    rest_NA = before_NA = x_NA.astype(np.float32)
    chosen, books, errors = [], [], []
    for level in range(levels):
        before_NA = unit(rest_NA) if renormalise else rest_NA
        codes_N, centroids = kmeans(before_NA, codes, np.random.default_rng([seed, level]), iterations, assign)
        rest_NA = before_NA - centroids[codes_N]
        chosen.append(codes_N)
        books.append(centroids)
        errors.append(float(np.square(rest_NA, dtype=np.float64).sum(axis=1).mean()))
    return Quantised(np.stack(chosen, axis=1), tuple(books), before_NA, {"mean_squared_residual": errors})


def unit(x_NA: np.ndarray) -> np.ndarray:
    """Rows at length 1; rows of zeros stay."""
    length = np.linalg.norm(x_NA, axis=1, keepdims=True)
    return np.divide(x_NA, length, out=np.zeros_like(x_NA), where=length > 0)


def plus_plus(x_NA: np.ndarray, n_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """First centroids (C, A): points drawn with probability proportional to the squared distance to those drawn before."""
    chosen = np.empty((n_clusters, x_NA.shape[1]), dtype=np.float32)
    chosen[0] = x_NA[rng.integers(len(x_NA))]
    far_N = squared_distances(x_NA, chosen[:1])[:, 0]
    for place in range(1, n_clusters):
        sums = np.cumsum(far_N, dtype=np.float64)
        at = np.searchsorted(sums, rng.random() * sums[-1], side="right") if sums[-1] > 0 else rng.integers(len(x_NA))
        chosen[place] = x_NA[min(int(at), len(x_NA) - 1)]
        np.minimum(far_N, squared_distances(x_NA, chosen[place : place + 1])[:, 0], out=far_N)
    return chosen


def squared_distances(x_NA: np.ndarray, centroids_CA: np.ndarray) -> np.ndarray:
    """||x - c||^2, (N, C) float32, never below 0."""
    product = x_NA.astype(np.float32, copy=False) @ centroids_CA.astype(np.float32, copy=False).T
    product *= -2
    product += np.einsum("ca,ca->c", centroids_CA, centroids_CA)
    product += np.einsum("na,na->n", x_NA, x_NA)[:, None]
    return np.maximum(product, 0, out=product)


def nearest(x_NA: np.ndarray, centroids_CA: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroid of each point, (N,) int64, and its squared distance; equal distances take the lower number."""
    height = max(1, BLOCK // len(centroids_CA))
    codes, distances = [], []
    for first in range(0, len(x_NA), height):
        block = squared_distances(x_NA[first : first + height], centroids_CA)
        codes.append(block.argmin(axis=1))
        distances.append(block.min(axis=1))
    return np.concatenate(codes), np.concatenate(distances)


def refill(codes_N: np.ndarray, distances_N: np.ndarray, n_clusters: int) -> np.ndarray:
    """Codes in which no cluster is empty: the points farthest from their centroids move, one to each empty cluster."""
    counts = np.bincount(codes_N, minlength=n_clusters)
    codes_N = codes_N.copy()
    farthest = iter(np.argsort(-distances_N, kind="stable"))
    for empty in np.flatnonzero(counts == 0):
        point = next(p for p in farthest if counts[codes_N[p]] > 1)
        counts[codes_N[point]] -= 1
        codes_N[point] = empty
        counts[empty] = 1
    return codes_N


def means(x_NA: np.ndarray, codes_N: np.ndarray, n_clusters: int) -> np.ndarray:
    """Mean of each cluster, (C, A) float32, summed in float64."""
    order = np.argsort(codes_N, kind="stable")
    counts = np.bincount(codes_N, minlength=n_clusters)
    starts = np.cumsum(counts) - counts
    filled = counts > 0
    sums = np.zeros((n_clusters, x_NA.shape[1]))
    sums[filled] = np.add.reduceat(x_NA[order].astype(np.float64), starts[filled], axis=0)
    return np.divide(sums, counts[:, None], out=sums, where=filled[:, None]).astype(np.float32)
