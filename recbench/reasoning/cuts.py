"""Which asked tokens of a training batch think, and whose last training targets are kept for a later stage.

Letters: **O** asked tokens that may be taken.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recbench.data.batching import Batch, TrainingRows
from recbench.reasoning.contrast import user_of


def some_a_row(row_O: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Places (ascending) of ``count`` tokens a row, drawn uniformly; all of a row that has no more.

    Args:
        row_O: row of each token, ascending.
    """
    key_O = torch.rand(len(row_O), generator=generator, device=row_O.device, dtype=torch.float64)
    order_O = (row_O.double() + key_O).argsort()
    counts = torch.unique_consecutive(row_O, return_counts=True)[1]
    start_O = (counts.cumsum(0) - counts).repeat_interleave(counts)
    place_O = torch.arange(len(row_O), device=row_O.device) - start_O
    return order_O[place_O < count].sort().values


def held_out(batch: Batch, rows: TrainingRows | None, share: float) -> Tensor:
    """Is each asked token's target the last training target of one of this share of users? (Q,) bool, the same in every epoch.

    Raises:
        ValueError: the batch is not one of training.
    """
    if rows is None or batch.place_Q is None:
        raise ValueError("training batches say which events their targets are")
    is_last_Q = torch.from_numpy(rows.is_last(batch.place_Q)).to(batch.at_Q.device)
    return is_last_Q & (_user_share(user_of(batch, batch.at_Q)) < share)


def _user_share(user_Q: Tensor) -> Tensor:
    """A number in [0, 1) a user, always the same."""
    return ((user_Q * 2_654_435_761) % 4_294_967_296).double() / 4_294_967_296
