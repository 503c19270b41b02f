"""Backbones whose layers mix all tokens of a row: a thought is appended as the newest event and the window encoded again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from recbench.backbones.base import Backbone, Encoded
from recbench.backbones.initial import initialise
from recbench.backbones.postnorm import EPS
from recbench.data.batching import Batch, Rows
from recbench.data.dataset import ranges
from recbench.kernels.dropout import Dropout


class Sizes(Protocol):
    """What the config of such a backbone holds at least."""

    @property
    def width(self) -> int:
        """D."""

    @property
    def max_length(self) -> int:
        """N, tokens of the window."""

    @property
    def dropout(self) -> float:
        """On the input."""

    @property
    def initial_sd(self) -> float:
        """Of all weights."""


class WindowBackbone(Backbone):
    """A table of items, positions counted from the newest event, and layers over a window of ``max_length`` events.

    A layer takes (N, D), ``Rows`` and the asked tokens or None, and gives states of all tokens or of the asked ones.
    """

    causal = False
    post_norm = True

    def __init__(self, config: Sizes, n_items: int, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.max_length = config.max_length
        self.items = nn.Embedding(n_items + 1, config.width, padding_idx=0)
        self.positions = nn.Embedding(config.max_length, config.width)
        self.norm = nn.LayerNorm(config.width, eps=EPS)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(layers)
        self.n_layers = len(self.layers)
        initialise(self, config.initial_sd)

    def embed(self, batch: Batch) -> Tensor:
        x_ND = self.items(batch.items_N) + self.positions(batch.rows.age_N)
        return cast("Tensor", self.dropout(self.norm(x_ND)))

    def encode(
        self,
        x_ND: Tensor,
        batch: Batch,
        *,
        start: int = 0,
        stop: int | None = None,
        at_Q: Tensor | None = None,
        remember: bool = False,
    ) -> Encoded:
        memory = Window(x_ND, batch.rows, self.max_length) if remember else None
        return Encoded(self._run(x_ND, batch.rows, at_Q, start, stop), memory)

    def extend(self, memory: Any, x_QD: Tensor, at_Q: Tensor, *, live_Q: Tensor | None = None) -> Tensor:
        states: Tensor = memory.think(self._run, x_QD, at_Q, live_Q)
        return states

    def item_vectors(self) -> Tensor:
        return self.items.weight

    def _run(self, x_ND: Tensor, rows: Rows, at_Q: Tensor | None, start: int = 0, stop: int | None = None) -> Tensor:
        layers = self.layers[start:stop]
        for depth, layer in enumerate(layers):
            x_ND = layer(x_ND, rows, at_Q if depth == len(layers) - 1 else None)
        return x_ND if at_Q is None or len(layers) else x_ND[at_Q]


@dataclass(slots=True)
class Window:
    """What a thought is appended to: the first layer's input of a batch, and every chain's thoughts so far."""

    x_ND: Tensor
    rows: Rows
    longest: int
    """Tokens a window holds; with more its oldest fall out."""
    said: list[tuple[Tensor, np.ndarray]] = field(default_factory=list)
    """Tokens (Q, D) of each call, and which of them are live."""

    def think(
        self, encode: Callable[[Tensor, Rows, Tensor], Tensor], x_QD: Tensor, at_Q: Tensor, live_Q: Tensor | None
    ) -> Tensor:
        """States (Q, D) of one more thought behind each token ``at_Q``, and remember it.

        Args:
            encode: states of tokens (N, D), laid out as rows, at some of them: all layers.
        """
        Q = len(at_Q)
        live = np.ones(Q, dtype=bool) if live_Q is None else live_Q.cpu().numpy()
        order, lengths, source = self._laid(at_Q.cpu().numpy())
        tokens = torch.cat([self.x_ND, *(x for x, _ in self.said), x_QD])
        self.said.append((x_QD, live))
        device = x_QD.device
        rows = Rows(lengths, device)
        h_QD = encode(tokens.index_select(0, torch.from_numpy(source).to(device)), rows, rows.last_B)
        return h_QD.index_select(0, torch.from_numpy(np.argsort(order)).to(device))

    def _laid(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Chains by length of window; those lengths; and for each token its place among items, thoughts so far, new thoughts."""
        Q, N = len(at), len(self.x_ND)
        row = np.searchsorted(self.rows.starts, at, side="right") - 1
        spoken = np.stack([live for _, live in self.said], axis=1) if self.said else np.zeros((Q, 0), dtype=bool)
        n_thoughts = np.minimum(spoken.sum(1) + 1, self.longest)
        n_items = np.minimum(at - self.rows.starts[row] + 1, self.longest - n_thoughts)
        lengths = n_items + n_thoughts
        order = np.argsort(lengths, kind="stable")
        lengths = lengths[order]
        source = np.empty(int(lengths.sum()), dtype=np.int64)
        first = np.cumsum(lengths) - lengths
        source[ranges(first, n_items[order])] = ranges(at[order] - n_items[order] + 1, n_items[order])
        place = N + np.arange(len(self.said) + 1) * Q + np.arange(Q)[:, None]
        heard = np.concatenate([spoken, np.ones((Q, 1), dtype=bool)], axis=1)[order]
        newest = heard.sum(1, keepdims=True) - np.cumsum(heard, axis=1) < n_thoughts[order, None]
        source[ranges(first + n_items[order], n_thoughts[order])] = place[order][heard & newest]
        return order, lengths, source
