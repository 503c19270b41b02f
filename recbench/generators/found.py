"""From what a beam found to counts and lists. Letters: B users, W beams, E events of the histories, V item-table rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.generators.spelling import Spelling, places
from recbench.scoring.counting import Counts, tie_keys
from recbench.semantic_ids.search import NONE, Beams


def counts_of(
    all_: Beams, unseen: Beams, target_B: Tensor, own_B: Tensor, seen: tuple[Tensor, Tensor], n_items: int
) -> Counts:
    """Counts of each target under both candidate rules; true as far as the beams are wide, else the target is last.

    Args:
        all_: best items of each user.
        unseen: best items outside of the user's history.
        own_B: log-probability of the target, for those that are NaN.
        seen: item ids of the histories and whose they are, (E,) each.
    """
    above_B, tied_B = places(all_, target_B, n_items)
    repeated_B = _is_in(target_B[:, None], seen, n_items)[:, 0]
    key_E = (seen[1] * (n_items + 1) + seen[0]).unique()
    n_unseen_B = n_items - torch.bincount(key_E // (n_items + 1), minlength=len(target_B))
    above_unseen_B, tied_unseen_B = places(unseen, target_B, n_items)
    lost_B = (unseen.items_BW != target_B[:, None]).all(1)
    above_unseen_B = torch.where(lost_B, n_unseen_B - 1, above_unseen_B)
    return Counts(
        above=above_B,
        tied=tied_B,
        above_unseen=torch.where(repeated_B, n_items, above_unseen_B),
        tied_unseen=torch.where(repeated_B, 0, tied_unseen_B),
        nan=own_B.isnan(),
        repeated=repeated_B,
    )


def both_rules(score: Spelling, u_BD: Tensor, seen: tuple[Tensor, Tensor], width: int) -> tuple[Beams, Beams]:
    """The best ``width`` items of each user, and the best ``width`` it has not got.

    Seen items take places in a beam. So the second search of a user is wider, by the items of its own history, and wider still
    where that does not do; who else is in the batch changes nothing.

    Args:
        seen: item ids of the histories and whose they are, (E,) each.
    """
    n_items, n_users = score.generator.n_items, len(u_BD)
    own_B = torch.bincount((seen[1] * (n_items + 1) + seen[0]).unique() // (n_items + 1), minlength=n_users)
    enough_B = (width + own_B.clamp_max(width)).clamp_max(n_items)
    found, wide = score.several_beams(u_BD, [width, enough_B])
    kept = _without(wide, seen, n_items)
    seen_B = _filled(wide) - _filled(kept)
    while True:
        wider_B = (width + 2 * seen_B).clamp_max(n_items)
        short_S = ((_filled(kept) < width) & (wider_B > enough_B)).nonzero()[:, 0]
        if not len(short_S):
            return found, kept
        enough_B[short_S] = wider_B[short_S]
        inside = torch.isin(seen[1], short_S)
        theirs = seen[0][inside], torch.searchsorted(short_S, seen[1][inside])
        again = score.at(short_S).beams(u_BD[short_S], wider_B[short_S])
        better = _without(again, theirs, n_items)
        kept = _replaced(kept, short_S, better)
        seen_B[short_S] = _filled(again) - _filled(better)


def best(beams: Beams, k: int, users_B: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The first k items and their scores, (B, k); item 0 with score NaN where there are no more.

    Equal scores, as items on one path have, are ordered as ``scoring.counting.top`` orders them.
    """
    items_BW, scores_BW = beams
    drawn_BW = tie_keys(users_B, items_BW, seed).argsort(dim=1, descending=True)
    order_BW = drawn_BW.gather(1, scores_BW.gather(1, drawn_BW).argsort(dim=1, descending=True, stable=True))
    items_BW, scores_BW = items_BW.gather(1, order_BW), scores_BW.gather(1, order_BW)
    missing = max(0, k - items_BW.shape[1])
    items_BW = F.pad(items_BW, (0, missing))[:, :k]
    scores_BW = F.pad(scores_BW, (0, missing))[:, :k]
    return items_BW, scores_BW.masked_fill(items_BW == NONE, torch.nan)


def _filled(beams: Beams) -> Tensor:
    """How many items each user has, (B,)."""
    return (beams.items_BW != NONE).sum(1)


def _without(beams: Beams, seen: tuple[Tensor, Tensor], n_items: int) -> Beams:
    """Beams without the items of their user's history, the others moved up."""
    gone_BW = _is_in(beams.items_BW, seen, n_items) | (beams.items_BW == NONE)
    order_BW = gone_BW.long().argsort(dim=1, stable=True)
    items_BW = beams.items_BW.masked_fill(gone_BW, NONE).gather(1, order_BW)
    return Beams(items_BW, beams.scores_BW.masked_fill(gone_BW, -torch.inf).gather(1, order_BW))


def _is_in(items_BW: Tensor, seen: tuple[Tensor, Tensor], n_items: int) -> Tensor:
    """True where an item stands in its user's history."""
    row_B1 = torch.arange(len(items_BW), device=items_BW.device)[:, None]
    return torch.isin(row_B1 * (n_items + 1) + items_BW, seen[1] * (n_items + 1) + seen[0])


def _replaced(beams: Beams, rows_S: Tensor, new: Beams) -> Beams:
    """Beams with those of some users replaced; all as wide as the widest."""
    wide = max(beams.items_BW.shape[1], new.items_BW.shape[1])
    made = []
    for old_BW, new_SW, empty in ((beams.items_BW, new.items_BW, NONE), (beams.scores_BW, new.scores_BW, -torch.inf)):
        padded_BW = F.pad(old_BW, (0, wide - old_BW.shape[1]), value=empty)
        padded_SW = F.pad(new_SW, (0, wide - new_SW.shape[1]), value=empty)
        made.append(padded_BW.index_copy(0, rows_S, padded_SW))
    return Beams(*made)
