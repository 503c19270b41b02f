"""Models that spell items, against the same sizes built of Hugging Face's layers as public re-implementations build them.

Beside ``tiger``: ``T5ForConditionalGeneration``; beside ``sid-lm``: ``Qwen2ForCausalLM`` with one row a prefix. Both are padded to
the longest row of a batch; they rank by ``generate``, free and under the same prefix tree. Needs the extra ``[hf]``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.beauty_like import drawn_ids, made, some, spelling_system
from benchmarks.measure import in_turn, show
from recbench.data.batching import Batch, TrainingRows, query_batches
from recbench.data.dataset import Queries
from recbench.evaluation.evaluate import evaluate
from recbench.reasoning.base import Context
from recbench.semantic_ids.table import BEGIN, PAD, SemanticIds

CPU = torch.device("cpu")
BATCH, LENGTH, BEAM, DROPOUT = 256, 20, 50, 0.2
SIZES: dict[str, dict[str, Any]] = {
    "tiger": {
        "width": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "n_heads": 4,
        "head_width": 16,
        "inner": 256,
        "max_length": LENGTH,
        "dropout": DROPOUT,
    },
    "sid-lm": {"width": 64, "n_layers": 2, "n_heads": 2, "inner": 256, "max_length": LENGTH, "dropout": DROPOUT},
}
"""As in the recipes of the Amazon sets."""


class Ours:
    """recbench's own, stepped as the training loop steps it."""

    def __init__(self, name: str, table: SemanticIds) -> None:
        self.model = spelling_system(name, table, **SIZES[name])
        histories, _ = made()
        self.rows = TrainingRows(histories, max_length=LENGTH, window="last", every_position=self.model.backbone.causal)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.context = Context(
            "train", torch.Generator().manual_seed(0), self.rows, epoch=1, steps=self.rows.steps(BATCH)
        )
        self.batches: list[Batch] = list(islice(self.rows.batches(BATCH, np.random.default_rng(0), CPU), 4))

    def train(self) -> int:
        """Four steps; how many targets they had."""
        self.model.train()
        for batch in self.batches:
            loss = torch.stack(list(self.model.losses(batch, self.context).values())).sum()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        return sum(len(batch.at_Q) for batch in self.batches)

    def rank(self, queries: Queries) -> None:
        """Ranks under both candidate rules."""
        evaluate(self.model.eval(), queries, CPU)


