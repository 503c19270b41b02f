"""Attention of codes being spelled: over the history of their answer, which many spellings share, and over their own path.

Letters: **R** spellings at once, **L** codes of each that are new, **N** codes of a path with them; others as in
``backbones/base.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recbench.backbones.packing import Asked, Weigh, heads, rectangle
from recbench.data.batching import Bucket, Rows

Path = tuple[Tensor, Tensor]
"""Keys and values (R, N, D) of the codes spelled so far, in one layer."""


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
    """A step of spelling in one layer: some codes more, each of which sees those before it.

    Its path grows by a copy, so that others may go on from the same path.
    """

    past: Past
    layout: Sequence[Asked]
    """Where each of the R spellings stands: the asked token of its answer."""
    path: Path | None = None
    length: int = 1
    """L. Tokens of one spelling stand one behind the other among those that attend."""

    def attend(
        self,
        q_QD: Tensor,
        weigh: Weigh,
        thought: tuple[Tensor, Tensor] | None = None,
        live_Q: Tensor | None = None,  # noqa: ARG002 a code is always seen by the next
    ) -> Tensor:
        """As ``packing.Seen.attend``, for a layer that does not care which of the two it asks."""
        L, n_heads = self.length, self.past.n_heads
        if thought is not None:
            self.path = longer(self.path, *(x_QD.unflatten(0, (-1, L)) for x_QD in thought))
        q_RLD, mixed = q_QD.unflatten(0, (-1, L)), []
        for place, asked in enumerate(self.layout):
            k, v = self.past.of(asked.bucket)
            q = asked.spread_heads(q_RLD, n_heads)
            scores = q.flatten(2, 3) @ k.transpose(2, 3)
            hidden = repeated(asked.hidden_BPT, L)
            if self.path is not None:
                own_k, own_v = (asked.spread_heads(x_RND, n_heads) for x_RND in self.path)
                own = (q[..., None, :] * own_k[:, :, :, None]).sum(-1).flatten(2, 3)
                scores = torch.cat([scores, own], -1)
                later = behind(L, own.shape[-1], own.device).repeat(asked.width, 1)
                hidden = torch.cat([hidden, later.expand(len(hidden), 1, *later.shape)], -1)
            weight = weigh(place, scores, hidden)
            out = (weight[..., : k.shape[2]] @ v).unflatten(2, (-1, L))
            if self.path is not None:
                own = weight[..., k.shape[2] :].unflatten(2, (-1, L))
                out = out + (own[..., None] * own_v[:, :, :, None]).sum(-2)
            mixed.append(asked.gather_heads(out))
        return (torch.cat(mixed) if len(mixed) > 1 else mixed[0]).flatten(0, 1)


def longer(path: Path | None, k_RLD: Tensor, v_RLD: Tensor) -> Path:
    """The path with these codes more."""
    return (k_RLD, v_RLD) if path is None else (torch.cat([path[0], k_RLD], 1), torch.cat([path[1], v_RLD], 1))


def length(paths: Sequence[Path] | None) -> int:
    """Codes of paths, one a layer; 0 of none."""
    return 0 if paths is None else paths[0][0].shape[1]


def behind(L: int, N: int, device: torch.device) -> Tensor:
    """Which of a path's N codes stand behind each of the L last, (L, N)."""
    return torch.ones(L, N, dtype=torch.bool, device=device).triu(N - L + 1)


def repeated(hidden_BPT: Tensor, L: int) -> Tensor:
    """What a spelling must not see, for each of its L tokens, (rows, 1, P x L, T)."""
    return hidden_BPT[:, None, :, None].expand(-1, -1, -1, L, -1).flatten(2, 3)
