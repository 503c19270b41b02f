"""Pause: as many extra steps as a reasoning head takes, each fed a learned constant. The compute control.

What a head gains over this it owes to what it feeds back, not to more tokens, as long as pauses do no harm themselves: a
constant's state has no residual path from the newest item, and on small data that costs more than the tokens bring
(docs/findings.md). So look at ``none``, too. Compare Goyal et al., "Think before you speak: Training Language Models With Pause
Tokens", arXiv 2310.02226.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from recbench.backbones.base import Backbone
from recbench.data.batching import Batch
from recbench.limits import below_one
from recbench.reasoning.base import Context, ReasoningHead, Stage, targets
from recbench.reasoning.chain import Chain
from recbench.reasoning.diagnostics import note_similarity
from recbench.scoring.base import Score


@final
class Pause(ReasoningHead):
    """K pause tokens behind each position; the last one's state answers."""

    stages = (Stage("train"),)

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """How long to pause."""

        steps: int = 2
        """K, pause tokens."""
        feed_dropout: float = 0.2
        """On the tokens."""

        def __post_init__(self) -> None:
            if self.steps < 1:
                raise ValueError(f"steps is {self.steps}; a pause takes at least 1. Without any it is --reason none.")
            below_one(self, "feed_dropout")

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.chain = Chain(backbone, config.steps, dropout=config.feed_dropout, fed="constant")

    def think(self, backbone: Backbone, batch: Batch, steps: int | None = None) -> Tensor:
        return self.chain.run(backbone, batch, steps)

    def answer(self, z_QKD: Tensor) -> Tensor:
        return z_QKD[:, -1]

    def losses(self, backbone: Backbone, batch: Batch, score: Score, context: Context) -> dict[str, Tensor]:
        z_QKD = self.think(backbone, batch)
        note_similarity(context, z_QKD)
        return {"next_item": score.loss(self.answer(z_QKD), targets(batch))}
