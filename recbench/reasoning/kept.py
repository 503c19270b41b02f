"""Segments that were found once and are looked up in training: a range of rows of one table of vectors for each target.

Letters: **P** targets asked for, **R** targets with segments, **E** segments of all of them, **U** vectors, **S** segments of one
target at most, **A** width of a vector.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


class KeptSegments:
    """The segments of some training targets; several may share a vector, which is kept once.

    Args:
        place_R: where the targets stand in the training part (``Batch.place_Q``), ascending.
        count_R: how many segments each has.
        row_E: the vector of each segment, those of the first target first.
        x_UA: vectors.
    """

    def __init__(self, place_R: np.ndarray, count_R: np.ndarray, row_E: np.ndarray, x_UA: Tensor) -> None:
        self.place_R = place_R
        self.start_R = np.concatenate([[0], np.cumsum(count_R)])
        self.row_E = np.append(row_E, len(x_UA))
        self.x_UA = F.pad(x_UA, (0, 0, 0, 1))
        """With a last row of zeros, for what is not there."""

    def of(self, place_P: np.ndarray, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """The first ``most`` segments of each target, zeros behind them, (P, S, A); how many, (P,); is it a known target? (P,)."""
        at_P = np.searchsorted(self.place_R, place_P).clip(max=len(self.place_R) - 1)
        known_P = self.place_R[at_P] == place_P
        count_P = np.where(known_P, self.start_R[at_P + 1] - self.start_R[at_P], 0).clip(max=most)
        s_S = np.arange(most)
        row_PS = self.row_E[np.where(s_S < count_P[:, None], self.start_R[at_P][:, None] + s_S, -1)]
        device = self.x_UA.device
        x_PSA = self.x_UA[torch.from_numpy(row_PS).to(device)]
        return x_PSA, torch.from_numpy(count_P).to(device), torch.from_numpy(known_P).to(device)
