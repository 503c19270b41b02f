"""Stage ``rl`` of LASAR: GRPO over a list of items, the last thought near the last anchor, REINFORCE of the depth.

Source: GRPO (Shao et al., arXiv 2402.03300, section 4.1) with the rewards of MiniOneRec (arXiv 2510.24431); what LASAR (arXiv
2605.10207) adds is reconstructed. A group is used once, so the ratio to the policy that made it is 1 and only its gradient counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from recbench.backbones.base import Backbone
from recbench.data.batching import Batch
from recbench.reasoning.anchors import Anchors
from recbench.reasoning.base import Context, Reasoner, targets
from recbench.reasoning.depth import LEAST_UNIT, entropy, expected_loss, held, paired_loss, pay, sampled_loss
from recbench.reasoning.rewards import (
    advantages,
    clipped_loss,
    k3,
    note_rewards,
    place_in,
    prefix_rewards,
    rank_rewards,
)
from recbench.scoring.base import Score

if TYPE_CHECKING:
    from recbench.reasoning.lasar import LASAR


class Reinforcement:
    """One step: its losses over the answers at some asked tokens of a batch.

    Args:
        some_P: which of the asked tokens.
    """

    def __init__(
        self, head: LASAR, backbone: Backbone, batch: Batch, score: Score, context: Context, some_P: Tensor
    ) -> None:
        self.head, self.config = head, head.config
        self.backbone, self.batch, self.context = backbone, batch, context
        self.some_P, self.at_P, self.y_P = some_P, batch.at_Q[some_P], targets(batch)[some_P]
        self.score = score.at(some_P)

    def losses(self) -> dict[str, Tensor]:
        c, head, context = self.config, self.head, self.context
        x_ND = self.backbone.embed(self.batch)
        seen = self.backbone.encode(x_ND, self.batch, at_Q=self.at_P, remember=True)
        logits_PC = head.policy(seen.h_QD.detach() if c.policy_detach else seen.h_QD)
        n_P, other_P = (self._drawn(logits_PC) for _ in range(2))
        args = self.backbone, seen.memory, seen.h_QD, self.at_P
        every_PKD = None
        if self._pays_several:
            z_PKD, every_PKD = head.every_depth(*args, self._deepest(n_P, other_P))
            z_PKD, u_PD = held(z_PKD, n_P), held(every_PKD, n_P)[:, -1]
        else:
            z_PKD, u_PD = head.rollout(*args, n_P)
        head.note_chain(context, x_ND, z_PKD, n_P)
        y_PG, new_PGM = self.candidates(u_PD)
        terms = {"grpo": self._listwise(y_PG, new_PGM, n_P)}
        if c.terminal_weight and c.align != "none":
            anchors, _ = head.anchors(self.batch, self.some_P, context)
            terms["terminal"] = c.terminal_weight * self._terminal(z_PKD[:, -1], anchors, n_P)
        if c.adaptive and c.depth_weight:
            if c.candidates == "top":
                pay_P = pay(place_in(y_PG == self.y_P[:, None]), c.group, c.group_reward)
            else:  # of a depth, not of luck: as it ranks at test
                pay_P = self._pay_at(u_PD)
            terms["depth"] = c.depth_weight * self._depth_loss(logits_PC, n_P, other_P, pay_P, every_PKD)
        return terms

    # --- the list ---------------------------------------------------------------------------------------------------

    def candidates(self, u_PD: Tensor) -> tuple[Tensor, Tensor]:
        """The items that are rewarded, best first, (P, G), and their log-probabilities, (P, G, M)."""
        c = self.config
        if c.candidates == "top":
            y_PG = self.score.top(u_PD.detach(), c.group)
            return y_PG, self.score.log_prob(u_PD, y_PG)
        y_PG = self.score.draw(u_PD.detach(), c.group, self.context.generator)
        y_PG = y_PG.sort(1).values  # so that equal ones stand side by side, also beside others with equal scores
        self.context.note("repeats", (y_PG[:, 1:] == y_PG[:, :-1]).float().mean())
        new_PGM = self.score.log_prob(u_PD, y_PG)
        best_first_PG = new_PGM.detach().sum(2).argsort(dim=1, descending=True, stable=True)
        return y_PG.gather(1, best_first_PG), new_PGM.gather(1, best_first_PG[..., None].expand_as(new_PGM))

    def _listwise(self, y_PG: Tensor, new_PGM: Tensor, n_P: Tensor) -> Tensor:
        """GRPO over the items of each list, the fence around the reference included."""
        c, context = self.config, self.context
        reward_PG = self.rewards(y_PG)
        note_rewards(context, reward_PG)
        hit_P = (y_PG == self.y_P[:, None]).any(1)
        context.note("hit_share", hit_P.float().mean())
        loss_PGM = clipped_loss(new_PGM, advantages(reward_PG)[..., None], c.clip)
        if c.kl_weight:
            fence_PGM = k3(self._under_reference(y_PG, n_P) - new_PGM)
            context.note("kl", fence_PGM.mean())
            loss_PGM = loss_PGM + c.kl_weight * fence_PGM
        if not c.skip_missed:
            return loss_PGM.mean()
        return (loss_PGM.mean((1, 2)) * hit_P).sum() / hit_P.sum().clamp_min(1)

    def rewards(self, y_PG: Tensor) -> Tensor:
        """What each item of the lists earns, (P, G)."""
        is_target_PG = y_PG == self.y_P[:, None]
        if self.config.reward == "hit":
            return is_target_PG.float()
        if self.config.reward == "prefix":
            tokens_VM = cast("Tensor", self.backbone.tokens_VM)
            return prefix_rewards(tokens_VM[y_PG], tokens_VM[self.y_P], is_target_PG)
        return rank_rewards(is_target_PG)

    def _under_reference(self, y_PG: Tensor, n_P: Tensor) -> Tensor:
        """Log-probabilities of the same items after as many thoughts of the reference, (P, G, M)."""
        reference, head, context = self.context.reference, self.head, self.context
        if reference is None or not isinstance(reference.head, type(head)):
            raise ValueError("stage rl is held against the model as the stage began")
        if self.config.reference_sync and context.epoch != head.synced:
            reference.backbone.load_state_dict(self.backbone.state_dict())
            reference.head.load_state_dict(head.state_dict())
            head.synced = context.epoch
        with torch.no_grad(), reference.score.step(context.generator, self.batch.targets_Q, self.batch):
            return reference.score.at(self.some_P).log_prob(self._answers_of(reference, n_P), y_PG)

    def _answers_of(self, reference: Reasoner, n_P: Tensor) -> Tensor:
        head, backbone, at_P = cast("LASAR", reference.head), reference.backbone, self.at_P
        seen = backbone.encode(backbone.embed(self.batch), self.batch, at_Q=at_P, remember=True)
        return head.rollout(backbone, seen.memory, seen.h_QD, at_P, n_P)[1]

    # --- the last thought -------------------------------------------------------------------------------------------

    def _terminal(self, h_PD: Tensor, anchors: Anchors, n_P: Tensor) -> Tensor:
        """The last thought near the last anchor; targets without a thought or without an anchor are left out."""
        last_P = (anchors.s_P - 1).clamp_min(0)
        every_P = torch.arange(len(h_PD), device=h_PD.device)
        far_P = self.head.apart(h_PD[:, None], anchors.c_PSX[every_P, last_P][:, None], first=last_P)[:, 0]
        on_P = (anchors.s_P > 0) & (n_P > 0)
        return (far_P * on_P).sum() / on_P.sum().clamp_min(1)

    # --- the depth --------------------------------------------------------------------------------------------------

    def _drawn(self, logits_PC: Tensor) -> Tensor:
        """Depths of this step, (P,)."""
        c, generator = self.config, self.context.generator
        if c.depth == "fixed":
            return torch.full((len(logits_PC),), c.fixed_depth, device=logits_PC.device)
        if c.depth == "random":
            return self.head.any_depth(len(logits_PC), generator)
        return torch.multinomial(logits_PC.detach().softmax(1), 1, generator=generator)[:, 0] + c.min_depth

    @property
    def _pays_several(self) -> bool:
        """Are several depths of one answer paid?"""
        return self.config.adaptive and self.config.depth_baseline in ("paired", "exact")

    def _deepest(self, n_P: Tensor, other_P: Tensor) -> int:
        """How long the chain must be, so that it contains every depth that is paid."""
        if self.config.depth_baseline == "exact":
            return self.config.max_depth
        return int(torch.maximum(n_P, other_P).max())

    def _depth_loss(
        self, logits_PC: Tensor, n_P: Tensor, other_P: Tensor, pay_P: Tensor, every_PKD: Tensor | None
    ) -> Tensor:
        """REINFORCE of the depths, their entropy included.

        Args:
            every_PKD: what each depth would answer; only where several are paid.
        """
        c, context, paid = self.config, self.context, self.head.paid
        mixed_P = self._mixed(len(n_P)) if c.shuffle_reward else torch.arange(len(n_P), device=n_P.device)
        before = pay_P.mean() if paid.isnan() else paid.clone()
        unit = before.clamp_min(LEAST_UNIT) if c.reward_unit == "relative" else torch.ones_like(before)
        cost = c.step_cost * unit
        if every_PKD is not None and c.depth_baseline == "exact":
            pay_PC = torch.stack([self._pay_at(every_PKD[:, n]) for n in range(c.min_depth, c.max_depth + 1)], 1)
            if c.shuffle_reward:  # among depths, too, or another answer would still tell which of them pays
                pay_PC = pay_PC.flatten()[self._mixed(pay_PC.numel())].view_as(pay_PC)
            depth_C = torch.arange(c.min_depth, c.max_depth + 1, device=n_P.device)
            loss = expected_loss(logits_PC, pay_PC - cost * depth_C)
        elif every_PKD is not None:
            other_pay_P = self._pay_at(held(every_PKD, other_P)[:, -1])
            gain_P = pay_P[mixed_P] - other_pay_P[mixed_P] - cost * (n_P - other_P)
            loss = paired_loss(logits_PC, n_P - c.min_depth, other_P - c.min_depth, gain_P)
        else:
            loss = sampled_loss(logits_PC, n_P - c.min_depth, pay_P[mixed_P] - before - cost * n_P)
        undecided = entropy(logits_PC)
        paid.copy_(c.ema * before + (1 - c.ema) * pay_P.mean())
        context.note("depth_pay", pay_P.mean())
        context.note("depth_pay_before", before)
        context.note("policy_entropy", undecided)
        return loss - c.entropy * unit * undecided

    def _mixed(self, count: int) -> Tensor:
        """Who is paid whose reward, (count,)."""
        generator = self.context.generator
        return torch.randperm(count, generator=generator, device=generator.device)

    def _pay_at(self, u_PD: Tensor) -> Tensor:
        """What each answer's list of the best would earn, (P,)."""
        group = self.config.group
        above_P, tied_P = self.score.place(u_PD.detach(), self.y_P, within=group)
        return pay((1 + above_P + tied_P).clamp_max(group + 1), group, self.config.group_reward)
