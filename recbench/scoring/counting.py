"""Where each query's true item stands, by exact counts without a sort under both candidate rules; and the best k items.

Shapes: **B** queries, **V** items (column j scores item j + 1; padding has no column), **N** events of the B histories,
**K** places, **R** rows that need more work.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_BYTES = {"cpu": 1 << 21, "cuda": 1 << 28}
"""Scratch of one chunk of rows: about the second-level cache of a CPU core; on a GPU enough rows to fill it."""
TOP_CHUNK_BYTES = {"cpu": 1 << 22, "cuda": 1 << 28}
GROUP = 16
"""Columns to a group when the largest values are looked for."""
EXCLUDED = 2
"""Tier of an item that may not be listed."""
LARGEST_EXACT_SUM = {torch.float32: 1 << 24, torch.float64: 1 << 53}


@dataclass(frozen=True, slots=True)
class Counts:
    """What a user's metrics follow from, every field ``(B,)``.

    For target i with score s_i: ``above`` = #{j != i : not (s_j <= s_i)}, ``tied`` = #{j != i : s_j == s_i}. NaN counts
    against the target: a target that is NaN is below every other candidate.
    """

    above: Tensor
    """Items that beat the target, int64."""
    tied: Tensor
    """Items that equal the target, int64."""
    above_unseen: Tensor
    """Over items outside the query's history. A target that stands in the history is no candidate: as many as there are items."""
    tied_unseen: Tensor
    nan: Tensor
    """True where the target's score is NaN: the run diverged."""
    repeated: Tensor
    """True where the target stands in the query's history: a miss under the unseen rule."""

    @property
    def diverged(self) -> bool:
        """Whether any target's score is NaN."""
        return bool(self.nan.any())


def count(
    scores_BV: Tensor, target_B: Tensor, seen: Tensor, seen_row: Tensor, *, scratch: Tensor | None = None
) -> Counts:
    """How many items beat each target and how many equal it, over all items and over the unseen ones.

    Args:
        scores_BV: float32 or float64: coarser scores tie by rounding.
        target_B: item ids, from 1.
        seen: ``(N,)`` item ids of the queries' histories, in any order, repeats allowed.
        seen_row: ``(N,)`` which query each belongs to.
        scratch: what ``scratch_for`` gave, for reuse over blocks.

    Raises:
        ValueError: scores of another type, or an id outside 1..V.
    """
    n_items = scores_BV.shape[1]
    _check(scores_BV, target_B, seen)
    at_B1 = target_B.long()[:, None] - 1
    own_B1 = scores_BV.gather(1, at_B1)
    at_most_B, equal_B = _at_most_and_equal(scores_BV, own_B1, scratch)

    nan_B = own_B1[:, 0].isnan()
    above_B = n_items - at_most_B - nan_B.long()  # the target is among the at-most, unless it is NaN: then nothing is
    tied_B = equal_B - (~nan_B).long()

    row, item, is_first = _distinct(seen.long(), seen_row.long(), n_items)
    value, own = scores_BV[row, item - 1], own_B1[row, 0]
    seen_above_B = _per_row(is_first & ~(value <= own), row, len(target_B))
    seen_tied_B = _per_row(is_first & (value == own), row, len(target_B))
    repeated_B = _per_row(item == target_B.long()[row], row, len(target_B)) > 0
    return Counts(
        above=above_B,
        tied=tied_B,
        above_unseen=torch.where(repeated_B, n_items, above_B - seen_above_B),
        tied_unseen=torch.where(repeated_B, 0, tied_B - seen_tied_B),
        nan=nan_B,
        repeated=repeated_B,
    )


