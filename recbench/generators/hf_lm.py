"""hf-lm: a pretrained causal language model from a local directory, taught to spell items. Needs the extra ``[hf]``.

Layout ``instruction, c1 .. cM <s> c1 .. cM <s> ..``: as in sid-lm the state at the ``<s>`` behind item t is what heads think from
and what the first code of item t + 1 is read off, and one pass serves every item of a row.
The model's layers are run one by one over packed rows, with masks, positions and keys of our own, so that nothing of its settings
of text generation has a say in what is ranked. Thoughts, and codes that are spelled, are further columns beside their row: a
history is held once, however wide the beam.
Code tokens and how to add them: as in LC-Rec (Zheng et al., ICDE 2024, arXiv 2311.09049, section III-B) and MiniOneRec (arXiv
2510.24431); not as there: one softmax a level instead of one over all words, and one pass over all targets of a user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, cast, final

import numpy as np
import torch
from torch import Tensor, nn

from recbench.backbones.base import Encoded, Layout
from recbench.backbones.packing import Asked, Places, asked_layout, rectangles, tokens
from recbench.conditions import OnlyWith
from recbench.data.batching import Batch, Rows
from recbench.data.knowledge import ItemKnowledge
from recbench.errors import Exit, RecbenchError
from recbench.generators.base import Generator, Recalled, Seats, Start
from recbench.generators.past import Path, length, longer, repeated
from recbench.generators.pretrained import Keys, KeyValue, Opened, through, train_only
from recbench.generators.spelling import Spelling
from recbench.generators.text_tasks import NEXT_ITEM, SAY_WORDS, WORDING, TextTasks
from recbench.kernels.dropout import Dropout
from recbench.limits import above, at_least, below_one
from recbench.semantic_ids.table import BEGIN, END, SemanticIds


class Kept(NamedTuple):
    """Keys and values of a batch's rows: by the first token of their bucket, then by layer, (rows, H, width, d) each."""

    rows: Rows
    said: dict[int, dict[int, KeyValue]]


@dataclass(slots=True)
class Memory:
    """What the layers remember of a batch; once somebody has thought, the thoughts behind each asked token."""

    batch: Batch
    kept: Kept
    layout: list[Asked] | None = None
    places: Places | None = None
    paths: list[Path] | None = None
    """Keys and values of the thoughts, one a layer."""
    dead_QL: list[Tensor] = field(default_factory=list)
    """True where a thought must never be seen again, one (Q,) a thought."""


