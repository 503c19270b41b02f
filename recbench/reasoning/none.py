"""No reasoning: the last state is the answer. The control every head is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from recbench.backbones.base import Backbone
from recbench.data.batching import Batch
from recbench.reasoning.base import Context, ReasoningHead, Stage, targets
from recbench.scoring.base import Score


@final
class NoReasoning(ReasoningHead):
    """One state, no thought."""

    stages = (Stage("train"),)
    scalable = False

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Nothing to set."""

    def think(self, backbone: Backbone, batch: Batch, steps: int | None = None) -> Tensor:  # noqa: ARG002 the contract's
        return backbone.encode(backbone.embed(batch), batch, at_Q=batch.at_Q).h_QD[:, None]

    def answer(self, z_QKD: Tensor) -> Tensor:
        return z_QKD[:, -1]

    def losses(self, backbone: Backbone, batch: Batch, score: Score, context: Context) -> dict[str, Tensor]:  # noqa: ARG002 the contract's
        return {"next_item": score.loss(self.answer(self.think(backbone, batch)), targets(batch))}
