"""ReaRec with ensemble reasoning learning: the mean of all states answers, and the states are kept apart.

Source: Tang et al., "Think Before Recommend: Unleashing the Latent Reasoning Power for Sequential Recommendation",
arXiv 2503.22675v3: states 3.1 and eq. 4; ensemble 3.2.1, eq. 5 to 8. Where paper and the authors' code differ, the code is the
default and the paper's form a setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from recbench.backbones.base import Backbone
from recbench.conditions import OnlyWith
from recbench.data.batching import Batch
from recbench.limits import above, at_least, below_one
from recbench.reasoning.base import Context, ReasoningHead, Stage, targets
from recbench.reasoning.chain import Chain
from recbench.reasoning.diagnostics import note_similarity
from recbench.scoring.base import Divergence, Score


@final
class ReaRecERL(ReasoningHead):
    """K fed-back steps; loss: cross-entropy of the mean state, minus a divergence between the states' rankings."""

    stages = (Stage("train"),)

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Steps, temperature and the diversity term."""

        steps: int = 2
        """K. 0: the plain model."""
        tau: float = 1.0
        """Temperature of all scores. The authors' 0.07 goes with states four times as wide."""
        diversity: float = 0.01
        """Weight lambda of the divergence between the states' distributions (eq. 8); above 0.05 it harms."""
        diversity_form: Divergence = "code"
        """code: mean over ordered pairs, the second argument without gradient; paper: sum over pairs i < j (eq. 7)."""
        pool: Literal["mean", "last"] = "mean"
        """What answers: the mean of all K + 1 states, or the last."""
        supervise: Literal["pooled", "each"] = "pooled"
        """Cross-entropy of the answer, or the sum of every state's own (first version of the paper)."""
        step_embedding: bool = True
        """A learned vector a step; without it the state goes back raw ("Naive")."""
        feed_norm: bool = True
        """LayerNorm on the tokens."""
        feed_dropout: float = 0.2
        """On the tokens."""

        only_with: ClassVar[OnlyWith] = {
            "steps": "diversity pool supervise step_embedding feed_norm feed_dropout",
            "steps and diversity": "diversity_form",
        }

        def __post_init__(self) -> None:
            at_least(0, self, "steps", "diversity")
            above(0, self, "tau")
            below_one(self, "feed_dropout")

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        c = config
        self.chain = Chain(backbone, c.steps, dropout=c.feed_dropout, step_embedding=c.step_embedding, norm=c.feed_norm)
        self.scalable = c.steps > 0

    def think(self, backbone: Backbone, batch: Batch, steps: int | None = None) -> Tensor:
        return self.chain.run(backbone, batch, steps)

    def answer(self, z_QKD: Tensor) -> Tensor:
        return z_QKD.mean(1) if self.config.pool == "mean" else z_QKD[:, -1]

    def losses(self, backbone: Backbone, batch: Batch, score: Score, context: Context) -> dict[str, Tensor]:
        c = self.config
        z_QKD, y_Q = self.think(backbone, batch), targets(batch)
        note_similarity(context, z_QKD)
        K = z_QKD.shape[1]
        if K == 1:
            return {"next_item": score.loss(z_QKD[:, 0], y_Q, tau=c.tau)}
        each_KK = torch.eye(K, dtype=torch.float64)
        mix_MK = each_KK.mean(0, keepdim=True) if c.pool == "mean" else each_KK[-1:]
        if c.supervise == "each":
            mix_MK = each_KK
        next_item, diversity = score.pooled(
            z_QKD, y_Q, mix_MK=mix_MK, tau=c.tau, divergence=-c.diversity, form=c.diversity_form
        )
        return {"next_item": next_item, "diversity": diversity} if c.diversity else {"next_item": next_item}
