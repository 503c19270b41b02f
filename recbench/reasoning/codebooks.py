"""Codes of items for heads that learn them: residual k-means over unit vectors, one book of codes a level.

Letters: **V** item-table rows, **A** width of item vectors, **L** levels, **C** codes of a level, **P** vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.errors import Exit, RecbenchError
from recbench.semantic_ids.rkmeans import ResidualKMeans

SEED = 0
"""Of the clusters: the same in every stage."""


class Codebooks:
    """The codes of all items.

    Args:
        x_VA: vectors; zeros where nothing is known. Their length means nothing.
        setting: what asks for codes, as its user wrote it, for a refusal.
        made_of: what the vectors are made of, for the same.

    Raises:
        RecbenchError: there are fewer items with a vector than codes.
    """

    def __init__(self, x_VA: Tensor, levels: int, codes: int, setting: str, made_of: str) -> None:
        self.x_VA = F.normalize(x_VA, dim=1)
        self.known_V = self.x_VA.square().sum(1) > 0
        if int(self.known_V.sum()) < codes:
            raise RecbenchError(
                f"{setting}, but only {int(self.known_V.sum()):,} items have a vector.",
                why=f"Each of {codes} codes of a level needs an item. Vectors are made of {made_of} here.",
                fix="--set head.anchor=auto, or prepare the dataset with --metadata",
                code=Exit.DATA,
            )
        found = ResidualKMeans().fit(self.x_VA[self.known_V].cpu().numpy(), levels, codes, SEED)
        self.books = [torch.from_numpy(book).to(x_VA.device) for book in found.codebooks]

    def distances(self, r_PA: Tensor) -> list[Tensor]:
        """Squared distances to the codes of each level, of what the levels before left over, (P, C) each."""
        out = []
        for book in self.books:
            distance_PC = torch.cdist(r_PA, book).square()
            r_PA = r_PA - book[distance_PC.argmin(1)]
            out.append(distance_PC)
        return out

    def codes(self) -> Tensor:
        """The nearest codes of each item, (V, L); -1 where nothing is known of it."""
        codes_VL = torch.stack([distance_VC.argmin(1) for distance_VC in self.distances(self.x_VA)], 1)
        return torch.where(self.known_V[:, None], codes_VL, -1)


def code_loss(readers: nn.ModuleList, e_ND: Tensor, codes_NL: Tensor) -> Tensor:
    """Mean over items of the cross-entropy of their codes, read off their vectors, summed over levels; in float32.

    Args:
        readers: W_l, one a level, (N, D) to (N, C).
        codes_NL: items without codes (-1) are left out; if no item has any it is 0.
    """
    known_N = codes_NL[:, 0] >= 0
    if not bool(known_N.any()):
        return e_ND.new_zeros(())
    with torch.autocast(e_ND.device.type, enabled=False):
        e_ND, codes_NL = e_ND[known_N].float(), codes_NL[known_N]
        return torch.stack([F.cross_entropy(W(e_ND), codes_NL[:, level]) for level, W in enumerate(readers)]).sum()
