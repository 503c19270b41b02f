"""Language tasks of a pretrained model beside the next item: from titles to codes, and from codes to titles.

Rows: ``words title <e> <s>`` spells the item of the title; ``words c1 .. cM title <e>`` says the title of an item;
``words title <e> title <e> .. <s>`` spells the item that follows the titles of a history, where an item without one stands with
its codes; ``words c1 .. cM <e> c1 .. cM <e> .. title <e>`` says the title of the item that follows a history. Codes are spelled as
the next item is, off ``<s>``; the words of a title are predicted among all words of the model and ``<e>``, which ends it.

Source: LC-Rec (Zheng et al., ICDE 2024, arXiv 2311.09049, section III-C) with tasks of these kinds, many wordings each; MiniOneRec
(arXiv 2510.24431) mixes them into its supervised stage. Here each has one wording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.config import typed
from recbench.data.batching import Batch
from recbench.data.knowledge import ItemKnowledge
from recbench.errors import Exit, RecbenchError
from recbench.generators.pretrained import Tokenizer
from recbench.generators.spelling import Answers, Spelling
from recbench.scoring.log_sum_exp import log_sum_exp
from recbench.scoring.precision import whole
from recbench.semantic_ids.table import BEGIN, END

if TYPE_CHECKING:
    from recbench.generators.hf_lm import HfLM

NEXT_ITEM = "next_item"
WORDING = {
    "title_to_item": "The item with this title:",
    "item_to_title": "The title of this item:",
    "titles_to_item": "Titles of items bought one after another, and the next item:",
    "items_to_title": "Items bought one after another, and the title of the next one:",
}
"""The tasks besides it, and what stands in front of their rows."""
SAY_WORDS = {"item_to_title", "items_to_title"}
"""Those that are answered in words of the model."""
WITHOUT = f"--set backbone.tasks={typed([NEXT_ITEM])}"
"""What to type to do without them."""
LOGIT_BYTES = {"cpu": 1 << 26, "cuda": 1 << 29}
"""Scores over all words that are held at once."""


@dataclass(frozen=True, slots=True)
class Titles:
    """The titles of all items as tokens of rows, one behind the other."""

    tokens_N: np.ndarray
    first_V: np.ndarray
    """Where each item's begin, (V + 1,); item 0 is padding."""
    cut_V: np.ndarray
    """Was it longer than what is read?"""

    @classmethod
    def of(cls, words: Sequence[Sequence[int]], longest: int, first_word: int) -> Titles:
        """Of all items' titles in words of the model, from item 1 on."""
        read = [some[:longest] for some in words]
        first_V = np.cumsum([0, 0, *map(len, read)])
        tokens_N = np.fromiter((word for some in read for word in some), np.int64, int(first_V[-1])) + first_word
        return cls(tokens_N, first_V, np.array([False, *(len(some) > longest for some in words)]))

    def __getitem__(self, item: int) -> np.ndarray:
        """The title of an item; empty where it has none."""
        return self.tokens_N[self.first_V[item] : self.first_V[item + 1]]


class Told(NamedTuple):
    """What a step teaches from."""

    batch: Batch
    own_Q: np.ndarray
    """Asked tokens of it whose targets may be learnt from."""
    target_Q: np.ndarray
    """Of all asked tokens."""
    score: Spelling
    generator: torch.Generator


