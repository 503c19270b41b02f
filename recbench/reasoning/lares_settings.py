"""Settings of LARES, and which of them make no sense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from recbench.conditions import OnlyWith
from recbench.limits import above, at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class LARESConfig:
    """Recurrence, alignment and reinforcement."""

    pre_layers: int | None = None
    """Lower layers that run once; the others are the core. Unset: half of the backbone's, at least 1. 0: no pre-block."""
    mean_steps: int = 4
    """m: the number of steps in training is drawn around it; the filter takes exactly it."""
    step_scheme: Literal["poisson-lognormal", "poisson", "uniform", "fixed"] = "poisson-lognormal"
    """Law of the number of steps, one draw a pass. poisson: 1 + Poisson(m - 1), at most 2m; uniform: 1..2m."""
    test_steps: int | None = None
    """Steps when it ranks, in validation as at test; unset: mean_steps."""
    start: Literal["normal", "zero"] = "normal"
    """Z_0 in training; zero holds at test, too."""
    test_start: Literal["table", "zero"] = "table"
    """Z_0 at test after noise in training: a fixed noise vector a position, or zero."""
    start_scale: float = 3.0
    """omega: Z_0 is this times noise cut at three standard deviations."""
    start_sd: float = 1.0
    """Standard deviation of that noise."""
    test_draws: int = 1
    """Noise tables at test; the answer is the mean over them."""
    table_seed: int | None = None
    """Of the noise tables; unset: drawn from the run's seed."""
    mix: Literal["add", "linear", "concat", "gate", "state"] | None = None
    """How H enters a step: mean, learned scalar mean, projection; state: Z_0 = H and H never again; gate: H + w (Z - H), Z at
    the length of H, no norm behind, w = 0 at first, so that any number of steps begins as none. Unset: gate on a pretrained
    backbone, else add."""
    norm_history: bool | None = None
    """H through a LayerNorm without gain before it is mixed; unset: where the backbone's layers do not end in their norm."""
    tla: float = 0.1
    """Weight of trajectory alignment: the last thoughts of two histories with the same target."""
    sla: float = 0.5
    """Weight of step alignment: the last thought and one of the thoughts before."""
    similarity: Literal["dot", "cos"] = "dot"
    """Of the alignments."""
    contrast_tau: float = 1.0
    """Temperature of the alignments."""
    align_ramp_epochs: int = 0
    """Epochs over which both alignment weights rise from 0."""
    anchors: int = 256
    """Positions a step that are aligned, drawn uniformly."""
    partner: Literal["target", "self"] = "target"
    """Second view of trajectory alignment: another history with the same target, or the same one under other noise."""
    same_step: bool = True
    """Both views take the same number of steps."""
    share_pass: bool = True
    """next_item and the alignments from one pass; the authors take two. The expected gradient is the same."""
    sla_exclude_last: bool = False
    """Step alignment never picks the last thought itself."""
    mask_same_user: bool = True
    """Positions of one user are no negatives of each other: every prefix of a user stands in the same batch."""
    mask_same_target: bool = False
    """Positions with the same target are no negatives of each other."""
    backprop_steps: int | None = None
    """Gradient through the last so many steps only; unset: all."""
    filter_top: int = 100
    """rpt keeps a position if its target ranks this high at least once; 0: all are kept."""
    filter_draws: int = 3
    """Draws of Z_0 in that filter."""
    group: int = 4
    """G, trajectories a target in rpt."""
    kl_weight: float = 1.0
    """beta, weight of the fence around the reference."""
    reward: Literal["recall", "ndcg"] = "recall"
    """Of the last thought's ranking."""
    reward_k: int = 10
    """Its cutoff."""
    advantage: Literal["group", "one"] = "group"
    """group: standardised within the group; one: 1 everywhere, which is plain supervision of every step (the control)."""
    rpt_positions: int = 400
    """Positions a step of rpt."""
    rpt_steps: int | None = None
    """Score that many steps of each trajectory, drawn uniformly; unset: all."""
    same_depth: bool = False
    """All trajectories of a group take the same number of steps."""
    share_start: bool = False
    """The reference starts from its trajectory's own Z_0 instead of a fresh one."""
    exit_tolerance: float = 0.0
    """At test a row stops once a step changes its asked state by less than this share; 0: never."""

    only_with: ClassVar[OnlyWith] = {
        "mix!=state and start=normal": "test_start start_scale start_sd",
        "mix!=state and start=normal and test_start=table": "table_seed",
        "tla or sla": "similarity contrast_tau anchors align_ramp_epochs share_pass mask_same_user mask_same_target",
        "tla": "partner same_step",
        "sla": "sla_exclude_last",
        "filter_top": "filter_draws",
        "advantage=group": "reward reward_k",
        "kl_weight": "share_start",
    }

    def __post_init__(self) -> None:
        at_least(
            1, self, "mean_steps", "test_steps", "test_draws", "anchors", "filter_draws", "reward_k", "backprop_steps"
        )
        at_least(1, self, "rpt_positions", "rpt_steps")
        at_least(0, self, "tla", "sla", "kl_weight", "start_scale", "start_sd", "exit_tolerance")
        at_least(0, self, "pre_layers", "filter_top", "align_ramp_epochs")
        above(0, self, "contrast_tau")
        if self.group < 2:
            raise ValueError(
                f"group is {self.group}; advantages compare attempts at one target, so it takes at least 2."
            )
        if self.test_draws > 1 and (self.mix == "state" or "zero" in (self.start, self.test_start)):
            raise ValueError(
                f"test_draws is {self.test_draws}, but without noise at test (start, test_start or mix) all draws are the same."
            )
