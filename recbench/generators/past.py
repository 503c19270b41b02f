"""Attention of codes being spelled: over the history of their answer, which many spellings share, and over their own path.

Letters: **R** codes spelled at once, **L** codes of a path so far; others as in ``backbones/base.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recbench.backbones.packing import Asked, Weigh, heads, rectangle
from recbench.data.batching import Bucket, Rows

Path = tuple[Tensor, Tensor]
"""Keys and values (R, L, D) of the codes spelled so far, in one layer."""


class Past:
    """Keys and values of a batch's histories in one layer. A history is laid out once and never copied for its spellings."""

    def __init__(self, k_ND: Tensor, v_ND: Tensor, rows: Rows, n_heads: int) -> None:
        self.k_ND, self.v_ND = k_ND, v_ND
        self.rows = rows
        self.n_heads = n_heads
        self._made: dict[int, tuple[Tensor, Tensor]] = {}

    def of(self, bucket: Bucket) -> tuple[Tensor, Tensor]:
        """Keys and values of a bucket's rows, (rows, H, width, D / H) each."""
        if bucket.first not in self._made:
            k, v = (heads(rectangle(x_ND, bucket), bucket.rows, self.n_heads) for x_ND in (self.k_ND, self.v_ND))
            self._made[bucket.first] = k, v
        return self._made[bucket.first]


@dataclass(slots=True)
class Branch:
    """One step of spelling in one layer. Its path grows by a copy, so that others may go on from the same path."""

    past: Past
    layout: Sequence[Asked]
    """Where each of the R codes stands: the asked token of its answer."""
    path: Path | None = None

    def attend(
        self,
        q_QD: Tensor,
        weigh: Weigh,
        thought: tuple[Tensor, Tensor] | None = None,
        live_Q: Tensor | None = None,  # noqa: ARG002 a code is always seen by the next
    ) -> Tensor:
        """As ``packing.Seen.attend``, for a layer that does not care which of the two it asks."""
        if thought is not None:
            self.path = longer(self.path, *thought)
        mixed = []
        for place, asked in enumerate(self.layout):
            k, v = self.past.of(asked.bucket)
            q = heads(asked.spread(q_QD), asked.bucket.rows, self.past.n_heads)
            scores, hidden = q @ k.transpose(2, 3), asked.hidden_BPT[:, None]
            if self.path is not None:
                own_k, own_v = (self._own(x_RLD, asked) for x_RLD in self.path)
                own = (q[..., None, :] * own_k).sum(-1)
                scores = torch.cat([scores, own], -1)
                hidden = torch.cat([hidden, hidden.new_zeros(*hidden.shape[:3], own.shape[-1])], -1)
            weight = weigh(place, scores, hidden)
            out = weight[..., : k.shape[2]] @ v
            if self.path is not None:
                out = out + (weight[..., k.shape[2] :, None] * own_v).sum(-2)
            mixed.append(asked.gather(out))
        return torch.cat(mixed) if len(mixed) > 1 else mixed[0]

    def _own(self, x_RLD: Tensor, asked: Asked) -> Tensor:
        """(rows, H, P, L, D / H)."""
        R, L, D = x_RLD.shape
        x = asked.spread(x_RLD.reshape(R, L * D)).view(asked.bucket.rows, asked.width, L, self.past.n_heads, -1)
        return x.permute(0, 3, 1, 2, 4)


def longer(path: Path | None, k_RD: Tensor, v_RD: Tensor) -> Path:
    """The path with one code more."""
    if path is None:
        return k_RD[:, None], v_RD[:, None]
    return torch.cat([path[0], k_RD[:, None]], 1), torch.cat([path[1], v_RD[:, None]], 1)
