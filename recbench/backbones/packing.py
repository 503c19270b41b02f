"""Attention over packed rows: each bucket of similar lengths becomes a small rectangle, and only there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


def over_buckets(x_ND: Tensor, rows: Rows, mix: Callable[[Tensor], Tensor]) -> Tensor:
    """``mix`` applied to each bucket of rows as a rectangle, (N, D) to (N, D').

    Args:
        mix: (rows, width, D) to (rows, width, D'); cells behind the end of a row are 0 and what it makes of them is dropped. A
            causal mix needs no mask for them: they stand to the right.
    """
    return over_filled_buckets(x_ND, rows, lambda x_BTD, _: mix(x_BTD))


def over_filled_buckets(x_ND: Tensor, rows: Rows, mix: Callable[[Tensor, Tensor | None], Tensor]) -> Tensor:
    """``over_buckets`` for a mix that looks both ways: it is also told which cells are empty, (rows, width); None: none is."""
    mixed = []
    for bucket in rows.buckets:
        x = x_ND[bucket.first : bucket.last]
        if bucket.cell_N is None:
            y = mix(x.view(bucket.rows, bucket.width, -1), None).flatten(0, 1)
        else:
            cells = bucket.rows * bucket.width
            rectangle = _spread(x, bucket.cell_N, cells).view(bucket.rows, bucket.width, -1)
            empty = torch.ones(cells, dtype=torch.bool, device=x.device).index_fill_(0, bucket.cell_N, False)
            y = _gather(mix(rectangle, empty.view(bucket.rows, bucket.width)).flatten(0, 1), bucket.cell_N)
        mixed.append(y)
    return torch.cat(mixed) if len(mixed) > 1 else mixed[0]


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
class _Asked:
    """The asked tokens of one bucket as a rectangle of rows x ``width``."""

    bucket: Bucket
    first: int
    last: int
    """Queries ``first:last`` stand in this bucket."""
    width: int
    cell_Q: Tensor
    visible_BPT: Tensor
    """May the query see the item? Item 0 of a row is always seen, so that no softmax is empty."""


def asked_layout(rows: Rows, at_Q: Tensor, *, both_ways: bool = False) -> list[_Asked]:
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
            visible = np.broadcast_to(reach >= np.arange(bucket.width), (bucket.rows, width, bucket.width)).copy()
            found.append(
                _Asked(
                    bucket,
                    int(first),
                    int(last),
                    width,
                    torch.from_numpy(cell).to(rows.device),
                    torch.from_numpy(visible).to(rows.device),
                )
            )
        first_row += bucket.rows
    return found


class Seen:
    """Keys and values of one layer as the asked tokens see them: those of their row's items, and of thoughts said since.

    Made once for a batch and read by every thought; each bucket's are a rectangle (rows, H, width, D / H).
    """

    def __init__(self, k_ND: Tensor, v_ND: Tensor, layout: list[_Asked], n_heads: int) -> None:
        self.layout = layout
        self.n_heads = n_heads
        self._items = [(self._of_items(k_ND, asked.bucket), self._of_items(v_ND, asked.bucket)) for asked in layout]
        self._thoughts: list[list[tuple[Tensor, Tensor, Tensor | None]]] = [[] for _ in layout]

    def attend(
        self,
        q_QD: Tensor,
        dropout: float,
        thought: tuple[Tensor, Tensor] | None = None,
        live_Q: Tensor | None = None,
    ) -> Tensor:
        """Attention of the asked tokens alone, (Q, D): over the items of their row up to themselves, and their own thoughts.

        Args:
            thought: key and value (Q, D) of one more thought behind each asked token. It sees itself, and is seen by those to come.
            live_Q: False where they shall not see it.
        """
        mixed = []
        for asked, (k, v), said in zip(self.layout, self._items, self._thoughts, strict=True):
            q = self._of_queries(q_QD, asked) * (q_QD.shape[1] // self.n_heads) ** -0.5
            scores = (q @ k.transpose(2, 3)).masked_fill_(~asked.visible_BPT[:, None], -torch.inf)
            now = list(said)
            if thought is not None:
                key, value = (self._of_queries(x_QD, asked) for x_QD in thought)
                now.append((key, value, None))
                said.append((key, value, None if live_Q is None else self._hidden(live_Q, asked)))
            columns = [scores]
            for key, _, hidden in now:
                column = (q * key).sum(-1, keepdim=True)
                columns.append(column if hidden is None else column.masked_fill(hidden, -torch.inf))
            weight = drop(torch.cat(columns, -1).softmax(-1), dropout)
            out = weight[..., : k.shape[2]] @ v
            for place, (_, value, _) in enumerate(now):
                out = torch.addcmul(out, weight[..., k.shape[2] + place, None], value)
            mixed.append(_gather(out.transpose(1, 2).flatten(0, 1).flatten(1), asked.cell_Q))
        return torch.cat(mixed) if len(mixed) > 1 else mixed[0]

    def _of_items(self, x_ND: Tensor, b: Bucket) -> Tensor:
        x = x_ND[b.first : b.last]
        return _heads(x if b.cell_N is None else _spread(x, b.cell_N, b.rows * b.width), b.rows, self.n_heads)

    def _of_queries(self, x_QD: Tensor, asked: _Asked) -> Tensor:
        rows = asked.bucket.rows
        return _heads(_spread(x_QD[asked.first : asked.last], asked.cell_Q, rows * asked.width), rows, self.n_heads)

    def _hidden(self, live_Q: Tensor, asked: _Asked) -> Tensor:
        cells = asked.bucket.rows * asked.width
        live = _spread(live_Q[asked.first : asked.last, None].float(), asked.cell_Q, cells).bool()
        return ~live.view(asked.bucket.rows, 1, asked.width, 1)


def _heads(x_CD: Tensor, rows: int, n_heads: int) -> Tensor:
    """(rows x width, D) to (rows, H, width, D / H)."""
    return x_CD.view(rows, x_CD.shape[0] // rows, n_heads, -1).transpose(1, 2)
