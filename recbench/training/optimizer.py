"""The optimiser of a stage, and the learning rate of each of its steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from recbench.recommender import Trainable
from recbench.training.settings import Settings

SHARE = "share"
"""Of a group of parameters: its learning rate as a multiple of the stage's."""


def optimizer_of(model: Trainable, settings: Settings) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba, arXiv 1412.6980, with L2) or AdamW (Loshchilov & Hutter, arXiv 1711.05101, algorithm 2)."""
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(
        _groups(model, settings.learning_rate),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def set_rate(optimizer: torch.optim.Optimizer, settings: Settings, step: int, steps: int) -> None:
    """Give the optimiser the learning rate of a step. It follows from the step alone, so that a resumed run has the same.

    Args:
        step: of the stage, from 1.
        steps: of the whole stage, if no patience ends it.
    """
    if not settings.scheduled:
        return
    rate = settings.learning_rate * share_at(settings, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(SHARE, 1.0)


def share_at(settings: Settings, step: int, steps: int) -> float:
    """Share of the learning rate that a step takes: up over ``warmup_steps``, 1 for ``hold_steps``, then as the schedule says.

    ``cosine`` (Loshchilov & Hutter, arXiv 1608.03983, eq. 5, one period) ends at 0 behind the last step; ``inverse_sqrt`` (Vaswani
    et al., arXiv 1706.03762, eq. 3, up to a factor) is 1 where it begins and half of that after four times as many steps.
    """
    if step <= settings.warmup_steps:
        return step / settings.warmup_steps
    began = settings.warmup_steps + settings.hold_steps
    if settings.schedule == "constant" or step <= began:
        return 1.0
    if settings.schedule == "inverse_sqrt":
        return math.sqrt(max(1, began) / step)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - 1 - began) / max(1, steps - began))))


def _groups(model: Trainable, rate: float) -> Any:
    """The parameters, those with a learning rate of their own apart."""
    if not model.rates:
        return model.parameters()
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in model.named_parameters():
        own = next((times for start, times in model.rates.items() if name.startswith(start)), 1.0)
        groups.setdefault(own, []).append(parameter)
    return [{"params": parameters, "lr": rate * times, SHARE: times} for times, parameters in groups.items()]
