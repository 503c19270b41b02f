"""Tables and a small random model for tests of the tree and the search."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recbench.semantic_ids.table import SemanticIds, suffixes, table_of


def random_table(n_items: int, sizes: tuple[int, ...], seed: int = 0, *, unique: bool = True) -> SemanticIds:
    """Drawn codes, with a suffix unless rows may be equal."""
    codes_NL = np.column_stack(
        [np.random.default_rng([seed, level]).integers(c, size=n_items) for level, c in enumerate(sizes)]
    )
    if not unique:
        return table_of(codes_NL, sizes, ())
    suffix_N = suffixes(codes_NL, seed, n_items)
    return table_of(np.column_stack([codes_NL, suffix_N]), (*sizes, int(suffix_N.max()) + 1), ())


class Recurrent:
    """A random recurrent net over codes: logits depend on the user and on every code so far. Counts the rows it runs."""

    def __init__(self, table: SemanticIds, n_users: int, seed: int = 0, sharpness: float = 1.0) -> None:
        drawn = torch.Generator().manual_seed(seed)
        self.user_BD = torch.randn(n_users, 16, generator=drawn, dtype=torch.float64)
        self.mix = torch.randn(16, 16, generator=drawn, dtype=torch.float64) / 4
        self.codes = [torch.randn(c, 16, generator=drawn, dtype=torch.float64) for c in table.level_sizes]
        self.out = [torch.randn(16, c, generator=drawn, dtype=torch.float64) * sharpness for c in table.level_sizes]
        self.rows_run = 0

    def begin(self) -> tuple[Tensor, Tensor]:
        return self.user_BD, self.user_BD @ self.out[0]

    def step(self, state: Tensor, parent_R: Tensor, code_R: Tensor, level: int) -> tuple[Tensor, Tensor]:
        self.rows_run += len(parent_R)
        new = torch.tanh(state[parent_R] @ self.mix + self.codes[level - 1][code_R])
        return new, new @ self.out[level]


def by_hand(model: Recurrent, table: SemanticIds, user: int, item: int) -> float:
    """Log-probability of an item's path, code by code."""
    state_D, total = model.user_BD[user], 0.0
    for level, code in enumerate(table.codes_VM[item].tolist()):
        total += float((state_D @ model.out[level]).log_softmax(dim=0)[code])
        state_D = torch.tanh(state_D @ model.mix + model.codes[level][code])
    return total
