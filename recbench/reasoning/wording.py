"""What the segments of a rationale say, written out, and these texts as anchors.

Nothing is published of how LASAR's teacher (arXiv 2605.10207) words a rationale, so how each segment reads is ours: the newest
items, the items of a theme behind its name, what a history prefers, a group, the target. No word is added to what the data say: a
phrase that stands in every segment would only make them alike. Letters: **P** targets, **W** places of a window, **S** segments,
**U** texts, **E** segments of all targets, **A** width of their vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.config import digest
from recbench.data.batching import Batch, TrainingRows
from recbench.data.knowledge import ItemKnowledge
from recbench.data.text import telling_words
from recbench.reasoning.anchors import TEXT_WIDTH, AnchorConfig, Anchors, Items, Lift, Source
from recbench.reasoning.base import Context
from recbench.reasoning.kept import KeptSegments
from recbench.reasoning.segments import (
    INTENT,
    ITEM,
    NAMES,
    THEMES,
    Segments,
    heaviest,
    place_of,
    segments,
    window_of,
)

GROUPS_LIKED, BRANDS_LIKED = 3, 2
"""Groups and brands that a preference names at most."""
BANDS = 4
"""Bands of prices with as many items each."""
TELLING = 3
"""Words that stand for a group without a name."""
AT_ONCE = 8192
"""Targets or texts that are worked on at once."""
EVIDENCE, PREFERENCE = NAMES.index("evidence"), NAMES.index("preference")


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of items in words. Index 0 of every list, and of what it numbers, is nothing."""

    line_V: list[str]
    """Title, brand and category."""
    title_V: list[str]
    """The title, or the line where there is none."""
    group_V: np.ndarray
    groups: list[str]
    """Names of the groups: a category, or the words that tell a cluster from others."""
    brand_V: np.ndarray
    brands: list[str]
    band_V: np.ndarray
    bands: list[str]
    """Prices from .. to, in whole dollars."""

    @classmethod
    def of(cls, knowledge: ItemKnowledge, group_V: np.ndarray) -> Told:
        """From the metadata of a dataset.

        Args:
            group_V: the group of each item, from 1; 0: none, and in the row of padding.
        """
        titles, brands, categories = knowledge.titles(), knowledge.brands(), knowledge.categories()
        lines = [". ".join(part for part in parts if part) for parts in zip(titles, brands, categories, strict=True)]
        names, brand_N = np.unique(np.array(["", *brands]), return_inverse=True)
        band_N, bands = price_bands(np.where([bool(line) for line in lines], knowledge.prices(), np.nan))
        return cls(
            ["", *lines],
            ["", *(title or line for title, line in zip(titles, lines, strict=True))],
            group_V,
            group_names(knowledge.texts(), categories, group_V[1:]),
            brand_N,
            names.tolist(),
            np.append(0, band_N),
            bands,
        )


