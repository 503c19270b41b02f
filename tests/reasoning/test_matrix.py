"""Every head learns a rule on every backbone that trains all positions at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recbench.evaluation.evaluate import evaluate
from recbench.registry import BACKBONES, HEADS
from recbench.training.checkpoint import Store
from recbench.training.loop import Job, Watcher, fit
from recbench.training.seeding import seed_everything
from recbench.training.settings import stage_settings
from tests.systems import CPU, histories, neural_backbones, queries, small_system

ITEMS = 20
CAUSAL = [name for name in neural_backbones() if BACKBONES.load(name).causal]


def counting(users: int, seed: int) -> list[list[int]]:
    """Each user counts on from somewhere: the next item is always the next number, and 1 follows the last."""
    first = np.random.default_rng(seed).integers(0, ITEMS, users)
    return [[int(a + step) % ITEMS + 1 for step in range(6)] for a in first]


@pytest.mark.parametrize("head", HEADS.entries())
@pytest.mark.parametrize("backbone", CAUSAL)
def test_a_rule_is_learned(backbone: str, head: str, tmp_path: Path) -> None:
    """Ten times as often as by chance at the least, after a few epochs."""
    seed_everything(3)
    changes = {"grpo_positions": 20} if head == "diffuse" else {}
    model = small_system(backbone, head, ITEMS, width=16, dropout=0.0, attention_dropout=0.0, changes=changes)
    table = {"epochs": 8, "batch_size": 50, "learning_rate": 0.02, "patience": 8}
    stages = stage_settings(table | {stage.name: {"epochs": 0} for stage in model.stages[1:]}, model.stages)
    asked = counting(60, 2)
    job = Job(histories(counting(60, 1), times=True), queries(asked, "valid"), stages, 0, CPU, tmp_path, Watcher())
    fit(model, job, Store(tmp_path / "state"))
    assert evaluate(model, queries(asked), CPU).means(["hr@1"])["hr@1"] > 10 / ITEMS
