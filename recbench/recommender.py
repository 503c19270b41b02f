"""What training and evaluation see of any system: losses of a training batch, ranks of a query batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from recbench.backbones.base import Backbone, TimesSeen
from recbench.baselines.base import Baseline
from recbench.data.batching import Batch
from recbench.data.dataset import Histories
from recbench.errors import Exit, RecbenchError
from recbench.generators.base import Generator, table_in
from recbench.generators.found import best, both_rules, counts_of
from recbench.generators.spelling import Spelling
from recbench.kernels.products import times_transposed
from recbench.reasoning.base import Context, ReasoningHead, Stage
from recbench.registry import BACKBONES, HEADS, LOSSES
from recbench.scoring.base import Score
from recbench.scoring.counting import Counts, count, scratch_for, top
from recbench.scoring.softmax import ItemSoftmax
from recbench.semantic_ids.search import search_errors
from recbench.semantic_ids.table import SemanticIds

BLOCK_BYTES = {"cpu": 1 << 23, "cuda": 1 << 29}
"""Scores held at once while ranking: on a CPU what stays in its cache, on a GPU what keeps it busy."""
SPELLED_ROWS = 128
"""Users whose items are spelled at once: with a beam of 50 some 6,400 rows of a model's states."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The whole histories of a batch's queries, also where the model sees only their newest part: ``unseen`` is about these."""

    items: Tensor
    """(E,) item ids, flat."""
    row: Tensor
    """(E,) which query each belongs to, ascending."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """Where a batch's targets stand, and its best items if they were asked for."""

    counts: Counts | None
    top_items_BK: Tensor | None
    top_scores_BK: Tensor | None
    steps_B: Tensor | None = None
    """Reasoning steps that each row took, where the head decides; None where all take the same."""
    lost_B: Tensor | None = None
    """True where a search lost a target that beats the last item it found; None where nothing is searched."""

    @classmethod
    def joined(cls, parts: Sequence[Ranked]) -> Ranked:
        """A batch from its rows, a few at a time."""

        def whole(name: str) -> Tensor | None:
            found = [value for part in parts if (value := getattr(part, name)) is not None]
            return torch.cat(found) if found else None

        counts = [part.counts for part in parts if part.counts is not None]
        return cls(
            Counts(*(torch.cat([getattr(one, name) for one in counts]) for name in Counts.__slots__))
            if counts
            else None,
            *map(whole, ("top_items_BK", "top_scores_BK", "steps_B", "lost_B")),
        )


TIE_SEED = 0
"""Of the order in which lists show what ties."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What to rank: targets to place (or none), lists to make (or none)."""

    seen: Seen
    top: int = 0
    """Length of the lists; 0: no lists."""
    top_unseen: bool = False
    """Leave items of the history out of the lists."""
    tie_seed: int = TIE_SEED
    steps: int | None = None
    """Reasoning steps to take; None: as the head is configured."""
    within: int | None = None
    """No metric looks further than this rank: what searches may search less far. None: as the system is configured."""


class Recommender(ABC):
    """Any system: neural with a head, a generator, a baseline."""

    loss_name: str
    max_length: int | None
    """Longest history the system sees; None: all of it."""
    times_seen: TimesSeen = "none"
    """Whose event times its scores depend on, where the dataset has times."""
    closed: bool = False
    """Does it expect a blank behind every history?"""
    rank_cutoff: int | None = None
    """The rank behind which targets are all given as last, so that no metric may look further. None: every rank is true."""

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Numbers trained by gradient."""

    @abstractmethod
    def score_blocks(self, batch: Batch, steps: int | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Scores of all items for every row of the batch, a few rows at a time: (rows, V - 1), column j is item j + 1.

        Args:
            steps: reasoning steps to take; None: as configured.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What ``model.safetensors`` holds."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take back what ``tensors`` gave."""

    @torch.inference_mode()
    def ranks(self, batch: Batch, ask: Ask) -> Ranked:
        """Where the target of each row stands among all items, and each row's best items. One pass, no sort, no matrix kept."""
        parts: list[Ranked] = []
        users_B = torch.from_numpy(batch.users_B.astype(np.int64)).to(batch.items_N.device)
        scratch = None
        for rows, scores in self.score_blocks(batch, ask.steps):
            here = slice(
                *torch.searchsorted(ask.seen.row, torch.tensor([rows.start, rows.stop], device=scores.device)).tolist()
            )
            seen, seen_row = ask.seen.items[here], ask.seen.row[here] - rows.start
            scratch = scratch_for(scores) if scratch is None else scratch
            counts: Counts | None = None
            listed: tuple[Tensor | None, Tensor | None] = (None, None)
            if batch.targets_Q is not None:
                counts = count(scores, batch.targets_Q[rows], seen, seen_row, scratch=scratch)
            if ask.top:
                exclude = (seen, seen_row) if ask.top_unseen else None
                listed = top(scores, ask.top, users_B[rows], ask.tie_seed, exclude)
            parts.append(Ranked(counts, *listed, self.steps_taken(rows)))
        return Ranked.joined(parts)

    def steps_taken(self, rows: slice) -> Tensor | None:  # noqa: ARG002 for systems that decide it
        """Reasoning steps of these rows of the batch that ``score_blocks`` is at; None where all rows take the same."""
        return None


