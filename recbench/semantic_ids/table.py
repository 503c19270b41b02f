"""The table of semantic ids: M small integers an item, made unique; and what a report says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from recbench.semantic_ids.sinkhorn import equal_rows

PAD, BEGIN, END = 0, 1, 2
"""Special tokens in front of the codes' own."""
N_SPECIAL = 3
GROUPS_SHOWN = 5
"""Groups of equal codes that a report names, the largest first."""


@dataclass(frozen=True, slots=True)
class SemanticIds:
    """Codes of all items. Letters: V item-table rows (row 0 is padding), M codes an item, C codes of a level."""

    codes_VM: np.ndarray
    """(V, M) int16; row 0 is -1. Rows are unique but under ``accept``."""
    level_sizes: tuple[int, ...]
    """C of each level; the last is the suffix's where there is one, at least 1."""
    codebooks: tuple[np.ndarray, ...]
    """(C, W) float32 of each quantised level; they may be fewer than M."""
    card: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.codes_VM.shape[1]

    @property
    def n_items(self) -> int:
        """V - 1."""
        return len(self.codes_VM) - 1

    @property
    def n_tokens(self) -> int:
        """Specials and the codes of all levels: each level has tokens of its own."""
        return N_SPECIAL + sum(self.level_sizes)

    @property
    def offsets(self) -> np.ndarray:
        """Token of code 0 of each level, (M,)."""
        return N_SPECIAL + np.cumsum([0, *self.level_sizes[:-1]])

    def tokens(self) -> np.ndarray:
        """Tokens of each item, (V, M) int64; row 0 is padding."""
        tokens_VM = self.codes_VM.astype(np.int64) + self.offsets
        tokens_VM[0] = PAD
        return tokens_VM


class TooManyAlikeError(ValueError):
    """A group of items with equal codes is larger than the suffix allows. ``group`` holds their places, from 0."""

    def __init__(self, group: np.ndarray, max_suffix: int) -> None:
        super().__init__(f"{len(group)} items have equal codes; max_suffix is {max_suffix}")
        self.group = group


def suffixes(codes_NL: np.ndarray, seed: int, max_suffix: int) -> np.ndarray:
    """The code that makes each row unique, (N,) int64: 0 for a row of its own, 0 .. g - 1 in a group of g equal rows.

    The order in a group is drawn, so it tells neither time nor popularity.

    Raises:
        TooManyAlikeError: a group is larger than ``max_suffix``.
    """
    suffix_N = np.zeros(len(codes_NL), dtype=np.int64)
    for group in equal_rows(codes_NL):
        if len(group) > max_suffix:
            raise TooManyAlikeError(group, max_suffix)
        suffix_N[np.random.default_rng([seed, int(group[0])]).permutation(group)] = np.arange(len(group))
    return suffix_N


def table_of(codes_NL: np.ndarray, level_sizes: Sequence[int], codebooks: Sequence[np.ndarray]) -> SemanticIds:
    """The table whose row i + 1 is ``codes_NL[i]``."""
    codes_VM = np.full((len(codes_NL) + 1, codes_NL.shape[1]), -1, dtype=np.int16)
    codes_VM[1:] = codes_NL
    return SemanticIds(codes_VM, tuple(int(size) for size in level_sizes), tuple(codebooks))


def appended(table: SemanticIds, codes_KL: np.ndarray) -> SemanticIds:
    """The table with K more items behind the others: each takes the next suffix that is free on its path, nobody is renumbered.

    Args:
        codes_KL: quantised codes of the new items, without suffix; L is M - 1.

    Raises:
        ValueError: codes that the table's levels do not have.
    """
    if codes_KL.shape[1] != len(table) - 1:
        raise ValueError(f"new items have {codes_KL.shape[1]} codes; this table takes {len(table) - 1} and a suffix")
    if (codes_KL < 0).any() or (codes_KL >= np.array(table.level_sizes[:-1])).any():
        raise ValueError(f"a new item has a code outside of the levels' sizes {table.level_sizes[:-1]}")
    free: dict[tuple[int, ...], int] = {}
    for *path, suffix in table.codes_VM[1:].tolist():
        free[tuple(path)] = max(free.get(tuple(path), 0), suffix + 1)
    rows = []
    for path in map(tuple, codes_KL.tolist()):
        rows.append([*path, free.get(path, 0)])
        free[path] = free.get(path, 0) + 1
    codes_NM = np.concatenate([table.codes_VM[1:].astype(np.int64), np.array(rows, dtype=np.int64)])
    sizes = (*table.level_sizes[:-1], int(codes_NM[:, -1].max()) + 1)
    return replace(table_of(codes_NM, sizes, table.codebooks), card=table.card)


def report(codes_NL: np.ndarray, level_sizes: Sequence[int]) -> dict[str, Any]:
    """How well codes are used and how often they collide, before they are made unique.

    ``collision_rate`` is 1 - paths / items; ``items_in_groups`` is the share of items that are not alone on their path: a pair
    counts once in the first and twice in the second. ``perplexity`` is e to the entropy of a level's codes: as many codes, used
    equally often, would spread the items as much.
    """
    groups = sorted(equal_rows(codes_NL), key=len, reverse=True)
    n_items = len(codes_NL)
    n_paths = n_items - sum(len(group) - 1 for group in groups)
    levels = []
    for level, size in enumerate(level_sizes):
        counts = np.bincount(codes_NL[:, level], minlength=size)
        share = counts[counts > 0] / n_items
        levels.append(
            {
                "codes": int(size),
                "used": int((counts > 0).sum()),
                "perplexity": float(np.exp(-(share * np.log(share)).sum())),
                "largest": int(counts.max()),
                "prefixes": len(np.unique(codes_NL[:, : level + 1], axis=0)),
            }
        )
    return {
        "items": n_items,
        "paths": n_paths,
        "collision_rate": 1 - n_paths / n_items,
        "items_in_groups": sum(map(len, groups)) / n_items,
        "groups": len(groups),
        "largest_group": len(groups[0]) if groups else 1,
        "largest_groups": [[int(place) + 1 for place in group] for group in groups[:GROUPS_SHOWN]],
        "levels": levels,
    }
