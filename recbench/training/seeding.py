"""All randomness of an epoch follows from (seed, stage, epoch): a resumed run draws what an uninterrupted one would have drawn."""

from __future__ import annotations

import numpy as np
import torch


def seed_everything(*key: int) -> None:
    """Seed torch's own generators (initial weights, dropout) from a key."""
    torch.manual_seed(_mixed(*key))


def epoch_generators(
    seed: int, stage: int, epoch: int, device: torch.device
) -> tuple[np.random.Generator, torch.Generator]:
    """The generator of the batch order and the generator of a head's draws. Reseeds dropout, too."""
    seed_everything(seed, stage, epoch, 1)
    drawn = torch.Generator(device=device)
    drawn.manual_seed(_mixed(seed, stage, epoch, 2))
    return np.random.default_rng([seed, stage, epoch, 3]), drawn


def step_generator(seed: int, stage: int, epoch: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of one step's negatives.

    Args:
        step: within the epoch.
    """
    drawn = torch.Generator(device=device)
    drawn.manual_seed(_mixed(seed, stage, epoch, 4, step))
    return drawn


def _mixed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
