"""Settings of DiffuReason, and which of them do not go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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

    @property
    def first(self) -> int:
        """S, the level at which refinement starts."""
        return round(self.start * self.levels)

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
        if self.levels and not 1 <= self.first <= self.levels:
            raise ValueError(
                f"start {self.start:g} of {self.levels} levels is level {self.first}; refinement starts at a level from 1 to "
                f"{self.levels}. Raise start or levels."
            )
        if self.levels == 1 and self.schedule == "cosine" and self.forward != "none":
            raise ValueError("the cosine schedule needs at least 2 levels: its only one would be pure noise.")
        if not 0 < self.info_low <= self.info_high or self.kappa <= 0:
            raise ValueError("0 < info_low <= info_high, and kappa is above 0.")
        if self.mix == "learned" and not 0 < self.mix_weight < 1:
            raise ValueError("a learned mix starts strictly between 0 and 1: at 0 nothing would have a gradient.")
        if self.guidance and not self.drop_condition:
            raise ValueError("guidance needs a prediction without condition: train one with drop_condition above 0.")
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
            raise ValueError("kl and reference go together: a weight needs a reference, and a reference a weight.")
        if self.grpo and (self.policy == "path" or self.kl) and not self._counts_a_move():
            raise ValueError("No move of the policy has noise: raise noise_floor or explore, or set policy_start=true.")
        if self.reference == "stage" and self.grpo_when != "after":
            raise ValueError("reference=stage is the model as stage align began: it needs grpo_when=after.")

    def _counts_a_move(self) -> bool:
        """Has the policy a density? Moves of levels S .. 2 and the start have noise of their own, the last one its floor."""
        between = self.explore > 0 and self.first > 1
        return self.noise_floor > 0 or (self.forward != "none" and (self.policy_start or between))
