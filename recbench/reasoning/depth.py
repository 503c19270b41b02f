"""How long to think, decided for each answer before its first thought: the policy, and what it learns from.

Source: LASAR (arXiv 2605.10207) as two public close readings describe it: REINFORCE (Williams, 1992) with a moving baseline, a cost
a step and an entropy bonus. Letters: **P** answers, **C** depths to choose from; class c is depth ``least + c``.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.backbones.base import Backbone
from recbench.data.batching import Batch
from recbench.reasoning.base import Context

Pay = Literal["dcg", "mean", "max"]
LEAST_UNIT = 1e-3
"""Rewards are measured in their own moving mean, but never in less than this."""


class Policy(nn.Module):
    """log-odds of the depths: W_2 tanh(W_1 h + b_1) + b_2.

    Args:
        hidden: width of the hidden layer; None: a quarter of D, at least 64.
    """

    def __init__(self, backbone: Backbone, least: int, most: int, hidden: int | None) -> None:
        super().__init__()
        self.least = least
        hidden = max(64, backbone.width // 4) if hidden is None else hidden
        self.inner = nn.Linear(backbone.width, hidden)
        self.outer = nn.Linear(hidden, most - least + 1)

    def forward(self, h_PD: Tensor) -> Tensor:
        """(P, C), in float32."""
        with torch.autocast(h_PD.device.type, enabled=False):
            logits_PC: Tensor = self.outer(torch.tanh(self.inner(h_PD.float())))
        return logits_PC

    def best(self, h_PD: Tensor) -> Tensor:
        """The likeliest depth of each answer, (P,)."""
        return self(h_PD).argmax(1) + self.least

    def drawn(self, h_PD: Tensor, uniform_P: Tensor) -> Tensor:
        """Depths (P,) drawn by one number in [0, 1) each."""
        below_PC = self(h_PD).softmax(1).cumsum(1) <= uniform_P[:, None]
        return below_PC.sum(1).clamp_max(below_PC.shape[1] - 1) + self.least


def pay(place_P: Tensor, group: int, kind: Pay) -> Tensor:
    """What a depth is paid where the target stands at this place of a list of ``group``, from 1; beyond its end: nothing. (P,)

    dcg: 1 / log2(1 + place); mean: the mean ranked reward of the list (``rewards.rank_rewards``); max: 1.
    """
    if kind == "max":
        return (place_P <= group).float()
    gain_P = torch.where(place_P <= group, 1 / torch.log2(place_P.float() + 1), 0.0)
    every_G = 1 / torch.log2(torch.arange(2, group + 2, device=place_P.device).float())
    return gain_P / (group * every_G.sum()) if kind == "mean" else gain_P


def sampled_loss(logits_PC: Tensor, class_P: Tensor, advantage_P: Tensor) -> Tensor:
    """REINFORCE: -E[advantage log pi(depth)]; no gradient into the advantage."""
    log_pi_P = logits_PC.log_softmax(1).gather(1, class_P[:, None])[:, 0]
    return -(advantage_P.detach() * log_pi_P).mean()


def paired_loss(logits_PC: Tensor, one_P: Tensor, other_P: Tensor, gain_P: Tensor) -> Tensor:
    """REINFORCE of two depths of one answer, each the other's baseline.

    Args:
        gain_P: what the class ``one_P`` earns above ``other_P``.
    """
    return (sampled_loss(logits_PC, one_P, gain_P) + sampled_loss(logits_PC, other_P, -gain_P)) / 2


def expected_loss(logits_PC: Tensor, paid_PC: Tensor) -> Tensor:
    """-sum over depths of pi(depth) paid(depth): what ``sampled_loss`` is in expectation, without its noise."""
    return -(logits_PC.softmax(1) * paid_PC.detach()).sum(1).mean()


def entropy(logits_PC: Tensor) -> Tensor:
    """Mean entropy of the policy, nats."""
    log_pi_PC = logits_PC.log_softmax(1)
    return -(log_pi_PC.exp() * log_pi_PC).sum(1).mean()


def label_loss(logits_PC: Tensor, class_P: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of known depths, mixed with the uniform distribution by ``smoothing``."""
    return F.cross_entropy(logits_PC, class_P, label_smoothing=smoothing)


def indifferent_mean(step_cost: float, bonus: float, least: int, most: int) -> float:
    """Mean depth of a policy that was taught nothing but the cost of a step: pi(n) ~ exp(-step_cost n / bonus).

    That is where -step_cost n + bonus * entropy is largest when all depths pay the same. A fall of the mean depth to this number
    says nothing about who needs to think.
    """
    if not bonus:
        return float(least) if step_cost else (least + most) / 2
    weights = [math.exp(-step_cost * (n - least) / bonus) for n in range(least, most + 1)]
    return sum(n * w for n, w in zip(range(least, most + 1), weights, strict=True)) / sum(weights)


def fixed_uniform(batch: Batch) -> Tensor:
    """A number in [0, 1) for each asked token that depends on its user and its place in the row alone, (Q,) float64.

    For draws at test time: the same whoever else is in the batch, and whenever it is asked.
    """
    users_B = torch.from_numpy(batch.users_B.astype("int64")).to(batch.at_Q.device)
    x_Q = users_B[batch.row_Q] * 1_000_003 + batch.rows.position_N[batch.at_Q]
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):  # splitmix64 (Steele et al., 2014)
        x_Q = (x_Q ^ (x_Q >> shift)) * factor
    return ((x_Q ^ (x_Q >> 31)) & (2**53 - 1)).double() / 2**53


def held(z_PKD: Tensor, n_P: Tensor) -> Tensor:
    """Chains that stop: behind thought n_p each repeats it; cut to the longest, (P, 1 + max n, D)."""
    K = int(n_P.max()) + 1
    if bool((n_P == K - 1).all()):
        return z_PKD[:, :K]
    at_PK = torch.minimum(torch.arange(K, device=n_P.device), n_P[:, None])
    return z_PKD.gather(1, at_PK[:, :, None].expand(-1, -1, z_PKD.shape[2]))


def note_depths(context: Context, n_P: Tensor, most: int) -> None:
    """``depth`` and ``depth@k``: mean, and the share of answers that think k steps."""
    context.note("depth", n_P.float().mean())
    for k, share in enumerate(torch.bincount(n_P, minlength=most + 1).double() / len(n_P)):
        context.note(f"depth@{k}", share)
