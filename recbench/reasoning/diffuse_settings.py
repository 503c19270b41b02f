"""Settings of DiffuReason, and which of them do not go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from recbench.conditions import OnlyWith
from recbench.limits import at_least, below_one, shares
from recbench.reasoning.diffusion import Forward, Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffuReasonConfig:
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
    """S / J, in (0, 1]: the level at which refinement takes the hypothesis for a noisy intent."""
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
    """Whose probability: of the path of moves, or of the target under the last prediction. The second pushes the target itself down
    where a path earned little, unless positive_only."""
    explore: float = 1.0
    """r in [0, 1]: share of the posterior's noise in a move; 1 ancestral, 0 none."""
    noise_floor: float = 0.1
    """Standard deviation of the last move, which would have none; 0: it is not counted."""
    policy_start: bool = True
    """The draw of the start counts as a move."""
    log_prob: Literal["mean", "sum"] = "mean"
    """Over dimensions and moves."""
    reward: Literal["ndcg", "likelihood", "sampled", "random"] | None = None
    """ndcg over all items; likelihood: log-probability of the target, which where items are spelled spares a beam a refinement;
    sampled: probability among 512 negatives and the current top 50; random: a control. Unset: likelihood where items are
    spelled, else ndcg."""
    reward_cutoff: int = 10
    """k of ndcg."""
    reward_softmax: float = 0.05
    """Weight of the target's probability beside ndcg; other rewards have none."""
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
    """w: what ranks goes by (1 + w) with condition - w without, in training as at test. Paths of grpo go without it."""
    self_condition: bool = False
    """The prediction before is a third input."""
    denoiser_dropout: float = 0.1
    """In the denoiser."""
    denoiser_width: int | None = None
    """Inside the denoiser; unset: D, at most 256."""
    mix: Literal["refined", "fixed", "learned"] = "refined"
    """The answer: the refined vector, or hypothesis + g (refined - hypothesis). What grpo rewards is the refined vector alone."""
    mix_weight: float = 0.5
    """g of fixed; where a learned g starts."""
    test_samples: int = 1
    """Refinements averaged at test."""
    test_explore: float = 0.0
    """Noise of the moves at test, from a fixed table."""

    only_with: ClassVar[OnlyWith] = {
        "steps": "step_embedding feed_norm feed_dropout",
        "levels": (
            "start forward condition residual project self_condition refined positions mix denoiser_dropout "
            "denoiser_width test_explore"
        ),
        "levels and forward=gauss|shift": "schedule denoise_mse denoise_ce denoise_share",
        "levels and forward=shift": "kappa",
        "levels and forward=gauss|shift and schedule=information": "info_high info_low",
        "levels and forward=gauss|shift and denoise_share": "drop_condition",
        "levels and forward=gauss|shift and denoise_share and denoise_ce": "detach_items",
        "levels and mix=fixed|learned": "mix_weight",
        "grpo": (
            "group grpo_positions grpo_when grpo_ramp_epochs policy explore noise_floor reward baseline "
            "positive_only clip kl reference detach_thoughts"
        ),
        "grpo and policy=path": "policy_start log_prob",
        "grpo and reward=ndcg": "reward_cutoff reward_softmax",
    }

    def __post_init__(self) -> None:
        self._check_ranges()
        self._check_diffusion()
        self._check_answer()
        self._check_reinforcement()
        self._check_losses()

    @property
    def first(self) -> int:
        """S, the level at which refinement starts."""
        return round(self.start * self.levels)

    @property
    def denoises(self) -> bool:
        """Are there denoising terms?"""
        return self.forward != "none" and bool(self.denoise_share) and bool(self.denoise_mse or self.denoise_ce)

    def _check_ranges(self) -> None:
        weights = ("plain", "hypothesis", "refined", "denoise_mse", "denoise_ce", "grpo", "reward_softmax", "kl")
        at_least(0, self, "steps", "levels", *weights, "clip", "noise_floor", "guidance", "grpo_ramp_epochs")
        at_least(1, self, "grpo_positions", "reward_cutoff", "test_samples", "denoiser_width")
        shares(self, "explore", "test_explore", "denoise_share", "mix_weight")
        below_one(self, "drop_condition", "feed_dropout", "denoiser_dropout")

    def _check_diffusion(self) -> None:
        if not 0 < self.start <= 1:
            raise ValueError(f"start is {self.start:g}; it lies in (0, 1].")
        if self.levels and not self.first:
            raise ValueError(
                f"start {self.start:g} of {self.levels} levels is level 0; refinement starts at a level from 1 to "
                f"{self.levels}. Raise start or levels."
            )
        if self.levels == 1 and self.schedule == "cosine" and self.forward != "none":
            raise ValueError("the cosine schedule needs at least 2 levels: its only one would be pure noise.")
        if not 0 < self.info_low <= self.info_high:
            raise ValueError(
                f"info_low is {self.info_low:g} and info_high {self.info_high:g}; information is above 0 and falls from "
                "info_high to info_low."
            )
        if self.kappa <= 0:
            raise ValueError(f"kappa is {self.kappa:g}; it is above 0. For no noise at all: forward=none.")

    def _check_answer(self) -> None:
        if self.mix == "learned" and not self.refined:
            raise ValueError(
                "mix=learned learns g from the loss of what ranks, and refined is 0: raise it, or mix=fixed."
            )
        if self.mix == "learned" and not 0 < self.mix_weight < 1:
            raise ValueError(
                f"mix_weight is {self.mix_weight:g}; where a learned g starts it lies strictly between 0 and 1, as at the "
                "ends it would have no gradient."
            )
        if self.guidance and not (self.drop_condition and self.denoises):
            raise ValueError(
                "guidance leads away from a prediction that is told nothing: train one with drop_condition above 0, which acts in "
                "denoising terms."
            )
        if self.guidance and self.condition == "none":
            raise ValueError(
                "under condition=none every prediction is told nothing, so guidance has none to lead away from."
            )
        if self.test_explore and self.forward == "none":
            raise ValueError(
                f"test_explore is {self.test_explore:g}, and forward=none has no noise to scale: leave one of them."
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
            raise ValueError("grpo rewards refinements, and levels=0 makes none. Set grpo=0, or levels to at least 1.")
        if bool(self.kl) != (self.reference != "none"):
            raise ValueError(
                f"kl is {self.kl:g} and reference {self.reference}; a weight needs a reference, and a reference a weight."
            )
        if self.reference == "stage" and self.grpo_when != "after":
            raise ValueError("reference=stage is the model as stage align began: it needs grpo_when=after.")
        moves = self._moves_with_noise()
        starts = self.policy_start and self.forward != "none"
        if self.grpo and self.policy == "path" and not (moves or starts):
            raise ValueError("No move of a path has noise, so none has a probability: raise noise_floor.")
        if self.grpo and self.kl and not moves:
            raise ValueError("kl is over moves with noise, and there is none behind the start: raise noise_floor.")

    def _moves_with_noise(self) -> bool:
        """Has a move a density? Those of levels S .. 2 by exploration, the last one by its floor."""
        return self.noise_floor > 0 or (self.forward != "none" and self.explore > 0 and self.first > 1)

    def _check_losses(self) -> None:
        """Without one, stage ``train`` would run to its end and move nothing."""
        reinforces = self.grpo and self.grpo_when == "joint"
        if not (self.plain or self.hypothesis or (self.levels and (self.refined or self.denoises or reinforces))):
            raise ValueError("every loss of stage train weighs 0: raise plain, hypothesis or refined.")
