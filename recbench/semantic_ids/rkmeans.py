"""Residual k-means: each level clusters what the levels before left over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from recbench.limits import at_least
from recbench.semantic_ids.base import Quantised, Tokeniser
from recbench.semantic_ids.kmeans import residual_kmeans


@final
class ResidualKMeans(Tokeniser):
    """k-means on the vectors, then on what each level leaves over.

    Source: Ju et al., "Generative Recommendation with Semantic IDs: A Practitioner's Handbook", arXiv 2507.22224.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """How long, and on what."""

        iterations: int = 25
        """Rounds of Lloyd a level at most."""
        renormalise: bool = False
        """Bring residuals to length 1 before every level, as GRID does; codebooks then add up to no reconstruction."""

        def __post_init__(self) -> None:
            at_least(1, self, "iterations")

    config: Config

    def fit(self, x_NA: np.ndarray, levels: int, codes: int, seed: int) -> Quantised:
        c = self.config
        return residual_kmeans(x_NA, levels, codes, seed, iterations=c.iterations, renormalise=c.renormalise)
