"""How answers meet items that are spelled: likelihoods code by code, lists by a beam under the prefix tree.

Letters: **R** spellings at once, others as in ``backbones/base.py``.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, final

import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.conditions import OnlyWith
from recbench.data.batching import Batch
from recbench.generators.base import Generator, Recalled
from recbench.generators.past import Path
from recbench.limits import at_least
from recbench.scoring.base import Divergence, Score
from recbench.scoring.counting import count
from recbench.scoring.pooled import pooled_loss
from recbench.scoring.precision import whole
from recbench.semantic_ids.search import (
    FULL,
    Beams,
    Norm,
    along_path,
    beam_searches,
    drawn_items,
    exact_scores,
    path_log_prob,
)

LEAST_BEAM = 10
"""Beams that look for a target's place in training: what a narrower one loses would be no rank."""
POOLED_ROWS = 256


@dataclass(frozen=True, slots=True)
class State:
    """Where R spellings stand; see ``search.Speller``."""

    answer_R: Tensor
    paths: Sequence[Path] | None


class Answers:
    """Answers from which items are spelled: what a search under the tree asks (``search.Speller``).

    Args:
        at_N: the token of the history that each answer stands at, ascending.
        frozen: no gradient into the tables of codes.
    """

    def __init__(
        self, generator: Generator, recalled: Recalled, u_ND: Tensor, at_N: Tensor, *, frozen: bool = False
    ) -> None:
        self.generator, self.recalled, self.frozen = generator, recalled, frozen
        self.u_ND, self.at_N = u_ND, at_N

    def begin(self) -> tuple[State, Tensor]:
        every_N = torch.arange(len(self.u_ND), device=self.u_ND.device)
        return State(every_N, None), self.generator.read(self.u_ND, 0, frozen=self.frozen)

    def step(self, state: State, parent_R: Tensor, code_R: Tensor, level: int) -> tuple[State, Tensor]:
        answer_R = state.answer_R[parent_R]
        paths = None if state.paths is None else [(k[parent_R], v[parent_R]) for k, v in state.paths]
        seats = self.generator.seats(self.recalled, self.at_N[answer_R])
        x_RD = self._token(self.u_ND[answer_R], code_R, level)
        h_RLD, paths = self.generator.spell(self.recalled, x_RD[:, None], seats, paths)
        return State(answer_R, paths), self.generator.read(h_RLD[:, 0], level, frozen=self.frozen)

    def along(self, codes_RM: Tensor, answer_R: Tensor) -> Iterator[Tensor]:
        """Logits of each level's code, (R, C), while given codes are spelled.

        Args:
            answer_R: whose spelling it is, ascending.
        """
        logits_NC = self.generator.read(self.u_ND, 0, frozen=self.frozen)
        yield logits_NC[answer_R]
        later, u_RD = range(1, codes_RM.shape[1]), self.u_ND[answer_R]
        if not later:
            return
        seats = self.generator.seats(self.recalled, self.at_N[answer_R])
        x_RLD = torch.stack([self._token(u_RD, codes_RM[:, level - 1], level) for level in later], dim=1)
        h_RLD, _ = self.generator.spell(self.recalled, x_RLD, seats, None)
        for level in later:
            yield self.generator.read(h_RLD[:, level - 1], level, frozen=self.frozen)

    def _token(self, u_RD: Tensor, code_R: Tensor, level: int) -> Tensor:
        """What spells the code of ``level`` behind the one before it."""
        return self.generator.next_token(u_RD, code_R, level - 1, frozen=self.frozen)