class TextTasks:
    """The tasks that are taught. A row's tokens count as in ``HfLM.read_rows``.

    Args:
        lm: what is taught; no hold of it is kept.
        items: what is known of the items of the dataset.

    Raises:
        RecbenchError: no item has a title, or the model no tokenizer.
    """

    def __init__(self, lm: HfLM, items: ItemKnowledge | None) -> None:
        c = lm.config
        self.weights = {name: float(getattr(c, f"{name}_weight")) for name in WORDING if name in c.tasks}
        self.most = c.task_rows
        texts = [] if items is None else items.titles()
        if not any(texts):
            raise RecbenchError(
                f"There are no titles for {', '.join(self.weights)}.",
                why="backbone.tasks names tasks about the titles of items, and no item of this dataset has one.",
                fix="Prepare the dataset with the file that describes its items (recbench prepare NAME --metadata FILE), or "
                f"without these tasks: {WITHOUT}",
                code=Exit.DATA,
            )
        tokenizer = Tokenizer(Path(c.path).expanduser(), lm.n_words, "titles", WITHOUT)
        first_word = lm.table.n_tokens
        self.titles = Titles.of(tokenizer(texts, begins=False), c.title_tokens, first_word)
        self.known_V = np.diff(self.titles.first_V) > 0
        """Has the item a title?"""
        self.codes_VM = lm.table.tokens()
        begun = tokenizer([WORDING[name] for name in self.weights], begins=True)
        self.begun = {
            name: np.array(words, dtype=np.int64) + first_word for name, words in zip(self.weights, begun, strict=True)
        }

    @property
    def facts(self) -> dict[str, Any]:
        """Items, how many have a title, and how many of these are cut."""
        return {
            "items": len(self.known_V) - 1,
            "with_title": int(self.known_V.sum()),
            "cut": int(self.titles.cut_V.sum()),
        }

    def losses(
        self, lm: HfLM, batch: Batch, own_Q: Tensor | None, score: Spelling, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See ``Backbone.own_losses``. A task that finds nothing in a batch has no loss."""
        if batch.targets_Q is None:
            raise ValueError("tasks are taught with training targets")
        target_Q = batch.targets_Q.cpu().numpy()
        own = np.arange(len(target_Q)) if own_Q is None else own_Q.cpu().numpy()
        told = Told(batch, own, target_Q, score, generator)
        tasks = {
            "title_to_item": self._title_to_item,
            "item_to_title": self._item_to_title,
            "titles_to_item": self._titles_to_item,
            "items_to_title": self._items_to_title,
        }
        losses = {name: tasks[name](lm, told) for name in self.weights}
        return {name: self.weights[name] * loss for name, loss in losses.items() if loss is not None}

    # --- the tasks --------------------------------------------------------------------------------------------------

    def _title_to_item(self, lm: HfLM, told: Told) -> Tensor | None:
        items = self._some_targets(told)
        rows = [np.concatenate([self.begun["title_to_item"], self.titles[i], [END, BEGIN]]) for i in items]
        return self._spelled(lm, told, rows, items)

    def _item_to_title(self, lm: HfLM, told: Told) -> Tensor | None:
        items = self._some_targets(told)
        begun = self.begun["item_to_title"]
        return self._said(lm, [np.concatenate([begun, self.codes_VM[i]]) for i in items], items)

    def _titles_to_item(self, lm: HfLM, told: Told) -> Tensor | None:
        """Of histories with a title in them; the others are left to the next item's own loss."""
        histories, target_O = self._histories(told)
        some = self._drawn(np.array([self.known_V[seen].any() for seen in histories], dtype=bool), told)
        begun, known_V = self.begun["titles_to_item"], self.known_V
        rows = [
            _row(begun, [self.titles[i] if known_V[i] else self.codes_VM[i] for i in histories[o]], [BEGIN])
            for o in some
        ]
        return self._spelled(lm, told, rows, target_O[some])

    def _items_to_title(self, lm: HfLM, told: Told) -> Tensor | None:
        """Of targets with a title."""
        histories, target_O = self._histories(told)
        some = self._drawn(self.known_V[target_O], told)
        rows = [_row(self.begun["items_to_title"], [self.codes_VM[i] for i in histories[o]]) for o in some]
        return self._said(lm, rows, target_O[some])

    # --- what they share ----------------------------------------------------------------------------------------------

    def _some_targets(self, told: Told) -> np.ndarray:
        """Some items with a title that are targets of the batch, each once."""
        items = np.unique(told.target_Q[told.own_Q])
        return items[self._drawn(self.known_V[items], told)]

    def _histories(self, told: Told) -> tuple[list[np.ndarray], np.ndarray]:
        """What stands before each target that may be learnt from, and that target."""
        batch = told.batch
        seen_N, at_O = batch.items_N.cpu().numpy(), batch.at_Q.cpu().numpy()[told.own_Q]
        first_O = batch.rows.starts[batch.rows.row_N.cpu().numpy()[at_O]]
        histories = [seen_N[first : at + 1] for first, at in zip(first_O, at_O, strict=True)]
        return histories, told.target_Q[told.own_Q]

    def _drawn(self, may_C: np.ndarray, told: Told) -> np.ndarray:
        """Places of ``task_rows`` of those that may be taken, or of all."""
        places = np.flatnonzero(may_C)
        order = torch.randperm(len(places), generator=told.generator, device=told.generator.device)
        return places[order[: self.most].cpu().numpy()]

    def _spelled(self, lm: HfLM, told: Told, rows: Sequence[np.ndarray], items: np.ndarray) -> Tensor | None:
        """Minus the log-likelihood of each item's codes behind its row, summed over levels, the mean over rows."""
        if not len(rows):
            return None
        order = _by_length(rows)
        recalled, h_ND = lm.read_rows([rows[r] for r in order])
        answers = Answers(lm, recalled, h_ND[recalled.at_Q], recalled.at_Q)
        items_R = torch.from_numpy(items[order]).to(h_ND.device)
        return -told.score.spelled(answers, items_R, torch.arange(len(rows), device=h_ND.device)).sum(1).mean()

    def _said(self, lm: HfLM, rows: Sequence[np.ndarray], items: np.ndarray) -> Tensor | None:
        """Minus the log-likelihood of a word of the items' titles behind their rows, the mean over words and ends."""
        if not len(rows):
            return None
        whole = [np.concatenate([row, self.titles[i]]) for row, i in zip(rows, items, strict=True)]
        order = _by_length(whole)
        h_ND = lm.read_rows([whole[r] for r in order])[1]
        end, unsaid, first_word = lm.n_words, -1, lm.table.n_tokens
        # The row's last token says the first word, the last word the end, if the title was not cut.
        parts: list[Any] = []
        for row, item in ((rows[r], items[r]) for r in order):
            last = unsaid if self.titles.cut_V[item] else end
            parts += [np.full(len(row) - 1, unsaid), self.titles[item] - first_word, [last]]
        word_N = torch.from_numpy(np.concatenate(parts)).to(h_ND.device)
        return word_loss(h_ND[word_N != unsaid], *lm.saying(), word_N[word_N != unsaid])


def word_loss(h_ND: Tensor, words_VD: Tensor, end_D: Tensor, word_N: Tensor) -> Tensor:
    """Mean of -log softmax of each state's next word over V words and the end, a few rows of scores at a time.

    Args:
        word_N: from 0; V is the end.
    """
    V = len(words_VD)
    with torch.autocast(h_ND.device.type, enabled=False):
        h_ND = whole(h_ND)
        budget = LOGIT_BYTES.get(h_ND.device.type, LOGIT_BYTES["cuda"])
        chunk = max(1, budget // (h_ND.element_size() * V))
        end_N = h_ND @ end_D
        said_N = (h_ND * F.embedding(word_N.clamp_max(V - 1), words_VD)).sum(1)
        every_N = torch.logaddexp(log_sum_exp(h_ND, words_VD, 1.0, chunk, first=0), end_N)
        return (every_N - torch.where(word_N == V, end_N, said_N)).mean()


def _row(begun: np.ndarray, items: Sequence[np.ndarray], last: Sequence[int] = ()) -> np.ndarray:
    """A row of a history: the words in front, each item with ``<e>`` behind it, what stands last."""
    return np.concatenate([begun, *(part for item in items for part in (item, [END])), np.array(last, dtype=np.int64)])


def _by_length(rows: Sequence[np.ndarray]) -> np.ndarray:
    """The order of rows that puts the shortest first."""
    return np.argsort([len(row) for row in rows], kind="stable")
