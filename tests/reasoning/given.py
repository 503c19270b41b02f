"""What the tests of the ReaRec heads share: exact systems, batches, losses of given thoughts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.data.batching import Batch, TrainingRows
from recbench.reasoning.base import Context
from recbench.recommender import ItemRecommender
from recbench.scoring.softmax import ItemSoftmax
from tests.systems import CPU, histories, packed, small_backbone, small_head, small_system

ROWS = [[3], [5, 6], [7, 8, 9], [1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4, 3, 2, 1]]
ALIKE = [[1, 2, 3], [4, 2, 3, 2], [5, 6, 1, 3, 7]]
"""As training rows these have targets 2, 3 | 2, 3, 2 | 6, 1, 3, 7: some alike within a user, some between users."""


def context(epoch: int = 1, seed: int = 5) -> Context:
    return Context("train", torch.Generator().manual_seed(seed), None, epoch=epoch, epochs=4, step=1, steps=1)


def exact(head: str, backbone: str = "sasrec", **changes: object) -> ItemRecommender:
    """A small system in float64 without dropout, ready for gradients."""
    return small_system(backbone, head, changes=changes).double().eval()


def training_batch(rows: list[list[int]], *, every_position: bool = True) -> Batch:
    made = TrainingRows(histories(rows, times=True), max_length=12, window="last", every_position=every_position)
    return next(made.batches(1_000, np.random.default_rng(0), CPU))


def given(name: str, z_QKD: Tensor, table_VD: Tensor, target_Q: Tensor, **changes: object) -> dict[str, Tensor]:
    """The losses of a head whose thoughts are ``z_QKD``, without contrast."""
    backbone = small_backbone("sasrec")
    head = small_head(name, backbone, **changes)
    head.think = lambda *_: z_QKD
    batch = packed([list(range(1, len(target_Q) + 1))])
    batch = Batch(batch.items_N, batch.rows, batch.at_Q, target_Q, batch.users_B)
    return head.losses(backbone, batch, ItemSoftmax(lambda: table_VD), context(epoch=0))


def example(rows: int = 6, states: int = 3, width: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(rows, states, width, generator=generator, dtype=torch.float64, requires_grad=True)
    table = torch.randn(10, width, generator=generator, dtype=torch.float64, requires_grad=True)
    return z, table, torch.randint(1, 10, (rows,), generator=generator)


def cross_entropy(u: Tensor, table: Tensor, target: Tensor, tau: float = 1.0) -> Tensor:
    return F.cross_entropy(u @ table[1:].T / tau, target - 1)


def record(backbone: torch.nn.Module) -> list[Tensor]:
    """Every token that ``extend`` is given from now on."""
    fed: list[Tensor] = []
    extend: Callable[..., Tensor] = backbone.extend

    def recorded(memory: object, x_QD: Tensor, at_Q: Tensor) -> Tensor:
        fed.append(x_QD)
        return extend(memory, x_QD, at_Q)

    backbone.extend = recorded
    return fed