@final
class HfLM(Generator):
    """The pretrained language model over semantic ids."""

    causal = True
    post_norm = False
    pretrained = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Which model, and what of it is trained."""

        path: str = ""
        """Directory of a causal language model as transformers saves it, with tokenizer and safetensors. Nothing is downloaded."""
        train: Literal["all", "lora", "embeddings"] = "all"
        """all its weights; lora: low-rank updates of its layers (Hu et al., arXiv 2106.09685); embeddings: only what is new."""
        instruction: str = "Items bought one after another, and the next one:"
        """Text in front of every history, in the model's own words; empty: none."""
        start: Start = "constant"
        """What ``<s>`` behind an item is: constant, the same vector behind all; item: that and the sum of the item's code
        vectors, so that what is read off there has a residual path from the newest item. Tasks of text have the constant."""
        max_length: int = 10
        """Newest items of a history that are read; each takes one token a code, and one behind."""
        dropout: float = 0.0
        """On the input."""
        noise: float = 0.1
        """New token vectors are the mean of the model's own, and normal noise of this share of their spread."""
        lora_rank: int = 8
        """Rank of those updates."""
        lora_alpha: int = 16
        """Updates are scaled by this over the rank."""
        tasks: tuple[str, ...] = (NEXT_ITEM,)
        """What the first stage teaches: next_item; title_to_item and item_to_title, an item's codes from its title and the other
        way; titles_to_item, the next item from the titles of a history; items_to_title, the next item's title from the codes of a
        history. Items need titles for them."""
        task_rows: int = 64
        """Items, or histories, that each task besides the next item takes of a batch, drawn among its targets."""
        title_tokens: int = 32
        """Words of a title that are read and said, in the model's tokens."""
        title_to_item_weight: float = 1.0
        """Of that task's loss, the sum over codes as of the next item."""
        item_to_title_weight: float = 1.0
        """Of that task's loss, the mean over the words of titles."""
        titles_to_item_weight: float = 1.0
        """Of that task's loss, the sum over codes."""
        items_to_title_weight: float = 1.0
        """Of that task's loss, the mean over the words of titles."""

        only_with: ClassVar[OnlyWith] = {
            "train=lora": "lora_rank lora_alpha",
            "tasks=title_to_item|item_to_title|titles_to_item|items_to_title": "task_rows title_tokens",
            "tasks=title_to_item": "title_to_item_weight",
            "tasks=item_to_title": "item_to_title_weight",
            "tasks=titles_to_item": "titles_to_item_weight",
            "tasks=items_to_title": "items_to_title_weight",
        }

        def __post_init__(self) -> None:
            self._check_tasks()
            at_least(1, self, "max_length", "lora_rank", "lora_alpha", "task_rows", "title_tokens")
            at_least(0, self, "noise")
            above(0, self, *(f"{name}_weight" for name in WORDING))
            below_one(self, "dropout")

        def _check_tasks(self) -> None:
            unknown = [name for name in self.tasks if name not in (NEXT_ITEM, *WORDING)]
            if unknown or NEXT_ITEM not in self.tasks:
                wrong = f"tasks names {unknown[0]}" if unknown else f"tasks leaves out {NEXT_ITEM}"
                raise ValueError(f"{wrong}; it takes {NEXT_ITEM}, always, and any of {', '.join(WORDING)}.")

    words_I: Tensor
    """Tokens of the instruction, as the model counts them."""
    sha256: Tensor
    """Of the directory it was read from, (32,): weights of a run go only with the model that it began with."""

    def __init__(self, config: Config, table: SemanticIds) -> None:
        opened = Opened.at(config.path)
        super().__init__(table, opened.width)
        self.config = config
        self.max_length = config.max_length
        self.base = opened.base
        self.n_layers = len(self.base.layers)
        self.dropout = Dropout(config.dropout)
        self.tokens = _new_rows(opened.vectors, table.n_tokens, config.noise)
        self.out = None if opened.output is None else _new_rows(opened.output, table.n_tokens, config.noise)
        self.register_buffer("words_I", opened.words(config.instruction), persistent=False)
        self.register_buffer("sha256", torch.tensor(list(bytes.fromhex(opened.sha256)), dtype=torch.uint8))
        train_only(self.base, config.train, config.lora_rank, config.lora_alpha)
        self.words_out: nn.Parameter | None = None
        """Rows of the output head that say words, where a task says some and they are not the input's."""
        if SAY_WORDS & set(config.tasks) and opened.output is not None:
            self.words_out = nn.Parameter(opened.output.clone(), requires_grad=config.train == "all")
        frozen = [f"base.{name}" for name, p in self.base.named_parameters() if not p.requires_grad]
        if self.words_out is not None and not self.words_out.requires_grad:
            frozen.append("words_out")
        self._frozen = frozenset(frozen)
        self._text: TextTasks | None = None
        cast("Any", self).register_load_state_dict_pre_hook(_refuse_another)

    def facts(self) -> dict[str, Any]:
        own = sum(p.numel() for p in self.base.parameters())
        return {"pretrained": {"sha256": self.sha256.cpu().numpy().tobytes().hex(), "parameters": own}}

    def given(self) -> frozenset[str]:
        return self._frozen

    # --- tokens -----------------------------------------------------------------------------------------------------

    @property
    def longest_row(self) -> int:
        return self.max_length * (self.levels + 1) + len(self.words_I)

    def layout(self, batch: Batch) -> Layout:
        return Layout(batch.rows.stretched(self.levels + 1, len(self.words_I)), self._behind(batch, batch.at_Q))

    def inputs(self, batch: Batch) -> Tensor:
        rows, device = self.layout(batch).rows, batch.items_N.device
        codes_NM = torch.nn.functional.pad(self.tokens_VM[batch.items_N], (0, 1), value=BEGIN)
        last_N = self._behind(batch, torch.arange(len(batch.items_N), device=device))
        at_NM = last_N[:, None] - torch.arange(self.levels, -1, -1, device=device)
        x_ND = self.tokens(codes_NM.flatten())
        places = [at_NM.flatten()]
        if len(self.words_I):
            said_ID = self.base.get_input_embeddings()(self.words_I)
            starts_B1 = (rows.last_B + 1 - torch.from_numpy(rows.lengths).to(device))[:, None]
            places.append((starts_B1 + torch.arange(len(self.words_I), device=device)).flatten())
            x_ND = torch.cat([x_ND, said_ID.repeat(len(rows), 1).to(x_ND.dtype)])
        x_ND = x_ND[torch.cat(places).argsort()]
        return cast("Tensor", self.dropout(self._started(x_ND, self.config.start, batch.items_N, last_N)))

    def _behind(self, batch: Batch, at_Q: Tensor) -> Tensor:
        """The ``<s>`` behind each of these items of the batch."""
        return (at_Q + 1) * (self.levels + 1) + (batch.rows.row_N[at_Q] + 1) * len(self.words_I) - 1

    # --- the layers -------------------------------------------------------------------------------------------------

    def run(
        self, x_ND: Tensor, batch: Batch, start: int, stop: int | None, at_Q: Tensor | None, *, remember: bool
    ) -> Encoded:
        rows = self.layout(batch).rows
        stop = self.n_layers if stop is None else stop
        if start < stop:
            kept = Kept(rows, {})
            x_ND = self._over_rows(x_ND, kept, start, stop, remember=remember)
        if at_Q is not None:
            x_ND = x_ND[self._behind(batch, at_Q)]
        if start < stop == self.n_layers:
            x_ND = self.base.norm(x_ND)
        return Encoded(x_ND, Memory(batch, kept) if remember and start < stop else None)

    def _over_rows(self, x_ND: Tensor, kept: Kept, start: int, stop: int, *, remember: bool) -> Tensor:
        """States of all tokens behind layers ``start:stop``; each token sees its row up to itself."""
        mixed = []
        for bucket, x_BTD in zip(kept.rows.buckets, rectangles(x_ND, kept.rows), strict=True):
            B, T, _ = x_BTD.shape
            place_BT = torch.arange(T, device=x_ND.device).expand(B, T)
            look_TT = torch.ones(T, T, dtype=torch.bool, device=x_ND.device).tril()
            keys = Keys() if remember else None
            mixed.append(through(self.base, x_BTD, place_BT, look_TT.expand(B, 1, T, T), keys, start, stop))
            if keys is not None:
                kept.said[bucket.first] = keys.said
        return tokens(mixed, kept.rows)

    def extend(self, memory: Any, x_QD: Tensor, at_Q: Tensor, *, live_Q: Tensor | None = None) -> Tensor:
        m = cast("Memory", memory)
        if m.layout is None or m.places is None:
            behind_Q = self._behind(m.batch, at_Q)
            m.layout, m.places = asked_layout(m.kept.rows, behind_Q), Places(m.kept.rows, behind_Q)
        place_Q = m.places.take(live_Q)
        dead_QL = torch.stack(m.dead_QL, dim=1) if m.dead_QL else None
        h_QLD, m.paths = self._beside(m.kept, m.layout, x_QD[:, None], place_Q[:, None], m.paths, dead_QL)
        m.dead_QL.append(torch.zeros_like(place_Q, dtype=torch.bool) if live_Q is None else ~live_Q)
        return h_QLD[:, 0]

    def _beside(
        self,
        kept: Kept,
        layout: Sequence[Asked],
        x_QLD: Tensor,
        place_QL: Tensor,
        paths: Sequence[Path] | None,
        dead_QN: Tensor | None = None,
    ) -> tuple[Tensor, list[Path]]:
        """States of L tokens more a path, (Q, L, D). Each sees its row up to where it stands, its path up to itself.

        Args:
            paths: keys and values of the tokens before them on their path, one a layer.
            dead_QN: tokens of the path that are not seen.
        """
        h, said, L = [], [], x_QLD.shape[1]
        for asked in layout:
            keys = Keys(self._seen(kept.said[asked.bucket.first], asked, paths))
            x_BCD = asked.spread_heads(x_QLD, 1)[:, 0].flatten(1, 2)
            place_BC = asked.spread(place_QL).view(asked.bucket.rows, -1)
            look = _look(asked, L, length(paths), dead_QN)
            h_BCD = through(self.base, x_BCD, place_BC, look, keys, 0, self.n_layers)
            h.append(asked.gather_heads(h_BCD[:, None].unflatten(2, (-1, L))))
            said.append(
                {i: [asked.gather_heads(x.unflatten(2, (-1, L))) for x in both] for i, both in keys.said.items()}
            )
        grown = []
        for layer in range(self.n_layers):
            k_QLE, v_QLE = (torch.cat([bucket[layer][which] for bucket in said]) for which in (0, 1))
            grown.append(longer(None if paths is None else paths[layer], k_QLE, v_QLE))
        return self.base.norm(torch.cat(h)), grown

    def _seen(
        self, said: Mapping[int, KeyValue], asked: Asked, paths: Sequence[Path] | None
    ) -> dict[int, list[KeyValue]]:
        """By layer: what is seen of the rows of a bucket, and the paths in them."""
        found = {layer: [both] for layer, both in said.items()}
        for layer, path in enumerate(paths or ()):
            heads = said[layer][0].shape[1]
            k, v = (asked.spread_heads(x_QNE, heads).flatten(2, 3) for x_QNE in path)
            found[layer].append((k, v))
        return found

    # --- spelling ---------------------------------------------------------------------------------------------------

    def recalled(self, memory: Any, batch: Batch) -> Recalled:
        return Recalled([memory.kept], self._behind(batch, batch.at_Q))

    def seats(self, recalled: Recalled, at_R: Tensor) -> Seats:
        return Seats(at_R, asked_layout(recalled.pasts[0].rows, at_R))

    def spell(
        self, recalled: Recalled, x_RLD: Tensor, seats: Seats, paths: Sequence[Path] | None
    ) -> tuple[Tensor, list[Path]]:
        kept, before = recalled.pasts[0], length(paths)
        steps_L = torch.arange(before + 1, before + x_RLD.shape[1] + 1, device=x_RLD.device)
        place_RL = kept.rows.position_N[seats.at_R][:, None] + steps_L
        return self._beside(kept, seats.layouts, self.dropout(x_RLD), place_RL, paths)

    def code_vectors(self) -> Tensor:
        return self.tokens.weight

    # --- tasks beside the next item -------------------------------------------------------------------------------------

    def prepare(self, items: ItemKnowledge | None) -> dict[str, Any]:
        self._text = TextTasks(self, items) if set(self.config.tasks) - {NEXT_ITEM} else None
        return {} if self._text is None else {"titles": self._text.facts}

    def own_losses(
        self, batch: Batch, own_Q: Tensor | None, score: Spelling, generator: torch.Generator
    ) -> dict[str, Tensor]:
        if self._text is None:
            return {}
        return self._text.losses(self, batch, own_Q, score, generator)

    def read_rows(self, rows_B: Sequence[np.ndarray]) -> tuple[Recalled, Tensor]:
        """Rows of tokens, shortest first: what codes spelled behind their last tokens see, and the states of all tokens, (N, D).

        Tokens count as in the table of ids; behind those stand the model's own words.
        """
        device, n_own = self.tokens.weight.device, self.table.n_tokens
        rows = Rows(np.array([len(row) for row in rows_B]), device)
        token_N = torch.from_numpy(np.concatenate(rows_B)).to(device)
        own_O, word_W = ((token_N < n_own) == own for own in (True, False))
        x_OD = self.tokens(token_N[own_O])
        x_WD = self.base.get_input_embeddings()(token_N[word_W] - n_own).to(x_OD.dtype)
        order = torch.cat([own_O.nonzero()[:, 0], word_W.nonzero()[:, 0]]).argsort()
        kept = Kept(rows, {})
        x_ND = self.dropout(torch.cat([x_OD, x_WD])[order])
        h_ND = self.base.norm(self._over_rows(x_ND, kept, 0, self.n_layers, remember=True))
        return Recalled([kept], rows.last_B), h_ND

    @property
    def n_words(self) -> int:
        """Words that the pretrained model knows."""
        return int(self.base.get_input_embeddings().num_embeddings)

    def saying(self) -> tuple[Tensor, Tensor]:
        """What reads words off a state, (words, D), and what reads that a text ends, (D,)."""
        words = self.base.get_input_embeddings().weight if self.words_out is None else self.words_out
        return words, (self.tokens if self.out is None else self.out).weight[END]

    def reading(self, level: int) -> Tensor:
        first, rows = self._first[level], self.tokens if self.out is None else self.out
        return rows.weight[first : first + self.table.level_sizes[level]]


