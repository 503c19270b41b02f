"""Small ``diffuse`` systems, and ways to look into them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from recbench.data.batching import Batch
from recbench.reasoning.base import Context
from recbench.reasoning.diffuse import DiffuReason
from recbench.reasoning.diffusion import Condition
from recbench.recommender import ItemRecommender
from tests.systems import packed, small_system

ITEMS, WIDTH = 20, 8
ROWS = [[3, 1], [1, 2, 3], [14, 15, 16, 17], [4, 9, 8, 7, 6], [11, 12, 13, 5, 10]]
TOKENS = sum(map(len, ROWS))


def system(*, awake: bool = True, double: bool = True, **changes: object) -> ItemRecommender:
    """A system without dropout, in eval and float64.

    Args:
        awake: the denoiser's last layer is no longer 0, so that it does something.
    """
    settings = {"feed_dropout": 0.0, "denoiser_dropout": 0.0, **changes}
    rates = {"dropout": 0.0, "attention_dropout": 0.0, "n_layers": 1, "initial_sd": 0.5}
    model = small_system("sasrec", "diffuse", ITEMS, changes=settings, **rates)
    model = (model.double() if double else model).eval()
    torch.nn.init.uniform_(model.backbone.layers[-1].norm.weight, 0.5, 2.0)  # so that states differ in length
    if awake and model.head.denoiser is not None:
        torch.nn.init.normal_(model.head.denoiser.leave.weight, std=0.5)
    return model


def of(model: ItemRecommender) -> DiffuReason:
    """Its head."""
    assert isinstance(model.head, DiffuReason)
    return model.head


def twin(model: ItemRecommender, **changes: object) -> ItemRecommender:
    """A system with other settings and the same weights."""
    made = system(**changes)
    made.load_state_dict(model.state_dict(), strict=False)
    return made


def context(stage: str = "train", seed: int = 0, **known: Any) -> Context:
    """Of a step of that stage."""
    return Context(stage, torch.Generator().manual_seed(seed), None, **known)


def losses(model: ItemRecommender, batch: Batch | None = None, **known: Any) -> dict[str, Tensor]:
    """Of ``ROWS`` unless told otherwise."""
    return model.losses(packed(ROWS) if batch is None else batch, context(**known))


def thoughts(model: ItemRecommender, rows: list[list[int]] | None = None) -> Tensor:
    """h_0 .. h_K at every token."""
    return of(model).chain.run(model.backbone, packed(rows or ROWS))


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rollout(head: DiffuReason, known: Condition, generator: torch.Generator) -> list[Tensor]:
    """A noisy refinement by the head's own denoiser."""
    return head.moves.rollout(head._denoiser(), known, generator)


def path_log_prob(head: DiffuReason, path: list[Tensor], known: Condition) -> tuple[Tensor, list[Tensor]]:
    """How probable a path is to the head's own denoiser, and the means of its moves."""
    return head.moves.path_log_prob(head._denoiser(), path, known)


def reached(model: torch.nn.Module, loss: Tensor) -> set[str]:
    """Names of the parameters with a gradient other than 0."""
    named = dict(model.named_parameters())
    live = {name: p for name, p in named.items() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(live.values()), allow_unused=True, retain_graph=True)
    return {name for name, grad in zip(live, grads, strict=True) if grad is not None and grad.abs().max() > 1e-12}


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[tuple[Any, ...]]:
    """The arguments of each call of a method from now on."""
    calls: list[tuple[Any, ...]] = []
    method: Callable[..., Any] = getattr(owner, name)

    def noted(*given: Any, **named: Any) -> Any:
        calls.append((*given, *named.values()))
        return method(*given, **named)

    monkeypatch.setattr(owner, name, noted)
    return calls


def close(one: Tensor, other: Tensor, within: float = 1e-9) -> bool:
    """Are all entries equal up to ``within``?"""
    return one.shape == other.shape and bool(((one - other).abs() <= within).all())
