"""Attention over packed rows: each bucket of similar lengths becomes a small rectangle, and only there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.data.batching import Bucket, Rows
from recbench.kernels.dropout import drop


class _Spread(torch.autograd.Function):
    """Tokens to cells of a rectangle; empty cells are 0. Its backward is a gather, many times cheaper than index_add."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, cell_N: Tensor, cells: int) -> Tensor:
        """(N, D) to (cells, D)."""
        ctx.save_for_backward(cell_N)
        return x_ND.new_zeros(cells, x_ND.shape[1]).index_copy_(0, cell_N, x_ND)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Gather."""
        (cell_N,) = ctx.saved_tensors
        return grads[0].index_select(0, cell_N), None, None


class _Gather(torch.autograd.Function):
    """Cells of a rectangle back to tokens. Each cell is taken at most once, so backward is a plain copy."""

    @staticmethod
    def forward(ctx: Any, x_CD: Tensor, cell_N: Tensor) -> Tensor:
        """(cells, D) to (N, D)."""
        ctx.save_for_backward(cell_N)
        ctx.cells = x_CD.shape[0]
        return x_CD.index_select(0, cell_N)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Copy into zeros."""
        (cell_N,) = ctx.saved_tensors
        return grads[0].new_zeros(ctx.cells, grads[0].shape[1]).index_copy_(0, cell_N, grads[0]), None


def _spread(x_ND: Tensor, cell_N: Tensor, cells: int) -> Tensor:
    spread: Tensor = _Spread.apply(x_ND, cell_N, cells)  # type: ignore[no-untyped-call] # torch leaves apply untyped
    return spread


def _gather(x_CD: Tensor, cell_N: Tensor) -> Tensor:
    gathered: Tensor = _Gather.apply(x_CD, cell_N)  # type: ignore[no-untyped-call] # torch leaves apply untyped
    return gathered


def rectangles(x_ND: Tensor, rows: Rows) -> list[Tensor]:
    """The tokens of each bucket of rows as a rectangle (rows, width, D); cells behind the end of a row are 0."""
    return [rectangle(x_ND, bucket).view(bucket.rows, bucket.width, -1) for bucket in rows.buckets]


def rectangle(x_ND: Tensor, bucket: Bucket) -> Tensor:
    """The tokens of one bucket as its flat rectangle, (rows x width, D); cells behind the end of a row are 0."""
    x = x_ND[bucket.first : bucket.last]
    return x if bucket.cell_N is None else _spread(x, bucket.cell_N, bucket.rows * bucket.width)


def tokens(rectangles: Sequence[Tensor], rows: Rows) -> Tensor:
    """Rectangles (rows, width, D), one a bucket, back as tokens (N, D); cells behind the end of a row are dropped."""
    packed = [
        y.flatten(0, 1) if bucket.cell_N is None else _gather(y.flatten(0, 1), bucket.cell_N)
        for y, bucket in zip(rectangles, rows.buckets, strict=True)
    ]
    return torch.cat(packed) if len(packed) > 1 else packed[0]


def over_buckets(x_ND: Tensor, rows: Rows, mix: Callable[[Tensor], Tensor]) -> Tensor:
    """``mix`` applied to each bucket of rows as a rectangle, (N, D) to (N, D').

    Args:
        mix: (rows, width, D) to (rows, width, D'); cells behind the end of a row are 0 and what it makes of them is dropped. A
            causal mix needs no mask for them: they stand to the right.
    """
    return tokens([mix(rectangle) for rectangle in rectangles(x_ND, rows)], rows)


def over_filled_buckets(x_ND: Tensor, rows: Rows, mix: Callable[[Tensor, Tensor | None], Tensor]) -> Tensor:
    """``over_buckets`` for a mix that looks both ways: it is also told which cells are empty, (rows, width); None: none is."""
    mixed = [
        mix(rectangle, _empty(bucket, rectangle))
        for rectangle, bucket in zip(rectangles(x_ND, rows), rows.buckets, strict=True)
    ]
    return tokens(mixed, rows)


def _empty(bucket: Bucket, x_BTD: Tensor) -> Tensor | None:
    """Cells of a bucket's rectangle that hold no token, (rows, width); None where all do."""
    if bucket.cell_N is None:
        return None
    empty = torch.ones(bucket.rows * bucket.width, dtype=torch.bool, device=x_BTD.device)
    return empty.index_fill_(0, bucket.cell_N, False).view(bucket.rows, bucket.width)


