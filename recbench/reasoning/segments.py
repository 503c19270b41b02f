"""Rationales without a writer: what a history shows, in a few segments, each a weighted set of items.

A stand-in for the chain of thought that LASAR (arXiv 2605.10207) buys from a large language model: evidence, up to three themes,
preference, intent, and the item itself. Letters: **P** targets, **W** places of the window before each (newest last), **S**
segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.data.batching import Batch, TrainingRows
from recbench.data.dataset import Histories, ranges
from recbench.scoring.precision import product

EVIDENCE, THEMES = 3, 3
"""Newest items that are evidence; themes at most."""
FADE = 0.9
"""Weight of an item in the preference, each place further back."""
NAMES = ("evidence", *(f"theme {k + 1}" for k in range(THEMES)), "preference", "intent", "item")
INTENT, ITEM = NAMES.index("intent"), NAMES.index("item")


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of P targets. A segment is empty where its weights are all 0; the intent is a group."""

    items_PE: Tensor
    """The window, newest last, and behind it the target; 0 where there is none. E = W + 1."""
    weight_PSE: Tensor
    """Weights of these items in each segment, summing to 1 or 0."""
    group_P: Tensor
    """The group of the intent; 0: none."""


def window_of(histories: Histories, place_P: np.ndarray, width: int) -> np.ndarray:
    """Items before each target in its user's history, newest last, 0 in front where there are fewer, (P, W).

    Raises:
        ValueError: a place that is not in the training part. Rationales exist for training targets only.
    """
    if len(place_P) and not (place_P.min() >= 0 and place_P.max() < len(histories.items)):
        raise ValueError("rationales exist for training targets only")
    row_P = np.searchsorted(histories.starts, place_P, side="right") - 1
    if len(place_P) and (place_P >= histories.stops[row_P]).any():
        raise ValueError("rationales exist for training targets only")
    at_PW = place_P[:, None] + np.arange(-width, 0)
    items_PW = histories.items[np.maximum(at_PW, 0)]
    return np.where(at_PW >= histories.starts[row_P][:, None], items_PW, 0).astype(np.int64)


def place_of(batch: Batch, some_P: Tensor, rows: TrainingRows | None) -> tuple[Histories, np.ndarray]:
    """The training part and where in it the targets ``some_P`` of a batch stand, (P,).

    Raises:
        ValueError: the batch is not one of training. Rationales exist for training targets only.
    """
    if rows is None or batch.place_Q is None:
        raise ValueError("rationales exist for training targets only")
    return rows.histories, batch.place_Q[some_P.cpu().numpy()]


def segments(
    window_PW: Tensor, target_P: Tensor, group_V: Tensor, next_group_C: Tensor, *, use_target: bool
) -> Segments:
    """The segments of targets behind these windows.

    Args:
        group_V: the group of each item, counted from 1; 0: none. Row 0 is padding.
        next_group_C: the likeliest group to follow each; 0: none.
        use_target: the intent is the target's group, and the item is a segment; else the intent is guessed from the last item.
    """
    P, W = window_PW.shape
    real_PW = window_PW > 0
    group_PW = group_V[window_PW]
    weight_PSE = torch.zeros(P, len(NAMES), W + 1, device=window_PW.device)
    weight_PSE[:, 0, max(0, W - EVIDENCE) : W] = 1.0
    weight_PSE[:, 1 : 1 + THEMES, :W] = _themes(group_PW)
    weight_PSE[:, 1 + THEMES, :W] = FADE ** torch.arange(W - 1, -1, -1, device=window_PW.device)
    weight_PSE[:, : 2 + THEMES, :W] *= real_PW[:, None]
    if use_target:
        weight_PSE[:, ITEM, W] = 1.0
    last_P = window_PW[:, -1]
    group_P = group_V[target_P] if use_target else next_group_C[group_V[last_P]]
    total = weight_PSE.sum(2, keepdim=True)
    items_PE = torch.cat([window_PW, target_P[:, None]], 1)
    return Segments(items_PE, weight_PSE / total.clamp_min(1e-9), group_P)


def _themes(group_PW: Tensor) -> Tensor:
    """Which places belong to the three groups with most items, two at least; equal counts: the one seen last. (P, 3, W) 0 or 1."""
    P, W = group_PW.shape
    same_PWW, newest_PW = alike(group_PW)
    count_PW = same_PWW.sum(2)
    key_PW = torch.where(newest_PW & (count_PW >= 2), count_PW * W + torch.arange(W, device=group_PW.device), -1)
    best = key_PW.topk(min(THEMES, W), dim=1)
    theme_PKW = same_PWW.gather(1, best.indices[:, :, None].expand(-1, -1, W)) & (best.values >= 0)[:, :, None]
    out = torch.zeros(P, THEMES, W, device=group_PW.device)
    out[:, : theme_PKW.shape[1]] = theme_PKW.float()
    return out


def alike(label_PW: Tensor) -> tuple[Tensor, Tensor]:
    """Which places of a window have the label of which, (P, W, W), and which is the newest of its label, (P, W). 0 is no label."""
    W = label_PW.shape[1]
    same_PWW = (label_PW[:, :, None] == label_PW[:, None, :]) & (label_PW > 0)[:, :, None]
    later_WW = torch.ones(W, W, dtype=torch.bool, device=label_PW.device).triu(1)
    return same_PWW, (label_PW > 0) & ~(same_PWW & later_WW).any(2)


