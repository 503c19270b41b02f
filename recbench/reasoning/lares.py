"""LARES: refine all states again and again with the same layers; first self-supervised, then reinforced.

Source: Liu et al., "LARES: Latent Reasoning for Sequential Recommendation", arXiv 2505.16865; equations after the authors' code
(BishopLiu/LARES), whose defaults stand here unless a field says otherwise. H = the lower layers' states; Z_0 = noise;
Z_i = core(norm((Z_{i-1} + H) / 2)) with the upper layers as core; Z_k ranks.
Stage ``spt``: next item, trajectory alignment (``tla``), step alignment (``sla``). Stage ``rpt``: a group of trajectories a
target, rewarded by where they rank it, against a frozen reference.
Departs from the code: every position of a row is trained in one pass instead of one row a prefix (equal in expectation); test
noise is a fixed table by position instead of a fresh draw, so that a rank does not depend on who else is in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.backbones.base import Backbone
from recbench.data.batching import Batch
from recbench.data.dataset import ranges
from recbench.errors import Exit, RecbenchError
from recbench.reasoning.base import Context, Reasoner, ReasoningHead, Stage, targets
from recbench.reasoning.contrast import equal, info_nce, some_of, user_of
from recbench.reasoning.diagnostics import note_similarity
from recbench.reasoning.lares_settings import LARESConfig
from recbench.reasoning.rewards import advantages, hit, k3, ndcg, note_rewards
from recbench.scoring.base import Score
from recbench.scoring.precision import whole

FILTER_BATCH = 2048


@final
class LARES(ReasoningHead):
    """Depth-recurrent refinement of the states of all positions."""

    Config = LARESConfig

    stages = (
        Stage("spt"),
        Stage(
            "rpt",
            {
                "epochs": 10,
                "patience": 3,
                "learning_rate": 5e-4,
                "batch_size": 400,
                "dropout": 0.1,
                "clip_norm": 1.0,
            },
        ),
    )

    table: Tensor
    """Z_0 at test, (test_draws, T, D)."""

    def __init__(self, config: LARESConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        D = backbone.width
        self.pre = max(1, backbone.n_layers // 2) if config.pre_layers is None else config.pre_layers
        if self.pre >= backbone.n_layers:
            raise ValueError(
                f"pre_layers is {self.pre} of {backbone.n_layers} layers: no layer is left for the core. "
                f"LARES needs backbone.n_layers of at least {self.pre + 1}."
            )
        self.mix = config.mix or ("gate" if backbone.pretrained else "add")
        if self.mix == "concat" and backbone.pretrained:
            raise ValueError(
                "mix is concat, whose projection is random at first; this backbone is pretrained and would begin damaged. "
                "Take gate, with which it begins as it is."
            )
        self.norm = nn.Identity() if self.mix == "gate" else nn.LayerNorm(D, eps=1e-12)
        self.gate = nn.Parameter(torch.zeros(())) if self.mix in ("linear", "gate") else None
        self.join = nn.Linear(2 * D, D) if self.mix == "concat" else None
        raw = backbone.post_norm or self.mix == "gate"
        self.settled = not raw if config.norm_history is None else config.norm_history
        generator = None if config.table_seed is None else torch.Generator().manual_seed(config.table_seed)
        table = torch.empty(config.test_draws, backbone.longest_row, D)
        self.register_buffer("table", self._noise(table, generator))
        self._kept: np.ndarray | None = None

    # --- the recurrence ---------------------------------------------------------------------------------------------

    def trajectory(self, backbone: Backbone, batch: Batch, steps: int, start_ND: Tensor) -> Iterator[Tensor]:
        """Z_1 .. Z_steps of all tokens, (N, D) each, from Z_0 = ``start_ND``."""
        h_ND = self.history(backbone, batch)
        z_ND = h_ND if self.mix == "state" else start_ND
        cut = steps - self.config.backprop_steps if self.config.backprop_steps else 0
        for i in range(steps):
            z_ND = self.refined(backbone, batch, z_ND.detach() if i and i == cut else z_ND, h_ND)
            yield z_ND

    def history(self, backbone: Backbone, batch: Batch) -> Tensor:
        """H: the lower layers' states, (N, D)."""
        h_ND = backbone.encode(backbone.embed(batch), batch, stop=self.pre).h_QD
        return F.layer_norm(h_ND, h_ND.shape[1:]) if self.settled else h_ND

    def refined(self, backbone: Backbone, batch: Batch, z_ND: Tensor, h_ND: Tensor) -> Tensor:
        """One step: Z_i from Z_{i-1}, (N, D)."""
        return backbone.encode(self.norm(self._mixed(z_ND, h_ND)), batch, start=self.pre).h_QD

    def _mixed(self, z_ND: Tensor, h_ND: Tensor) -> Tensor:
        if self.join is not None:
            return torch.as_tensor(self.join(torch.cat([z_ND, h_ND], dim=1)))
        if self.gate is not None:
            z_ND, h_ND = whole(z_ND), whole(h_ND)  # in bfloat16 one of them may be coarser, and lerp takes equals alone
            if self.mix == "gate":
                return torch.lerp(h_ND, z_ND * (_size(h_ND) / _size(z_ND)), self.gate)
            return torch.lerp(h_ND, z_ND, self.gate.sigmoid())
        return z_ND if self.mix == "state" else (z_ND + h_ND) / 2

    def think(self, backbone: Backbone, batch: Batch, steps: int | None = None) -> Tensor:
        steps = steps or self.config.test_steps or self.config.mean_steps
        follow = self._until_settled if self.config.exit_tolerance else self._all_steps
        noisy = self.config.test_start == "table" and self.config.start == "normal"
        tables = self.table if noisy else torch.zeros_like(self.table[:1])
        position_N = backbone.layout(batch).rows.position_N
        self.taken_Q = None
        draws = [follow(backbone, batch, steps, table_TD[position_N]) for table_TD in tables]
        return draws[0] if len(draws) == 1 else torch.stack(draws).mean(0)

    def _all_steps(self, backbone: Backbone, batch: Batch, steps: int, start_ND: Tensor) -> Tensor:
        """Z_1 .. Z_steps at the asked tokens, (Q, K, D)."""
        at_Q = backbone.layout(batch).at_Q
        return torch.stack([z[at_Q] for z in self.trajectory(backbone, batch, steps, start_ND)], dim=1)

    def _until_settled(self, backbone: Backbone, batch: Batch, steps: int, start_ND: Tensor) -> Tensor:
        """The same, but a row leaves the loop once no asked state of it changes by ``exit_tolerance``; its last thought stays.

        ``taken_Q`` is then the steps it went, of several noise tables the most.
        """
        h_ND = self.history(backbone, batch)
        z_ND = h_ND if self.mix == "state" else start_ND
        own = backbone.layout(batch)
        now_QD, made = z_ND[own.at_Q], []
        asked_Q = torch.arange(len(batch.at_Q), device=h_ND.device)
        taken_Q = torch.zeros_like(asked_Q)
        for _ in range(steps):
            if len(asked_Q):
                taken_Q[asked_Q] += 1
                z_ND = self.refined(backbone, batch, z_ND, h_ND)
                before_QD, after_QD = now_QD[asked_Q], z_ND[own.at_Q]
                now_QD = now_QD.index_copy(0, asked_Q, after_QD)
                moves = (after_QD - before_QD).norm(dim=1) >= self.config.exit_tolerance * before_QD.norm(dim=1)
                left = np.unique(batch.row_Q[moves].cpu().numpy())
                if len(left) < len(batch.rows):
                    token_N = torch.from_numpy(ranges(own.rows.starts[left], own.rows.lengths[left])).to(h_ND.device)
                    batch, _, kept_Q = batch.only(left)
                    own = backbone.layout(batch)
                    z_ND, h_ND, asked_Q = z_ND[token_N], h_ND[token_N], asked_Q[kept_Q]
            made.append(now_QD)
        self.taken_Q = taken_Q if self.taken_Q is None else torch.maximum(taken_Q, self.taken_Q)
        return torch.stack(made, dim=1)

    def answer(self, z_QKD: Tensor) -> Tensor:
        return z_QKD[:, -1]

    def draw_steps(self, generator: torch.Generator) -> int:
        """Number of steps of one pass, at least 1."""
        m, device = self.config.mean_steps, generator.device
        match self.config.step_scheme:
            case "fixed":
                return m
            case "uniform":
                return int(torch.randint(1, 2 * m + 1, (), generator=generator, device=device))
            case "poisson":
                drawn = torch.poisson(torch.tensor(float(m - 1), device=device), generator=generator)
                return min(1 + int(drawn), 2 * m)
            case _:
                rate = torch.exp(torch.randn((), generator=generator, device=device) * 0.5 + math.log(m) - 0.125)
                return min(1 + int(torch.poisson(rate, generator=generator)), 3 * m)

    def draw_start(self, n: int, width: int, generator: torch.Generator) -> Tensor:
        """Z_0 of n tokens, (n, width): independent for every token."""
        start = torch.empty(n, width, device=generator.device)
        return start.zero_() if self.config.start == "zero" else self._noise(start, generator)

    def _noise(self, out: Tensor, generator: torch.Generator | None) -> Tensor:
        sd, scale = self.config.start_sd, self.config.start_scale
        if not sd * scale:
            return out.zero_()
        return nn.init.trunc_normal_(out, std=sd, a=-3 * sd, b=3 * sd, generator=generator).mul_(scale)

    # --- training ---------------------------------------------------------------------------------------------------

    def losses(self, backbone: Backbone, batch: Batch, score: Score, context: Context) -> dict[str, Tensor]:
        if context.stage == "spt":
            return self._pretrain(backbone, batch, score, context)
        return self._reinforce(backbone, batch, score, context)

    def _pass(
        self, backbone: Backbone, batch: Batch, steps: int, some_A: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """A trajectory from fresh noise: last thoughts at the asked tokens (Q, D), every thought at some of them, (A, K, D)."""
        rows, at_Q = backbone.layout(batch)
        start_ND = self.draw_start(rows.n_tokens, backbone.width, generator)
        kept, z_ND = [], start_ND
        for z_ND in self.trajectory(backbone, batch, steps, start_ND):
            kept.append(z_ND[at_Q[some_A]])
        return z_ND[at_Q], torch.stack(kept, dim=1)

    def _last(self, backbone: Backbone, batch: Batch, steps: int, generator: torch.Generator) -> Tensor:
        """The last thoughts of such a trajectory, (Q, D)."""
        rows, at_Q = backbone.layout(batch)
        *_, z_ND = self.trajectory(backbone, batch, steps, self.draw_start(rows.n_tokens, backbone.width, generator))
        return z_ND[at_Q]

    def _pretrain(self, backbone: Backbone, batch: Batch, score: Score, context: Context) -> dict[str, Tensor]:
        c = self.config
        ramp = min(1.0, context.epoch / c.align_ramp_epochs) if c.align_ramp_epochs else 1.0
        some_A = some_of(len(batch.at_Q), c.anchors, context.generator)
        at_A = batch.at_Q[some_A]
        k = self.draw_steps(context.generator)
        u_QD, a_AKD = self._pass(backbone, batch, k, some_A, context.generator)
        terms = {"next_item": score.loss(u_QD, targets(batch))}
        context.note("steps", torch.tensor(float(k)))
        if not c.share_pass and (c.tla or c.sla):
            k = self.draw_steps(context.generator)
            _, a_AKD = self._pass(backbone, batch, k, some_A, context.generator)
        user_A, target_A = user_of(batch, at_A), targets(batch)[some_A]
        self._note(backbone, batch, some_A, a_AKD, context)
        if c.tla:
            other_k = k if c.same_step else self.draw_steps(context.generator)
            b_AD, other_user_A = self._partners(backbone, batch, some_A, at_A, other_k, context)
            terms["tla"] = ramp * c.tla * self._aligned(a_AKD[:, -1], b_AD, (user_A, other_user_A), target_A)
        if c.sla and k > 1:
            t = int(torch.randint(k - c.sla_exclude_last, (), generator=context.generator, device=user_A.device))
            terms["sla"] = ramp * c.sla * self._aligned(a_AKD[:, -1], a_AKD[:, t], (user_A, user_A), target_A)
        return terms

    def _partners(
        self, backbone: Backbone, batch: Batch, some_A: Tensor, at_A: Tensor, steps: int, context: Context
    ) -> tuple[Tensor, Tensor]:
        """Last thoughts (A, D) of another history with the same target for each anchor, and its user."""
        if self.config.partner == "self":
            return self._last(backbone, batch, steps, context.generator)[some_A], user_of(batch, at_A)
        if context.train is None or batch.place_Q is None:
            raise ValueError("partners are drawn from the training part")
        uniform_A = torch.rand(len(some_A), generator=context.generator, device=some_A.device, dtype=torch.float64)
        chosen, other = context.train.partners(
            batch.place_Q[some_A.cpu().numpy()], uniform_A.cpu().numpy(), batch.items_N.device
        )
        b_AD = self._last(backbone, other, steps, context.generator)
        back = torch.from_numpy(np.argsort(chosen)).to(b_AD.device)
        return b_AD[back], user_of(other, other.at_Q)[back]

    def _aligned(self, x_AD: Tensor, y_AD: Tensor, users: tuple[Tensor, Tensor], target_A: Tensor) -> Tensor:
        """Mean of both directions of the contrast between two views of the anchors."""
        c = self.config
        if c.similarity == "cos":
            x_AD, y_AD = F.normalize(whole(x_AD), dim=1), F.normalize(whole(y_AD), dim=1)
        hidden_AA = torch.zeros(len(x_AD), len(x_AD), dtype=torch.bool, device=x_AD.device)
        if c.mask_same_user:
            own, other = users
            hidden_AA = equal(own, own) | equal(own, other) | equal(other, own) | equal(other, other)
        if c.mask_same_target:
            hidden_AA = hidden_AA | equal(target_A, target_A)
        return (
            info_nce(x_AD, y_AD, c.contrast_tau, hidden_AA) + info_nce(y_AD, x_AD, c.contrast_tau, hidden_AA.t())
        ) / 2

    def _note(self, backbone: Backbone, batch: Batch, some_A: Tensor, z_AKD: Tensor, context: Context) -> None:
        """What the thoughts of some asked tokens look like; once an epoch what is left of two draws of Z_0, ``noise@i``."""
        note_similarity(context, z_AKD, first=1)
        note_changes(context, z_AKD, user_of(batch, batch.at_Q[some_A]))
        if self.config.start == "zero" or not context.opens_epoch:
            return
        training, source = self.training, torch.Generator(z_AKD.device).manual_seed(context.epoch)
        backbone.eval()
        self.eval()
        with torch.no_grad():
            one, other = (self._pass(backbone, batch, self.config.mean_steps, some_A, source)[1] for _ in range(2))
        backbone.train(training)
        self.train(training)
        for i, apart in enumerate(((one - other).norm(dim=-1) / one.norm(dim=-1)).mean(0)):
            context.note(f"noise@{i + 1}", apart)

    # --- reinforcement ----------------------------------------------------------------------------------------------

    def begin(self, backbone: Backbone, score: Score, context: Context) -> None:
        """Before rpt: keep the positions whose target the model of now can reach."""
        c = self.config
        if context.stage != "rpt" or context.train is None:
            return
        self._kept = None
        if not c.filter_top:
            return
        kept = np.zeros(len(context.train.histories.items), dtype=bool)
        training = self.training
        backbone.eval()
        self.eval()
        device = backbone.item_vectors().device
        with torch.no_grad():
            for batch in context.train.batches(FILTER_BATCH, np.random.default_rng(0), device):
                if batch.place_Q is None:
                    raise ValueError("training batches say which events their targets are")
                with score.step(context.generator, batch.targets_Q, batch):
                    for _ in range(c.filter_draws):
                        u_QD = self._last(backbone, batch, c.mean_steps, context.generator)
                        above_Q, tied_Q = score.place(u_QD, targets(batch), within=c.filter_top)
                        reached_Q = (1 + above_Q + tied_Q <= c.filter_top).cpu().numpy()
                        kept[batch.place_Q[reached_Q]] = True
        backbone.train(training)
        self.train(training)
        of = len(np.unique(context.train.target_events))
        context.facts["filter"] = {
            "top": c.filter_top,
            "kept": int(kept.sum()),
            "of": of,
            "share": float(kept.sum() / of),
        }
        if not kept.any():
            raise RecbenchError(
                "No training position is left for stage rpt.",
                why=f"None of {of} targets ranks in the top {c.filter_top} after stage spt.",
                fix="Train spt longer, keep all: --set head.filter_top=0, or stop after spt: --until spt",
                code=Exit.RUN,
            )
        self._kept = kept
        context.train = context.train.holding(kept)

    def _reinforce(self, backbone: Backbone, batch: Batch, score: Score, context: Context) -> dict[str, Tensor]:
        c = self.config
        reference = context.reference
        if reference is None:
            raise ValueError("stage rpt is held against a reference")
        some_P = self._positions(batch, context)
        if not len(some_P):
            return {}
        rows, at_Q = backbone.layout(batch)
        at_P, y_P = at_Q[some_P], targets(batch)[some_P]
        depth = self.draw_steps(context.generator)
        states, taken, rewards, below = [], [], [], []
        for g in range(c.group):
            k = depth if c.same_depth else self.draw_steps(context.generator)
            start_ND = self.draw_start(rows.n_tokens, backbone.width, context.generator)
            z_PKD = torch.stack([z[at_P] for z in self.trajectory(backbone, batch, k, start_ND)], dim=1)
            if not g:
                self._note(backbone, batch, some_P, z_PKD, context)
            above_P, tied_P = score.at(some_P).place(z_PKD[:, -1], y_P, within=c.reward_k)
            rewards.append((hit if c.reward == "recall" else ndcg)(above_P, tied_P, c.reward_k))
            scored = self._scored(k, context)
            states.append(z_PKD[:, scored])
            taken.append(k)
            if c.kl_weight:
                start_ND = (
                    start_ND if c.share_start else self.draw_start(len(start_ND), backbone.width, context.generator)
                )
                with torch.no_grad():
                    below.append(self._reference_states(reference, batch, at_P, start_ND, k)[:, scored])
        reward_PG = torch.stack(rewards, dim=1)
        note_rewards(context, reward_PG)
        advantage_PG = advantages(reward_PG) if c.advantage == "group" else torch.ones_like(reward_PG)
        lp = _log_probs(score, states, y_P, some_P)
        policy = [(torch.exp(one - one.detach()) * advantage_PG[:, g, None]).mean() for g, one in enumerate(lp)]
        terms = {"policy": -torch.stack(policy).mean()}
        if c.kl_weight:
            with torch.no_grad(), reference.score.step(context.generator, batch.targets_Q, batch):
                lq = _log_probs(reference.score, below, y_P, some_P)
            fence = torch.stack([k3(q - p).mean() for p, q in zip(lp, lq, strict=True)]).mean()
            context.note("kl", fence)
            note_ratio(context, torch.stack([(p - q)[:, -1] for p, q in zip(lp, lq, strict=True)]))
            terms["kl"] = c.kl_weight * fence
        context.note("steps", torch.tensor(float(np.mean(taken))))
        return terms

    def _reference_states(
        self, reference: Reasoner, batch: Batch, at_P: Tensor, start_ND: Tensor, steps: int
    ) -> Tensor:
        head = reference.head
        if not isinstance(head, LARES):
            raise TypeError("the reference is the model as the stage began")
        return torch.stack([z[at_P] for z in head.trajectory(reference.backbone, batch, steps, start_ND)], dim=1)

    def _positions(self, batch: Batch, context: Context) -> Tensor:
        """Asked tokens that rpt trains on in this batch, at most ``rpt_positions``."""
        n = len(batch.at_Q)
        if self._kept is None:
            return some_of(n, self.config.rpt_positions, context.generator)
        if batch.place_Q is None:
            raise ValueError("training batches say which events their targets are")
        kept = torch.from_numpy(np.flatnonzero(self._kept[batch.place_Q])).to(batch.at_Q.device)
        return kept[some_of(len(kept), self.config.rpt_positions, context.generator)]

    def _scored(self, steps: int, context: Context) -> Tensor:
        """Steps of a trajectory whose log-probabilities are taken."""
        return some_of(steps, self.config.rpt_steps or steps, context.generator)


def note_changes(context: Context, z_AKD: Tensor, user_A: Tensor) -> None:
    """``change@i``: |Z_i - Z_{i-1}| / |Z_{i-1}|, falling where it contracts; ``alike@i``: cosine of two users' states.

    The other user's state is the one half of all away, left out where that is the same user's.
    """
    with torch.no_grad():
        for i in range(1, z_AKD.shape[1]):
            change = (z_AKD[:, i] - z_AKD[:, i - 1]).norm(dim=-1) / z_AKD[:, i - 1].norm(dim=-1)
            context.note(f"change@{i + 1}", change.mean())
        unit_AKD, half = F.normalize(z_AKD, dim=-1), len(z_AKD) // 2
        others = user_A != user_A.roll(half)
        if others.any():
            for i, alike in enumerate((unit_AKD * unit_AKD.roll(half, 0)).sum(-1)[others].mean(0)):
                context.note(f"alike@{i + 1}", alike)


def note_ratio(context: Context, difference_GP: Tensor) -> None:
    """``ratio_low``, ``ratio_high``: p / q of policy and reference at the last thought that is scored, 5th and 95th percentile.

    Args:
        difference_GP: log p - log q.
    """
    for name, share in (("ratio_low", 0.05), ("ratio_high", 0.95)):
        context.note(name, difference_GP.detach().float().flatten().quantile(share).exp())


def _size(x_ND: Tensor) -> Tensor:
    """Root mean square over a vector, (N, 1); above 0, so that dropout may leave nothing of one."""
    return (x_ND.square().mean(1, keepdim=True) + 1e-6).sqrt()


def _log_probs(score: Score, states: list[Tensor], y_P: Tensor, asked_P: Tensor) -> list[Tensor]:
    """log p of the targets under each state, (P, K_g) each, from one streamed pass over the catalogue."""
    counts = [z.shape[1] for z in states]
    flat_ND = torch.cat([z.flatten(0, 1) for z in states])
    y_N = torch.cat([y_P.repeat_interleave(k) for k in counts])
    asked_N = torch.cat([asked_P.repeat_interleave(k) for k in counts])
    lp_N = score.at(asked_N).log_prob(flat_ND, y_N[:, None]).sum((1, 2))
    return [part.view(len(y_P), k) for part, k in zip(lp_N.split([len(y_P) * k for k in counts]), counts, strict=True)]