def top(
    scores_BV: Tensor, k: int, users_B: Tensor, seed: int, exclude: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The best k items of each query and their scores, best first, both ``(B, min(k, V))``.

    NaN comes last. Equal scores are ordered by a hash of (user, item, seed), so that a constant scorer does not hand
    every user the same items; the same hash on every device. Where fewer items than k may be listed, item 0 with score
    NaN fills up.

    Args:
        scores_BV: float32 or float64.
        k: length of a list.
        users_B: user ids; they only feed the hash.
        seed: of the hash.
        exclude: ``(seen, seen_row)`` as in ``count``: items not to be listed.

    Raises:
        ValueError: k < 1, scores of another type, or an id outside 1..V.
    """
    if k < 1:
        raise ValueError(f"a list of {k} items was asked for; at least 1 is needed")
    nothing = torch.empty(0, dtype=torch.int64, device=scores_BV.device)
    seen, seen_row = (nothing, nothing) if exclude is None else (exclude[0].long(), exclude[1].long())
    _check(scores_BV, nothing, seen)
    k = min(k, scores_BV.shape[1])
    user_B = _user_hash(users_B, seed)
    items_BK = torch.empty(len(scores_BV), k, dtype=torch.int64, device=scores_BV.device)
    height = max(1, TOP_CHUNK_BYTES.get(scores_BV.device.type, TOP_CHUNK_BYTES["cuda"]) // (8 * scores_BV.shape[1]))
    for start in range(0, len(scores_BV), height):
        chunk = slice(start, start + height)
        inside = (seen_row >= start) & (seen_row < start + height)
        excluded = (seen_row[inside] - start, seen[inside] - 1)
        items_BK[chunk] = _top_columns(scores_BV[chunk], k, user_B[chunk], excluded) + 1
    listed_BK = items_BK > 0
    values_BK = scores_BV.gather(1, (items_BK - 1).clamp_min(0))
    return items_BK, torch.where(listed_BK, values_BK, torch.nan)


def tie_keys(users_B: Tensor, items_BK: Tensor, seed: int) -> Tensor:
    """What orders equal scores in every list, (B, K), the largest first: a hash of (user, item, seed).

    Args:
        items_BK: item ids.
    """
    return _key(_user_hash(users_B, seed)[:, None], _mix(items_BK - 1), None)


def scratch_for(scores_BV: Tensor) -> Tensor:
    """A buffer that ``count`` may overwrite, fit for blocks of this width, type and device and of any height."""
    rows = CHUNK_BYTES.get(scores_BV.device.type, CHUNK_BYTES["cuda"]) // (
        scores_BV.element_size() * scores_BV.shape[1]
    )
    return scores_BV.new_empty(max(1, min(rows, len(scores_BV))), scores_BV.shape[1])


def _check(scores_BV: Tensor, target_B: Tensor, seen: Tensor) -> None:
    n_items = scores_BV.shape[1]
    if scores_BV.dtype not in LARGEST_EXACT_SUM:
        raise ValueError(f"scores are {scores_BV.dtype}; float32 or float64 is needed, coarser scores tie by rounding")
    if n_items > LARGEST_EXACT_SUM[scores_BV.dtype]:
        raise ValueError(f"{n_items} items cannot be counted exactly in {scores_BV.dtype}; score them in float64")
    for name, ids in (("target", target_B), ("seen", seen)):
        if ids.numel() and not 1 <= int(ids.min()) <= int(ids.max()) <= n_items:
            raise ValueError(f"{name} ids run from {int(ids.min())} to {int(ids.max())}; items are 1..{n_items}")


def _at_most_and_equal(scores_BV: Tensor, own_B1: Tensor, scratch: Tensor | None) -> tuple[Tensor, Tensor]:
    # Comparing into floats and summing by a product with ones is the fastest exact count on CPUs: torch vectorises a
    # comparison only if its result has the type of its inputs, and a sum of booleans hardly at all.
    scratch = scratch_for(scores_BV) if scratch is None else scratch
    ones_V = scores_BV.new_ones(scores_BV.shape[1])
    at_most_B, equal_B = torch.empty_like(own_B1[:, 0]), torch.empty_like(own_B1[:, 0])
    for start in range(0, len(scores_BV), len(scratch)):
        chunk = slice(start, start + len(scratch))
        holds = scratch[: len(own_B1[chunk])]
        torch.mv(torch.le(scores_BV[chunk], own_B1[chunk], out=holds), ones_V, out=at_most_B[chunk])
        torch.mv(torch.eq(scores_BV[chunk], own_B1[chunk], out=holds), ones_V, out=equal_B[chunk])
    return at_most_B.long(), equal_B.long()


def _distinct(seen: Tensor, seen_row: Tensor, n_items: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and items sorted, and which of them are the first of their kind."""
    key = (seen_row * (n_items + 1) + seen).sort().values
    is_first = torch.ones_like(key, dtype=torch.bool)
    is_first[1:] = key[1:] != key[:-1]
    return key // (n_items + 1), key % (n_items + 1), is_first


def _per_row(holds: Tensor, row: Tensor, n_rows: int) -> Tensor:
    return torch.zeros(n_rows, dtype=torch.int64, device=row.device).index_add_(0, row, holds.long())


def _top_columns(scores_BV: Tensor, k: int, user_B: Tensor, excluded: tuple[Tensor, Tensor]) -> Tensor:
    """Columns of the best k, best first, -1 where nothing is left to list. ``user_B`` is each user's hash."""
    level_BV = scores_BV.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    level_BV[excluded] = -torch.inf
    item_V = _mix(torch.arange(scores_BV.shape[1], device=scores_BV.device))
    values, columns = _largest(level_BV, min(k + 1, scores_BV.shape[1]))
    columns_BK, worst_B = columns[:, :k], values[:, k - 1]
    tier_BV = _tiers(scores_BV, excluded) if bool((worst_B == -torch.inf).any()) else None

    # Open rows: the last place is tied with the next one. True -inf, NaN and excluded items all look like -inf here.
    rows = (values[:, -1] == worst_B).nonzero()[:, 0]
    if len(rows):
        key_RV = _key(user_B[rows, None], item_V[None], None if tier_BV is None else tier_BV[rows])
        level_RV, worst_R1 = level_BV[rows], worst_B[rows, None]
        key_RV.masked_fill_(level_RV < worst_R1, -torch.iinfo(torch.int64).max).masked_fill_(level_RV > worst_R1, 1)
        columns_BK = columns_BK.index_copy(0, rows, _largest(key_RV, k)[1])

    key_BK = _key(user_B[:, None], item_V[columns_BK], None if tier_BV is None else tier_BV.gather(1, columns_BK))
    columns_BK = columns_BK.gather(1, key_BK.argsort(dim=1, descending=True))
    by_level = level_BV.gather(1, columns_BK).argsort(dim=1, descending=True, stable=True)
    columns_BK = columns_BK.gather(1, by_level)
    return columns_BK if tier_BV is None else columns_BK.masked_fill(tier_BV.gather(1, columns_BK) == EXCLUDED, -1)


def _largest(values_BV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values and their columns; any of those tied for the last place.

    The k groups with the largest maxima hold k largest values: whatever lies outside is no larger than any of those
    maxima. A maximum over strided groups is cheap, so that the selection itself sees k groups instead of the whole row.
    """
    n_groups = values_BV.shape[1] // GROUP
    if n_groups < 2 * k:
        largest = values_BV.topk(k)
        return largest.values, largest.indices
    grouped = GROUP * n_groups
    groups = values_BV[:, :grouped].unflatten(1, (GROUP, n_groups)).amax(dim=1).topk(k, sorted=False).indices
    first = torch.arange(0, grouped, n_groups, device=values_BV.device)
    rest = torch.arange(grouped, values_BV.shape[1], device=values_BV.device).expand(len(values_BV), -1)
    columns = torch.cat([(groups[:, None] + first[:, None]).flatten(1), rest], dim=1)
    values, at = values_BV.gather(1, columns).topk(k)
    return values, columns.gather(1, at)


def _tiers(scores_BV: Tensor, excluded: tuple[Tensor, Tensor]) -> Tensor:
    """What makes an item the worst: 0 its score, 1 a NaN, 2 that it may not be listed."""
    tier_BV = scores_BV.isnan().to(torch.uint8)
    tier_BV[excluded] = EXCLUDED
    return tier_BV


def _key(user: Tensor, item: Tensor, tier: Tensor | None) -> Tensor:
    """Below 0; larger comes first: lower tiers, then a 60-bit hash of (user, item)."""
    key = user ^ item
    key = key.mul_(-0x61C8864680B583EB).bitwise_right_shift_(4).bitwise_and_((1 << 60) - 1)
    return key.sub_(1 << 60) if tier is None else key.sub_((tier.long() + 1) << 60)


def _user_hash(users_B: Tensor, seed: int) -> Tensor:
    return _mix(users_B.long() ^ _mix(torch.tensor(seed, device=users_B.device)))


def _mix(x: Tensor) -> Tensor:
    """A 64-bit hash of each integer: the finaliser of SplitMix64 (Steele et al., OOPSLA 2014), in wrapping int64."""
    x = (x + 1) * -0x61C8864680B583EB
    x = (x ^ _shift(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shift(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """A logical shift to the right; torch's own copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
