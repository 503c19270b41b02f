"""What thoughts are pulled towards: the segments of a rationale as vectors that nothing trains.

Source: LASAR (arXiv 2605.10207) anchors thought t to the encoded t-th segment of a rationale; how segments come about without a
large language model is ours (``segments.py``). Letters: **P** targets, **S** segments, **A** width of item vectors, **X** width of
an anchor: D, or the codes of a level.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.backbones.base import Backbone
from recbench.config import digest
from recbench.data.batching import Batch, TrainingRows, query_batches
from recbench.data.cooccurrence import cooccurrence_vectors
from recbench.data.dataset import Histories, ranges
from recbench.data.knowledge import ItemKnowledge
from recbench.data.vectors import WIDTHS, VectorConfig
from recbench.errors import Exit, RecbenchError
from recbench.reasoning.base import Context
from recbench.reasoning.codebooks import Codebooks
from recbench.reasoning.segments import INTENT, NAMES, Segments, merged, next_groups, place_of, segments, window_of
from recbench.scoring.precision import product, whole
from recbench.semantic_ids.kmeans import kmeans, unit

Kind = Literal["auto", "text", "cooc", "backbone", "codes", "file"]
Pool = Literal["items", "text"]
Reading = Literal["alone", "prompt"]
GROUPS = 64
"""Clusters that stand in for categories where items have none."""
ENOUGH_TEXT = 0.5
"""Share of training events whose item has text from which anchors are made of text by themselves."""
AT_ONCE = 2048
"""Segments behind their histories that are read at once."""
COMMONEST = 3
"""Items that stand for a group where a group must be read as a history."""
LEAST_TAU = 0.05
"""Of codes as anchors. Where no more items differ than there are codes each is its own code, and log-odds would know no bound."""
TEXT_WIDTH = 128
LIFT_SEED = 0
"""Of the frozen map from item vectors to the width of states: the same in every stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorConfig:
    """What of the settings of a head anchors depend on."""

    kind: Kind
    encoder: str
    file: str
    window: int
    merge: float
    use_target: bool
    merge_target: bool
    most: int
    """Segments at most."""
    levels: int
    codes: int
    pool: Pool
    """Is a segment the sum of its items' vectors, or the vector of what it says?"""
    context: Reading
    """Does a backbone read a segment alone, or behind the history before the target?"""

    def merged(self, x_PSA: Tensor) -> Anchors:
        """Vectors of segments, (P, S, A), as anchors of their width, neighbours that say the same merged."""
        apart = INTENT if self.use_target and not self.merge_target else None
        return Anchors(*merged(x_PSA, self.merge, self.most, apart))

    @property
    def facts(self) -> dict[str, Any]:
        """What ``run.json`` says of what segments know."""
        return {"use_target": self.use_target} | ({"merge_target": False} if not self.merge_target else {})


@dataclass(frozen=True, slots=True)
class Anchors:
    """Anchors of P targets."""

    c_PSX: Tensor
    """Segment s of target p, for s below ``s_P[p]``."""
    s_P: Tensor


class Source(ABC):
    """One way to come by anchors. ``facts`` is what ``run.json`` says of it."""

    facts: dict[str, Any]

    @abstractmethod
    def of(self, batch: Batch, some_P: Tensor, rows: TrainingRows | None) -> Anchors:
        """Anchors of the targets ``some_P`` of a training batch.

        Raises:
            ValueError: the batch is not one of training.
        """


@dataclass(frozen=True, slots=True)
class Items:
    """Items as the sources see them."""

    x_VA: Tensor
    """Vectors; zeros where nothing is known, and in the row of padding."""
    group_V: Tensor
    next_group_C: Tensor
    of_group_CA: Tensor
    """Mean vector of each group."""
    counts_V: np.ndarray
    """How often training shows each item."""


