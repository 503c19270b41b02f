"""ReaRec with progressive reasoning learning: every step is supervised, softer early, and noisy steps must find their clean twins.

Source: Tang et al., "Think Before Recommend: Unleashing the Latent Reasoning Power for Sequential Recommendation",
arXiv 2503.22675v3: states 3.1 and eq. 4; temperature annealing 3.2.2, eq. 9 and 10; contrast eq. 11 to 13. Where paper and the
authors' code differ, the code is the default and the paper's form a setting.
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
from recbench.reasoning.contrast import equal, info_nce, some_of, user_of
from recbench.reasoning.diagnostics import note_similarity
from recbench.scoring.base import Score


@final
class ReaRecPRL(ReasoningHead):
    """K fed-back steps; the last answers. Losses: ``next_item``, ``steps`` (the earlier states), ``contrast``."""

    stages = (Stage("train"),)

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Steps, temperatures and the contrast."""

        steps: int = 2
        """K. 0: the plain model."""
        tau: float = 1.0
        """Temperature of the last step."""
        alpha: float = 1.5
        """Step k of K has temperature tau alpha^(K - k) (eq. 9); 1: no annealing."""
        step_weight: float = 1.0
        """Weight of the mean loss of the earlier steps; K gives the paper's sum (eq. 10)."""
        contrast: float = 1.0
        """Weight of the contrast (eq. 13)."""
        contrast_rows: int = 1024
        """Positions a step that are contrasted, drawn uniformly."""
        contrast_tau: float | None = None
        """Its temperature; unset: tau."""
        noise: float = 0.01
        """Standard deviation of the noise on the tokens of the second view (eq. 11)."""
        warmup_epochs: int = 0
        """Epochs without contrast."""
        views: Literal["full", "thoughts"] = "full"
        """Second view: history and thoughts encoded again under other dropout (authors' code), or the thoughts alone."""
        mask_same_target: bool = True
        """Positions with the same target are no negatives of each other."""
        mask_same_user: bool = True
        """Positions of one user are no negatives of each other: every prefix of a user stands in the same batch."""
        pool: Literal["last", "mean"] = "last"
        """What answers."""
        step_embedding: bool = True
        """A learned vector a step; without it the state goes back raw ("Naive")."""
        feed_norm: bool = True
        """LayerNorm on the tokens."""
        feed_dropout: float = 0.2
        """On the tokens."""

        only_with: ClassVar[OnlyWith] = {
            "steps": "step_weight contrast pool step_embedding feed_norm feed_dropout",
            "steps and step_weight": "alpha",
            "steps and contrast": (
                "contrast_rows contrast_tau noise warmup_epochs views mask_same_target mask_same_user"
            ),
        }

        def __post_init__(self) -> None:
            at_least(0, self, "steps", "step_weight", "contrast", "noise", "warmup_epochs")
            at_least(1, self, "contrast_rows")
            above(0, self, "tau", "alpha", "contrast_tau")
            below_one(self, "feed_dropout")

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        c = config
        self.chain = Chain(backbone, c.steps, dropout=c.feed_dropout, step_embedding=c.step_embedding, norm=c.feed_norm)
        self.scalable = c.steps > 0

    def think(self, backbone: Backbone, batch: Batch, steps: int | None = None) -> Tensor:
        return self.chain.run(backbone, batch, steps)

    def answer(self, z_QKD: Tensor) -> Tensor:
        return z_QKD[:, -1] if self.config.pool == "last" else z_QKD.mean(1)

    def losses(self, backbone: Backbone, batch: Batch, score: Score, context: Context) -> dict[str, Tensor]:
        c, y_Q = self.config, targets(batch)
        contrasted = bool(c.steps and c.contrast and context.epoch > c.warmup_epochs)
        some_R = some_of(len(batch.at_Q), c.contrast_rows, context.generator) if contrasted else None
        noisy_RKD: Tensor | None = None
        if some_R is None:
            z_QKD = self.think(backbone, batch)
        elif c.views == "thoughts":
            z_QKD, noisy_RKD = self._both_views(backbone, batch, some_R, context)
        else:
            z_QKD = self.think(backbone, batch)
            noisy_RKD = self._second_view(backbone, batch, z_QKD, some_R, context)
        note_similarity(context, z_QKD)

        K = z_QKD.shape[1] - 1
        terms = {"next_item": score.loss(self.answer(z_QKD), y_Q, tau=c.tau)}
        if K and c.step_weight:
            early = [score.first_loss(z_QKD[:, k], y_Q, tau=c.tau * c.alpha ** (K - k)) for k in range(K)]
            terms["steps"] = c.step_weight * torch.stack(early).mean()
        if some_R is not None and noisy_RKD is not None:
            terms["contrast"] = c.contrast * self._contrast(batch, z_QKD[some_R, 1:], noisy_RKD, some_R)
        return terms

    def _second_view(self, backbone: Backbone, batch: Batch, z_QKD: Tensor, some_R: Tensor, context: Context) -> Tensor:
        """Noisy states of the drawn rows, (R, K, D), behind a history encoded anew. Each step starts from the clean state."""
        at_R = batch.at_Q[some_R]
        memory = backbone.encode(backbone.embed(batch), batch, at_Q=at_R, remember=True).memory
        noisy = [
            backbone.extend(memory, self._noisy_token(z_QKD[some_R, k], k, context), at_R)
            for k in range(self.config.steps)
        ]
        return torch.stack(noisy, dim=1)

    def _both_views(self, backbone: Backbone, batch: Batch, some_R: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Clean states (Q, K + 1, D) and noisy ones (R, K, D) as two chains behind one history."""
        at, order = torch.cat([batch.at_Q, batch.at_Q[some_R]]).sort(stable=True)
        back = order.argsort()
        seen = backbone.encode(backbone.embed(batch), batch, at_Q=batch.at_Q, remember=True)
        clean, noisy = [seen.h_QD], []
        for k in range(self.config.steps):
            tokens = [self.chain.feed(clean[-1], k), self._noisy_token(clean[-1][some_R], k, context)]
            h = backbone.extend(seen.memory, torch.cat(tokens)[order], at)[back]
            clean.append(h[: len(batch.at_Q)])
            noisy.append(h[len(batch.at_Q) :])
        return torch.stack(clean, dim=1), torch.stack(noisy, dim=1)

    def _noisy_token(self, h_RD: Tensor, k: int, context: Context) -> Tensor:
        noise_RD = torch.empty_like(h_RD).normal_(std=self.config.noise, generator=context.generator)
        return self.chain.feed(h_RD, k, noise_RD)

    def _contrast(self, batch: Batch, clean_RKD: Tensor, noisy_RKD: Tensor, some_R: Tensor) -> Tensor:
        """Each noisy state must find its clean twin among the drawn rows' states of the same step; mean over steps."""
        c = self.config
        hidden_RR = None
        if c.mask_same_target:
            hidden_RR = equal(targets(batch)[some_R], targets(batch)[some_R])
        if c.mask_same_user:
            user_R = user_of(batch, batch.at_Q[some_R])
            hidden_RR = equal(user_R, user_R) if hidden_RR is None else hidden_RR | equal(user_R, user_R)
        tau = c.tau if c.contrast_tau is None else c.contrast_tau
        terms = [info_nce(noisy_RKD[:, k], clean_RKD[:, k], tau, hidden_RR) for k in range(noisy_RKD.shape[1])]
        return torch.stack(terms).mean()
