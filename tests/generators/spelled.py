"""Small models that spell, for tests of all of them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from recbench.data.batching import Batch
from recbench.reasoning.base import Context, Stage
from recbench.recommender import GeneratorRecommender, build
from recbench.registry import BACKBONES, HEADS, LOSSES
from recbench.semantic_ids.table import SemanticIds
from tests.generators.checkpoints import NEEDED, checkpoint
from tests.reasoning.test_heads import USERS
from tests.semantic_ids.spelling import random_table
from tests.systems import training_rows

N_ITEMS = 20
PRETRAINED = "hf-lm"
GENERATORS = [
    pytest.param(name, marks=[NEEDED] if name == PRETRAINED else [])
    for name, entry in BACKBONES.entries().items()
    if entry.family == "generator"
]
STARTS = ["constant", "item"]
TABLE = random_table(N_ITEMS, (4, 3))
ROWS = [[3], [5, 6], [7, 8, 9], [1, 2, 3, 4, 5]]
SIZES: dict[str, object] = {
    "width": 8,
    "n_heads": 2,
    "head_width": 4,
    "inner": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
"""Settings that make any generator small; those it does not know are left out."""


def known(name: str, **changes: object) -> dict[str, object]:
    """``SIZES`` with these changes, as far as a generator of that name has them."""
    fields = BACKBONES.load(name).Config.__dataclass_fields__
    start = {"path": checkpoint()} if name == PRETRAINED else {}
    return start | {key: value for key, value in (SIZES | changes).items() if key in fields}


def small(
    name: str,
    head: str = "none",
    table: SemanticIds = TABLE,
    sizes: dict[str, object] | None = None,
    settings: dict[str, object] | None = None,
    **loss: object,
) -> GeneratorRecommender:
    """A small generator with a head, which takes ``settings``; no dropout."""
    torch.manual_seed(1)
    backbone = BACKBONES.load(name).Config(**known(name) | (sizes or {}))
    config = LOSSES.load("spelling").Config(**loss)
    model = build(
        name, backbone, head, HEADS.load(head).Config(**settings or {}), table.n_items, "spelling", config, table
    )
    assert isinstance(model, GeneratorRecommender)
    for parameter in model.backbone.carried.parameters():  # zero at the start: then nothing of it is tested
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def told(model: GeneratorRecommender, stage: Stage) -> Context:
    first = stage.name == model.stages[0].name
    reference = None if first else copy.deepcopy(model).eval().requires_grad_(False)
    rows = training_rows(model, USERS)
    return Context(stage.name, torch.Generator().manual_seed(5), rows, reference, epoch=1, step=1, epochs=2, steps=1)


def exact(model: GeneratorRecommender, batch: Batch) -> Tensor:
    with model.backbone.about(batch), torch.no_grad():
        return model.score.exact(model.eval().answers(batch))
