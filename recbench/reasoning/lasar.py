"""LASAR: latent thoughts pulled to the segments of a rationale, and a policy that decides how many there are.

Chen et al., "LASAR: Latent Adaptive Semantic Aligned Reasoning for Generative Recommendation", arXiv 2605.10207. Neither its text
nor its code was at hand: what stands here is reconstructed from two public close readings, and no number made with it is a
reproduction. The paper's model is a language model that spells items; here it is any backbone.

h_0 is the plain state; thought t is the state behind one more token, which is fed thought t - 1 (Coconut, arXiv 2412.06769). The
policy picks the depth N from h_0 before the first thought; h_N answers, or the state of one more token behind it.
Stages: ``ground``, the plain model; ``align``, N = S segments, thought t near anchor t, the policy learns S; ``rl``, GRPO over the
best items (arXiv 2402.03300, rewards as in MiniOneRec, arXiv 2510.24431), REINFORCE for the depth. With N = 0 it is the model of
``ground``, number for number: the plain model, or with ``readout = end`` one that reads off that token, too.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.backbones.base import Backbone
from recbench.data.batching import Batch
from recbench.reasoning.anchors import AnchorConfig, Anchors, Source, deranged, item_codes, source
from recbench.reasoning.base import Context, ReasoningHead, Stage, targets
from recbench.reasoning.codebooks import code_loss
from recbench.reasoning.cuts import held_out, some_a_row
from recbench.reasoning.depth import (
    Policy,
    entropy,
    fixed_uniform,
    held,
    indifferent_mean,
    label_loss,
    note_depths,
)
from recbench.reasoning.diagnostics import note_similarity
from recbench.reasoning.feed import Feed
from recbench.reasoning.lasar_rl import Reinforcement
from recbench.reasoning.lasar_settings import LASARConfig
from recbench.reasoning.nearness import apart, over_thoughts
from recbench.reasoning.readout import End, ended
from recbench.scoring.base import Score

AUTO_SHARE = 0.3
"""What ``align_weight`` = auto makes of the anchors' term at first, as a share of the loss of the next item."""
SHOWN = 1024
"""Training targets whose labels are looked at as stage align begins."""
FEW_BITS = 0.1
"""Below this entropy labels are as good as one label."""


