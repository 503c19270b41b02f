"""What recurrent backbones share: packed tokens in order of time, and the states that chains of thoughts go on from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recbench.data.batching import Rows


@dataclass(slots=True)
class Chains:
    """The hidden states of a batch in every layer, and once somebody has thought, where each chain stands."""

    tokens_LNC: list[Tensor]
    chains_LQC: list[Tensor] | None = None

    def states(self, at_Q: Tensor) -> list[Tensor]:
        """Every layer's state (Q, C) that the next thought behind each token ``at_Q`` starts from."""
        if self.chains_LQC is None:
            self.chains_LQC = [tokens_NC[at_Q] for tokens_NC in self.tokens_LNC]
        return self.chains_LQC

    def move(self, now_LQC: list[Tensor], live_Q: Tensor | None) -> None:
        """Let the chains stand where a thought has led them; those that are not live stay where they were."""
        if live_Q is not None and self.chains_LQC is not None:
            keep = live_Q[:, None]
            now_LQC = [torch.where(keep, now, before) for now, before in zip(now_LQC, self.chains_LQC, strict=True)]
        self.chains_LQC = now_LQC


@dataclass(frozen=True, slots=True)
class TimeMajor:
    """The tokens of a packed batch by position: position 0 of all rows, then position 1 of those that have one, and so on.

    Within a position the longest rows come first, as ``nn.utils.rnn.PackedSequence`` wants them.
    """

    token_N: Tensor
    """Which token stands at each place."""
    place_N: Tensor
    """Where each token stands."""
    sizes_T: Tensor
    """Rows that have a token at each position, on the CPU."""

    @classmethod
    def of(cls, rows: Rows) -> TimeMajor:
        """Of the rows of a batch, which ascend by length."""
        position = np.arange(rows.n_tokens) - np.repeat(rows.starts, rows.lengths)
        token = rows.n_tokens - 1 - np.argsort(position[::-1], kind="stable")
        place = np.empty_like(token)
        place[token] = np.arange(rows.n_tokens)
        sizes = torch.from_numpy(np.bincount(position))
        return cls(torch.from_numpy(token).to(rows.device), torch.from_numpy(place).to(rows.device), sizes)