def causal(q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, dropout: float) -> Tensor:
    """Causal attention of a rectangle of rows, (B, H, T, d)."""
    if not dropout or q_BHTd.device.type != "cpu":
        return F.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd, dropout_p=dropout, is_causal=True)
    scores_BHTT = (q_BHTd * q_BHTd.shape[-1] ** -0.5) @ k_BHTd.transpose(2, 3)
    later_TT = torch.ones(scores_BHTT.shape[-2:], dtype=torch.bool).triu(1)
    return drop(scores_BHTT.masked_fill(later_TT, -torch.inf).softmax(-1), dropout) @ v_BHTd


def bidirectional(
    q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, dropout: float, empty_BT: Tensor | None = None
) -> Tensor:
    """Attention of a rectangle of rows over all of their tokens, (B, H, T, d); what it gives at empty cells means nothing."""
    hidden = None if empty_BT is None else empty_BT[:, None, None, :]
    if not dropout or q_BHTd.device.type != "cpu":
        mask = None if hidden is None else ~hidden
        return F.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd, attn_mask=mask, dropout_p=dropout)
    scores_BHTT = (q_BHTd * q_BHTd.shape[-1] ** -0.5) @ k_BHTd.transpose(2, 3)
    if hidden is not None:
        scores_BHTT = scores_BHTT.masked_fill(hidden, -torch.inf)
    return drop(scores_BHTT.softmax(-1), dropout) @ v_BHTd


@dataclass(frozen=True, slots=True)
class Asked:
    """The asked tokens of one bucket as a rectangle of rows x ``width``."""

    bucket: Bucket
    first: int
    last: int
    """Queries ``first:last`` stand in this bucket."""
    width: int
    cell_Q: Tensor
    hidden_BPT: Tensor
    """Must the query not see the item? Item 0 of a row is always seen, so that no softmax is empty."""

    def spread(self, x_QD: Tensor) -> Tensor:
        """Rows of all queries to this bucket's rectangle, (rows x width, D); empty cells are 0."""
        return _spread(x_QD[self.first : self.last], self.cell_Q, self.bucket.rows * self.width)

    def gather(self, x_BHPd: Tensor) -> Tensor:
        """Heads of this rectangle's cells back to queries, (last - first, D)."""
        return _gather(x_BHPd.transpose(1, 2).flatten(0, 1).flatten(1), self.cell_Q)

    def spread_heads(self, x_QLD: Tensor, n_heads: int) -> Tensor:
        """L tokens a query to heads of this rectangle's cells, (rows, H, width, L, D / H); empty cells are 0."""
        x_CF = self.spread(x_QLD.flatten(1))
        return x_CF.view(self.bucket.rows, self.width, x_QLD.shape[1], n_heads, -1).permute(0, 3, 1, 2, 4)

    def gather_heads(self, x_BHPLd: Tensor) -> Tensor:
        """And back, (last - first, L, D)."""
        x_QF = self.gather(x_BHPLd.permute(0, 3, 1, 2, 4).flatten(1, 2))
        return x_QF.unflatten(1, (x_BHPLd.shape[3], -1))


def asked_layout(rows: Rows, at_Q: Tensor, *, both_ways: bool = False) -> list[Asked]:
    """Where each asked token stands among its bucket's rows. ``at_Q`` ascends; a token may stand in it more than once.

    Args:
        both_ways: an asked token sees its whole row, not only what stands before it.
    """
    at = at_Q.cpu().numpy()
    row = np.searchsorted(rows.starts, at, side="right") - 1
    found, first_row = [], 0
    for bucket in rows.buckets:
        first, last = np.searchsorted(row, [first_row, first_row + bucket.rows])
        if last > first:
            inside = row[first:last] - first_row
            counts = np.bincount(inside, minlength=bucket.rows)
            width = int(counts.max())
            rank = np.arange(last - first) - np.repeat(np.cumsum(counts) - counts, counts)
            cell = inside * width + rank
            position = np.zeros(bucket.rows * width, dtype=np.int64)
            position[cell] = at[first:last] - rows.starts[row[first:last]]
            reach = position.reshape(bucket.rows, width, 1)
            if both_ways:
                reach = rows.lengths[first_row : first_row + bucket.rows, None, None] - 1
            hidden = np.broadcast_to(reach < np.arange(bucket.width), (bucket.rows, width, bucket.width)).copy()
            found.append(
                Asked(
                    bucket,
                    int(first),
                    int(last),
                    width,
                    torch.from_numpy(cell).to(rows.device),
                    torch.from_numpy(hidden).to(rows.device),
                )
            )
        first_row += bucket.rows
    return found


