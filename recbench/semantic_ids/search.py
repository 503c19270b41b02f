"""Spelling items under the prefix tree: the beam, the score of every item, the score of given ones. No model is named here.

Letters: B users, W beams, S searches, R rows of a model's cache, E legal next codes, C codes of a level, V item-table rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.semantic_ids.tree import Branches, PrefixTree, spans

NONE = 0
"""Stands where a beam has no item."""


class Speller(Protocol):
    """What a model shows of itself for one batch of B users: logits of the next code, and a cache that can be taken apart.

    A state is never changed: ``step`` makes a new one, so that a search may go on from the same state twice. The search normalises
    logits over the level; log-probabilities over the level may be given as well.
    """

    def begin(self) -> tuple[Any, Tensor]:
        """The state of B rows, one a user, and the logits of their first code, (B, C_0)."""
        ...

    def step(self, state: Any, parent_R: Tensor, code_R: Tensor, level: int) -> tuple[Any, Tensor]:
        """R rows a code further: row r goes on from row ``parent_R[r]`` of ``state`` and has just spelled ``code_R[r]``.

        Args:
            parent_R: rows of ``state``, user by user; one may stand here often or never: this is the cache's reordering.
            level: of the codes that the logits are about, from 1.

        Returns:
            The new state, and logits (R, C_level).
        """
        ...


class Beams(NamedTuple):
    """The best items of each user, best first. Distinct and in the catalogue by construction."""

    items_BW: Tensor
    """``NONE`` where the catalogue has no more."""
    scores_BW: Tensor
    """Log-probability of the item's path; -inf where there is none."""


@dataclass(frozen=True, slots=True)
class Norm:
    """Over which codes probabilities sum to 1.

    ``constrained``: over the legal ones, so that those of all items sum to 1; it ranks otherwise. False: over the whole level,
    then the illegal ones are left out. One choice for a run: its losses and all its searches.
    """

    constrained: bool = False

    def log_prob(self, logits_RC: Tensor, branches: Branches) -> Tensor:
        """Log-probability of each legal code, (E,) float32 or better."""
        logits_RC = logits_RC.to(torch.promote_types(logits_RC.dtype, torch.float32))
        if not self.constrained:
            return logits_RC.log_softmax(dim=1)[branches.row_E, branches.code_E]
        legal_E = logits_RC[branches.row_E, branches.code_E]
        at = branches.row_E
        peak_R = torch.full_like(logits_RC[:, 0], -torch.inf).scatter_reduce(0, at, legal_E, "amax")
        total_R = torch.zeros_like(peak_R).index_add(0, at, (legal_E - peak_R[at]).exp())
        return legal_E - peak_R[at] - total_R.log()[at]


FULL = Norm()


def beam_search(speller: Speller, tree: PrefixTree, width: int | Tensor, norm: Norm = FULL) -> Beams:
    """The ``width`` most probable paths that a beam of that width finds, as items.

    Beams only ever stand on nodes of the tree and are expanded by its branches, so what does not exist is never spelled, and what
    has probability 0 or NaN is not returned. Of equal scores the one under the better prefix comes first, then the lower code.
    Where items share a path, all of a found path are given, with equal scores, and rows may be longer than ``width``. A width of
    all leaves is the exact ranking.

    Args:
        width: of all beams, or of each user's, (B,).

    Raises:
        ValueError: a width below 1.
    """
    return beam_searches(speller, tree, [width], norm)[0]


def beam_searches(speller: Speller, tree: PrefixTree, widths: Sequence[int | Tensor], norm: Norm = FULL) -> list[Beams]:
    """Several such searches at once, each finding what it would find alone; a path that is in the beams of some is run once."""
    state, logits_RC = speller.begin()
    n_users, device = len(logits_RC), logits_RC.device
    each_SB = torch.stack([torch.as_tensor(width, device=device).expand(n_users) for width in widths])
    if (each_SB < 1).any():
        raise ValueError(f"a beam has a width of at least 1, not {int(each_SB.min())}")
    user_R = torch.arange(n_users, device=device)
    node_R = torch.zeros_like(user_R)
    score_R = torch.zeros(n_users, device=device, dtype=torch.promote_types(logits_RC.dtype, torch.float32))
    in_SR = torch.ones_like(each_SB, dtype=torch.bool)
    for level in range(len(tree)):
        found = tree.branches(level, node_R)
        score_E = score_R[found.row_E] + norm.log_prob(logits_RC, found)
        kept, in_SR = _best(score_E, user_R[found.row_E], in_SR[:, found.row_E], each_SB)
        parent_R, code_R = found.row_E[kept], found.code_E[kept]
        user_R, node_R, score_R = user_R[parent_R], found.child_E[kept], score_E[kept]
        if not len(node_R):  # every beam is dead: the model has diverged
            break
        if level + 1 < len(tree):
            state, logits_RC = speller.step(state, parent_R, code_R, level + 1)
    return [_as_items(tree, user_R[in_R], node_R[in_R], score_R[in_R], n_users) for in_R in in_SR]


