"""DiffuReason, reconstructed from the abstract: think, refine the thought by diffusion, and reward the refinement, in one loss.

The paper (Jiang et al., "DiffuReason: Bridging Latent Reasoning and Generative Refinement for Sequential Recommendation", arXiv
2602.09744) states its idea in the abstract; neither its equations nor its code were at hand. What stands here is a
reconstruction from that abstract and from the methods it builds on, and no number made with it is a reproduction.

Think: ReaRec's chain (``chain.py``) gives h_0 .. h_K; h_K is the hypothesis. Diffuse: z_S starts at the hypothesis and moves down
S noise levels by the denoiser (``diffusion.py``); the last prediction, at the hypothesis' length, ranks. Reinforce: noisy
refinements of one history form a group, rewarded by where they rank the target (GRPO, Shao et al., arXiv 2402.03300; log
probability of a path as in DDPO, Black et al., arXiv 2305.13301).
Loss: plain + hypothesis + refined + denoise_mse + denoise_ce + grpo.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.backbones.base import Backbone
from recbench.data.batching import Batch
from recbench.reasoning.base import Context, ReasoningHead, Stage, targets
from recbench.reasoning.chain import Chain
from recbench.reasoning.contrast import some_of
from recbench.reasoning.diagnostics import note_similarity
from recbench.reasoning.diffusion import Condition, Denoiser, Forward, Schedule, direction, on_sphere, process
from recbench.reasoning.rewards import advantages, ndcg, note_rewards
from recbench.scoring.base import Score

SAMPLED_NEGATIVES, SAMPLED_TOP = 512, 50
"""Candidates of the sampled reward beside the target."""
REFERENCE_DECAY = 0.999
LEAK_ROWS, LEAK_EVERY = 32, 10


@final
class DiffuReason(ReasoningHead):
    """Thoughts, refined by diffusion, reinforced by ranking. Reconstructed from the abstract."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Thinking, diffusion, losses and reinforcement."""

        steps: int = 2
        """K, thoughts. 0: the plain state is the hypothesis."""
        step_embedding: bool = True
        """A learned vector a step."""
        feed_norm: bool = True
        """LayerNorm on the tokens of the chain."""
        feed_dropout: float = 0.2
        """On them."""
        levels: int = 4
        """J, noise levels. 0: no diffusion, the hypothesis answers."""
        schedule: Schedule = "information"
        """Of the noise."""
        start: float = 1.0
        """S / J: the level at which refinement takes the hypothesis for a noisy intent."""
        forward: Forward = "gauss"
        """gauss: the target fades into noise; shift: into the hypothesis; none: no noise, the same network S times (control)."""
        kappa: float = 1.0
        """Noise of shift."""
        info_high: float = 1.0
        """Information at level 1: above 1 the target can be read off the noisy target."""
        info_low: float = 0.05
        """Information at level J."""
        plain: float = 1.0
        """Weight of the loss of h_0."""
        hypothesis: float = 1.0
        """Weight of the loss of h_K."""
        refined: float = 1.0
        """Weight of the loss of what ranks: the noise-free refinement, with gradient through all its moves."""
        positions: Literal["all", "one"] = "all"
        """Positions with refined, denoising and grpo terms: all, or one a user."""
        denoise_mse: float = 0.1
        """Weight of |zhat - z*|^2 / D at a random level of a noisy target."""
        denoise_ce: float = 0.3
        """Weight of the next-item loss of zhat there."""
        detach_items: bool = True
        """That loss has no gradient into the item table it is scored against."""
        denoise_share: float = 0.25
        """Share of the positions with denoising terms."""
        grpo: float = 0.1
        """Weight of the reinforcement."""
        group: int = 8
        """G, refinements a target."""
        grpo_positions: int = 128
        """Positions a step that are reinforced."""
        grpo_when: Literal["joint", "after"] = "joint"
        """joint: part of the one loss; after: alone, in a stage align of its own."""
        grpo_ramp_epochs: int = 0
        """Epochs over which its weight rises from 0."""
        policy: Literal["path", "item"] = "path"
        """Whose probability: of the path of moves, or of the target under the last prediction."""
        explore: float = 1.0
        """r in [0, 1]: share of the posterior's noise in a move; 1 ancestral, 0 none."""
        noise_floor: float = 0.1
        """Standard deviation of the last move, which would have none; 0: it is not counted."""
        policy_start: bool = True
        """The draw of the start counts as a move."""
        log_prob: Literal["mean", "sum"] = "mean"
        """Over dimensions and moves."""
        reward: Literal["ndcg", "sampled", "random"] = "ndcg"
        """ndcg over all items; sampled: probability among 512 negatives and the current top 50; random: a control."""
        reward_cutoff: int = 10
        """k of ndcg."""
        reward_softmax: float = 0.05
        """Weight of the target's probability beside ndcg."""
        baseline: Literal["group", "greedy"] = "group"
        """What a reward is held against: the group's mean, or that of the noise-free refinement."""
        positive_only: bool = False
        """Only what beat the baseline is reinforced."""
        clip: float = 0.2
        """epsilon of the ratio; without effect while a path is used once."""
        kl: float = 0.0
        """Weight of the divergence from the reference policy."""
        reference: Literal["none", "ema", "stage"] = "none"
        """ema: averaged denoiser; stage: the whole model as stage align began."""
        detach_thoughts: bool = False
        """Reinforcement reaches the denoiser only."""
        condition: Literal["all", "last", "none"] = "all"
        """What the denoiser reads: all thoughts, the hypothesis, or nothing of the history (control)."""
        residual: bool = True
        """Prediction = hypothesis + correction."""
        project: bool = True
        """Predictions have length sqrt(D)."""
        drop_condition: float = 0.0
        """Share of rows whose condition is dropped in the denoising terms."""
        guidance: float = 0.0
        """w at test: (1 + w) with condition - w without."""
        self_condition: bool = False
        """The prediction before is a third input."""
        denoiser_dropout: float = 0.1
        """In the denoiser."""
        mix: Literal["refined", "fixed", "learned"] = "refined"
        """The answer: the refined vector, or hypothesis + g (refined - hypothesis)."""
        mix_weight: float = 0.5
        """g of fixed; where a learned g starts."""
        test_samples: int = 1
        """Refinements averaged at test."""
        test_explore: float = 0.0
        """Noise of the moves at test, from a fixed table."""

        def __post_init__(self) -> None:
            self._check_ranges()
            self._check_diffusion()
            self._check_reinforcement()

        def _check_ranges(self) -> None:
            if self.steps < 0 or self.levels < 0:
                raise ValueError("steps and levels are at least 0.")
            weights = (
                self.plain,
                self.hypothesis,
                self.refined,
                self.denoise_mse,
                self.denoise_ce,
                self.grpo,
                self.kl,
                self.clip,
            )
            if min(*weights, self.noise_floor, self.reward_softmax, self.guidance, self.grpo_ramp_epochs) < 0:
                raise ValueError("weights, clip, noise_floor, guidance and grpo_ramp_epochs are at least 0.")
            shares = (self.explore, self.test_explore, self.denoise_share, self.mix_weight)
            if not all(0 <= share <= 1 for share in shares):
                raise ValueError("explore, test_explore, denoise_share and mix_weight lie in [0, 1].")
            if not all(0 <= rate < 1 for rate in (self.drop_condition, self.feed_dropout, self.denoiser_dropout)):
                raise ValueError("drop_condition, feed_dropout and denoiser_dropout lie in [0, 1).")
            if min(self.grpo_positions, self.reward_cutoff, self.test_samples) < 1:
                raise ValueError("grpo_positions, reward_cutoff and test_samples are at least 1.")

        def _check_diffusion(self) -> None:
            first = round(self.start * self.levels)
            if self.levels and not 1 <= first <= self.levels:
                raise ValueError(
                    f"start {self.start:g} of {self.levels} levels is level {first}; refinement starts at a level from 1 to "
                    f"{self.levels}. Raise start or levels."
                )
            if self.levels == 1 and self.schedule == "cosine" and self.forward != "none":
                raise ValueError("the cosine schedule needs at least 2 levels: its only one would be pure noise.")
            if not 0 < self.info_low <= self.info_high or self.kappa <= 0:
                raise ValueError("0 < info_low <= info_high, and kappa is above 0.")
            if self.mix == "learned" and not 0 < self.mix_weight < 1:
                raise ValueError("a learned mix starts strictly between 0 and 1: at 0 nothing would have a gradient.")
            if self.guidance and not self.drop_condition:
                raise ValueError(
                    "guidance needs a prediction without condition: train one with drop_condition above 0."
                )
            if self.test_samples > 1 and not self.test_explore:
                raise ValueError(
                    f"{self.test_samples} samples at test are all the same without noise: set test_explore above 0."
                )

        def _check_reinforcement(self) -> None:
            if self.group < 2:
                raise ValueError(
                    f"group is {self.group}; advantages compare attempts at one target, so it takes at least 2."
                )
            if not self.levels and self.grpo:
                raise ValueError(
                    "grpo rewards refinements, and levels=0 makes none. Set grpo=0, or levels to at least 1."
                )
            if bool(self.kl) != (self.reference != "none"):
                raise ValueError("kl and reference go together: a weight needs a reference, and a reference a weight.")
            if self.grpo and (self.policy == "path" or self.kl) and not self._counts_a_move():
                raise ValueError(
                    "No move of the policy has noise: raise noise_floor or explore, or set policy_start=true."
                )
            if self.reference == "stage" and self.grpo_when != "after":
                raise ValueError("reference=stage is the model as stage align began: it needs grpo_when=after.")

        def _counts_a_move(self) -> bool:
            """Has the policy a density? Moves of levels S .. 2 and the start have noise of their own, the last one its floor."""
            between = self.explore > 0 and round(self.start * self.levels) > 1
            return self.noise_floor > 0 or (self.forward != "none" and (self.policy_start or between))

    stages = (Stage("train"), Stage("align", {"epochs": 0}))

    @classmethod
    def plan(cls, config: Any) -> tuple[Stage, ...]:
        return (
            Stage("train"),
            Stage(
                "align", {"epochs": 20, "patience": 5} if config.grpo_when == "after" and config.grpo else {"epochs": 0}
            ),
        )

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        if backbone.spells and config.reward == "sampled":
            raise ValueError("reward is sampled, which scores items by their vectors; this backbone spells its items.")
        c, D = config, backbone.width
        self.chain = Chain(backbone, c.steps, dropout=c.feed_dropout, step_embedding=c.step_embedding, norm=c.feed_norm)
        self.S = round(c.start * c.levels)
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
        self.denoiser = self.averaged = self.gate = self.null = None
        if not c.levels:
            return
        self.denoiser = Denoiser(
            D, c.levels, dropout=c.denoiser_dropout, residual=c.residual, project=c.project, previous=c.self_condition
        )
        if c.mix == "learned":
            self.gate = nn.Parameter(torch.tensor(math.log(c.mix_weight / (1 - c.mix_weight))))
        if c.drop_condition or c.condition == "none":
            self.null = nn.Parameter(torch.randn(D))
        if c.reference == "ema":
            self.averaged = copy.deepcopy(self.denoiser).requires_grad_(False)
        if c.test_explore:
            self.register_buffer("noise", torch.randn(c.test_samples, self.S + 1, D))

    # --- thinking ---------------------------------------------------------------------------------------------------

    def think(self, backbone: Backbone, batch: Batch, steps: int | None = None) -> Tensor:
        h_NKD = self.chain.run(backbone, batch, steps)
        return torch.cat([h_NKD, self.refinements(h_NKD)], dim=1) if self.denoiser is not None else h_NKD

    def answer(self, z_QKD: Tensor) -> Tensor:
        if self.denoiser is None or self.config.mix == "refined":
            return z_QKD[:, -1]
        weight = self.config.mix_weight if self.gate is None else self.gate.sigmoid()
        return torch.lerp(z_QKD[:, -1 - self.S], z_QKD[:, -1], torch.as_tensor(weight, device=z_QKD.device))

    def refinements(self, h_NKD: Tensor) -> Tensor:
        """What ranks and the predictions before it, levels S .. 1, at the hypothesis' length, (N, S, D). No randomness."""
        known, size_N1 = self.condition(h_NKD), _length(h_NKD[:, -1])
        tables: Sequence[Tensor | None] = [None]
        if self.config.test_explore and not self.training:
            tables = list(self.noise)
        drawn = [self._predictions(known, table) for table in tables]
        z_NSD = drawn[0] if len(drawn) == 1 else torch.stack(drawn).mean(0)
        return z_NSD * (size_N1 / math.sqrt(h_NKD.shape[-1]))[:, None]

    def condition(self, h_NKD: Tensor, dropped_N: Tensor | None = None, denoiser: Denoiser | None = None) -> Condition:
        """What the denoiser, or another of its kind, is told of thoughts ``h_NKD``; where ``dropped_N``, nothing."""
        denoiser, c = denoiser or self._denoiser(), self.config
        thoughts_NKD = h_NKD if c.condition == "all" else h_NKD[:, -1:]
        h_ND = on_sphere(h_NKD[:, -1])
        if self.null is not None and (dropped_N is not None or c.condition == "none"):
            nothing = torch.ones(len(h_ND), dtype=torch.bool, device=h_ND.device) if dropped_N is None else dropped_N
            if c.condition == "none":
                nothing = torch.ones_like(nothing)
            null_D = on_sphere(self.null)
            h_ND = torch.where(nothing[:, None], null_D, h_ND)
            thoughts_NKD = torch.where(nothing[:, None, None], null_D, thoughts_NKD)
        return denoiser.condition(h_ND, thoughts_NKD)

    def _predictions(self, known: Condition, noise_SD: Tensor | None) -> Tensor:
        """zhat at levels S .. 1, (N, S, D); moves without noise, or with that of a table."""
        c, h_ND, made = self.config, known.h_ND, []
        nothing = self._nothing(known) if c.guidance else None
        z_ND, clean_ND = self._start_mean(h_ND), None
        if noise_SD is not None:
            z_ND = z_ND + math.sqrt(self.process.v[self.S]) * noise_SD[0]
        for t in range(self.S, 0, -1):
            clean_ND = self._guided(z_ND, t, known, nothing, clean_ND)
            made.append(clean_ND)
            sd = 0.0 if noise_SD is None else c.test_explore * self.process.q[t]
            z_ND = self.process.mean(z_ND, clean_ND, h_ND, t, sd)
            if noise_SD is not None and sd:
                z_ND = z_ND + sd * noise_SD[self.S + 1 - t]
        return torch.stack(made, dim=1)

    def _guided(
        self, z_ND: Tensor, t: int, known: Condition, nothing: Condition | None, before_ND: Tensor | None
    ) -> Tensor:
        clean_ND: Tensor = self._denoiser()(z_ND, t, known, before_ND)
        if nothing is None:
            return clean_ND
        w = self.config.guidance
        return on_sphere((1 + w) * clean_ND - w * self._denoiser()(z_ND, t, nothing, before_ND))

    def _nothing(self, known: Condition) -> Condition:
        everywhere = torch.ones(len(known.h_ND), dtype=torch.bool, device=known.h_ND.device)
        return self.condition(known.h_ND[:, None], everywhere)

    def _start_mean(self, h_ND: Tensor) -> Tensor:
        return (self.process.a[self.S] + self.process.b[self.S]) * h_ND

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
            if terms and context.steps and context.step % context.steps == 1 % context.steps:
                context.note("grad_share", _share(grpo, sum(terms.values()), h_NKD))
            terms["grpo"] = grpo
        if self.averaged is not None:
            self._follow(self.averaged, self._denoiser())
        return terms

    def _positions(self, batch: Batch, context: Context) -> Tensor | None:
        """Of each row one of its asked tokens, uniformly; None: all."""
        if self.config.positions == "all":
            return None
        keys = torch.rand(len(batch.at_Q), generator=context.generator, device=batch.at_Q.device)
        row_Q = batch.row_Q
        order = torch.argsort(row_Q.double() + keys.double() * 0.999)
        first = torch.ones(len(order), dtype=torch.bool, device=order.device)
        first[1:] = row_Q[order][1:] != row_Q[order][:-1]
        return order[first]

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
        if c.forward == "none" or not (c.denoise_mse or c.denoise_ce) or not c.denoise_share:
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
            _note_leak(context, z_ND, t_N[few], y_N[i[few]], score)
        return terms

    def draw_levels(self, n: int, generator: torch.Generator) -> Tensor:
        """Level of each row: uniform on 1..J for one half, on 1..S for the other, so that S may change without retraining."""
        where = torch.rand(2, n, generator=generator, device=generator.device)
        most = torch.where(where[0] < 0.5, self.process.levels, self.S)
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
                path = self.rollout(self.condition(h_RKD), context.generator)
                reached_RD = _length(h_RKD[:, -1]) * direction(path[-1])
                reward_R, ranked_R = self._reward(reached_RD, y_R, in_groups, context)
                reward_PG = reward_R.view(-1, c.group)
                advantage_PG = self._advantage(reward_PG, h_PKD, y_N[some_P], drawn, context)
            note_rewards(context, reward_PG, ranked_R.view(-1, c.group))
            known = self.condition(h_RKD)
            means: list[Tensor] = []
            if c.policy == "item":
                u_RD = _length(h_RKD[:, -1]) * direction(self._denoiser()(path[-2], 1, known))
                lp_R = in_groups.log_prob(u_RD, y_R[:, None], frozen=c.detach_thoughts).sum((1, 2))
            else:
                lp_R, means = self.path_log_prob(path, known)
        loss = clipped(lp_R, advantage_PG.flatten(), c.clip)
        if c.kl:
            tokens = batch.at_Q if chosen is None else batch.at_Q[chosen]
            kl = self._kl(path, means, h_RKD, batch, tokens[some_P], context)
            context.note("kl", kl)
            loss = loss + c.kl * kl
        return loss

    def rollout(self, known: Condition, generator: torch.Generator) -> list[Tensor]:
        """A noisy refinement of each row: z_S .. z_0, (N, D) each."""
        h_ND = known.h_ND

        def noise() -> Tensor:
            return torch.randn(h_ND.shape, generator=generator, device=h_ND.device, dtype=h_ND.dtype)

        path = [self._start_mean(h_ND) + math.sqrt(self.process.v[self.S]) * noise()]
        before_ND = None
        for t in range(self.S, 0, -1):
            before_ND = self._denoiser()(path[-1], t, known, before_ND)
            sd = self._sd(t)
            mean_ND = self.process.mean(path[-1], before_ND, h_ND, t, sd)
            path.append(mean_ND + sd * noise() if sd else mean_ND)
        return path

    def path_log_prob(
        self, path: list[Tensor], known: Condition, denoiser: Denoiser | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """log pi of each row's path with gradient through the means, (N,), and those means of the moves that count."""
        denoiser, terms, means = denoiser or self._denoiser(), [], []
        start_sd = math.sqrt(self.process.v[self.S])
        if self.config.policy_start and start_sd:
            terms.append(_log_normal(path[0], self._start_mean(known.h_ND), start_sd))
        before_ND = None
        for place, t in enumerate(range(self.S, 0, -1)):
            before_ND = denoiser(path[place], t, known, before_ND)
            if sd := self._sd(t):
                mean_ND = self.process.mean(path[place], before_ND, known.h_ND, t, sd)
                terms.append(_log_normal(path[place + 1], mean_ND, sd))
                means.append(mean_ND / sd)
        if not terms:
            raise ValueError("no move of the policy has noise: raise noise_floor or explore")
        per_move_ND = torch.stack(terms)
        return (per_move_ND.mean((0, 2)) if self.config.log_prob == "mean" else per_move_ND.sum((0, 2))), means

    def _sd(self, t: int) -> float:
        return self.config.noise_floor if t == 1 else self.config.explore * self.process.q[t]

    def _reward(self, u_ND: Tensor, y_N: Tensor, score: Score, context: Context) -> tuple[Tensor, Tensor]:
        """Reward of each vector, (N,), and the part of it that follows from the rank alone."""
        c = self.config
        if c.reward == "random":
            drawn_N = torch.rand(len(y_N), generator=context.generator, device=y_N.device)
            return drawn_N, drawn_N
        if c.reward == "sampled":
            sampled_N = self._sampled(u_ND, y_N, score, context)
            return sampled_N, sampled_N
        ranked_N = ndcg(*score.place(u_ND, y_N, within=c.reward_cutoff), c.reward_cutoff)
        if not c.reward_softmax:
            return ranked_N, ranked_N
        probability_N = score.log_prob(u_ND, y_N[:, None]).sum((1, 2)).exp().nan_to_num(nan=0.0)
        return ranked_N + c.reward_softmax * probability_N, ranked_N

    def _sampled(self, u_ND: Tensor, y_N: Tensor, score: Score, context: Context) -> Tensor:
        """Probability of the target among uniform negatives and the items that now rank first."""
        n_items = len(score.items())
        negatives = 1 + torch.randint(n_items, (SAMPLED_NEGATIVES,), generator=context.generator, device=y_N.device)
        others_NC = torch.cat([negatives.expand(len(y_N), -1), score.top(u_ND, min(SAMPLED_TOP, n_items))], dim=1)
        top_NC = (score.items()[others_NC[:, SAMPLED_NEGATIVES:] - 1] @ u_ND[..., None])[..., 0]
        logits_NC = torch.cat([u_ND @ score.items()[negatives - 1].t(), top_NC], dim=1)
        logits_NC = logits_NC.masked_fill(others_NC == y_N[:, None], -torch.inf)
        own_N1 = (u_ND * score.items()[y_N - 1]).sum(1, keepdim=True)
        return torch.cat([own_N1, logits_NC], dim=1).softmax(1)[:, 0]

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
                _, before = self.path_log_prob(path, known, self.averaged)
            else:
                reference = context.reference
                if reference is None or not isinstance(reference.head, DiffuReason):
                    raise ValueError("the reference is the model as the stage began")
                asked = replace(batch, at_Q=at_P, targets_Q=None, place_Q=None)
                thoughts_PKD = reference.head.chain.run(reference.backbone, asked)
                known = reference.head.condition(thoughts_PKD.repeat_interleave(self.config.group, 0))
                _, before = reference.head.path_log_prob(path, known)
        if not means:  # policy = item took no means
            _, means = self.path_log_prob(path, self.condition(h_RKD))
        return torch.stack([(one - other).square().mean() / 2 for one, other in zip(means, before, strict=True)]).mean()

    @staticmethod
    @torch.no_grad()
    def _follow(averaged: Denoiser, live: Denoiser) -> None:
        torch._foreach_lerp_(list(averaged.parameters()), list(live.parameters()), 1 - REFERENCE_DECAY)

    noise: Tensor


def clipped(log_prob_N: Tensor, advantage_N: Tensor, epsilon: float) -> Tensor:
    """-mean min(w A, clip(w, 1 - eps, 1 + eps) A) with w = exp(log p - sg log p) (PPO, arXiv 1707.06347, eq. 7)."""
    ratio_N = torch.exp(log_prob_N - log_prob_N.detach())
    return -torch.minimum(ratio_N * advantage_N, ratio_N.clamp(1 - epsilon, 1 + epsilon) * advantage_N).mean()


def _log_normal(x: Tensor, mean: Tensor, sd: float) -> Tensor:
    """log N(x; mean, sd^2) of each dimension."""
    return -((x - mean) / sd).square() / 2 - math.log(sd) - math.log(2 * math.pi) / 2


def _length(x: Tensor) -> Tensor:
    """|x| along the last axis, kept as an axis of 1; its gradient at 0 is 0."""
    return (x.square().sum(-1, keepdim=True) + 1e-12).sqrt()


def _share(part: Tensor, rest: Tensor | int, of: Tensor) -> Tensor:
    """Gradient norm of one term by the thoughts, as a share of the others'."""
    if not isinstance(rest, Tensor) or not part.requires_grad:
        return of.new_zeros(())
    norms = [torch.autograd.grad(term, of, retain_graph=True, allow_unused=True)[0] for term in (part, rest)]
    own, others = (of.new_zeros(()) if grad is None else grad.norm() for grad in norms)
    return own / others.clamp_min(1e-12)


@torch.no_grad()
def _note_leak(context: Context, z_ND: Tensor, t_N: Tensor, y_N: Tensor, score: Score) -> None:
    """``leak@t``: share of noisy targets whose nearest item is the target. Near 1, level t teaches decoding only."""
    nearest_N = (z_ND @ direction(score.items()).t()).argmax(1) + 1
    for t in t_N.unique().tolist():
        context.note(f"leak@{t}", (nearest_N == y_N)[t_N == t].float().mean())


@contextmanager
def _without_dropout(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
