"""What each reasoning head costs to train, against none; and every position at once against one row a prefix."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from benchmarks.beauty_like import ITEMS, made, system
from benchmarks.measure import in_turn, show
from benchmarks.textbook import LENGTH, TextbookLoop, TextbookSASRec
from recbench.data.batching import Batch, Rows, TrainingRows
from recbench.reasoning.base import Context
from recbench.recommender import ItemRecommender

CPU = torch.device("cpu")
BATCH = 2048
COUNTED = {"none": 1.0, "pause": 1.2, "rearec-erl": 3.0, "rearec-prl": 3.4, "lares": 1.8, "diffuse": 4.5}
"""Multiply-adds of a target position over those of ``none``: width 64, 2 layers, 12,101 items, default settings, K = 2.

With e for one pass of the encoder (0.10 million a position) and s for one softmax over the catalogue (0.77): pause 3e + s;
rearec-erl 3e + 3s; rearec-prl 6e + 3s; lares about 5 passes of half the layers, a quarter of it again for partners, s; diffuse
3e + 3s + 4.25 calls of 0.14 + 0.25 s, and 0.6 for its groups at 2,000 positions a step.
"""


class Trained:
    """A system, stepped as the training loop steps it, over its own rows in its own order."""

    def __init__(
        self,
        head: str,
        rows: TrainingRows,
        batch_size: int = BATCH,
        *,
        stage: int = 0,
        begun: bool = False,
        padded: bool = False,
        backbone: str = "sasrec",
    ) -> None:
        self.model: ItemRecommender = system(head, backbone).train()
        self.rows = rows
        self.context = Context(self.model.stages[stage].name, torch.Generator().manual_seed(0), rows, epoch=1, steps=64)
        if stage:
            self.context.reference = copy.deepcopy(self.model).eval().requires_grad_(False)
        if begun:
            self.model.begin(self.context)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        batches = rows.batches(batch_size, np.random.default_rng(0), CPU)
        self.batches = [_padded(batch) if padded else batch for batch, _ in zip(batches, range(3), strict=False)]

    @property
    def targets(self) -> int:
        """Targets of the steps one ``run`` takes."""
        return sum(len(batch.at_Q) for batch in self.batches)

    def run(self) -> None:
        """Three steps."""
        for batch in self.batches:
            self.context.step += 1
            total = torch.stack(list(self.model.losses(batch, self.context).values())).sum()
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()
            self.optimizer.step()


def _padded(batch: Batch) -> Batch:
    """The same targets behind rows all ``LENGTH`` long, as one-row-a-prefix code lays them out."""
    n = len(batch.rows)
    rows = Rows(np.full(n, LENGTH), CPU)
    items = torch.ones(n, LENGTH, dtype=torch.long)
    items[batch.rows.row_N, batch.rows.position_N] = batch.items_N
    at = rows.last_B - LENGTH + torch.from_numpy(batch.rows.lengths)
    return replace(batch, items_N=items.view(-1), rows=rows, at_Q=at)


def per_target(trained: dict[str, Trained], rounds: int) -> dict[str, float]:
    """CPU microseconds a target."""
    work: dict[str, Callable[[], object]] = {name: one.run for name, one in trained.items()}
    return {name: 1e6 * taken / trained[name].targets for name, taken in in_turn(work, rounds).items()}


def main(quick: bool) -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    histories, _ = made()
    rows = TrainingRows(histories, max_length=LENGTH, window="last", every_position=True)
    rounds = 1 if quick else 5
    trained = {head: Trained(head, rows) for head in COUNTED}
    micro = per_target(trained, rounds)
    show(
        f"training a head, all positions at once, {BATCH} targets a step, one thread: CPU time a target over that of none "
        "(multiply-adds counted)",
        {
            head: f"{micro[head] / micro['none']:.2f}x ({counted:.1f}x): {micro[head]:.0f} us"
            for head, counted in COUNTED.items()
        },
    )
    rpt = per_target({"none": trained["none"], "rpt": Trained("lares", rows, 400, stage=1)}, rounds)
    show(
        "lares, stage rpt: a step of 400 positions over a plain step of 1,024 targets (counted: 13)",
        {"rpt": f"{rpt['rpt'] * 400 / (rpt['none'] * 1024):.1f}x"},
    )
    lasar = {
        "none": trained["none"],
        "align": Trained("lasar", rows, stage=1, begun=True),
        "rl": Trained("lasar", rows, 1024, stage=2, begun=True),
    }
    times = per_target(lasar, rounds)
    show(
        "lasar, one position a row thinks: a step over a plain step of as many targets (counted: align 1.03, rl about 0.2)",
        {name: f"{times[name] / times['none']:.2f}x" for name in ("align", "rl")},
    )
    prefixes = TrainingRows(histories, max_length=LENGTH, window="last", every_position=False)
    size = 64 if quick else 256
    lines = {}
    for head in ("rearec-erl", "rearec-prl", "lares", "diffuse"):
        layouts = {
            "all": trained[head],
            "prefix rows": Trained(head, prefixes, size),
            "padded prefix rows": Trained(head, prefixes, size, padded=True),
        }
        times = per_target(layouts, 1 if quick else 3)
        lines[head] = (
            f"{times['prefix rows'] / times['all']:.1f}x, padded to {LENGTH}: {times['padded prefix rows'] / times['all']:.1f}x"
        )
    show("targets a second, every position at once over one row a prefix", lines)
    show(
        f"targets a second over the textbook loop, rows padded to {LENGTH}, {BATCH} a step; a lower bound: its thoughts are free",
        textbook(trained, prefixes, 1 if quick else 2),
    )


def textbook(trained: dict[str, Trained], prefixes: TrainingRows, rounds: int) -> dict[str, str]:
    """How many times faster recbench trains a target than the loops of ``benchmarks.textbook``."""
    batches = list(islice(prefixes.batches(BATCH, np.random.default_rng(0), CPU), 2))
    loops = {
        "none": TextbookLoop(TextbookSASRec(ITEMS), "loss", batches),
        "rearec-erl": TextbookLoop(TextbookSASRec(ITEMS, thoughts=2), "ensemble_loss", batches),
        "rearec-prl": TextbookLoop(TextbookSASRec(ITEMS, thoughts=2), "progressive_loss", batches),
        "lares": TextbookLoop(TextbookSASRec(ITEMS, passes=5), "loss", batches),
    }
    lines = {}
    for head, loop in loops.items():
        times = in_turn({"recbench": trained[head].run, "textbook": loop.run}, rounds)
        ratio = times["textbook"] / (BATCH * len(batches)) * trained[head].targets / times["recbench"]
        lines[head] = f"{ratio:.1f}x"
    return lines