def drawn_items(speller: Speller, tree: PrefixTree, count: int, generator: torch.Generator) -> Tensor:
    """``count`` items of each user, drawn independently, (B, count): each code from the softmax over those that lead to an item.

    An item is drawn as often as ``Norm(constrained=True)`` says, whatever the norm of a run's searches. Items that share a path are
    equally likely.
    """
    state, logits_BC = speller.begin()
    n_users, device = len(logits_BC), logits_BC.device
    parent_R = torch.arange(n_users, device=device).repeat_interleave(count)
    node_R, logits_RC = torch.zeros_like(parent_R), logits_BC[parent_R]
    for level in range(len(tree)):
        found = tree.branches(level, node_R)
        kept = _one_a_row(Norm(constrained=True).log_prob(logits_RC, found), found.row_E, len(node_R), generator)
        node_R, code_R = found.child_E[kept], found.code_E[kept]
        if level + 1 < len(tree):
            state, logits_RC = speller.step(state, parent_R, code_R, level + 1)
            parent_R = torch.arange(len(node_R), device=device)
    first_R = tree.leaf_starts[node_R]
    size_R = tree.leaf_starts[node_R + 1] - first_R
    within_R = torch.rand(len(node_R), generator=generator, device=device, dtype=torch.float64) * size_R
    return tree.leaf_items[first_R + within_R.long()].view(n_users, count)