class Trainable(Recommender, nn.Module):
    """A recommender trained by gradient, by the one loop."""

    stages: tuple[Stage, ...]
    every_position: bool
    """May one row train all its positions? If not, every prefix is a row."""
    blanked: float = 0.0
    """Above 0: training rows are cloze rows with this share of blanks."""

    @abstractmethod
    def losses(self, batch: Batch, context: Context) -> dict[str, Tensor]:
        """Named, weighted, scalar losses; their sum is minimised."""

    @property
    def rates(self) -> dict[str, float]:
        """How many times the learning rate some parameters take, by what their names begin with."""
        return {}

    @abstractmethod
    def begin(self, context: Context) -> None:
        """Prepare ``context.stage``."""

    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.state_dict().items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.load_state_dict(tensors)

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


class Reasoned(Trainable):
    """A backbone with a reasoning head and a score."""

    def __init__(self, backbone: Backbone, head: ReasoningHead, score: Score) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.score = score
        self.loss_name = self.score.name
        self.max_length = backbone.max_length
        self.times_seen = backbone.times_seen
        self.stages = head.plan(head.config)
        self.every_position = backbone.causal
        self.closed, self.blanked = backbone.closed, backbone.blanked

    def tensors(self) -> dict[str, Tensor]:
        given = self._given()
        return {name: tensor for name, tensor in super().tensors().items() if name not in given}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        given = self._given()
        own = {name: tensor for name, tensor in self.state_dict().items() if name in given}
        super().restore(own | tensors)

    def _given(self) -> set[str]:
        return {f"backbone.{name}" for name in self.backbone.given()} | {f"head.{name}" for name in self.head.given()}

    def losses(self, batch: Batch, context: Context) -> dict[str, Tensor]:
        generator = context.generator if context.negatives is None else context.negatives
        with self.score.step(generator, batch.targets_Q, batch):
            losses = self.head.losses(self.backbone, batch, self.score, context)
        if self._is_first(context):
            losses = losses | self.backbone.own_losses(batch, self.head.own(batch, context), self.score, generator)
        for name, value in self.score.parts().items():
            context.note(name, value)
        return losses

    def _is_first(self, context: Context) -> bool:
        """Is it the stage in which the backbone learns what it has to learn besides?"""
        return context.stage == self.stages[0].name

    @property
    def rates(self) -> dict[str, float]:
        return {f"head.{name}": rate for name, rate in self.head.rates.items()}

    def begin(self, context: Context) -> None:
        if context.train is not None:
            counts = context.train.target_counts(self.backbone.n_items)
            self.score.begin(torch.from_numpy(counts).to(self.backbone.item_vectors().device))
        if self._is_first(context):
            context.facts |= self.backbone.prepare(context.items)
        self.head.begin(self.backbone, self.score, context)

    def answers(self, batch: Batch, steps: int | None = None) -> Tensor:
        """The vectors that rank, at the asked tokens of the batch, (Q, D)."""
        return self.head.answer(self.head.think(self.backbone, batch, steps))