class _Templates(Source):
    """Sources that read segments of ``segments.py``."""

    def __init__(self, config: AnchorConfig, items: Items, facts: dict[str, Any]) -> None:
        self.config, self.items = config, items
        self.facts = facts | {"groups": int(items.group_V.max())} | config.facts

    def segments(self, batch: Batch, some_P: Tensor, rows: TrainingRows | None) -> Segments:
        histories, place_P = place_of(batch, some_P, rows)
        window_PW = torch.from_numpy(window_of(histories, place_P, self.config.window))
        target_P = torch.from_numpy(histories.items[place_P].astype(np.int64))
        device, items = some_P.device, self.items
        return segments(
            window_PW.to(device),
            target_P.to(device),
            items.group_V,
            items.next_group_C,
            use_target=self.config.use_target,
        )

    def vectors(self, found: Segments) -> Tensor:
        """Unit vectors of the segments, zeros where one is empty, (P, S, A)."""
        x_PSA = product(found.weight_PSE, self.items.x_VA[found.items_PE])
        x_PSA[:, INTENT] = self.items.of_group_CA[found.group_P]
        return F.normalize(x_PSA, dim=2)


class ItemAnchors(_Templates):
    """Sums of item vectors, lifted to the width of states by a frozen map: centre, main directions, a random rotation."""

    def __init__(self, config: AnchorConfig, items: Items, width: int, facts: dict[str, Any]) -> None:
        super().__init__(config, items, facts)
        self.lift = Lift(items.x_VA[1:], width)

    def of(self, batch: Batch, some_P: Tensor, rows: TrainingRows | None) -> Anchors:
        found = self.config.merged(self.vectors(self.segments(batch, some_P, rows)))
        return Anchors(self.lift(found.c_PSX), found.s_P)