def exact_scores(speller: Speller, tree: PrefixTree, norm: Norm = FULL, rows: int = 4096) -> Tensor:
    """Log-probability of every item for every user, (B, V - 1); column j is item j + 1. Each prefix is run once.

    Args:
        rows: of a model's cache held at once, about; the tree is walked in pieces of neighbouring nodes.
    """
    state, logits_BC = speller.begin()
    dtype = torch.promote_types(logits_BC.dtype, torch.float32)
    leaf_BF = torch.full((len(logits_BC), tree.n_leaves), -torch.inf, device=logits_BC.device, dtype=dtype)
    at_zero = torch.zeros(len(logits_BC), 1, device=logits_BC.device, dtype=dtype)
    _descend(
        _Walk(speller, tree, norm, max(1, rows // max(1, len(logits_BC))), leaf_BF), state, logits_BC, 0, 0, at_zero
    )
    return leaf_BF[:, tree.leaf_of_V[1:]]


def path_log_prob(speller: Speller, tree: PrefixTree, items_B: Tensor, norm: Norm = FULL) -> Tensor:
    """Log-probability of one item a user, (B,): what a beam should have found, whether or not it did."""
    leaf_B = tree.leaf_of_V[items_B]
    state, logits_BC = speller.begin()
    node_B = torch.zeros_like(leaf_B)
    score_B = torch.zeros(len(leaf_B), device=leaf_B.device)
    every_B = torch.arange(len(leaf_B), device=leaf_B.device)
    nodes = ancestors(tree, leaf_B)
    for level in range(len(tree)):
        found = tree.branches(level, node_B)
        node_B = nodes[level]
        on_path_E = found.child_E == node_B[found.row_E]
        score_B = score_B + norm.log_prob(logits_BC, found)[on_path_E]
        if level + 1 < len(tree):
            state, logits_BC = speller.step(state, every_B, found.code_E[on_path_E], level + 1)
    return score_B


def along_path(logits: Iterable[Tensor], tree: PrefixTree, items_R: Tensor, norm: Norm = FULL) -> Tensor:
    """Log-probability of every code of given items, (R, M), with gradient.

    Args:
        logits: of each level's code behind the codes before it, (R, C) a level.
    """
    node_R, parts = torch.zeros_like(items_R), []
    nodes = ancestors(tree, tree.leaf_of_V[items_R])
    for level, (logits_RC, next_R) in enumerate(zip(logits, nodes, strict=True)):
        found = tree.branches(level, node_R)
        parts.append(norm.log_prob(logits_RC, found)[found.child_E == next_R[found.row_E]])
        node_R = next_R
    return torch.stack(parts, dim=1)


def search_errors(beams: Beams, items_B: Tensor, log_prob_B: Tensor) -> Tensor:
    """Where a beam lost an item that beats its last one, (B,) bool: the price of a narrow beam.

    Args:
        log_prob_B: of ``items_B``, by ``path_log_prob``.
    """
    missing_B = (beams.items_BW != items_B[:, None]).all(dim=1)
    is_there_BW = beams.items_BW != NONE
    last_B = torch.where(is_there_BW, beams.scores_BW, torch.inf).amin(dim=1)
    return missing_B & (log_prob_B > last_B)


def ancestors(tree: PrefixTree, leaf_B: Tensor) -> list[Tensor]:
    """The node of each level, from 1 to the leaf itself, that leads to each leaf."""
    nodes = [leaf_B]
    for level in range(len(tree) - 1, 0, -1):
        nodes.append(torch.searchsorted(tree.starts[level], nodes[-1], right=True) - 1)
    return nodes[::-1]


def _best(score_E: Tensor, user_E: Tensor, in_SE: Tensor, width_SB: Tensor) -> tuple[Tensor, Tensor]:
    """Places of the entries that some search keeps, user by user and best first, (R,), and which keep each, (S, R).

    A search keeps each user's ``width_SB`` best of its own entries, ``in_SE``; -inf and NaN are nobody's.
    """
    order = torch.argsort(torch.where(score_E.isnan(), -torch.inf, score_E), descending=True, stable=True)
    order = order[score_E[order] > -torch.inf]
    order = order[torch.argsort(user_E[order], stable=True)]
    user_E, in_SE = user_E[order], in_SE[:, order]
    counts_B = torch.bincount(user_E, minlength=width_SB.shape[1])
    before_SE = F.pad(in_SE.cumsum(1), (1, 0))  # own entries in front of each, of all users
    place_SE = before_SE[:, :-1] - before_SE[:, (counts_B.cumsum(0) - counts_B)[user_E]]
    kept_SE = in_SE & (place_SE < width_SB[:, user_E])
    kept_E = kept_SE.any(0)
    return order[kept_E], kept_SE[:, kept_E]


def _one_a_row(log_p_E: Tensor, row_E: Tensor, n_rows: int, generator: torch.Generator) -> Tensor:
    """The place of one entry of each row, drawn with these log-probabilities: the largest under Gumbel noise."""
    wait_E = torch.empty_like(log_p_E, dtype=torch.float64).exponential_(generator=generator)
    key_E = log_p_E.double() - wait_E.log()
    best_R = key_E.new_full((n_rows,), -torch.inf).scatter_reduce(0, row_E, key_E, "amax")
    first = (key_E == best_R[row_E]).nonzero()[:, 0]
    return torch.zeros(n_rows, dtype=torch.int64, device=row_E.device).scatter(0, row_E[first], first)


def _as_items(tree: PrefixTree, user_R: Tensor, leaf_R: Tensor, score_R: Tensor, n_users: int) -> Beams:
    """Rows of leaves as a rectangle of items, at least one wide."""
    first_R = tree.leaf_starts[leaf_R]
    row_E, at_E = spans(first_R, tree.leaf_starts[leaf_R + 1] - first_R)
    user_E = user_R[row_E]
    counts_B = torch.bincount(user_E, minlength=n_users)
    within_E = torch.arange(len(user_E), device=user_E.device) - (counts_B.cumsum(0) - counts_B)[user_E]
    shape = (n_users, max(1, int(counts_B.max())))
    items_BW = torch.full(shape, NONE, device=leaf_R.device)
    scores_BW = torch.full(shape, -torch.inf, device=leaf_R.device, dtype=score_R.dtype)
    items_BW[user_E, within_E] = tree.leaf_items[at_E]
    scores_BW[user_E, within_E] = score_R[row_E]
    return Beams(items_BW, scores_BW)


class _Walk(NamedTuple):
    """What stays the same while ``exact_scores`` descends."""

    speller: Speller
    tree: PrefixTree
    norm: Norm
    breadth: int
    """Nodes a piece."""
    leaf_BF: Tensor


def _descend(walk: _Walk, state: Any, logits_RC: Tensor, level: int, first: int, score_BK: Tensor) -> None:
    """Score all leaves below nodes ``first .. first + K - 1`` of ``level``; ``logits_RC`` are of B x K rows, users outside."""
    tree, (n_users, n_nodes) = walk.tree, score_BK.shape
    node_R = torch.arange(first, first + n_nodes, device=score_BK.device).repeat(n_users)
    found = tree.branches(level, node_R)
    score_E = score_BK.flatten()[found.row_E] + walk.norm.log_prob(logits_RC, found)
    score_BJ = score_E.view(n_users, -1)  # the same nodes for every user, so the same J children
    child = int(tree.starts[level][first])
    if level + 1 == len(tree):
        walk.leaf_BF[:, child : child + score_BJ.shape[1]] = score_BJ
        return
    row_BJ, code_BJ = found.row_E.view(n_users, -1), found.code_E.view(n_users, -1)
    for start in range(0, score_BJ.shape[1], walk.breadth):
        piece = slice(start, start + walk.breadth)
        new_state, logits = walk.speller.step(state, row_BJ[:, piece].flatten(), code_BJ[:, piece].flatten(), level + 1)
        _descend(walk, new_state, logits, level + 1, child + start, score_BJ[:, piece])