@final
class LASAR(ReasoningHead):
    """Thoughts with anchors, and a depth for each answer. A reconstruction."""

    Config = LASARConfig
    may_skip = True
    lasting = ("readout", "ground_codes", "rl_holdout")

    stages = (
        Stage("ground"),
        Stage("align", {"epochs": 24, "patience": 8, "learning_rate": 2e-4}),
        Stage(
            "rl",
            {
                "epochs": 10,
                "patience": 3,
                "batch_size": 1024,
                "learning_rate": 1e-4,
                "dropout": 0.0,
                "clip_norm": 1.0,
            },
            needs="align",
        ),
    )

    @classmethod
    def plan(cls, config: Any) -> tuple[Stage, ...]:
        return tuple(stage for stage in cls.stages if stage.name not in config.skip)

    @classmethod
    def begins_as(cls, config: Any) -> Mapping[str, tuple[str, ...]]:
        plain = not config.ground_codes and config.readout == "last" and not config.rl_holdout
        return {"none": ("ground",)} if plain else {}

    thinks: Tensor
    paid: Tensor
    alpha: Tensor | None

    def __init__(self, config: LASARConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        c, D = config, backbone.width
        if c.reward == "prefix" and not backbone.spells:
            raise ValueError("reward is prefix, which pays for right codes; this backbone does not spell its items.")
        if c.candidates == "top" and c.group > backbone.n_items and "rl" not in c.skip:
            raise ValueError(f"group is {c.group}, but there are only {backbone.n_items} items to be the best.")
        if c.ground_codes and backbone.spells:
            raise ValueError(
                "ground_codes teaches codes of items; this backbone spells its items, so ground does so anyway."
            )
        self.feed = Feed(backbone, c.feed, max(c.max_depth, c.fixed_depth if c.depth == "fixed" else 1))
        self.policy = Policy(backbone, c.min_depth, c.max_depth, c.policy_hidden)
        self.codes = max(2, min(64, backbone.n_items // 4))
        self.grounded: Backbone | None = None
        """The backbone as stage ground left it, where it reads segments."""
        self.student: nn.Module | None = None
        self.readers: nn.ModuleList | None = None
        if c.anchor == "codes" or c.ground_codes:
            self.readers = nn.ModuleList(nn.Linear(D, self.codes) for _ in range(c.code_levels))
        if c.anchor == "backbone":
            self.grounded = copy.deepcopy(backbone).requires_grad_(False).eval()
        if c.anchor not in ("codes", "backbone"):
            self.student = nn.Linear(D, D, bias=False)
            nn.init.orthogonal_(self.student.weight)
        self.register_buffer("thinks", torch.tensor(False))
        self.register_buffer("paid", torch.tensor(float("nan")))
        self.register_buffer("alpha", torch.tensor(float("nan")) if c.align_weight == "auto" else None)
        self.end = End(backbone) if c.readout == "end" else None
        self._source: Source | None = None
        self._codes_VL: Tensor | None = None
        self.synced = 0
        """The epoch as whose beginning the reference of rl stands."""

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.grounded is not None:
            self.grounded.eval()
        return self

    @property
    def scalable(self) -> bool:  # type: ignore[override] # its weights say whether it was taught to think
        return bool(self.thinks) and not (self.config.depth == "fixed" and self.config.fixed_depth == 0)

    @property
    def rates(self) -> Mapping[str, float]:
        return {"policy.": self.config.policy_rate}

    def given(self) -> frozenset[str]:
        return frozenset() if self.grounded is None else frozenset(f"grounded.{n}" for n in self.grounded.given())

    # --- thinking ---------------------------------------------------------------------------------------------------

    def think(self, backbone: Backbone, batch: Batch, steps: int | None = None) -> Tensor:
        c = self.config
        fixed = steps if steps is not None else 0 if not self.thinks else c.fixed_depth if c.depth == "fixed" else None
        more = fixed != 0 or self.end is not None
        seen = backbone.encode(backbone.embed(batch), batch, at_Q=batch.at_Q, remember=more)
        n_Q = self.depths(seen.h_QD, batch) if fixed is None else torch.full_like(batch.at_Q, fixed)
        self.taken_Q = n_Q
        z_QKD, u_QD = self.rollout(backbone, seen.memory, seen.h_QD, batch.at_Q, n_Q)
        return z_QKD if self.end is None else ended(z_QKD, u_QD, n_Q)

    def depths(self, h_QD: Tensor, batch: Batch) -> Tensor:
        """N of each asked token, (Q,), as at test. No randomness: draws follow from user and place."""
        c = self.config
        if c.depth == "random":
            return (fixed_uniform(batch) * (c.max_depth - c.min_depth + 1)).long() + c.min_depth
        return self.policy.drawn(h_QD, fixed_uniform(batch)) if c.depth == "sample" else self.policy.best(h_QD)

    def chain(self, backbone: Backbone, memory: Any, h_PD: Tensor, at_P: Tensor, deepest: int) -> Tensor:
        """h_0 and ``deepest`` thoughts, (P, K, D). Each sees those before it and none after: h_n of a longer chain is h_n."""
        z = [h_PD]
        for t in range(deepest):
            z.append(backbone.extend(memory, self.feed(z[-1], t), at_P))
        return torch.stack(z, 1)

    def rollout(
        self, backbone: Backbone, memory: Any, h_PD: Tensor, at_P: Tensor, n_P: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Chains that stop: behind thought n_p each repeats it, (P, 1 + max n, D); and their answers, (P, D)."""
        deepest = int(n_P.max())
        if self.end is None:
            z_PKD = held(self.chain(backbone, memory, h_PD, at_P, deepest), n_P)
            return z_PKD, z_PKD[:, -1]
        z, alike = [h_PD], bool((n_P == deepest).all())
        for t in range(deepest):  # what is behind a chain's end must not stand between its last thought and <e>
            live_P = n_P > t
            h_PD = backbone.extend(memory, self.feed(z[-1], t), at_P, live_Q=None if alike else live_P)
            z.append(torch.where(live_P[:, None], h_PD, z[-1]))
        return torch.stack(z, 1), self.end(backbone, memory, at_P)

    def every_depth(
        self, backbone: Backbone, memory: Any, h_PD: Tensor, at_P: Tensor, deepest: int
    ) -> tuple[Tensor, Tensor]:
        """h_0 and ``deepest`` thoughts, and what each would answer if it were the last, (P, K, D) each."""
        if self.end is None:
            z_PKD = self.chain(backbone, memory, h_PD, at_P, deepest)
            return z_PKD, z_PKD
        z, u = [h_PD], [self.end(backbone, memory, at_P)]
        for t in range(deepest):
            z.append(backbone.extend(memory, self.feed(z[-1], t), at_P))
            u.append(self.end(backbone, memory, at_P))
        return torch.stack(z, 1), torch.stack(u, 1)

    def answer(self, z_QKD: Tensor) -> Tensor:
        return z_QKD[:, -1]

    # --- training ---------------------------------------------------------------------------------------------------

    def begin(self, backbone: Backbone, score: Score, context: Context) -> None:  # noqa: ARG002 the contract's
        self.thinks.fill_(context.stage != "ground")
        c = self.config
        if not self.thinks:
            if c.ground_codes:
                self._codes_VL, context.facts["ground_codes"] = item_codes(self._wanted, backbone, context)
            return
        for head in (self, context.reference and context.reference.head):
            if isinstance(head, LASAR):  # tables of the stage before, which the frozen copy has as well
                head._source = None
        if context.stage == "align":
            self._begin_align(backbone, context)
        if context.stage == "align" or c.terminal_weight:
            self._source = source(self._wanted, backbone, context, self.grounded)
            context.facts["anchor"] = self._source.facts
        if context.stage == "align" and c.adaptive and c.policy_weight:
            context.facts["labels"] = self._labels(backbone, context)
        context.facts["indifferent_depth"] = indifferent_mean(c.step_cost, c.entropy, c.min_depth, c.max_depth)

    def _begin_align(self, backbone: Backbone, context: Context) -> None:
        """What is fed stands at the scale of the inputs of now; the weight of anchors is unknown again; who reads segments, in this
        stage and after it, is the model of now."""
        self.feed.begin(backbone)
        if self.alpha is not None:
            self.alpha.fill_(torch.nan)
        if self.grounded is not None:
            if context.reference is None:
                raise ValueError("anchor is backbone, but there is no stage before this one whose model could read")
            self.grounded.load_state_dict(context.reference.backbone.state_dict())

    def _labels(self, backbone: Backbone, context: Context) -> dict[str, Any]:
        """What the policy can learn of align's labels: their mean and entropy over some training targets."""
        if self._source is None or context.train is None:
            raise ValueError("labels are those of training rows")
        rng, device, found = np.random.default_rng(0), backbone.item_vectors().device, []
        for batch in context.train.batches(SHOWN, rng, device):
            _, some_P = self._chosen(batch, context)
            found.append(self._taught(self._source.of(batch, some_P, context.train).s_P, context))
            if sum(map(len, found)) >= SHOWN:
                break
        n_P = torch.cat(found)
        share_C = torch.bincount(n_P).double() / len(n_P)
        bits = abs(float((share_C * share_C.log2().nan_to_num(0.0, neginf=0.0)).sum()))  # no -0.0
        told = {"targets": len(n_P), "mean": float(n_P.double().mean()), "bits": bits}
        return (
            told
            if bits >= FEW_BITS
            else told | {"doubt": "nearly all are the same, so no depth can be learned from them"}
        )

    @property
    def _wanted(self) -> AnchorConfig:
        c = self.config
        return AnchorConfig(
            kind=c.anchor,
            encoder=c.text_encoder,
            file=c.rationale_file,
            window=c.window,
            merge=c.merge,
            use_target=c.use_target,
            merge_target=c.merge_target,
            most=c.code_levels if c.anchor == "codes" else c.max_depth,
            levels=c.code_levels,
            codes=self.codes,
            pool=c.segment_pool,
            context=c.anchor_context,
        )

    def losses(self, backbone: Backbone, batch: Batch, score: Score, context: Context) -> dict[str, Tensor]:
        if context.stage == "ground":
            return self._ground(backbone, batch, score, context)
        if context.stage == "align":
            return self._align(backbone, batch, score, context)
        _, some_P = self._chosen(batch, context)
        return Reinforcement(self, backbone, batch, score, context, some_P).losses() if len(some_P) else {}

    def _ground(self, backbone: Backbone, batch: Batch, score: Score, context: Context) -> dict[str, Tensor]:
        u_QD, y_Q = self.answer(self.think(backbone, batch)), targets(batch)
        if (own_Q := self.own(batch, context)) is not None:
            u_QD, y_Q, score = u_QD[own_Q], y_Q[own_Q], score.at(own_Q)
        if not len(y_Q):
            return {}
        terms = {"next_item": score.loss(u_QD, y_Q)}
        if self._codes_VL is not None and self.readers is not None:
            items = y_Q.unique()
            e_ND = backbone.item_vectors()[items]
            terms["codes"] = self.config.ground_codes * code_loss(self.readers, e_ND, self._codes_VL[items])
        return terms

    def _align(self, backbone: Backbone, batch: Batch, score: Score, context: Context) -> dict[str, Tensor]:
        c = self.config
        own_Q, some_P = self._chosen(batch, context)
        if not len(some_P):
            return {}
        at_P, y_P = batch.at_Q[some_P], targets(batch)[some_P]
        anchors, s_P = self.anchors(batch, some_P, context)
        n_P = self._taught(s_P, context)
        x_ND = backbone.embed(batch)
        seen = backbone.encode(x_ND, batch, at_Q=batch.at_Q, remember=True)
        h_PD = seen.h_QD[some_P]
        z_PKD, u_PD = self.rollout(backbone, seen.memory, h_PD, at_P, n_P)
        self.note_chain(context, x_ND, z_PKD, n_P)
        terms = {"next_item": score.at(some_P).loss(u_PD, y_P)}
        if c.keep_weight:
            plain_OD = self._plain(backbone, x_ND, batch, seen.h_QD, own_Q)
            terms["keep"] = c.keep_weight * score.at(own_Q).loss(plain_OD, targets(batch)[own_Q])
        if c.align != "none" and c.align_weight and z_PKD.shape[1] > 1:
            K = min(z_PKD.shape[1] - 1, anchors.c_PSX.shape[1])
            far_PK = self.apart(z_PKD[:, 1 : 1 + K], anchors.c_PSX[:, :K], first=0)
            far = over_thoughts(far_PK, anchors.s_P, n_P)
            terms["align"] = self._alpha(far, terms["next_item"], context) * far
        if c.policy_weight and c.adaptive:
            logits_PC = self.policy(h_PD.detach() if c.policy_detach else h_PD)
            label_P = n_P.clamp(c.min_depth, c.max_depth) - c.min_depth
            terms["policy"] = c.policy_weight * label_loss(logits_PC, label_P, c.label_smoothing)
            context.note("policy_right", (logits_PC.argmax(1) == label_P).float().mean())
            context.note("policy_entropy", entropy(logits_PC))
        return terms

    def _plain(self, backbone: Backbone, x_ND: Tensor, batch: Batch, h_QD: Tensor, own_O: Tensor) -> Tensor:
        """What stage ground would answer at these of the asked tokens, (O, D).

        A memory serves the chains of one set of tokens, so with ``<e>`` it takes a second pass.
        """
        if self.end is None:
            return h_QD[own_O]
        at_O = batch.at_Q[own_O]
        return self.end(backbone, backbone.encode(x_ND, batch, at_Q=at_O, remember=True).memory, at_O)

    def _taught(self, s_P: Tensor, context: Context) -> Tensor:
        """Depths in align: as many as there are segments, one at least."""
        c = self.config
        if c.depth == "fixed":
            return torch.full_like(s_P, c.fixed_depth)
        if c.depth == "random":
            return self.any_depth(len(s_P), context.generator)
        return s_P.clamp(max(1, c.min_depth), c.max_depth)

    def any_depth(self, count: int, generator: torch.Generator) -> Tensor:
        """Depths that no policy picks, (count,)."""
        c = self.config
        return torch.randint(c.min_depth, c.max_depth + 1, (count,), generator=generator, device=generator.device)

    def note_chain(self, context: Context, x_ND: Tensor, z_PKD: Tensor, n_P: Tensor) -> None:
        """How alike successive thoughts are, how large what is fed is beside the inputs ``x_ND``, and how deep it goes."""
        note_similarity(context, z_PKD, steps_Q=n_P)
        note_depths(context, n_P, self.config.max_depth)
        with torch.no_grad():
            scale = x_ND.float().square().mean().sqrt()
            for t in range(int(n_P.max())):
                fed_PD = self.feed(z_PKD[n_P > t, t], t)
                context.note(f"fed@{t + 1}", fed_PD.float().square().mean().sqrt() / scale)

    def _alpha(self, far: Tensor, next_item: Tensor, context: Context) -> float | Tensor:
        """Weight of the anchors' term: as configured, or found at the first step where a thought has an anchor, and kept."""
        if self.alpha is None:
            return float(self.config.align_weight)
        if bool(self.alpha.isnan() & (far > 0)):
            self.alpha.copy_(AUTO_SHARE * next_item.detach() / far.detach())
        alpha = self.alpha.nan_to_num(0.0)
        context.note("align_weight", alpha)
        return alpha

    def apart(self, z_PKD: Tensor, c_PKX: Tensor, first: int | Tensor) -> Tensor:
        """How far thoughts are from anchors, (P, K).

        Args:
            first: the level of the first of them, or of each, (P,), where K is 1; it matters to codes only.
        """
        with torch.autocast(z_PKD.device.type, enabled=False):
            a_PKX = self._seen_as(z_PKD.float(), first)
            return apart(a_PKX, c_PKX.float(), self.config.align, self.config.align_tau)

    def _seen_as(self, z_PKD: Tensor, first: int | Tensor) -> Tensor:
        """Thoughts in the space of their anchors."""
        if self.config.anchor == "codes" and self.readers is not None:
            if isinstance(first, Tensor):
                every = torch.stack([reader(z_PKD[:, 0]) for reader in self.readers], 1)
                return every[torch.arange(len(every), device=every.device), first][:, None]
            return torch.stack([self.readers[first + k](z_PKD[:, k]) for k in range(z_PKD.shape[1])], 1)
        return z_PKD if self.student is None else F.layer_norm(self.student(z_PKD), (z_PKD.shape[2],))

    # --- which targets --------------------------------------------------------------------------------------------

    def anchors(self, batch: Batch, some_P: Tensor, context: Context) -> tuple[Anchors, Tensor]:
        """What thoughts are pulled to, and how many segments the rationale of each target has, (P,)."""
        if self._source is None:
            raise ValueError("a stage with anchors begins by finding them")
        anchors = self._source.of(batch, some_P, context.train)
        context.note("segments", anchors.s_P.float().mean())
        return (deranged(anchors, context.generator) if self.config.shuffle_anchors else anchors), anchors.s_P

    def _chosen(self, batch: Batch, context: Context) -> tuple[Tensor, Tensor]:
        """Asked tokens that this stage may train on, and those of them that think."""
        own_Q, c = self.own(batch, context), self.config
        own_Q = torch.arange(len(batch.at_Q), device=batch.at_Q.device) if own_Q is None else own_Q
        return own_Q, own_Q[some_a_row(batch.row_Q[own_Q], c.cuts, context.generator)] if c.cuts else own_Q

    def own(self, batch: Batch, context: Context) -> Tensor | None:
        if not self.config.rl_holdout:
            return None
        waits_Q = held_out(batch, context.train, self.config.rl_holdout)
        return (waits_Q if context.stage == "rl" else ~waits_Q).nonzero()[:, 0]
