"""Constrained residual k-means: at every level all codes are used about equally often."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np

from recbench.limits import at_least
from recbench.semantic_ids import sinkhorn
from recbench.semantic_ids.base import Quantised, Tokeniser
from recbench.semantic_ids.kmeans import residual_kmeans


@final
class BalancedKMeans(Tokeniser):
    """Residual k-means whose clusters hold N // C - 1 to N // C + 1 items each, at least 1.

    Source: cluster sizes as in MiniOneRec (arXiv 2510.24431) and GREAM (arXiv 2510.20815); the assignment is ours.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """How long."""

        iterations: int = 10
        """Rounds of assignment and means a level at most."""

        def __post_init__(self) -> None:
            at_least(1, self, "iterations")

    config: Config

    @classmethod
    def least_items(cls, codes: int) -> int:
        return 2 * codes

    def fit(self, x_NA: np.ndarray, levels: int, codes: int, seed: int) -> Quantised:
        share = len(x_NA) // codes
        assign = partial(sinkhorn.balanced, low=max(1, share - 1), high=share + 1)
        return residual_kmeans(x_NA, levels, codes, seed, iterations=self.config.iterations, assign=assign)