class ReadAnchors(_Templates):
    """A frozen backbone reads each segment as a short history, or as what follows the history before the target; its last state
    is the anchor. It is told no times.

    Args:
        reader: in eval mode; nothing may train it.
    """

    def __init__(self, config: AnchorConfig, items: Items, reader: Backbone, facts: dict[str, Any]) -> None:
        super().__init__(config, items, facts | {"context": config.context})
        self.reader = reader
        self._commonest = _commonest(items.group_V.cpu().numpy(), items.counts_V)

    @torch.no_grad()
    def of(self, batch: Batch, some_P: Tensor, rows: TrainingRows | None) -> Anchors:
        found = self.segments(batch, some_P, rows)
        x_PSA = self.vectors(found)
        before = self._before(batch, some_P, rows) if self.config.context == "prompt" else None
        c_PSD = self._read(found, before, some_P.device)
        c_PSD = torch.where(x_PSA.square().sum(2, keepdim=True) > 0, c_PSD, 0.0)
        return self.config.merged(c_PSD)

    def _before(self, batch: Batch, some_P: Tensor, rows: TrainingRows | None) -> list[np.ndarray]:
        """What each row of the batch shows before the target, oldest first."""
        histories, place_P = place_of(batch, some_P, rows)
        count_P = batch.rows.position_N[batch.at_Q[some_P]].cpu().numpy() + (not self.reader.closed)
        return [histories.items[place - count : place] for place, count in zip(place_P, count_P, strict=True)]

    def _read(self, found: Segments, before: list[np.ndarray] | None, device: torch.device) -> Tensor:
        items_PE, weight_PSE = found.items_PE.cpu().numpy(), found.weight_PSE.cpu().numpy()
        group_P = found.group_P.cpu().numpy()
        P, S = weight_PSE.shape[:2]
        rows = [items_PE[p][weight_PSE[p, s] > 0] for p in range(P) for s in range(S)]
        for p in range(P):
            rows[p * S + INTENT] = self._commonest[group_P[p]]
        read = [place for place, row in enumerate(rows) if len(row)]
        if before is not None:
            rows = [np.concatenate([before[place // S], row]) for place, row in enumerate(rows)]
        lengths = np.array([len(rows[place]) for place in read])
        stops = np.cumsum(lengths)
        histories = Histories(
            np.arange(len(read), dtype=np.int32),
            np.concatenate([rows[place] for place in read]).astype(np.int32),
            None,
            stops - lengths,
            stops,
        )
        out = torch.zeros(P * S, self.reader.width, device=device)
        reader = self.reader
        size = len(read) if before is None else AT_ONCE
        for chosen, batch in query_batches(histories, reader.max_length, size, device, closed=reader.closed):
            with torch.autocast(device.type, enabled=False):
                h_RD = reader.encode(reader.embed(batch), batch, at_Q=batch.at_Q).h_QD
            out[torch.from_numpy(np.array(read)[chosen]).to(device)] = whole(h_RD)
        return out.view(P, S, -1)


class CodeAnchors(_Templates):
    """Thought l meets the codes of level l of the target (or of the window's mean): -|r_l - C_l|^2 / tau as log-odds,
    tau the mean over items of the distance to the nearest."""

    def __init__(self, config: AnchorConfig, items: Items, facts: dict[str, Any]) -> None:
        super().__init__(config, items, facts | {"levels": config.levels, "codes": config.codes})
        self.books = Codebooks(items.x_VA, config.levels, config.codes, "head.anchor is codes", facts["made_of"])
        nearest = [d_NC.amin(1) for d_NC in self.books.distances(self.books.x_VA[self.books.known_V])]
        self.tau = [float(d_N.mean().clamp_min(LEAST_TAU)) for d_N in nearest]

    def of(self, batch: Batch, some_P: Tensor, rows: TrainingRows | None) -> Anchors:
        found = self.segments(batch, some_P, rows)
        x_VA = self.books.x_VA
        if self.config.use_target:
            x_PA = x_VA[found.items_PE[:, -1]]
        else:
            weight_P1E = found.weight_PSE[:, NAMES.index("preference")][:, None]
            x_PA = F.normalize(product(weight_P1E, x_VA[found.items_PE]), dim=2)[:, 0]
        s_P = (x_PA.square().sum(1) > 0) * self.config.levels
        parts = [-distance / tau for distance, tau in zip(self.books.distances(x_PA), self.tau, strict=True)]
        return Anchors(torch.stack(parts, 1), s_P)


class Lift:
    """(x - mean) B, then LayerNorm: unit vectors (.., A) to anchors (.., D). B holds the main directions of all items, turned at
    random, so that leading ones do not sit in a few coordinates."""

    def __init__(self, x_NA: Tensor, width: int) -> None:
        unit_NA = F.normalize(x_NA[x_NA.square().sum(1) > 0].double(), dim=1)
        self.mean_A = unit_NA.mean(0).to(x_NA.dtype)
        rank = min(width, x_NA.shape[1])
        _, directions_AA = torch.linalg.eigh((unit_NA - unit_NA.mean(0)).T @ (unit_NA - unit_NA.mean(0)))
        main_AR = _pointed(directions_AA[:, -rank:])
        self.map_AD = (main_AR @ _rotation(width)[:rank].to(x_NA.device)).to(x_NA.dtype)
        self.width = width

    def __call__(self, x_PSA: Tensor) -> Tensor:
        return F.layer_norm(product(x_PSA - self.mean_A, self.map_AD), (self.width,))


def _pointed(columns_DD: Tensor) -> Tensor:
    """Each column with its largest entry above 0: libraries of linear algebra give either sign, and anchors must not tell which."""
    return columns_DD * columns_DD.gather(0, columns_DD.abs().argmax(0, keepdim=True)).sign()


def _rotation(width: int) -> Tensor:
    """The same orthogonal matrix on every machine, (D, D) float64: drawn on the host."""
    drawn_DD = torch.randn(width, width, generator=torch.Generator().manual_seed(LIFT_SEED), dtype=torch.float64)
    return _pointed(torch.linalg.qr(drawn_DD)[0])


def source(config: AnchorConfig, backbone: Backbone, context: Context, reader: Backbone | None = None) -> Source:
    """The anchors that a config asks for, made from what training may see.

    Args:
        reader: what reads segments where the kind is backbone.

    Raises:
        RecbenchError: the source that is named is not to be had here. It is never replaced by another.
    """
    if context.train is None:
        raise ValueError("anchors are made of training rows")
    histories = context.train.histories
    if config.kind == "file" or (config.kind == "auto" and config.file):
        from recbench.reasoning.rationales import FileAnchors  # it builds on this module

        return FileAnchors(config, backbone, context)
    kind, x_NA, facts = vectors(config, backbone.n_items, histories, context.items)
    if config.pool == "text" and kind not in ("text", "encoder"):
        raise RecbenchError(
            f"head.segment_pool is text, but anchors are made of {kind} here.",
            why=f"What a segment says is titles, brands and categories; {100 * facts['interactions_with_text']:.0f} % of the "
            "training events are of items that have any.",
            fix="--set head.segment_pool=items, or prepare the dataset with --metadata",
            code=Exit.DATA,
        )
    items = known_items(x_NA, histories, context.items, backbone.item_vectors().device)
    if kind == "backbone":
        if reader is None:
            raise ValueError("anchor is backbone, but there is none that could read")
        return ReadAnchors(config, items, reader, facts)
    if kind == "codes":
        return CodeAnchors(config, items, facts)
    if config.pool == "text":
        from recbench.reasoning.wording import WordAnchors  # it builds on this module

        return WordAnchors(config, items, backbone.width, context, facts)
    return ItemAnchors(config, items, backbone.width, facts | {"pool": "items"})


def item_codes(config: AnchorConfig, backbone: Backbone, context: Context) -> tuple[Tensor, dict[str, Any]]:
    """Codes of all items, (V, L), -1 where nothing is known of one, and what is to be said of them.

    Raises:
        RecbenchError: too few items have a vector.
    """
    if context.train is None:
        raise ValueError("codes are made of training rows, where items have no text")
    _, x_NA, facts = vectors(config, backbone.n_items, context.train.histories, context.items)
    x_VA = F.pad(torch.from_numpy(x_NA), (0, 0, 1, 0)).to(backbone.item_vectors().device)
    books = Codebooks(x_VA, config.levels, config.codes, "head.ground_codes is above 0", facts["made_of"])
    kept = {name: facts[name] for name in ("made_of", "width", "items_without_vector")}
    return books.codes(), kept | {"levels": config.levels, "codes": config.codes}


def vectors(
    config: AnchorConfig, n_items: int, histories: Histories, knowledge: ItemKnowledge | None
) -> tuple[str, np.ndarray, dict[str, Any]]:
    """What the anchors are in the end, vectors of the items (N, A) that add up, and what is to be said of them."""
    described_N, share = described(n_items, histories, knowledge)
    kind = config.kind
    words = "encoder" if config.encoder else "text"
    if kind == "text" and not described_N.any():
        raise RecbenchError(
            "head.anchor is text, but the dataset has none.",
            why=f"None of its {n_items:,} items has a title, a brand or a category.",
            fix="--set head.anchor=cooc, or prepare the dataset with --metadata",
            code=Exit.DATA,
        )
    has_words = share >= ENOUGH_TEXT if kind != "text" else True
    made_of = words if has_words and kind != "cooc" else "cooc"
    facts: dict[str, Any] = {"source": made_of if kind in ("auto", "text", "cooc") else kind, "made_of": made_of}
    facts["interactions_with_text"] = share
    if knowledge is not None and made_of == "text":
        all_texts = knowledge.texts()
        x_NA = knowledge.text_space(TEXT_WIDTH).vectors(all_texts)
        facts |= {"fields": knowledge.fields(), "sha256": digest({"texts": all_texts, "width": TEXT_WIDTH})}
    elif knowledge is not None:
        words_of = VectorConfig(
            source="encoder" if config.encoder else "text", encoder=config.encoder, normalise="none"
        )
        found = knowledge.vectors(words_of if made_of == "encoder" else VectorConfig(source="cooc", normalise="none"))
        x_NA = found.x_NA
        facts |= {name: found.facts[name] for name in ("encoder", "fields", "sha256") if name in found.facts}
    else:
        x_NA = cooccurrence_vectors(histories, n_items, WIDTHS["cooc"])
    if made_of != "text":
        x_NA = unit(x_NA)
    facts |= {
        "width": int(x_NA.shape[1]),
        "items_without_vector": int((np.abs(x_NA).max(axis=1, initial=0) == 0).sum()),
    }
    return (kind if kind in ("backbone", "codes") else made_of), x_NA.astype(np.float32), facts


def described(n_items: int, histories: Histories, knowledge: ItemKnowledge | None) -> tuple[np.ndarray, float]:
    """Which items have text, (N,) bool, and the share of training events that are of these."""
    has_N = np.zeros(n_items, dtype=bool) if knowledge is None else np.array([bool(t) for t in knowledge.texts()])
    seen = histories.items[ranges(histories.starts, histories.lengths)]
    return has_N, float(has_N[seen - 1].mean()) if len(seen) else 0.0


def known_items(x_NA: np.ndarray, histories: Histories, knowledge: ItemKnowledge | None, device: torch.device) -> Items:
    """Vectors, groups and what follows what."""
    n_items = len(x_NA)
    group_N = groups(x_NA, None if knowledge is None else knowledge.categories())
    group_V = np.concatenate([[0], group_N])
    x_VA = np.concatenate([np.zeros_like(x_NA[:1]), x_NA])
    counts_V = np.bincount(histories.items[ranges(histories.starts, histories.lengths)], minlength=n_items + 1)
    size = int(group_V.max()) + 1
    sums = np.zeros((size, x_NA.shape[1]))
    np.add.at(sums, group_V, x_VA.astype(np.float64))
    sums[0] = 0
    mean = sums / np.maximum(np.bincount(group_V, minlength=size), 1)[:, None]

    def to(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device)

    return Items(to(x_VA), to(group_V), to(next_groups(histories, group_V)), to(mean.astype(np.float32)), counts_V)


def groups(x_NA: np.ndarray, categories: list[str] | None) -> np.ndarray:
    """The group of each item, from 1: its category, or the cluster of its vector where it has none; 0 where it has neither."""
    group_N = np.zeros(len(x_NA), dtype=np.int64)
    names = categories or [""] * len(x_NA)
    known = np.array([bool(name) for name in names])
    if known.any():
        group_N[known] = 1 + np.unique(np.array(names, dtype=object)[known].astype(str), return_inverse=True)[1]
    rest = ~known & (np.abs(x_NA).max(axis=1, initial=0) > 0)
    if rest.any():
        clusters = max(1, min(GROUPS, int(rest.sum()) // 4))
        found, _ = kmeans(unit(x_NA[rest]), clusters, np.random.default_rng(LIFT_SEED))
        group_N[rest] = 1 + group_N.max() + found
    return group_N


def _commonest(group_V: np.ndarray, counts_V: np.ndarray) -> list[np.ndarray]:
    """The commonest items of each group, the commonest last; none of group 0."""
    order = np.lexsort((-np.arange(len(group_V)), counts_V, group_V))
    cuts = np.searchsorted(group_V[order], np.arange(1, int(group_V.max()) + 1))
    return [part[-COMMONEST:] if place else part[:0] for place, part in enumerate(np.split(order, cuts))]


def deranged(anchors: Anchors, generator: torch.Generator) -> Anchors:
    """Anchors handed to other targets with as many segments; a target that is alone with its number has none left."""
    s_P = anchors.s_P
    key_P = s_P.double() + torch.rand(len(s_P), generator=generator, device=s_P.device, dtype=torch.float64) * 0.5
    order_P = key_P.argsort()
    sorted_P = s_P[order_P]
    counts = torch.unique_consecutive(sorted_P, return_counts=True)[1]
    start_P = (counts.cumsum(0) - counts).repeat_interleave(counts)
    size_P = counts.repeat_interleave(counts)
    place_P = torch.arange(len(s_P), device=s_P.device)
    giver_P = order_P[start_P + (place_P - start_P + 1) % size_P]
    taken_P = torch.empty_like(order_P)
    taken_P[order_P] = giver_P
    alone_P = torch.empty_like(s_P, dtype=torch.bool)
    alone_P[order_P] = size_P == 1
    return Anchors(anchors.c_PSX[taken_P], torch.where(alone_P, 0, s_P))
