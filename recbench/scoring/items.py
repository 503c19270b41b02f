"""Dot products with an item table: what all scores over item ids share, whatever loss trains them.

Ranks, lists and log-probabilities are over the whole catalogue under every loss.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.kernels.products import times_transposed
from recbench.scoring.base import Divergence, Score
from recbench.scoring.counting import count
from recbench.scoring.log_sum_exp import log_sum_exp
from recbench.scoring.pooled import pooled_loss
from recbench.scoring.precision import in_whole_precision

CHUNK_ROWS = 128
"""Rows of logits held at once. 128 x 12,000 floats stay in a CPU's cache; measured best of 64 to 1,024 on CPU."""
CHUNK_ROWS_GPU = 2048
"""The same on a GPU, where launches cost more than memory."""


class ItemScore(Score):
    """Scores u . e_j of all items j.

    Args:
        table: gives the item table (V, D) with its padding row 0; called anew each time, so that gradients reach it.
        config: of the loss's own ``Config``; None: its defaults.
    """

    def __init__(self, table: Callable[[], Tensor], chunk_rows: int | None = None, config: Any = None) -> None:
        self._table = table
        self._chunk_rows = chunk_rows
        self.config = self.Config() if config is None else config

    @abstractmethod
    def loss(self, u_ND: Tensor, target_N: Tensor, *, tau: float = 1.0, frozen: bool = False) -> Tensor: ...

    @in_whole_precision
    def pooled(
        self,
        z_NKD: Tensor,
        target_N: Tensor,
        *,
        mix_MK: Tensor,
        tau: float = 1.0,
        divergence: float = 0.0,
        form: Divergence = "code",
    ) -> tuple[Tensor, Tensor]:
        none_0K, chunk = mix_MK[:0], max(16, self._chunk(z_NKD) // 2)
        mixed = [torch.einsum("k,nkd->nd", mix_K.to(z_NKD), z_NKD) for mix_K in mix_MK]
        loss = torch.stack([self.loss(u_ND, target_N, tau=tau) for u_ND in mixed]).sum()
        if not divergence or z_NKD.shape[1] == 1:
            return loss, loss.new_zeros(())
        nothing, apart = pooled_loss(z_NKD, self._table(), target_N, none_0K, tau, divergence, form, chunk)
        return loss + nothing, apart

    @in_whole_precision
    def log_prob(self, u_ND: Tensor, items_NG: Tensor, *, tau: float = 1.0, frozen: bool = False) -> Tensor:
        table_VD = self._trained(frozen)
        own_NG = (u_ND[:, None] * F.embedding(items_NG, table_VD)).sum(-1) / tau
        return (own_NG - log_sum_exp(u_ND, table_VD, tau, self._chunk(u_ND))[:, None])[..., None]

    @torch.no_grad()
    @in_whole_precision
    def top(self, u_ND: Tensor, g: int) -> Tensor:
        chunk = self._chunk(u_ND)
        return torch.cat([times_transposed(u, self.items()).topk(g).indices + 1 for u in u_ND.split(chunk)])

    @torch.no_grad()
    @in_whole_precision
    def draw(self, u_ND: Tensor, g: int, generator: torch.Generator) -> Tensor:
        drawn = []
        for u in u_ND.split(self._chunk(u_ND)):
            below_CV = times_transposed(u, self.items()).softmax(1).cumsum(1, dtype=torch.float64)
            uniform_CG = torch.rand(len(u), g, generator=generator, device=u.device, dtype=torch.float64)
            at_CG = torch.searchsorted(below_CV, uniform_CG * below_CV[:, -1:], right=True)
            drawn.append(at_CG.clamp_max(below_CV.shape[1] - 1) + 1)
        return torch.cat(drawn)

    @torch.no_grad()
    @in_whole_precision
    def place(
        self,
        u_ND: Tensor,
        target_N: Tensor,
        *,
        within: int | None = None,  # noqa: ARG002 all are looked at anyway
    ) -> tuple[Tensor, Tensor]:
        above, tied = torch.empty_like(target_N), torch.empty_like(target_N)
        e_VD, none = self.items(), target_N.new_empty(0)
        chunk = self._chunk(u_ND)
        for first in range(0, len(u_ND), chunk):
            here = slice(first, first + chunk)
            counts = count(times_transposed(u_ND[here], e_VD), target_N[here], none, none)
            above[here], tied[here] = counts.above, counts.tied
        return above, tied

    def items(self) -> Tensor:
        return self._table()[1:]

    def _trained(self, frozen: bool) -> Tensor:
        """The item table, detached where no gradient may reach it."""
        return self._table().detach() if frozen else self._table()

    def _chunk(self, u_ND: Tensor) -> int:
        return self._chunk_rows or (CHUNK_ROWS if u_ND.device.type == "cpu" else CHUNK_ROWS_GPU)