def _refuse_another(model: HfLM, tensors: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Before weights of a run are read.

    Raises:
        RecbenchError: the run began with another pretrained model than the one that is there now.
    """
    began = tensors.get(f"{prefix}sha256")
    if began is not None and not torch.equal(began.cpu(), model.sha256.cpu()):
        raise RecbenchError(
            f"{model.config.path} is not the pretrained model that this run began with.",
            why="The hash of its files is another one, and the run stores only what it has trained.",
            fix="Put the files back that were there, or train again.",
            code=Exit.DATA,
        )


def _new_rows(like: Tensor, count: int, noise: float) -> nn.Embedding:
    """Vectors of tokens that a model has not met: the mean of those it knows, and a little noise. Row 0 is padding."""
    made = nn.Embedding(count, like.shape[1], padding_idx=0)
    with torch.no_grad():
        made.weight.copy_(like.mean(0) + noise * like.std(0) * torch.randn(count, like.shape[1]))
        made.weight[0] = 0
    return made


def _look(asked: Asked, L: int, before: int, dead_QN: Tensor | None) -> Tensor:
    """Where each token beside a bucket's rows looks, (rows, 1, P x L, T + P x before + P x L)."""
    B, P = asked.bucket.rows, asked.width
    own_PP = torch.eye(P, dtype=torch.bool, device=asked.cell_Q.device).repeat_interleave(L, dim=0)
    path_BCN = own_PP.repeat_interleave(before, dim=1).expand(B, -1, -1)
    if dead_QN is not None:
        path_BCN = path_BCN & ~asked.spread(dead_QN.long()).view(B, 1, P * before).bool()
    new_CC = own_PP.repeat_interleave(L, dim=1).tril()
    return torch.cat([~repeated(asked.hidden_BPT, L)[:, 0], path_BCN, new_CC.expand(B, -1, -1)], dim=2)[:, None]
