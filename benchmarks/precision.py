"""What bfloat16 and compiled layers would bring on this CPU: why one is refused there and the other is no setting."""

from __future__ import annotations

from time import perf_counter

import torch

from benchmarks.measure import in_turn, show
from benchmarks.training import BATCH, Epochs
from recbench.reasoning.base import Context

STEPS = 6


def _prepared(loss: str) -> Epochs:
    epochs = Epochs(loss=loss)
    epochs.model.begin(Context("train", torch.Generator(), epochs.rows))
    return epochs


def main(quick: bool) -> None:
    """Print seconds an epoch. Compilation takes minutes and is left out when ``quick``."""
    torch.set_num_threads(1)
    trained = {loss: _prepared(loss) for loss in ("softmax", "sampled-softmax")}
    scale = trained["softmax"].rows.steps(BATCH) / STEPS
    work = {}
    for loss, epochs in trained.items():
        for coarse in (False, True):
            name = f"{loss}, {'bfloat16' if coarse else 'float32'}"
            work[name] = lambda epochs=epochs, coarse=coarse: epochs.run(STEPS, coarse=coarse)
    seconds = in_turn(work, 2 if quick else 5)
    title = f"a SASRec epoch from {STEPS} of its steps, {BATCH} targets each, CPU seconds, one thread"
    show(f"precision: {title}", {name: f"{scale * one:.2f}" for name, one in seconds.items()})
    if quick:
        return
    plain, compiled = _prepared("sampled-softmax"), _prepared("sampled-softmax")
    for layer in compiled.model.backbone.layers:
        layer._feed_forward = torch.compile(layer._feed_forward, dynamic=True)
    began = perf_counter()
    compiled.run(STEPS)
    first = perf_counter() - began
    seconds = in_turn({"as shipped": lambda: plain.run(STEPS), "feed-forward compiled": lambda: compiled.run(STEPS)}, 5)
    told = {name: f"{scale * one:.2f}" for name, one in seconds.items()}
    show(f"compilation, sampled softmax: {title}", told | {"first steps, compilation included, wall": f"{first:.0f}"})
