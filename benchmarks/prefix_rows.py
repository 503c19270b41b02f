"""What backbones that train on one row a prefix cost, against SASRec, which trains every position of a row at once."""

from __future__ import annotations

import torch

from benchmarks.beauty_like import ITEMS, made, system
from benchmarks.heads import LENGTH, Trained, per_target
from benchmarks.measure import show
from recbench.data.batching import TrainingRows
from recbench.data.dataset import Histories

D, INNER = 64, 256
ATTENTION, FEED_FORWARD, SOFTMAX = 4 * D * D, 2 * D * INNER, D * ITEMS
HEADS = ("pause", "rearec-erl", "rearec-prl", "lares", "diffuse")


def counted(tokens: float) -> dict[str, float]:
    """Multiply-adds of a target, dense layers and softmax alone, for two layers: what mixes tokens is below 2 % of them.

    Args:
        tokens: of a row, on average, without its blank. The top layer works at the asked token only, but for keys and values.
    """
    top = ATTENTION / 2 + FEED_FORWARD
    return {
        "sasrec": 2 * (ATTENTION + FEED_FORWARD) + SOFTMAX,
        "fmlp": (tokens + 1) * FEED_FORWARD + SOFTMAX,
        "bsarec": tokens * (ATTENTION * 3 / 2 + FEED_FORWARD) + top + SOFTMAX,
        "bert4rec": (tokens + 1) * (ATTENTION * 3 / 2 + FEED_FORWARD) + top + D * D + SOFTMAX,
    }


def rows_of(backbone: str, histories: Histories) -> TrainingRows:
    """The rows that the training loop makes for it."""
    model = system(backbone=backbone)
    return TrainingRows(
        histories, max_length=LENGTH, window="last", every_position=model.every_position, closed=model.closed
    )


def main(quick: bool) -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    histories, _ = made()
    rows = {name: rows_of(name, histories) for name in ("sasrec", "fmlp", "bsarec", "bert4rec")}
    tokens = float(rows["fmlp"].length.mean())
    count = counted(tokens)
    rounds = 1 if quick else 3
    trained = {name: Trained("none", of, backbone=name) for name, of in rows.items()}
    micro = per_target(trained, rounds)
    show(
        f"training a backbone, {rows['fmlp'].n_targets} targets an epoch, {tokens:.1f} tokens a prefix, one thread: CPU time a "
        "target over that of sasrec (multiply-adds counted)",
        {
            name: f"{micro[name] / micro['sasrec']:.2f}x ({count[name] / count['sasrec']:.2f}x): {micro[name]:.0f} us, "
            f"{micro[name] * rows[name].n_targets / 1e6:.1f} s an epoch"
            for name in rows
        },
    )
    if quick:
        return
    for name in ("fmlp", "bsarec", "bert4rec"):
        heads = {head: Trained(head, rows[name], 1024, backbone=name) for head in HEADS}
        taken = per_target({"none": trained[name], **heads}, 1)
        show(
            f"{name}: a head's CPU time a target over that of none",
            {head: f"{taken[head] / taken['none']:.2f}x: {taken[head]:.0f} us" for head in HEADS},
        )
