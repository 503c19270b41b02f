"""In which precision a training step runs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch

from recbench.errors import RecbenchError
from recbench.training.settings import Settings


def stepping(settings: Settings, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """While it lasts a step's forward pass runs as ``train.precision`` says; scores over the catalogue stay in float32."""
    if settings.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=_keeps_gradients())


def _keeps_gradients() -> bool:
    """Does a weight that autocast first meets without gradient get one afterwards? Before torch 2.11 it did not."""
    release = torch.__version__.split(".")
    return (int(release[0]), int(release[1])) >= (2, 11)


def refuse_unfit(train: Mapping[str, Settings], device: torch.device) -> None:
    """A precision that a device does not have, or has and does not gain by.

    Raises:
        RecbenchError: some stage asks for it.
    """
    if all(settings.precision == "float32" for settings in train.values()):
        return
    if device.type != "cuda":
        why = "It is for GPUs. On a CPU without bfloat16 products it saves nothing under the full softmax (docs/losses.md)."
    elif not torch.cuda.is_bf16_supported(including_emulation=False):
        why = f"{torch.cuda.get_device_name(device)} has no bfloat16."
    else:
        return
    raise RecbenchError(
        f"train.precision=bf16 cannot be used on {device.type}.", why=why, fix="--set train.precision=float32"
    )