class Places:
    """Where thoughts stand: each behind its token and its chain's earlier thoughts. One that is not live takes up no place.

    Args:
        rows: of the batch.
        at_Q: the asked tokens.
    """

    def __init__(self, rows: Rows, at_Q: Tensor) -> None:
        self._free_Q = rows.position_N[at_Q] + 1
        self.taken: list[Tensor] = []
        """Place (Q,) of every thought so far, as positions in the row; of those not live, too."""

    def take(self, live_Q: Tensor | None) -> Tensor:
        """Place of one more thought behind each asked token, (Q,)."""
        place_Q = self._free_Q
        self.taken.append(place_Q)
        self._free_Q = place_Q + (1 if live_Q is None else live_Q.long())
        return place_Q


Weigh = Callable[[int, Tensor, Tensor], Tensor]
"""From (place of the bucket in the layout, products of queries and keys (rows, H, P, C), where not to look (rows, 1, P, C)) to
weights. The first columns are the row's items, the others the chain's thoughts, oldest first."""


def softmax(dropout: float) -> Weigh:
    """Weights that add to 1, some of them dropped."""
    return lambda _, scores_BHPC, hidden_BPC: drop(
        scores_BHPC.masked_fill_(hidden_BPC, -torch.inf).softmax(-1), dropout
    )


class Attending(Protocol):
    """What a layer asks for the attention of latent tokens: items of their row and what was said before, somehow kept."""

    def attend(
        self,
        q_QD: Tensor,
        weigh: Weigh,
        thought: tuple[Tensor, Tensor] | None = None,
        live_Q: Tensor | None = None,
    ) -> Tensor:
        """See ``Seen.attend``."""
        ...


class Seen:
    """Keys and values of one layer as the asked tokens see them: those of their row's items, and of thoughts said since.

    Made once for a batch and read by every thought; each bucket's are a rectangle (rows, H, width, D / H).
    """

    def __init__(self, k_ND: Tensor, v_ND: Tensor, layout: list[Asked], n_heads: int) -> None:
        self.layout = layout
        self.n_heads = n_heads
        self._items = [(self._of_items(k_ND, asked.bucket), self._of_items(v_ND, asked.bucket)) for asked in layout]
        self._thoughts: list[list[tuple[Tensor, Tensor, Tensor | None]]] = [[] for _ in layout]

    def attend(
        self,
        q_QD: Tensor,
        weigh: Weigh,
        thought: tuple[Tensor, Tensor] | None = None,
        live_Q: Tensor | None = None,
    ) -> Tensor:
        """Attention of the asked tokens alone, (Q, D): over the items of their row up to themselves, and their own thoughts.

        Args:
            thought: key and value (Q, D) of one more thought behind each asked token. It sees itself, and is seen by those to come.
            live_Q: False where they shall not see it.
        """
        mixed = []
        for place, (asked, (k, v), said) in enumerate(zip(self.layout, self._items, self._thoughts, strict=True)):
            q = self._of_queries(q_QD, asked)
            now = list(said)
            if thought is not None:
                key, value = (self._of_queries(x_QD, asked) for x_QD in thought)
                now.append((key, value, None))
                said.append((key, value, None if live_Q is None else self._hidden(live_Q, asked)))
            scores = torch.cat([q @ k.transpose(2, 3), *((q * key).sum(-1, keepdim=True) for key, _, _ in now)], -1)
            weight = weigh(place, scores, self._not_seen(asked, now))
            out = weight[..., : k.shape[2]] @ v
            for column, (_, value, _) in enumerate(now, k.shape[2]):
                out = torch.addcmul(out, weight[..., column, None], value)
            mixed.append(asked.gather(out))
        return torch.cat(mixed) if len(mixed) > 1 else mixed[0]

    def _not_seen(self, asked: Asked, thoughts: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> Tensor:
        """(rows, 1, P, C): where a query must not look."""
        hidden_BPT = asked.hidden_BPT[:, None]
        if not thoughts:
            return hidden_BPT
        never = hidden_BPT.new_zeros(()).expand(*hidden_BPT.shape[:3], 1)
        return torch.cat([hidden_BPT, *(never if hidden is None else hidden for _, _, hidden in thoughts)], -1)

    def _of_items(self, x_ND: Tensor, b: Bucket) -> Tensor:
        return heads(rectangle(x_ND, b), b.rows, self.n_heads)

    def _of_queries(self, x_QD: Tensor, asked: Asked) -> Tensor:
        return heads(asked.spread(x_QD), asked.bucket.rows, self.n_heads)

    def _hidden(self, live_Q: Tensor, asked: Asked) -> Tensor:
        live = asked.spread(live_Q[:, None].float()).bool()
        return ~live.view(asked.bucket.rows, 1, asked.width, 1)


def heads(x_CD: Tensor, rows: int, n_heads: int) -> Tensor:
    """(rows x width, D) to (rows, H, width, D / H)."""
    return x_CD.view(rows, x_CD.shape[0] // rows, n_heads, -1).transpose(1, 2)
