"""DiffuReason, reconstructed from the abstract: think, refine the thought by diffusion, and reward the refinement, in one loss.

The paper (Jiang et al., "DiffuReason: Bridging Latent Reasoning and Generative Refinement for Sequential Recommendation", arXiv
2602.09744) states its idea in the abstract; neither its equations nor its code were at hand. What stands here is a
reconstruction from that abstract and from the methods it builds on, and no number made with it is a reproduction.

Think: ReaRec's chain (``chain.py``) gives h_0 .. h_K; h_K is the hypothesis. Diffuse: z_S starts at the hypothesis and moves down
S noise levels by the denoiser (``diffusion.py``); the last prediction, at the hypothesis' length, ranks. Reinforce: noisy
refinements of one history form a group, rewarded by where they rank the target (GRPO, Shao et al., arXiv 2402.03300; log
probability of a path as in DDPO, Black et al., arXiv 2305.13301).
Loss: plain + hypothesis + refined + denoise_mse + denoise_ce + grpo.

Letters: **N** rows of any kind, **S** moves, **P** positions that are reinforced, **G** refinements of each, **R** = P G of them,
those of one position side by side. **K** in a shape counts the plain state, too: h_0 .. h_K.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.backbones.base import Backbone
from recbench.data.batching import Batch
from recbench.reasoning.base import Context, ReasoningHead, Stage, targets
from recbench.reasoning.chain import Chain
from recbench.reasoning.contrast import some_of
from recbench.reasoning.cuts import some_a_row
from recbench.reasoning.diagnostics import gradient_share, note_leak, note_similarity
from recbench.reasoning.diffuse_settings import DiffuReasonConfig
from recbench.reasoning.diffusion import Condition, Denoiser, direction, on_sphere, process
from recbench.reasoning.moves import Moves, Predict
from recbench.reasoning.rewards import advantages, clipped_loss, ndcg, note_rewards, sampled_probability
from recbench.scoring.base import Score

REFERENCE_DECAY = 0.999
LEAST_LIKELY = -1e4
"""Log-probability of what has none: a NaN loses."""
LEAK_ROWS, LEAK_EVERY = 32, 10


@final
class DiffuReason(ReasoningHead):
    """Thoughts, refined by diffusion, reinforced by ranking. Reconstructed from the abstract."""

    Config = DiffuReasonConfig

    stages = (Stage("train"), Stage("align", {"epochs": 0}))

    @classmethod
    def plan(cls, config: Any) -> tuple[Stage, ...]:
        return (
            Stage("train"),
            Stage(
                "align", {"epochs": 20, "patience": 5} if config.grpo_when == "after" and config.grpo else {"epochs": 0}
            ),
        )

    def __init__(self, config: DiffuReasonConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        if backbone.spells and config.reward == "sampled":
            raise ValueError("reward is sampled, which scores items by their vectors; this backbone spells its items.")
        c, D = config, backbone.width
        self.reward = c.reward or ("likelihood" if backbone.spells else "ndcg")
        self.chain = Chain(backbone, c.steps, dropout=c.feed_dropout, step_embedding=c.step_embedding, norm=c.feed_norm)
        self.scalable = c.steps > 0
        self.process = process(
            c.forward,
            c.schedule,
            c.levels,
            width=D,
            n_items=backbone.n_items,
            kappa=c.kappa,
            info_high=c.info_high,
            info_low=c.info_low,
        )
        self.moves = Moves(self.process, c)
        self.denoiser = self.averaged = self.gate = self.null = None
        if not c.levels:
            return
        self.denoiser = Denoiser(
            D,
            c.levels,
            dropout=c.denoiser_dropout,
            residual=c.residual,
            project=c.project,
            previous=c.self_condition,
            inner=c.denoiser_width,
        )
        if c.mix == "learned":
            self.gate = nn.Parameter(torch.tensor(math.log(c.mix_weight / (1 - c.mix_weight))))
        if c.drop_condition or c.condition == "none":
            self.null = nn.Parameter(torch.randn(D))
        if c.reference == "ema":
            self.averaged = copy.deepcopy(self.denoiser).requires_grad_(False)
        if c.test_explore:
            self.register_buffer("noise", torch.randn(c.test_samples, self.config.first + 1, D))

    # --- thinking ---------------------------------------------------------------------------------------------------

    def think(self, backbone: Backbone, batch: Batch, steps: int | None = None) -> Tensor:
        h_NKD = self.chain.run(backbone, batch, steps)
        return torch.cat([h_NKD, self.refinements(h_NKD)], dim=1) if self.denoiser is not None else h_NKD

    def answer(self, z_QKD: Tensor) -> Tensor:
        if self.denoiser is None or self.config.mix == "refined":
            return z_QKD[:, -1]
        weight = self.config.mix_weight if self.gate is None else self.gate.sigmoid()
        return torch.lerp(z_QKD[:, -1 - self.config.first], z_QKD[:, -1], torch.as_tensor(weight, device=z_QKD.device))

    def refinements(self, h_NKD: Tensor) -> Tensor:
        """What ranks and the predictions before it, levels S .. 1, at the hypothesis' length, (N, S, D). No randomness."""
        known, size_N1 = self.condition(h_NKD), _length(h_NKD[:, -1])
        tables: Sequence[Tensor | None] = [None]
        if self.config.test_explore and not self.training:
            tables = list(self.noise)
        predict = self._predict(known)
        drawn = [self.moves.predictions(predict, known.h_ND, table) for table in tables]
        z_NSD = drawn[0] if len(drawn) == 1 else torch.stack(drawn).mean(0)
        return z_NSD * (size_N1 / math.sqrt(h_NKD.shape[-1]))[:, None]

    def condition(self, h_NKD: Tensor, dropped_N: Tensor | None = None, denoiser: Denoiser | None = None) -> Condition:
        """What the denoiser, or another of its kind, is told of thoughts ``h_NKD``; where ``dropped_N``, nothing."""
        denoiser, c = denoiser or self._denoiser(), self.config
        thoughts_NKD = h_NKD if c.condition == "all" else h_NKD[:, -1:]
        h_ND = on_sphere(h_NKD[:, -1])
        if c.condition == "none":
            dropped_N = _all_of(h_ND)
        if dropped_N is not None and self.null is not None:
            null_D = on_sphere(self.null)
            h_ND = torch.where(dropped_N[:, None], null_D, h_ND)
            thoughts_NKD = torch.where(dropped_N[:, None, None], null_D, thoughts_NKD)
        return denoiser.condition(h_ND, thoughts_NKD)

    def _predict(self, known: Condition) -> Predict:
        """The denoiser under that condition; with guidance, led away from what it says without one."""
        if not self.config.guidance:
            return lambda z_ND, t, before_ND: self._denoiser()(z_ND, t, known, before_ND)
        nothing = self.condition(known.h_ND[:, None], _all_of(known.h_ND))
        w = self.config.guidance

        def guided(z_ND: Tensor, t: int, before_ND: Tensor | None) -> Tensor:
            clean_ND = self._denoiser()(z_ND, t, known, before_ND)
            return on_sphere((1 + w) * clean_ND - w * self._denoiser()(z_ND, t, nothing, before_ND))

        return guided

    def _denoiser(self) -> Denoiser:
        if self.denoiser is None:
            raise ValueError("levels=0 has no denoiser")
        return self.denoiser

    # --- training ---------------------------------------------------------------------------------------------------

    def losses(self, backbone: Backbone, batch: Batch, score: Score, context: Context) -> dict[str, Tensor]:
        c, y_N = self.config, targets(batch)
        h_NKD = self.chain.run(backbone, batch)
        terms: dict[str, Tensor] = {}
        chosen = self._positions(batch, context)
        some_NKD, some_y_N, there = h_NKD, y_N, score
        if chosen is not None:
            some_NKD, some_y_N, there = h_NKD[chosen], y_N[chosen], score.at(chosen)
        if context.stage == "train":
            if c.plain or (c.hypothesis and not c.steps):
                terms["plain"] = (c.plain or c.hypothesis) * score.loss(h_NKD[:, 0], y_N)
            if c.hypothesis and c.steps:
                terms["hypothesis"] = c.hypothesis * score.loss(h_NKD[:, -1], y_N)
            note_similarity(context, h_NKD)
            if self.denoiser is not None:
                terms |= self._supervised(some_NKD, some_y_N, there, context)
        if self.denoiser is not None and c.grpo and (c.grpo_when == "joint" or context.stage == "align"):
            ramp = min(1.0, context.epoch / c.grpo_ramp_epochs) if c.grpo_ramp_epochs else 1.0
            grpo = ramp * c.grpo * self._reinforced(some_NKD, some_y_N, there, context, batch, chosen)
            if terms and context.opens_epoch:
                context.note("grad_share", gradient_share(grpo, sum(terms.values()), h_NKD))
            terms["grpo"] = grpo
        if self.averaged is not None:
            self._follow(self.averaged, self._denoiser())
        return terms

    def _positions(self, batch: Batch, context: Context) -> Tensor | None:
        """Of each row one of its asked tokens, uniformly; None: all."""
        return None if self.config.positions == "all" else some_a_row(batch.row_Q, 1, context.generator)

    def _supervised(self, h_NKD: Tensor, y_N: Tensor, score: Score, context: Context) -> dict[str, Tensor]:
        """The refined vector's loss, and the denoising losses of noisy targets."""
        c, D = self.config, h_NKD.shape[-1]
        terms = {}
        if c.refined:
            u_ND = self.answer(torch.cat([h_NKD, refined_NSD := self.refinements(h_NKD)], dim=1))
            terms["refined"] = c.refined * score.loss(u_ND, y_N)
            with torch.no_grad():
                moved_ND = refined_NSD[:, -1] - h_NKD[:, -1]
                context.note("refinement", (_length(moved_ND) / _length(h_NKD[:, -1])).mean())
                context.note("cos_refined", F.cosine_similarity(refined_NSD[:, -1], h_NKD[:, -1]).mean())
                if self.gate is not None:
                    context.note("mix_gate", self.gate.sigmoid())
        if not c.denoises:
            return terms
        i = some_of(len(y_N), max(1, round(c.denoise_share * len(y_N))), context.generator)
        t_N = self.draw_levels(len(i), context.generator)
        noise_ND = torch.randn(len(i), D, generator=context.generator, device=h_NKD.device, dtype=h_NKD.dtype)
        clean_ND = on_sphere(score.items()[y_N[i] - 1].detach())
        predicted_ND = self.denoised(h_NKD[i], clean_ND, t_N, noise_ND, context)
        if c.denoise_mse:
            terms["denoise_mse"] = c.denoise_mse * F.mse_loss(predicted_ND, clean_ND)
        if c.denoise_ce:
            u_ND = predicted_ND * _length(h_NKD[i, -1]) / math.sqrt(D)
            terms["denoise_ce"] = c.denoise_ce * score.at(i).loss(u_ND, y_N[i], frozen=c.detach_items)
        if context.step % LEAK_EVERY == 1:
            few = slice(0, LEAK_ROWS)  # without the hypothesis' part, which the denoiser knows and can take off
            z_ND = self.process.noised(clean_ND[few], torch.zeros_like(clean_ND[few]), t_N[few], noise_ND[few])
            note_leak(context, z_ND, t_N[few], y_N[i[few]], score)
        return terms

    def draw_levels(self, n: int, generator: torch.Generator) -> Tensor:
        """Level of each row: uniform on 1..J for one half, on 1..S for the other, so that S may change without retraining."""
        where = torch.rand(2, n, generator=generator, device=generator.device)
        most = torch.where(where[0] < 0.5, self.process.levels, self.config.first)
        return 1 + (where[1] * most).long().clamp_max(self.process.levels - 1)

    def denoised(self, h_NKD: Tensor, clean_ND: Tensor, t_N: Tensor, noise_ND: Tensor, context: Context) -> Tensor:
        """zhat of targets noised to level ``t_N``, (N, D)."""
        c, device = self.config, h_NKD.device
        dropped_N = None
        if c.drop_condition:
            dropped_N = torch.rand(len(t_N), generator=context.generator, device=device) < c.drop_condition
        known = self.condition(h_NKD, dropped_N)
        h_ND = known.h_ND if c.condition == "none" else on_sphere(h_NKD[:, -1])
        z_ND = self.process.noised(clean_ND, h_ND.detach(), t_N, noise_ND)
        before_ND = None
        if c.self_condition:
            half = torch.rand(len(t_N), 1, generator=context.generator, device=device) < 0.5
            with torch.no_grad():
                before_ND = self._denoiser()(z_ND, t_N, known) * half
        predicted: Tensor = self._denoiser()(z_ND, t_N, known, before_ND)
        return predicted

    # --- reinforcement ----------------------------------------------------------------------------------------------

    def _reinforced(
        self, h_NKD: Tensor, y_N: Tensor, score: Score, context: Context, batch: Batch, chosen: Tensor | None
    ) -> Tensor:
        """Negative advantage-weighted log-probability of G refinements of each drawn position."""
        c = self.config
        some_P = some_of(len(y_N), c.grpo_positions, context.generator)
        h_PKD = h_NKD[some_P].detach() if c.detach_thoughts else h_NKD[some_P]
        h_RKD, y_R = h_PKD.repeat_interleave(c.group, 0), y_N[some_P].repeat_interleave(c.group)
        in_groups, drawn = score.at(some_P.repeat_interleave(c.group)), score.at(some_P)
        with _without_dropout(self._denoiser()):
            with torch.no_grad():
                path = self.moves.rollout(self._denoiser(), self.condition(h_RKD), context.generator)
                reached_RD = _length(h_RKD[:, -1]) * direction(path[-1])
                reward_R, ranked_R = self._reward(reached_RD, y_R, in_groups, context)
                reward_PG = reward_R.view(-1, c.group)
                advantage_PG = self._advantage(reward_PG, h_PKD, y_N[some_P], drawn, context)
            note_rewards(context, reward_PG, ranked_R.view(-1, c.group))
            known = self.condition(h_RKD)
            means: list[Tensor] = []
            if c.policy == "item":
                u_RD = _length(h_RKD[:, -1]) * direction(self.moves.last_prediction(self._denoiser(), path, known))
                lp_R = in_groups.log_prob(u_RD, y_R[:, None], frozen=c.detach_thoughts).sum((1, 2))
            else:
                lp_R, means = self.moves.path_log_prob(self._denoiser(), path, known)
            loss = clipped_loss(lp_R, advantage_PG.flatten(), c.clip).mean()
            if c.kl:
                tokens = batch.at_Q if chosen is None else batch.at_Q[chosen]
                kl = self._kl(path, means, h_RKD, batch, tokens[some_P], context)
                context.note("kl", kl)
                loss = loss + c.kl * kl
        return loss

    def _reward(self, u_ND: Tensor, y_N: Tensor, score: Score, context: Context) -> tuple[Tensor, Tensor]:
        """Reward of each vector, (N,), and the part of it that follows from the rank alone."""
        c = self.config
        if self.reward == "random":
            drawn_N = torch.rand(len(y_N), generator=context.generator, device=y_N.device)
            return drawn_N, drawn_N
        if self.reward == "sampled":
            sampled_N = sampled_probability(u_ND, y_N, score, context.generator)
            return sampled_N, sampled_N
        if self.reward == "likelihood":
            likely_N = score.log_prob(u_ND, y_N[:, None]).sum((1, 2)).nan_to_num(nan=LEAST_LIKELY)
            return likely_N, likely_N
        ranked_N = ndcg(*score.place(u_ND, y_N, within=c.reward_cutoff), c.reward_cutoff)
        if not c.reward_softmax:
            return ranked_N, ranked_N
        probability_N = score.log_prob(u_ND, y_N[:, None]).sum((1, 2)).exp().nan_to_num(nan=0.0)
        return ranked_N + c.reward_softmax * probability_N, ranked_N

    def _advantage(self, reward_PG: Tensor, h_PKD: Tensor, y_P: Tensor, score: Score, context: Context) -> Tensor:
        c = self.config
        if c.baseline == "group":
            advantage_PG = advantages(reward_PG, bound=5.0)
        else:
            greedy_P, _ = self._reward(self.refinements(h_PKD)[:, -1], y_P, score, context)
            advantage_PG = ((reward_PG - greedy_P[:, None]) / (reward_PG.std(1, keepdim=True) + 1e-4)).clamp(-5, 5)
        return advantage_PG.clamp_min(0) if c.positive_only else advantage_PG

    def _kl(
        self, path: list[Tensor], means: list[Tensor], h_RKD: Tensor, batch: Batch, at_P: Tensor, context: Context
    ) -> Tensor:
        """Mean over moves of |mean - mean of the reference|^2 / (2 sd^2 D)."""
        with torch.no_grad():
            if self.averaged is not None:
                known = self.condition(h_RKD, denoiser=self.averaged.eval())
                _, before = self.moves.path_log_prob(self.averaged, path, known)
            else:
                reference = context.reference
                if reference is None or not isinstance(reference.head, DiffuReason):
                    raise ValueError("the reference is the model as the stage began")
                asked = replace(batch, at_Q=at_P, targets_Q=None, place_Q=None)
                thoughts_PKD = reference.head.chain.run(reference.backbone, asked)
                known = reference.head.condition(thoughts_PKD.repeat_interleave(self.config.group, 0))
                _, before = reference.head.moves.path_log_prob(reference.head._denoiser(), path, known)
        if not means:  # policy = item took no means
            _, means = self.moves.path_log_prob(self._denoiser(), path, self.condition(h_RKD))
        return torch.stack([(one - other).square().mean() / 2 for one, other in zip(means, before, strict=True)]).mean()

    @staticmethod
    @torch.no_grad()
    def _follow(averaged: Denoiser, live: Denoiser) -> None:
        torch._foreach_lerp_(list(averaged.parameters()), list(live.parameters()), 1 - REFERENCE_DECAY)

    noise: Tensor


def _length(x: Tensor) -> Tensor:
    """|x| along the last axis, kept as an axis of 1; its gradient at 0 is 0."""
    return (x.square().sum(-1, keepdim=True) + 1e-12).sqrt()


def _all_of(x_ND: Tensor) -> Tensor:
    """True for every row, (N,)."""
    return torch.ones(len(x_ND), dtype=torch.bool, device=x_ND.device)


@contextmanager
def _without_dropout(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
