"""Which items stand against a target: a set drawn for a whole step, or a few of each row's own.

**S** distinct items of a shared set, **K** negatives of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Shared:
    """Negatives that all rows of a step share."""

    items_S: Tensor
    """Distinct item ids, ascending."""
    log_weight_S: Tensor
    """log of what exp(score) of each counts for: how often it was drawn, over its expected count where log-Q is corrected."""
    log_own_V: Tensor | None
    """The same for a row's own target, by item id; None: 0."""


def shared(drawn_S: Tensor, expected_V: Tensor | None, *, own: bool = False) -> Shared:
    """Draws, repeats allowed, as a set with weights.

    With weights 1 / (expected count) the sum over the set of weight x exp(score), the row's own target left out, has the sum over
    the catalogue as its expectation.

    Args:
        expected_V: how often each item is expected among the draws; None: no correction.
        own: the row's own target gets the weight of a draw, too.
    """
    items_S, times_S = drawn_S.unique(return_counts=True)
    log_weight_S = times_S.double().log()
    if expected_V is None:
        return Shared(items_S, log_weight_S, None)
    return Shared(items_S, log_weight_S - expected_V[items_S].log(), -expected_V.log() if own else None)


def mixed_draw(pool_Q: Tensor, n_items: int, n_pool: int, n_uniform: int, generator: torch.Generator) -> Tensor:
    """``n_pool`` of the step's targets and ``n_uniform`` of all items, each with replacement, ids (n_pool + n_uniform,).

    Source: Yang et al., "Mixed Negative Sampling for Learning Two-tower Neural Networks in Recommendations", WWW 2020.
    """
    at = torch.randint(len(pool_Q), (n_pool,), generator=generator, device=pool_Q.device)
    uniform = torch.randint(1, n_items + 1, (n_uniform,), generator=generator, device=pool_Q.device)
    return torch.cat([pool_Q[at], uniform])


def expected_counts(share_V: Tensor, n_pool: float, n_uniform: int) -> Tensor:
    """How often a row may expect each item that is not its target among ``n_pool`` targets and ``n_uniform`` items, (V,).

    Args:
        share_V: each item's share of the training targets. One that is none, and turns up all the same, counts like the rarest.
    """
    expected_V = n_pool * share_V + n_uniform / (len(share_V) - 1)
    if n_uniform:
        return expected_V
    return torch.where(expected_V > 0, expected_V, expected_V.masked_fill(expected_V <= 0, torch.inf).min())


def own_draw(target_N: Tensor, n_items: int, k: int, generator: torch.Generator) -> Tensor:
    """``k`` negatives of each row, uniform over the items that are not its target, with replacement, (N, K)."""
    drawn_NK = torch.randint(1, n_items, (len(target_N), k), generator=generator, device=target_N.device)
    return drawn_NK + (drawn_NK >= target_N[:, None])
