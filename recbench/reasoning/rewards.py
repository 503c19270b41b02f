"""What reinforcement of a ranking shares: rewards from ranks and lists, advantages within a group, the fence around a reference."""

from __future__ import annotations

import torch
from torch import Tensor

from recbench.reasoning.base import Context
from recbench.scoring.base import Score

SAMPLED_NEGATIVES, SAMPLED_TOP = 512, 50
"""Candidates of a sampled reward beside the target."""

PREFIX_PAY = (0.0, 0.5, 0.707, 0.866, 0.95)
"""Reward of a wrong item by its leading right codes (GREAM, arXiv 2510.20815)."""


def hit(above: Tensor, tied: Tensor, k: int) -> Tensor:
    """1 where the target is among the first k, else 0. Ties count against it, so a constant scorer earns nothing."""
    return (1 + above + tied <= k).float()


def ndcg(above: Tensor, tied: Tensor, k: int) -> Tensor:
    """1 / log2(rank + 1) where the target is among the first k, else 0; ties count against it."""
    rank = (1 + above + tied).float()
    return torch.where(rank <= k, 1 / torch.log2(rank + 1), 0.0)


def sampled_probability(u_ND: Tensor, y_N: Tensor, score: Score, generator: torch.Generator) -> Tensor:
    """Probability of the target among uniform negatives and the items that rank first, (N,). In float32 at least."""
    n_items = len(score.items())
    negatives = 1 + torch.randint(n_items, (SAMPLED_NEGATIVES,), generator=generator, device=y_N.device)
    others_NC = torch.cat([negatives.expand(len(y_N), -1), score.top(u_ND, min(SAMPLED_TOP, n_items))], dim=1)
    with torch.autocast(u_ND.device.type, enabled=False):
        top_NC = (score.items()[others_NC[:, SAMPLED_NEGATIVES:] - 1] @ u_ND[..., None])[..., 0]
        logits_NC = torch.cat([u_ND @ score.items()[negatives - 1].t(), top_NC], dim=1)
    logits_NC = logits_NC.masked_fill(others_NC == y_N[:, None], -torch.inf)
    own_N1 = (u_ND * score.items()[y_N - 1]).sum(1, keepdim=True)
    return torch.cat([own_N1, logits_NC], dim=1).softmax(1)[:, 0]


def advantages(reward_NG: Tensor, bound: float = float("inf")) -> Tensor:
    """(R - mean) / (sd + 1e-4) within each row, cut at +-``bound``; sd with G - 1 (Shao et al., GRPO, arXiv 2402.03300, 4.1)."""
    centred_NG = reward_NG - reward_NG[:, :1]  # equal rewards are exactly 0, whatever the rounding of their mean
    centred_NG = centred_NG - centred_NG.mean(1, keepdim=True)
    return (centred_NG / (centred_NG.std(1, keepdim=True) + 1e-4)).clamp(-bound, bound)


def rank_rewards(is_target_PG: Tensor) -> Tensor:
    """Rewards of a list's items, best first (MiniOneRec, arXiv 2510.24431, as its code has it).

    1 for the target; where it is there, place i of the others costs a_i / sum a, a_i = 1 / log2(i + 1); else 0 for all.
    """
    a_G = 1 / torch.log2(torch.arange(2, is_target_PG.shape[1] + 2, device=is_target_PG.device).float())
    hit_P1 = is_target_PG.any(1, keepdim=True)
    return is_target_PG.float() - (hit_P1 & ~is_target_PG) * (a_G / a_G.sum())


def prefix_rewards(codes_PGM: Tensor, own_PM: Tensor, is_target_PG: Tensor) -> Tensor:
    """1 for the target, ``PREFIX_PAY`` for others by how many of their first codes are the target's, (P, G)."""
    right_PG = (codes_PGM == own_PM[:, None]).long().cumprod(2).sum(2)
    pay = torch.tensor(PREFIX_PAY, device=codes_PGM.device)
    return torch.where(is_target_PG, 1.0, pay[right_PG.clamp_max(len(PREFIX_PAY) - 1)])


def clipped_loss(log_prob: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """-min(w A, clip(w, 1 - clip, 1 + clip) A) with w = exp(log p - sg log p), entry by entry (PPO, Schulman et al., arXiv
    1707.06347, eq. 7). What was drawn is used once, so w is 1, and only its gradient counts.

    Args:
        advantage: of the same shape, or one that is stretched to it.
    """
    ratio = torch.exp(log_prob - log_prob.detach())
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def place_in(is_target_PG: Tensor) -> Tensor:
    """Place of the target in its list, from 1; G + 1 where it is not there, (P,)."""
    return torch.where(is_target_PG.any(1), is_target_PG.float().argmax(1) + 1, is_target_PG.shape[1] + 1)


def k3(difference: Tensor) -> Tensor:
    """exp(d) - d - 1, at least 0 (Schulman's estimator of KL; a convex fence where nothing is sampled)."""
    return torch.exp(difference) - difference - 1


def note_rewards(context: Context, reward_NG: Tensor, ranked_NG: Tensor | None = None) -> None:
    """``reward_mean``, ``reward_variance`` within groups, and ``no_signal``: the share of groups whose ranks earn all the same.

    Args:
        ranked_NG: the part of the reward that follows from ranks, where there is more to it.
    """
    ranked_NG = reward_NG if ranked_NG is None else ranked_NG
    context.note("reward_mean", reward_NG.mean())
    context.note("reward_variance", reward_NG.var(1).mean())
    context.note("no_signal", (ranked_NG == ranked_NG[:, :1]).all(1).float().mean())
