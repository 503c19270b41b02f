"""An epoch of each backbone; of SASRec, beside the textbook loop and the products nobody can avoid; memory over many epochs."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from time import process_time

import numpy as np
import torch

from benchmarks.beauty_like import ITEMS, made, neural_backbones, system
from benchmarks.measure import in_turn, show
from benchmarks.textbook import TextbookLoop, TextbookSASRec
from recbench.data.batching import TrainingRows
from recbench.kernels.products import times_transposed
from recbench.reasoning.base import Context

CPU = torch.device("cpu")
BATCH = 2048


class Epochs:
    """recbench's own model and rows, stepped as the training loop steps them."""

    def __init__(self, backbone: str = "sasrec", loss: str = "softmax") -> None:
        torch.manual_seed(0)
        train, _ = made()
        self.model = system(backbone=backbone, loss=loss).train()
        self.rows = TrainingRows(train, max_length=50, window="last", every_position=self.model.every_position)
        self.prefixes = TrainingRows(train, max_length=50, window="last", every_position=False)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.order = np.random.default_rng(0)

    def run(self, steps: int | None = None, *, coarse: bool = False) -> None:
        """An epoch, or its first steps; ``coarse``: the forward pass in bfloat16 where autocast says so."""
        context = Context("train", torch.Generator(), self.rows)
        for number, batch in enumerate(self.rows.batches(BATCH, self.order, CPU), 1):
            with torch.autocast("cpu", torch.bfloat16, enabled=coarse):
                loss = self.model.losses(batch, context)["next_item"]
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            loss.item()
            if number == steps:
                return


def textbook_seconds(epochs: Epochs, steps: int) -> float:
    """CPU seconds of an epoch of the textbook loop, from its first steps."""
    torch.manual_seed(0)
    batches = epochs.prefixes.batches(BATCH, epochs.order, CPU)
    model = TextbookSASRec(ITEMS)
    TextbookLoop(model, "loss", islice(batches, 1)).run()  # the first step is not counted
    began = process_time()
    TextbookLoop(model, "loss", islice(batches, steps)).run()
    return (process_time() - began) / steps * epochs.prefixes.steps(BATCH)


def floor(n_targets: int, n_tokens: int) -> None:
    """The matrix products of an epoch alone: scores and both gradients, and the dense layers forward and backward."""
    u, e = torch.randn(128, 64), torch.randn(ITEMS, 64)
    e_columns, u_columns = e.t().contiguous(), u.t().contiguous()
    for _ in range(n_targets // 128):
        scores = times_transposed(u, e)
        times_transposed(scores, e_columns)
        times_transposed(u_columns, scores.t())
    for inner, outer in ((64, 192), (64, 64), (64, 256), (256, 64)):
        x, w = torch.randn(BATCH, inner), torch.randn(outer, inner)
        for _ in range(2 * n_tokens // BATCH):
            y = x @ w.t()
            y @ w
            y.t() @ x


def backbones(quick: bool) -> None:
    """Print what an epoch of each backbone costs, from its first steps, beside SASRec's."""
    steps = 4 if quick else 16
    epochs = {name: Epochs(name) for name in neural_backbones()}
    taken = in_turn({name: (lambda one=one: one.run(steps)) for name, one in epochs.items()}, 2 if quick else 3)
    seconds = {name: taken[name] / steps * one.rows.steps(BATCH) for name, one in epochs.items()}
    show(
        f"an epoch of each backbone, head none, CPU seconds from {steps} of its steps, one thread",
        {name: f"{own:.2f}  {own / seconds['sasrec']:.2f}x sasrec" for name, own in seconds.items()},
    )


def resident_mb() -> float:
    """Memory this process holds now, MiB (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def main(quick: bool) -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    epochs = Epochs()
    n_targets = epochs.rows.n_targets
    seconds = in_turn({"epoch": epochs.run, "floor": lambda: floor(n_targets, n_targets)}, 1 if quick else 3)
    book = textbook_seconds(epochs, 2 if quick else 6)
    show(
        f"training SASRec, {n_targets} targets an epoch, full softmax over {ITEMS} items, CPU seconds, one thread",
        {
            "recbench, an epoch": f"{seconds['epoch']:.2f}",
            "matrix products alone": f"{seconds['floor']:.2f}",
            "textbook loop, an epoch (from its first steps)": f"{book:.1f}",
            "epoch / matrix products": f"{seconds['epoch'] / seconds['floor']:.2f}x",
            "textbook / recbench": f"{book / seconds['epoch']:.1f}x",
        },
    )
    backbones(quick)
    steps, rounds = (10, 10) if quick else (40, 50)
    epochs.run(steps)
    epochs.run(steps)
    before = resident_mb()
    for _ in range(rounds):
        epochs.run(steps)
    after = resident_mb()
    show(
        f"memory over {rounds} rounds of {steps} steps, MiB",
        {"before": f"{before:.0f}", "after": f"{after:.0f}", "growth": f"{after - before:+.0f}"},
    )