@final
class ItemRecommender(Reasoned):
    """A backbone over item ids, with a reasoning head and a loss.

    Args:
        score: of ``backbone.item_vectors``; None: the full softmax.
    """

    def __init__(self, backbone: Backbone, head: ReasoningHead, score: Score | None = None) -> None:
        super().__init__(backbone, head, ItemSoftmax(backbone.item_vectors) if score is None else score)

    def steps_taken(self, rows: slice) -> Tensor | None:
        return None if self.head.taken_Q is None else self.head.taken_Q[rows]

    def score_blocks(self, batch: Batch, steps: int | None = None) -> Iterator[tuple[slice, Tensor]]:
        u_BD = self.answers(batch, steps)
        e_VD = self.score.items()
        budget = BLOCK_BYTES.get(u_BD.device.type, BLOCK_BYTES["cuda"])
        height = max(1, min(len(u_BD), budget // (u_BD.element_size() * len(e_VD))))
        for first in range(0, len(u_BD), height):
            rows = slice(first, min(first + height, len(u_BD)))
            yield rows, times_transposed(u_BD[rows], e_VD)


@final
class GeneratorRecommender(Reasoned):
    """A backbone that spells items, with a reasoning head. Ranks by a beam, or exactly on small catalogues."""

    backbone: Generator
    score: Spelling

    def __init__(self, backbone: Generator, head: ReasoningHead, score: Spelling) -> None:
        super().__init__(backbone, head, score)
        c = score.config
        if c.scoring == "beam" and c.beam < backbone.n_items:
            self.rank_cutoff = c.beam

    def with_beam(self, width: int) -> GeneratorRecommender:
        """The same model, ranking by a beam of that width; one as wide as the catalogue is exact."""
        config = replace(self.score.config, scoring="beam", beam=width)
        return GeneratorRecommender(self.backbone, self.head, Spelling(self.backbone, config))

    def restore(self, tensors: dict[str, Tensor]) -> None:
        kept = table_in(tensors)
        if kept is None or not np.array_equal(kept.codes_VM, self.backbone.table.codes_VM):
            raise RecbenchError(
                "These weights spell items by other ids than the dataset's table has.",
                why="Its settings are the same, but it was built anew since, on another machine or by other versions.",
                fix="Put the dataset's folder ids/ back as it was, or train the run again that the weights are of.",
                code=Exit.RUN,
            )
        super().restore(tensors)

    def steps_taken(self, rows: slice) -> Tensor | None:  # noqa: ARG002 the last answers are those of these rows
        return self.head.taken_Q

    def score_blocks(self, batch: Batch, steps: int | None = None) -> Iterator[tuple[slice, Tensor]]:
        for rows, part in _pieces(batch, SPELLED_ROWS):
            with self.backbone.about(part):
                yield rows, self.score.exact(self.answers(part, steps))

    @torch.inference_mode()
    def ranks(self, batch: Batch, ask: Ask) -> Ranked:
        if self.rank_cutoff is None:
            return super().ranks(batch, ask)
        width = self.rank_cutoff if ask.within is None else max(ask.within, self.score.config.select_beam)
        if batch.targets_Q is None:  # with targets, counts must not depend on whether lists are asked for, too
            width = max(width, ask.top)
        found = []
        for rows, part in _pieces(batch, SPELLED_ROWS):
            here = (ask.seen.row >= rows.start) & (ask.seen.row < rows.stop)
            seen = Seen(ask.seen.items[here], ask.seen.row[here] - rows.start)
            with self.backbone.about(part):
                found.append(self._searched(part, replace(ask, seen=seen), width))
        return Ranked.joined(found)

    def _searched(self, batch: Batch, ask: Ask, width: int) -> Ranked:
        """Ranks and lists of a few rows, from beams."""
        u_BD, seen = self.answers(batch, ask.steps), (ask.seen.items, ask.seen.row)
        unseen = None
        if batch.targets_Q is not None or ask.top_unseen:
            beams, unseen = both_rules(self.score, u_BD, seen, width)
        else:
            beams = self.score.beams(u_BD, width)
        listed = unseen if ask.top_unseen and unseen is not None else beams
        items_BK = scores_BK = None
        if ask.top:
            users_B = torch.from_numpy(batch.users_B.astype(np.int64)).to(u_BD.device)
            items_BK, scores_BK = best(listed, ask.top, users_B, ask.tie_seed)
        if batch.targets_Q is None or unseen is None:
            return Ranked(None, items_BK, scores_BK, self.head.taken_Q)
        own_B = self.score.searched(u_BD, batch.targets_Q)
        counts = counts_of(beams, unseen, batch.targets_Q, own_B, seen, self.backbone.n_items)
        lost_B = search_errors(beams, batch.targets_Q, own_B)
        return Ranked(counts, items_BK, scores_BK, self.head.taken_Q, lost_B)


@final
class BaselineRecommender(Recommender):
    """A closed-form baseline."""

    loss_name = "closed form"
    max_length = None

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline

    @property
    def n_parameters(self) -> int:
        return 0

    def score_blocks(self, batch: Batch, steps: int | None = None) -> Iterator[tuple[slice, Tensor]]:  # noqa: ARG002 the contract's
        starts = batch.rows.starts.astype(np.int64)
        histories = Histories(batch.users_B, batch.items_N.cpu().numpy(), None, starts, starts + batch.rows.lengths)
        for first in range(0, len(histories), 256):
            rows = slice(first, min(first + 256, len(histories)))
            yield rows, torch.as_tensor(self.baseline.scores(histories, rows)).to(batch.items_N.device)

    def tensors(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in self.baseline.state().items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.baseline.restore({name: tensor.numpy() for name, tensor in tensors.items()})


def config_classes(backbone: str, head: str) -> tuple[type, type | None]:
    """The ``Config`` of a backbone and of a head; None for the head where the system takes none.

    Raises:
        RecbenchError: an unknown name, or a pair that cannot work.
    """
    backbone_class, head_class = BACKBONES.load(backbone), HEADS.load(head)
    if issubclass(backbone_class, Baseline):
        if head != "none":
            raise RecbenchError(
                f"{backbone} takes no reasoning head, so --reason {head} cannot apply.",
                why=f"{backbone} is closed form: it has no states to reason over.",
                fix=f"recbench train --backbone {backbone}, or a neural backbone: recbench list backbones",
            )
        return backbone_class.Config, None
    return backbone_class.Config, head_class.Config


def build(
    backbone: str,
    backbone_config: Any,
    head: str,
    head_config: Any,
    n_items: int,
    loss: str = "softmax",
    loss_config: Any = None,
    table: SemanticIds | None = None,
) -> Recommender:
    """The system of a backbone, a head and a loss, untrained.

    Args:
        loss_config: None: the loss's defaults.
        table: ids of the dataset's items; for backbones that spell.

    Raises:
        RecbenchError: settings that do not fit each other, or a table of other items.
    """
    backbone_class = BACKBONES.load(backbone)
    if issubclass(backbone_class, Baseline):
        return BaselineRecommender(backbone_class(backbone_config))
    spells = issubclass(backbone_class, Generator)
    built = backbone_class(backbone_config, _fitting(table, n_items) if spells else n_items)
    try:
        reasoning = HEADS.load(head)(head_config, built)
    except ValueError as error:
        raise RecbenchError(
            f"Head {head} does not fit backbone {backbone} with these settings.",
            why=str(error),
            fix="Change the setting it names: --set head... or --set backbone...",
        ) from error
    try:
        score = LOSSES.load(loss)(built if spells else built.item_vectors, config=loss_config)
    except ValueError as error:
        raise RecbenchError(
            f"Loss {loss} does not fit this dataset with these settings.",
            why=str(error),
            fix="Change the setting it names: --set loss...",
        ) from error
    return GeneratorRecommender(built, reasoning, score) if spells else ItemRecommender(built, reasoning, score)


def _fitting(table: SemanticIds | None, n_items: int) -> SemanticIds:
    """The table, if it is of these items.

    Raises:
        RecbenchError: it is not.
    """
    if table is None:
        raise ValueError("a backbone that spells needs a table of ids")
    if table.n_items != n_items:
        raise RecbenchError(
            f"The table of semantic ids is of {table.n_items:,} items; the dataset has {n_items:,}.",
            why="It was made for another dataset, or for this one as it was prepared before.",
            fix="Build it anew: recbench ids DATASET --rebuild",
            code=Exit.DATA,
        )
    return table


def _pieces(batch: Batch, size: int) -> Iterator[tuple[slice, Batch]]:
    """The batch a few rows at a time; a row is asked for once."""
    for first in range(0, len(batch.rows), size):
        rows = slice(first, min(first + size, len(batch.rows)))
        yield rows, batch.only(np.arange(rows.start, rows.stop))[0]
