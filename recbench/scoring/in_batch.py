"""Softmax of the target among the targets of its own step, with the popularity bias of that draw corrected.

Source: Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019; the
form that leaves the target uncorrected: Khrylchenko et al., arXiv 2507.09331. Items that are no training target are no negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from recbench.scoring.candidates import candidate_loss
from recbench.scoring.drawing import DrawingScore
from recbench.scoring.negatives import expected_counts, shared
from recbench.scoring.precision import in_whole_precision
from recbench.scoring.sampled_softmax import LogQ


@final
class InBatchSoftmax(DrawingScore):
    """Loss: softmax of the target among all targets of the step. Larger steps (``train.batch_size``) mean more negatives."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """How the draw is corrected."""

        logq: LogQ = "negatives"
        """Correction of the draw: each negative's exp(score) over its expected count. all: the target's, too; off: none."""

    config: Config

    @property
    def name(self) -> str:
        return f"in-batch softmax, the targets of a step, log-Q {self.config.logq}"

    @in_whole_precision
    def loss(self, u_ND: Tensor, target_N: Tensor, *, tau: float = 1.0, frozen: bool = False) -> Tensor:
        pool_Q, logq = self._now.pool_Q, self.config.logq
        expected_V = None if logq == "off" else expected_counts(self._shares(), max(1, len(pool_Q) - 1), 0)
        negatives = shared(pool_Q, expected_V, own=logq == "all")
        return candidate_loss(u_ND, self._trained(frozen), target_N, negatives, tau, self._chunk(u_ND))