def heaviest(label_PW: Tensor, weight_PW: Tensor, count: int) -> Tensor:
    """The labels with most weight in each window, the heaviest first, (P, count); 0 where there are fewer."""
    same_PWW, newest_PW = alike(label_PW)
    total_PW = torch.where(newest_PW, (same_PWW * weight_PW[:, None]).sum(2), -1.0)
    best = total_PW.sort(dim=1, descending=True, stable=True)
    found_PK = torch.where(best.values >= 0, label_PW.gather(1, best.indices), 0)[:, :count]
    return F.pad(found_PK, (0, count - found_PK.shape[1]))


def next_groups(histories: Histories, group_V: np.ndarray) -> np.ndarray:
    """The group that follows each most often in training (the lower number of equals), (C + 1,); 0 where none ever does."""
    items = histories.items[ranges(histories.starts, histories.lengths)]
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    before, after = group_V[items[:-1]], group_V[items[1:]]
    kept = (row[1:] == row[:-1]) & (before > 0) & (after > 0)
    size = int(group_V.max()) + 1
    pairs, counts = np.unique(before[kept].astype(np.int64) * size + after[kept], return_counts=True)
    found = np.zeros(size, dtype=np.int64)
    order = np.lexsort((-pairs, counts))  # the last written wins: most often, then the lower number
    found[pairs[order] // size] = pairs[order] % size
    return found


def merged(x_PSA: Tensor, limit: float, most: int, apart: int | None = None) -> tuple[Tensor, Tensor]:
    """Neighbours that say the same become one part: a vector with a cosine above ``limit`` to the part before it joins that part.
    Then the most alike neighbours are joined until ``most`` are left, so the last part always holds the last segment. Zero vectors
    fall out.

    Args:
        apart: this segment and all behind it are one part, whatever they say; if they say nothing, what stands before is said
            once more. So how many parts there are follows from the segments before.

    Returns:
        The parts, moved to the front, (P, S, A), and how many each row has, (P,). A part points where the sum of its unit vectors
        points, and is as long as its vectors are on average.
    """
    if apart is not None:
        x_PSA = _filled(x_PSA, apart)
    length_PS1 = x_PSA.norm(dim=2, keepdim=True)
    unit_PSA = F.normalize(x_PSA, dim=2)
    part_PS = torch.full(x_PSA.shape[:2], -1, device=x_PSA.device)
    last_P, sum_PA = part_PS.new_full((len(x_PSA),), -1), torch.zeros_like(x_PSA[:, 0])
    for s in range(x_PSA.shape[1]):
        real_P = length_PS1[:, s, 0] > 0
        alike_P = (last_P >= 0) & (F.cosine_similarity(unit_PSA[:, s], sum_PA, dim=1) > limit)
        if apart is not None and s >= apart:
            alike_P = (part_PS[:, apart:s] >= 0).any(1)
        new_P = real_P & ~alike_P
        sum_PA = torch.where(new_P[:, None], 0.0, sum_PA) + unit_PSA[:, s]
        last_P = last_P + new_P
        part_PS[:, s] = torch.where(real_P, last_P, -1)
    part_PS = joined(unit_PSA, part_PS, most)
    length_PK1 = summed(length_PS1, part_PS) / summed((length_PS1 > 0).to(x_PSA.dtype), part_PS).clamp_min(1)
    return F.normalize(summed(unit_PSA, part_PS), dim=2) * length_PK1, part_PS.amax(1) + 1


def _filled(x_PSA: Tensor, apart: int) -> Tensor:
    """The last vector before segment ``apart`` in its place, in rows where it and all behind it are zeros."""
    real_PS = x_PSA.square().sum(2) > 0
    place_S = torch.arange(apart, device=x_PSA.device)
    last_P = torch.where(real_PS[:, :apart], place_S, 0).amax(1)
    said_PA = x_PSA.gather(1, last_P[:, None, None].expand(-1, 1, x_PSA.shape[2]))[:, 0]
    here_P1 = real_PS[:, apart:].any(1, keepdim=True)
    return torch.cat(
        [x_PSA[:, :apart], torch.where(here_P1, x_PSA[:, apart], said_PA)[:, None], x_PSA[:, apart + 1 :]], 1
    )


def joined(x_PSA: Tensor, part_PS: Tensor, most: int) -> Tensor:
    """The parts of each row, counted from 0 in order, after the most alike neighbours of those with more than ``most`` were joined,
    one pair after the other, (P, S); -1 is in no part."""
    S = part_PS.shape[1]
    for _ in range(S - most):
        count_P = part_PS.amax(1) + 1
        sum_PKA = summed(x_PSA, part_PS)
        alike_PK = F.cosine_similarity(sum_PKA[:, :-1], sum_PKA[:, 1:], dim=2)
        there_PK = torch.arange(1, S, device=part_PS.device) < count_P[:, None]
        first_P = torch.where(there_PK, alike_PK, -torch.inf).argmax(1)
        part_PS = part_PS - ((count_P > most)[:, None] & (part_PS > first_P[:, None])).long()
    return part_PS


def summed(x_PSA: Tensor, part_PS: Tensor) -> Tensor:
    """The sum of each part; zeros behind the last one, (P, S, A)."""
    part_S = torch.arange(part_PS.shape[1], device=part_PS.device)
    return product((part_PS[:, None] == part_S[:, None]).to(x_PSA.dtype), x_PSA)
