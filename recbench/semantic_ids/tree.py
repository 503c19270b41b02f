"""The prefix tree of a table: which codes may follow a prefix, as flat index arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from recbench.semantic_ids.table import SemanticIds


class Branches(NamedTuple):
    """The legal next codes of R nodes, E of them in all, node by node and codes ascending."""

    row_E: Tensor
    """Which of the R rows each belongs to."""
    code_E: Tensor
    child_E: Tensor
    """The node of the next level that the code leads to."""
    counts_R: Tensor
    """Legal codes of each row; at least 1, as every node leads to an item."""


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """All prefixes of all items. Level l has a node for each distinct prefix of l codes; node 0 of level 0 is the empty one.

    Nodes of a level stand in the order of their codes, so the children of one node are neighbours, and so are those of neighbours.
    Nothing is dense: the arrays hold one entry a node, 0.7 MB for 12,000 items, whatever the number of codes.
    """

    starts: tuple[Tensor, ...]
    """Of level l, (nodes_l + 1,): the children of node n are nodes ``starts[n]:starts[n + 1]`` of level l + 1."""
    codes: tuple[Tensor, ...]
    """Of level l, (nodes_(l+1),): the code that leads to each of them."""
    leaf_starts: Tensor
    """(leaves + 1,): the items of leaf f are ``leaf_items[leaf_starts[f]:leaf_starts[f + 1]]``; one each where rows are unique."""
    leaf_items: Tensor
    """(N,) item ids."""
    leaf_of_V: Tensor
    """(V,) leaf of each item; -1 for padding."""
    level_sizes: tuple[int, ...]

    @classmethod
    def of(cls, table: SemanticIds) -> PrefixTree:
        """The tree of a table. N log N, once."""
        codes_NM = torch.from_numpy(table.codes_VM[1:].astype("int64"))
        paths_FM, leaf_N = torch.unique(codes_NM, dim=0, return_inverse=True)  # sorted, first code first
        starts, codes = [], []
        parent_F = torch.zeros(len(paths_FM), dtype=torch.int64)
        n_parents = 1
        for level in range(paths_FM.shape[1]):
            new_F = torch.ones(len(paths_FM), dtype=torch.bool)
            new_F[1:] = (parent_F[1:] != parent_F[:-1]) | (paths_FM[1:, level] != paths_FM[:-1, level])
            counts = torch.bincount(parent_F[new_F], minlength=n_parents)
            starts.append(_starts(counts))
            codes.append(paths_FM[new_F, level])
            parent_F = new_F.cumsum(0) - 1
            n_parents = len(codes[-1])
        leaf_of_V = torch.full((table.n_items + 1,), -1)
        leaf_of_V[1:] = leaf_N
        items = torch.argsort(leaf_N, stable=True) + 1
        leaf_starts = _starts(torch.bincount(leaf_N, minlength=len(paths_FM)))
        return cls(tuple(starts), tuple(codes), leaf_starts, items, leaf_of_V, table.level_sizes)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def n_items(self) -> int:
        """N."""
        return len(self.leaf_items)

    @property
    def n_leaves(self) -> int:
        """Distinct full paths; N where rows are unique."""
        return len(self.leaf_starts) - 1

    def nodes(self, level: int) -> int:
        """Distinct prefixes of ``level`` codes."""
        return len(self.starts[level]) - 1 if level < len(self) else self.n_leaves

    def to(self, device: torch.device) -> PrefixTree:
        """The same tree on a device."""
        return PrefixTree(
            tuple(part.to(device) for part in self.starts),
            tuple(part.to(device) for part in self.codes),
            self.leaf_starts.to(device),
            self.leaf_items.to(device),
            self.leaf_of_V.to(device),
            self.level_sizes,
        )

    def branches(self, level: int, node_R: Tensor) -> Branches:
        """What may follow ``node_R``, nodes of ``level``."""
        first_R = self.starts[level][node_R]
        counts_R = self.starts[level][node_R + 1] - first_R
        row_E, child_E = spans(first_R, counts_R)
        return Branches(row_E, self.codes[level][child_E], child_E, counts_R)

    def allowed(self, level: int, node_R: Tensor) -> Tensor:
        """The same as a mask, (R, C): True where a code may follow. For models that want one."""
        found = self.branches(level, node_R)
        mask_RC = torch.zeros(len(node_R), self.level_sizes[level], dtype=torch.bool, device=node_R.device)
        mask_RC[found.row_E, found.code_E] = True
        return mask_RC

    def walk(self, codes_RK: Tensor) -> Tensor:
        """The node that each prefix of K codes leads to, (R,); -1 where no item begins so."""
        node_R = torch.zeros(len(codes_RK), dtype=torch.int64, device=codes_RK.device)
        for level in range(codes_RK.shape[1]):
            size = self.level_sizes[level]
            parent = torch.repeat_interleave(
                torch.arange(self.nodes(level), device=node_R.device), self.starts[level].diff()
            )
            key = parent * size + self.codes[level]  # ascending: nodes stand in the order of their codes
            code_R = codes_RK[:, level]
            wanted_R = node_R * size + code_R
            at_R = torch.searchsorted(key, wanted_R).clamp(max=len(key) - 1)
            found_R = (node_R >= 0) & (code_R >= 0) & (code_R < size) & (key[at_R] == wanted_R)
            node_R = torch.where(found_R, at_R, -1)
        return node_R


def spans(first_R: Tensor, counts_R: Tensor) -> tuple[Tensor, Tensor]:
    """For each row r the numbers ``first_R[r] .. first_R[r] + counts_R[r] - 1``: (row, number), both (E,)."""
    row_E = torch.repeat_interleave(torch.arange(len(first_R), device=first_R.device), counts_R)
    before_R = counts_R.cumsum(0) - counts_R
    return row_E, torch.arange(len(row_E), device=first_R.device) + (first_R - before_R)[row_E]


def _starts(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
