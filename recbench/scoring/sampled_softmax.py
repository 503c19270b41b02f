"""Softmax against negatives that a whole step shares, some of them targets of that step, with the bias of the draw corrected.

Mixed negatives: Yang et al., "Mixed Negative Sampling for Learning Two-tower Neural Networks in Recommendations", WWW 2020.
log-Q: Bengio & Senecal, "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language Model", IEEE TNN
2008; Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019. The target is not
drawn, so by default it is not corrected (Khrylchenko et al., "Correcting the LogQ Correction", RecSys 2025, arXiv 2507.09331);
``logq = "all"`` is the form of Yi et al. Their streaming estimate of Q is not needed here: training counts are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from recbench.limits import at_least, shares
from recbench.scoring.candidates import candidate_loss
from recbench.scoring.drawing import DrawingScore
from recbench.scoring.negatives import expected_counts, mixed_draw, shared
from recbench.scoring.precision import in_whole_precision

LogQ = Literal["negatives", "all", "off"]
"""negatives: the weighted negatives have the catalogue's sum as expectation; all: the target is weighted, too; off: no weights."""


@final
class SampledSoftmax(DrawingScore):
    """Loss: softmax of the target against shared negatives."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """How many negatives, from where, and how corrected."""

        negatives: int = 1024
        """Drawn once for all rows of a loss, with replacement."""
        mixed: float = 0.5
        """Share of them that are targets of the same step (so popular items more often); the others are uniform."""
        logq: LogQ = "negatives"
        """Correction of the draw: each negative's exp(score) over its expected count. all: the target's, too; off: none."""

        def __post_init__(self) -> None:
            at_least(1, self, "negatives")
            shares(self, "mixed")

    config: Config

    @property
    def name(self) -> str:
        c = self.config
        return f"sampled softmax, {c.negatives} shared negatives, {100 * c.mixed:g} % in-batch, log-Q {c.logq}"

    @in_whole_precision
    def loss(self, u_ND: Tensor, target_N: Tensor, *, tau: float = 1.0, frozen: bool = False) -> Tensor:
        c, now = self.config, self._now
        n_pool = round(c.mixed * c.negatives)
        n_uniform = c.negatives - n_pool
        drawn = mixed_draw(now.pool_Q, self._n_items, n_pool, n_uniform, now.generator)
        expected_V = None
        if c.logq != "off":  # one of the pool's entries is the row's own target, which is no negative
            others = 1 - 1 / max(2, len(now.pool_Q))
            expected_V = expected_counts(self._shares(), n_pool * others, n_uniform)
        negatives = shared(drawn, expected_V, own=c.logq == "all")
        return candidate_loss(u_ND, self._trained(frozen), target_N, negatives, tau, self._chunk(u_ND))
