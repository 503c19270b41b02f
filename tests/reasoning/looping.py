"""Small ``lares`` systems, and ways to look into them."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch

from recbench.data.batching import Batch, TrainingRows
from recbench.reasoning.base import Context
from recbench.reasoning.lares import LARES
from recbench.recommender import ItemRecommender
from tests.systems import CPU, histories, small_system

ITEMS = 20
ROWS = [[1, 2], [3, 4, 5], [6, 7, 8, 9, 10], [2, 4, 6, 8, 1, 3, 5, 7]]
FIXED = {"step_scheme": "fixed", "mean_steps": 3}


def system(
    *,
    dropout: float = 0.0,
    n_items: int = ITEMS,
    width: int = 8,
    n_layers: int = 2,
    max_length: int = 12,
    **head: object,
) -> ItemRecommender:
    """A small SASRec with LARES, without dropout unless asked for."""
    sizes = {"width": width, "n_layers": n_layers, "max_length": max_length}
    rates = {"dropout": dropout, "attention_dropout": dropout}
    return small_system("sasrec", "lares", n_items, changes=head, **sizes, **rates)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def training(rows: list[list[int]], max_length: int = 12, *, times: bool = False, **kind: object) -> TrainingRows:
    return TrainingRows(
        histories(rows, times), **{"max_length": max_length, "window": "last", "every_position": True, **kind}
    )


def whole(rows: TrainingRows) -> Batch:
    """All rows in one batch."""
    (batch,) = rows.batches(10**6, np.random.default_rng(0), CPU)
    return batch


def context(model: ItemRecommender, rows: TrainingRows, stage: str = "spt", seed: int = 0, **more: object) -> Context:
    """What the loop hands to a head; the reference is the model as it stands."""
    frozen = copy.deepcopy(model).eval().requires_grad_(False) if stage == "rpt" else None
    return Context(stage, generator(seed), rows, **{"reference": frozen, "epoch": 1, **more})


def random_users(users: int, length: int, n_items: int = ITEMS, seed: int = 0) -> list[list[int]]:
    return np.random.default_rng(seed).integers(1, n_items + 1, (users, length)).tolist()


def gradients(loss: torch.Tensor, model: torch.nn.Module) -> list[torch.Tensor]:
    """Of every parameter, zeros where none arrives."""
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), found, strict=True)]


def same(ones: list[torch.Tensor], others: list[torch.Tensor], atol: float) -> None:
    for one, other in zip(ones, others, strict=True):
        torch.testing.assert_close(one, other, atol=atol, rtol=0)


class Recorded:
    """Every trajectory that a head makes from now on: its batch, and Z_1 .. Z_k with their graph."""

    def __init__(self, head: LARES) -> None:
        self.batches: list[Batch] = []
        self.states: list[list[torch.Tensor]] = []
        self.training: list[bool] = []
        made = head.trajectory

        def trajectory(
            backbone: torch.nn.Module, batch: Batch, steps: int, start: torch.Tensor
        ) -> Iterator[torch.Tensor]:
            self.batches.append(batch)
            self.training.append(backbone.training or head.training)
            self.states.append(kept := [])
            for z in made(backbone, batch, steps, start):
                kept.append(z)
                yield z

        head.trajectory = trajectory

    @property
    def steps(self) -> list[int]:
        return [len(states) for states in self.states]
