"""Settings of LASAR, and which of them do not go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from recbench.conditions import OnlyWith
from recbench.limits import above, at_least, below_one
from recbench.reasoning.anchors import Kind, Pool, Reading
from recbench.reasoning.depth import Pay
from recbench.reasoning.feed import Fed
from recbench.reasoning.nearness import Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class LASARConfig:
    """Depth, thoughts, anchors, reinforcement."""

    max_depth: int = 8
    """N_max."""
    min_depth: int = 1
    """Least N that the policy may pick. 0 lets it skip thinking, which the paper does not."""
    depth: Literal["policy", "sample", "random", "fixed"] = "policy"
    """At test: the policy's likeliest N, a draw of it, any N alike (control), or ``fixed_depth`` (control)."""
    fixed_depth: int = 4
    """N of fixed, in training and at test; 0: the plain model."""
    policy_hidden: int | None = None
    """Width of the policy's hidden layer; unset: a quarter of the backbone's, at least 64."""
    policy_detach: bool = True
    """The policy's losses have no gradient into the backbone."""
    policy_rate: float = 10.0
    """Times the learning rate, for the policy."""
    feed: Fed = "rms"
    """What a thought is fed: the state before, at the scale of inputs, raw, or projected; or a constant (control)."""
    readout: Literal["last", "end"] = "last"
    """What answers: the last thought, or the state of one more learned token behind it, in stage ground too."""
    cuts: int = 1
    """Positions a row that think in align and rl; 0: all."""
    keep_weight: float = 1.0
    """align: weight of the plain loss at all positions of the row, so that the backbone does not forget."""
    ground_codes: float = 0.0
    """ground: weight of reading the codes of items off their vectors (0.1 is usual); 0: ground is the plain model."""
    align: Measure = "kl"
    """How a thought is held near its anchor. kl: both ways, softmax over coordinates."""
    align_weight: float | Literal["auto"] = 1.0
    """alpha, its weight. auto: such that at the first step of align its term is 0.3 of next_item."""
    align_tau: float = 1.0
    """Temperature of kl."""
    policy_weight: float = 0.1
    """align: weight of the cross-entropy of the policy against N = S."""
    label_smoothing: float = 0.1
    """Of it: a policy that is sure of one N would never try another."""
    anchor: Kind = "auto"
    """text, cooc (near in training), backbone (that of stage ground reads the segments), codes, file; auto: file, text or cooc."""
    anchor_context: Reading = "alone"
    """backbone reads a segment alone, or behind the row's history up to the target (prompt), cut to its newest events."""
    text_encoder: str = ""
    """A sentence encoder for text and file, as ``features.encoder``; empty: TF-IDF."""
    rationale_file: str = ""
    """JSON lines of written rationales, for file."""
    use_target: bool = True
    """Rationales of training targets know the target. Never read at test."""
    window: int = 20
    """Events that a rationale speaks of."""
    merge: float = 0.9
    """Neighbouring segments with a larger cosine are one."""
    merge_target: bool = True
    """What is of the target merges with what stands before it if they say the same, so N tells something of the target in align;
    false: it is the last segment by itself, whatever it says, and N follows from the history."""
    code_levels: int = 3
    """Levels of codes, for ground_codes and anchor codes."""
    segment_pool: Pool = "items"
    """A segment is the sum of its items' vectors, or text: what it says is written out and read by TF-IDF or text_encoder."""
    shuffle_anchors: bool = False
    """Control: every target has the anchors of another with as many segments."""
    candidates: Literal["top", "sample"] = "top"
    """rl rewards the best G items of each answer, or G drawn from its own distribution: a policy gradient, with repeats."""
    group: int = 8
    """G, items that are rewarded; more for large catalogues: a target that is not among them teaches nothing."""
    reward: Literal["rank", "hit", "prefix"] = "rank"
    """rank: 1 for the target, and where it is there others pay for standing high; hit: 1 or 0; prefix: right leading codes."""
    kl_weight: float = 1e-3
    """beta, weight of the fence around the reference."""
    clip: float = 0.2
    """Of the ratio; without effect while a group is used once."""
    skip_missed: bool = False
    """Groups without the target are left out, and their fence with them."""
    reference_sync: bool = False
    """The reference is the model as the epoch began, not as the stage did."""
    terminal_weight: float = 0.1
    """gamma_KL: the last thought near the last anchor."""
    depth_weight: float = 0.1
    """gamma_RF, weight of REINFORCE."""
    depth_baseline: Literal["ema", "paired", "exact"] = "ema"
    """ema: moving mean; paired: another depth of the same answer; exact: all depths of it, summed instead of drawn."""
    ema: float = 0.95
    """Of the moving mean."""
    step_cost: float = 0.005
    """lambda, price of a thought."""
    entropy: float = 0.01
    """eta, bonus for an undecided policy."""
    reward_unit: Literal["relative", "raw"] = "relative"
    """lambda and eta in units of the moving mean reward, or as they are."""
    group_reward: Pay = "dcg"
    """What a depth is paid: 1 / log2(1 + place) of the target among the G; the mean reward; or 1 if it is there."""
    shuffle_reward: bool = False
    """Control: depths are paid by the reward of another answer."""
    rl_holdout: float = 0.0
    """Share of users whose last training target only rl trains on."""
    skip: tuple[str, ...] = ()
    """Stages left out: ground (one stage for all), rl (supervised only)."""

    only_with: ClassVar[OnlyWith] = {
        "depth=fixed": "fixed_depth",
        "depth=policy|sample|random": "min_depth",
        "depth=policy|sample": "policy_hidden policy_detach policy_rate policy_weight",
        "depth=policy|sample and policy_weight": "label_smoothing",
        "align=kl|cosine|mse": "align_weight",
        "align=kl": "align_tau",
        "anchor=codes or ground_codes": "code_levels",
        "anchor!=codes": "merge",
        "anchor!=codes and use_target": "merge_target",
        "skip!=rl": "candidates group reward kl_weight clip skip_missed",
        "skip!=rl and kl_weight": "reference_sync",
        "skip!=rl and align=kl|cosine|mse": "terminal_weight",
        "skip!=rl and depth=policy|sample": "depth_weight",
        "skip!=rl and depth=policy|sample and depth_weight": (
            "depth_baseline ema step_cost entropy reward_unit group_reward shuffle_reward"
        ),
    }

    @property
    def adaptive(self) -> bool:
        """Does the policy decide how long to think?"""
        return self.depth in ("policy", "sample")

    def __post_init__(self) -> None:
        self._check_depth()
        self._check_anchors()
        self._check_ranges()

    def _check_anchors(self) -> None:
        if "ground" in self.skip and self.anchor == "backbone":
            raise ValueError("anchor is backbone, so stage ground cannot be skipped: its model reads the segments.")
        if self.rationale_file and self.anchor not in ("auto", "file"):
            raise ValueError(f"rationale_file is given and anchor is {self.anchor}; leave out one of the two.")
        if self.anchor == "file" and not self.rationale_file:
            raise ValueError("anchor is file, so rationale_file must name one.")
        if self.text_encoder and self.anchor == "cooc":
            raise ValueError("text_encoder is given and anchor is cooc, which reads no text; leave out one of the two.")
        if self.anchor_context == "prompt" and self.anchor != "backbone":
            raise ValueError(
                f"anchor_context is prompt and anchor is {self.anchor}; only anchor=backbone reads a history."
            )
        made_of = "file" if self.rationale_file else self.anchor
        if made_of == "file" and not self.merge_target:
            raise ValueError(
                "merge_target is false, but rationales are of a file: their writer decided how many segments."
            )
        if self.segment_pool == "text" and made_of not in ("auto", "text"):
            raise ValueError(
                f"segment_pool is text and anchors are of {made_of}; it takes anchor=text, or auto where it is text."
            )

    def _check_depth(self) -> None:
        at_least(1, self, "max_depth")
        at_least(0, self, "min_depth", "fixed_depth", "cuts")
        if self.min_depth > self.max_depth:
            raise ValueError(f"min_depth is {self.min_depth}; it is at most max_depth, {self.max_depth}.")
        if set(self.skip) - {"ground", "rl"}:
            raise ValueError("skip takes ground and rl; without align there is nothing of LASAR left.")
        if "ground" in self.skip and self.ground_codes:
            raise ValueError("ground_codes is a loss of stage ground, which skip leaves out.")

    def _check_ranges(self) -> None:
        if self.group < 2:
            raise ValueError(f"group is {self.group}; advantages compare items of one list, so it takes at least 2.")
        at_least(1, self, "window", "code_levels", "policy_hidden")
        above(0, self, "align_tau", "policy_rate")
        at_least(0, self, *(f"{name}_weight" for name in ("keep", "policy", "kl", "terminal", "depth")))
        at_least(0, self, "ground_codes", "step_cost", "entropy", "clip")
        if self.align_weight != "auto":
            at_least(0, self, "align_weight")
        below_one(self, "label_smoothing", "ema", "rl_holdout")