@dataclass
class Theirs:
    """A model of Hugging Face's over the same tokens, each prefix a padded row."""

    model: Any
    table: SemanticIds
    encodes: bool
    """Does an encoder read the history? Else it stands in front of the answer."""

    def __post_init__(self) -> None:
        histories, _ = made()
        rows = TrainingRows(histories, max_length=LENGTH, window="last", every_position=False)
        self.batches = list(islice(rows.batches(BATCH, np.random.default_rng(0), CPU), 4))
        self.tokens_VM = torch.from_numpy(self.table.tokens())
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.children = _children(self.table)

    def rows(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Tokens of the histories padded on the left, and where there are any, (B, T) each."""
        M, longest = len(self.table), int(batch.rows.lengths.max())
        items_BT = torch.zeros(len(batch.rows), longest, dtype=torch.long)
        from_right_N = torch.from_numpy(batch.rows.lengths)[batch.rows.row_N] - batch.rows.position_N
        items_BT[batch.rows.row_N, longest - from_right_N] = batch.items_N
        tokens_BT = self.tokens_VM[items_BT].view(len(items_BT), longest * M)
        if not self.encodes:
            begin_B1 = torch.full((len(items_BT), 1), BEGIN)
            tokens_BT = torch.cat([tokens_BT, begin_B1], dim=1)
        return tokens_BT, (tokens_BT != PAD).long()

    def train(self) -> int:
        """Four steps; how many targets they had."""
        self.model.train()
        for batch in self.batches:
            tokens_BT, real_BT = self.rows(batch)
            answer_BM = self.tokens_VM[batch.targets_Q]
            if self.encodes:
                loss = self.model(input_ids=tokens_BT, attention_mask=real_BT, labels=answer_BM).loss
            else:
                labels_BT = torch.cat([torch.full_like(tokens_BT, -100), answer_BM], dim=1)
                real_BT = torch.cat([real_BT, torch.ones_like(answer_BM)], dim=1)
                whole_BT = torch.cat([tokens_BT, answer_BM], dim=1)
                loss = self.model(input_ids=whole_BT, attention_mask=real_BT, labels=labels_BT).loss
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        return sum(len(batch.at_Q) for batch in self.batches)

    @torch.inference_mode()
    def rank(self, queries: Queries, *, constrained: bool) -> None:
        """Lists of as many codes as an item has."""
        self.model.eval()
        M = len(self.table)
        for _, batch in query_batches(queries, LENGTH, 64, CPU):
            tokens_BT, real_BT = self.rows(batch)
            said = 1 if self.encodes else tokens_BT.shape[1]

            def allowed(_: int, path: Tensor, said: int = said) -> list[int]:
                return self.children[tuple(path[said:].tolist())]

            self.model.generate(
                input_ids=tokens_BT,
                attention_mask=real_BT,
                num_beams=BEAM,
                num_return_sequences=BEAM,
                max_new_tokens=M,
                do_sample=False,
                prefix_allowed_tokens_fn=allowed if constrained else None,
            )


def _children(table: SemanticIds) -> dict[tuple[int, ...], list[int]]:
    """Tokens that may follow each path, as re-implementations hold the prefix tree."""
    found: dict[tuple[int, ...], set[int]] = {}
    for path in table.tokens()[1:].tolist():
        for level, token in enumerate(path):
            found.setdefault(tuple(path[:level]), set()).add(token)
    return {path: sorted(tokens) for path, tokens in found.items()}


def tiger_of_t5(table: SemanticIds) -> Theirs:
    """T5 of tiger's sizes."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=table.n_tokens,
        d_model=64,
        d_kv=16,
        num_heads=4,
        d_ff=256,
        num_layers=2,
        num_decoder_layers=2,
        dropout_rate=DROPOUT,
        pad_token_id=PAD,
        decoder_start_token_id=BEGIN,
        eos_token_id=None,
    )
    return Theirs(T5ForConditionalGeneration(config), table, encodes=True)


def sid_lm_of_qwen2(table: SemanticIds) -> Theirs:
    """Qwen2 of sid-lm's sizes; its feed-forwards have a gate besides."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=table.n_tokens,
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        attention_dropout=0.1,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BEGIN,
        eos_token_id=None,
    )
    return Theirs(Qwen2ForCausalLM(config), table, encodes=False)


def _lines(seconds: dict[str, float], work: int, unit: str) -> Iterator[tuple[str, str]]:
    own = seconds["recbench"]
    for name, taken in seconds.items():
        yield name, f"{taken / work * 1e3:.2f} ms a {unit}  {taken / own:.1f}x"


def main(quick: bool) -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    if importlib.util.find_spec("transformers") is None:
        print("\ngenerators: skipped, transformers is not installed (pip install 'recbench[hf]')")
        return
    table = drawn_ids()
    rounds = 1 if quick else 3
    _, queries = made()
    queries = some(queries, 64 if quick else 256)
    beside: dict[str, Callable[[SemanticIds], Theirs]] = {"tiger": tiger_of_t5, "sid-lm": sid_lm_of_qwen2}
    for name, built in beside.items():
        ours, theirs = Ours(name, table), built(table)
        targets = ours.train()
        if theirs.train() != targets:
            raise RuntimeError("competitors learn from different numbers of targets")
        other = type(theirs.model).__name__
        seconds = in_turn({"recbench": ours.train, other: theirs.train}, rounds)
        show(
            f"training {name}, {targets} targets in four steps, CPU time a target, one thread",
            dict(_lines(seconds, targets, "target")),
        )
        seconds = in_turn(
            {
                "recbench": lambda ours=ours: ours.rank(queries),
                f"{other}.generate": lambda theirs=theirs: theirs.rank(queries, constrained=False),
                "the same under the prefix tree": lambda theirs=theirs: theirs.rank(queries, constrained=True),
            },
            rounds,
        )
        show(
            f"ranking {len(queries)} users by {name}, a beam of {BEAM}, CPU time a user, one thread; recbench under both rules",
            dict(_lines(seconds, len(queries), "user")),
        )