def price_bands(price_N: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The band of each price, from 1, 0 where it is not known, (N,); and the names of the bands, the first for 0."""
    known_N = np.isfinite(price_N)
    if not known_N.any():
        return np.zeros(len(price_N), dtype=np.int64), [""]
    edges = np.unique(np.round(np.quantile(price_N[known_N], np.arange(1, BANDS) / BANDS)))
    names = [f"${low:.0f}-${high:.0f}" for low, high in zip([0, *edges[:-1]], edges, strict=True)]
    return np.where(known_N, 1 + np.searchsorted(edges, price_N, side="right"), 0), ["", *names, f"${edges[-1]:.0f}+"]


def group_names(texts_N: list[str], categories: list[str], group_N: np.ndarray) -> list[str]:
    """Names of the groups, the first for 0, which is none: its items' category, or the words that tell it from all others."""
    names = telling_words(texts_N, group_N, TELLING)
    for group, category in zip(group_N.tolist(), categories, strict=True):
        names[group] = category or names[group]
    return ["", *names[1:]]


class Texts:
    """Texts, each kept once, in the order in which they were first seen."""

    def __init__(self) -> None:
        self._row_of: dict[str, int] = {}

    def rows(self, key_PW: np.ndarray, say: Callable[[list[int]], str]) -> np.ndarray:
        """Where the text of each key stands, (P,); -1 where it says nothing. A text is made once for equal keys."""
        keys, key_P = np.unique(key_PW, axis=0, return_inverse=True)
        row_K = np.array([self._row(say(key)) for key in keys.tolist()], dtype=np.int64)
        return row_K[key_P.reshape(-1)]

    def _row(self, text: str) -> int:
        return self._row_of.setdefault(text, len(self._row_of)) if text else -1

    def __iter__(self) -> Iterator[str]:
        return iter(self._row_of)

    def __len__(self) -> int:
        return len(self._row_of)


def write(found: Segments, told: Told, texts: Texts) -> np.ndarray:
    """Write the segments of P targets out: where each one's text stands in ``texts``, (P, S), -1 where it says nothing."""
    items_PE, weight_PSE = found.items_PE.numpy(), found.weight_PSE.numpy()
    group_P = found.group_P.numpy()
    row_PS = np.full(weight_PSE.shape[:2], -1, dtype=np.int64)

    def lines(key: list[int]) -> str:
        return "; ".join(told.line_V[item] for item in key if told.line_V[item])

    def theme(key: list[int]) -> str:
        said = "; ".join(told.title_V[item] for item in key[1:] if told.title_V[item])
        return ": ".join(filter(None, [told.groups[key[0]], said])) if said else ""

    def preference(key: list[int]) -> str:
        liked = [told.groups[group] for group in key[:GROUPS_LIKED]]
        brands = [told.brands[brand] for brand in key[GROUPS_LIKED:-1]]
        parts = [", ".join(filter(None, liked)), ", ".join(filter(None, brands)), told.bands[key[-1]]]
        return ". ".join(filter(None, parts))

    in_PSE = np.where(weight_PSE > 0, items_PE[:, None], 0)
    row_PS[:, EVIDENCE] = texts.rows(in_PSE[:, EVIDENCE], lines)
    for s in range(1, 1 + THEMES):
        group_of_P = told.group_V[in_PSE[:, s]].max(1)
        row_PS[:, s] = texts.rows(np.column_stack([group_of_P, in_PSE[:, s]]), theme)
    liked_PW = [
        heaviest(torch.from_numpy(label_V[in_PSE[:, PREFERENCE]]), found.weight_PSE[:, PREFERENCE], count).numpy()
        for label_V, count in ((told.group_V, GROUPS_LIKED), (told.brand_V, BRANDS_LIKED), (told.band_V, 1))
    ]
    row_PS[:, PREFERENCE] = texts.rows(np.concatenate(liked_PW, 1), preference)
    row_PS[:, INTENT] = texts.rows(group_P[:, None], lambda key: told.groups[key[0]])
    row_PS[:, ITEM] = texts.rows(in_PSE[:, ITEM, -1:], lines)
    return row_PS


class WordAnchors(Source):
    """Texts of segments, encoded once for all training targets, lifted as items are (``ItemAnchors``)."""

    def __init__(self, config: AnchorConfig, items: Items, width: int, context: Context, facts: dict[str, Any]) -> None:
        knowledge, rows = context.items, context.train
        if knowledge is None or rows is None:
            raise ValueError("texts are those of a dataset's items")
        self.config, self.lift = config, Lift(items.x_VA[1:], width)
        place_R = np.unique(rows.target_events)
        texts = Texts()
        row_RS = self._written(place_R, rows, items, knowledge, texts)
        said_RS = row_RS >= 0
        x_UA = self._encoded(list(texts), knowledge).to(items.x_VA.device)
        self.kept = KeptSegments(place_R, said_RS.sum(1), row_RS[said_RS], x_UA)
        self.facts = facts | {
            "groups": int(items.group_V.max()),
            "pool": "text",
            "segments": int(said_RS.sum()),
            "unique_strings": len(texts),
            "strings_sha256": digest({"texts": list(texts)}),
        }
        self.facts |= config.facts

    def of(self, batch: Batch, some_P: Tensor, rows: TrainingRows | None) -> Anchors:
        _, place_P = place_of(batch, some_P, rows)
        x_PSA, _, known_P = self.kept.of(place_P, len(NAMES))
        if not known_P.all():
            raise ValueError("rationales exist for training targets only")
        found = self.config.merged(x_PSA)
        return Anchors(self.lift(found.c_PSX), found.s_P)

    def _written(
        self, place_R: np.ndarray, rows: TrainingRows, items: Items, knowledge: ItemKnowledge, texts: Texts
    ) -> np.ndarray:
        """Where the text of each segment of each training target stands, (R, S)."""
        group_V, next_group_C = items.group_V.cpu(), items.next_group_C.cpu()
        told, histories = Told.of(knowledge, group_V.numpy()), rows.histories
        parts = []
        for start in range(0, len(place_R), AT_ONCE):
            place_P = place_R[start : start + AT_ONCE]
            window_PW = torch.from_numpy(window_of(histories, place_P, self.config.window))
            target_P = torch.from_numpy(histories.items[place_P].astype(np.int64))
            found = segments(window_PW, target_P, group_V, next_group_C, use_target=self.config.use_target)
            parts.append(write(found, told, texts))
        return np.concatenate(parts)

    def _encoded(self, texts_U: list[str], knowledge: ItemKnowledge) -> Tensor:
        """Unit vectors of texts in the space of the items, (U, A)."""
        if self.config.encoder:
            return F.normalize(torch.from_numpy(knowledge.encoded(self.config.encoder, texts_U)), dim=1)
        space = knowledge.text_space(TEXT_WIDTH)
        parts = [
            space.vectors(texts_U[start : start + AT_ONCE]).astype(np.float32)
            for start in range(0, len(texts_U), AT_ONCE)
        ]
        return F.normalize(torch.from_numpy(np.concatenate(parts)), dim=1)