@final
class Spelling(Score):
    """Loss: minus the log-likelihood of the target's codes, teacher-forced; the softmax of a code runs over its level, or over the
    codes of it that lead to an item.

    Args:
        generator: what spells. It is held, not owned.
        config: None: the defaults.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """How items are looked for."""

        scoring: Literal["beam", "exact"] = "beam"
        """beam: the best paths that a beam finds; exact: every item. Exact is for small catalogues."""
        beam: int = 50
        """Width of the beam that ranks. No metric may look further."""
        select_beam: int = 20
        """Width of the beam on validation during training, which only picks weights."""
        normalise: Literal["level", "legal"] = "level"
        """Codes of a path are probable among all of their level, or among those that lead to an item: in losses and searches."""

        only_with: ClassVar[OnlyWith] = {"scoring=beam": "beam select_beam"}

        def __post_init__(self) -> None:
            at_least(1, self, "beam", "select_beam")

    def __init__(self, generator: Generator, config: Config | None = None) -> None:
        self.generator = generator
        self.config = config or self.Config()
        self._at_N: Tensor | None = None
        self._told: list[Tensor] = []
        """Mean loss of each level's code, (M,), of each loss of the step; copies share it."""

    @property
    def name(self) -> str:
        legal = ", legal codes alone" if self.norm.constrained else ""
        return f"likelihood of the codes, a softmax a level{legal}"

    @property
    def norm(self) -> Norm:
        """Over which codes probabilities sum to 1, the same in losses and searches."""
        return Norm(constrained=True) if self.config.normalise == "legal" else FULL

    def step(
        self,
        generator: torch.Generator,  # noqa: ARG002 nothing is drawn
        pool_Q: Tensor | None,  # noqa: ARG002
        batch: Batch | None = None,
    ) -> contextlib.AbstractContextManager[None]:
        if batch is None:
            raise ValueError("spelling needs the batch whose histories it reads")
        self._told.clear()
        return self.generator.about(batch)

    def parts(self) -> dict[str, Tensor]:
        """``code@1`` and so on: minus the log-likelihood of each level's code, the mean over all targets that were spelled."""
        if not self._told:
            return {}
        return {f"code@{level}": mean for level, mean in enumerate(torch.stack(self._told).mean(0), start=1)}

    def at(self, asked_N: Tensor) -> Self:
        there = copy.copy(self)
        there._at_N = asked_N if self._at_N is None else self._at_N[asked_N]
        return there

    # --- losses -----------------------------------------------------------------------------------------------------

    def loss(self, u_ND: Tensor, target_N: Tensor, *, tau: float = 1.0, frozen: bool = False) -> Tensor:
        log_p_N1M = self.log_prob(u_ND, target_N[:, None], tau=tau, frozen=frozen)
        self._told.append(-log_p_N1M.detach().mean((0, 1)))
        return -log_p_N1M.sum((1, 2)).mean()

    def first_loss(self, u_ND: Tensor, target_N: Tensor, *, tau: float = 1.0) -> Tensor:
        may, place_N = self._first_codes(target_N)
        return F.cross_entropy(self.generator.read(u_ND, 0)[:, may] / tau, place_N)

    def pooled(
        self,
        z_NKD: Tensor,
        target_N: Tensor,
        *,
        mix_MK: Tensor,
        tau: float = 1.0,
        divergence: float = 0.0,
        form: Divergence = "code",
    ) -> tuple[Tensor, Tensor]:
        z_NKD = whole(z_NKD)
        with torch.autocast(z_NKD.device.type, enabled=False):
            mixed = [torch.einsum("k,nkd->nd", mix_K.to(z_NKD), z_NKD) for mix_K in mix_MK]
        loss = torch.stack([self.loss(u_ND, target_N, tau=tau) for u_ND in mixed]).sum()
        if not divergence or z_NKD.shape[1] == 1:
            return loss, loss.new_zeros(())
        may, place_N = self._first_codes(target_N)
        reading_CD = whole(self.generator.reading(0)[may])
        table, none_0K = torch.cat([reading_CD.new_zeros(1, reading_CD.shape[1]), reading_CD]), mix_MK[:0]
        with torch.autocast(z_NKD.device.type, enabled=False):
            nothing, apart = pooled_loss(z_NKD, table, place_N + 1, none_0K, tau, divergence, form, POOLED_ROWS)
        return loss + nothing, apart

    def log_prob(self, u_ND: Tensor, items_NG: Tensor, *, tau: float = 1.0, frozen: bool = False) -> Tensor:
        N, G = items_NG.shape
        answers, order_N = self._answers(u_ND, frozen=frozen)
        items_R = items_NG[order_N].flatten()
        answer_R = torch.arange(N, device=u_ND.device).repeat_interleave(G)
        return self.spelled(answers, items_R, answer_R, tau=tau).view(N, G, -1)[order_N.argsort()]

    def spelled(self, answers: Answers, items_R: Tensor, answer_R: Tensor, *, tau: float = 1.0) -> Tensor:
        """Log-probability of each code of these items off these answers, (R, M).

        Args:
            answer_R: whose spelling each is, ascending.
        """
        codes_RM = self._codes(items_R)
        levels = (logits_RC / tau for logits_RC in answers.along(codes_RM, answer_R))
        if self.norm.constrained:
            return along_path(levels, self.generator.tree, items_R, self.norm)
        parts = [  # the same without the codes that are not asked for
            logits_RC.log_softmax(1).gather(1, codes_RM[:, level, None])[:, 0] for level, logits_RC in enumerate(levels)
        ]
        return torch.stack(parts, dim=1)

    # --- lists ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def top(self, u_ND: Tensor, g: int) -> Tensor:
        return self.beams(u_ND, min(g, self.generator.n_items)).items_BW[:, :g]

    @torch.no_grad()
    def draw(self, u_ND: Tensor, g: int, generator: torch.Generator) -> Tensor:
        answers, order_N = self._answers(u_ND)
        return drawn_items(answers, self.generator.tree, g, generator)[order_N.argsort()]

    @torch.no_grad()
    def place(self, u_ND: Tensor, target_N: Tensor, *, within: int | None = None) -> tuple[Tensor, Tensor]:
        if within is None or max(within, LEAST_BEAM) >= self.generator.n_items:
            scores_NV, none = self.exact(u_ND), target_N.new_empty(0)
            counts = count(scores_NV, target_N, none, none)
            return counts.above, counts.tied
        return places(self.beams(u_ND, max(within, LEAST_BEAM)), target_N, self.generator.n_items)

    def items(self) -> Tensor:
        return self.generator.item_vectors()[1:]

    def beams(self, u_ND: Tensor, width: int | Tensor) -> Beams:
        """The best items of each answer that a beam finds; ``width`` of all, or of each, (N,)."""
        return self.several_beams(u_ND, [width])[0]

    def several_beams(self, u_ND: Tensor, widths: Sequence[int | Tensor]) -> list[Beams]:
        """The same for several widths, at little more than the cost of the widest."""
        answers, order_N = self._answers(u_ND)
        sorted_ = [width[order_N] if isinstance(width, Tensor) else width for width in widths]
        back_N = order_N.argsort()
        every = beam_searches(answers, self.generator.tree, sorted_, self.norm)
        return [Beams(found.items_BW[back_N], found.scores_BW[back_N]) for found in every]

    def exact(self, u_ND: Tensor) -> Tensor:
        """Log-probability of every item, (N, V - 1); column j is item j + 1."""
        answers, order_N = self._answers(u_ND)
        return exact_scores(answers, self.generator.tree, self.norm)[order_N.argsort()]

    def searched(self, u_ND: Tensor, items_N: Tensor) -> Tensor:
        """Log-probability of one item an answer as the searches count it, (N,)."""
        answers, order_N = self._answers(u_ND)
        return path_log_prob(answers, self.generator.tree, items_N[order_N], self.norm)[order_N.argsort()]

    def _answers(self, u_ND: Tensor, *, frozen: bool = False) -> tuple[Answers, Tensor]:
        """The answers in the order in which histories are read, and that order."""
        recalled = self.generator.recall()
        at_N = recalled.at_Q if self._at_N is None else recalled.at_Q[self._at_N]
        if len(at_N) != len(u_ND):
            raise ValueError(f"{len(u_ND)} answers stand at {len(at_N)} asked tokens; say where by Score.at")
        order_N = at_N.argsort(stable=True)
        return Answers(self.generator, recalled, u_ND[order_N], at_N[order_N], frozen=frozen), order_N

    def _first_codes(self, items_N: Tensor) -> tuple[Tensor | slice, Tensor]:
        """The first codes among which probabilities sum to 1, and the place of each item's own among them, (N,)."""
        code_N = self._codes(items_N)[:, 0].contiguous()
        if not self.norm.constrained:
            return slice(None), code_N
        legal = self.generator.tree.codes[0]  # ascending
        return legal, torch.searchsorted(legal, code_N)

    def _codes(self, items_N: Tensor) -> Tensor:
        return self.generator.codes[items_N].long()


def places(beams: Beams, target_N: Tensor, n_items: int) -> tuple[Tensor, Tensor]:
    """Items that beat each target and that equal it, (N,) each. A target that is not in its beam is last."""
    is_target_NW = beams.items_BW == target_N[:, None]
    own_N1 = torch.where(is_target_NW, beams.scores_BW, -torch.inf).amax(1, keepdim=True)
    found_N = is_target_NW.any(1)
    above_N = (beams.scores_BW > own_N1).sum(1)
    tied_N = (beams.scores_BW == own_N1).sum(1) - 1
    return torch.where(found_N, above_N, n_items - 1), torch.where(found_N, tied_N, 0)
