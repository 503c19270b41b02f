"""What each loss costs: a SASRec epoch on data of Beauty's size, default settings, beside the full softmax."""

from __future__ import annotations

import torch

from benchmarks.measure import in_turn, show
from benchmarks.training import BATCH, Epochs
from recbench.reasoning.base import Context
from recbench.registry import LOSSES

STEPS = 8
"""Steps that stand for an epoch; each round goes on with another order."""


def main(quick: bool) -> None:
    """Print seconds and ratios."""
    torch.set_num_threads(1)
    trained = {name: Epochs(loss=name) for name, entry in LOSSES.entries().items() if entry.family != "codes"}
    for epochs in trained.values():
        epochs.model.begin(Context("train", torch.Generator(), epochs.rows))
    work = {name: lambda epochs=epochs: epochs.run(STEPS) for name, epochs in trained.items()}
    seconds = in_turn(work, 2 if quick else 7)
    full = seconds["softmax"]
    scale = trained["softmax"].rows.steps(BATCH) / STEPS
    show(
        f"losses: a SASRec epoch from {STEPS} of its steps, {BATCH} targets each, CPU seconds, one thread; over softmax",
        {trained[name].model.loss_name: f"{scale * one:.2f}   {one / full:.2f}x" for name, one in seconds.items()},
    )
