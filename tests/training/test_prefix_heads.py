"""Every head learns a rule on every backbone that trains on prefix rows, through the one loop; so does cloze."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recbench.evaluation.evaluate import evaluate
from recbench.registry import HEADS
from recbench.training.checkpoint import Store
from recbench.training.loop import Job, Watcher, fit
from recbench.training.seeding import seed_everything
from recbench.training.settings import stage_settings
from tests.systems import CPU, histories, prefix_backbones, queries, small_system

ITEMS = 10
QUICK = {
    "lares": {"mean_steps": 2, "anchors": 32, "group": 2, "rpt_positions": 50, "filter_draws": 1},
    "diffuse": {"levels": 2, "group": 2, "grpo_positions": 16, "steps": 1},
    "rearec-prl": {"steps": 1, "contrast": 0.1},
    "rearec-erl": {"steps": 1},
    "pause": {"steps": 1},
}


def one_on(users: int, seed: int) -> list[list[int]]:
    """Each user begins somewhere and goes on by one: the next item follows from the last."""
    firsts = np.random.default_rng(seed).integers(0, ITEMS, users)
    return [[int(first + k) % ITEMS + 1 for k in range(4)] for first in firsts]


def hit_rate(backbone: str, head: str, folder: Path, epochs: int, **sizes: object) -> float:
    """HR@1 of users never trained on."""
    seed_everything(3)
    sizes = {"width": 16, "dropout": 0.0, "attention_dropout": 0.0, **sizes}
    model = small_system(backbone, head, ITEMS, changes=QUICK.get(head), **sizes)
    table = {"epochs": epochs, "batch_size": 60, "learning_rate": 0.01, "patience": epochs, "rpt": {"epochs": 1}}
    settings = stage_settings({k: v for k, v in table.items() if k != "rpt" or head == "lares"}, model.stages)
    job = Job(histories(one_on(80, 1)), queries(one_on(20, 2), "valid"), settings, 0, CPU, folder, Watcher())
    fit(model, job, Store(folder / "state"))
    return evaluate(model, queries(one_on(100, 4)), CPU).means(["hr@1"])["hr@1"]


@pytest.mark.parametrize("backbone", prefix_backbones())
@pytest.mark.parametrize("head", list(HEADS.entries()))
def test_every_head_learns_a_rule(backbone: str, head: str, tmp_path: Path) -> None:
    assert hit_rate(backbone, head, tmp_path, 20) > 0.6


def test_filling_blanks_anywhere_learns_to_fill_the_last(tmp_path: Path) -> None:
    assert hit_rate("bert4rec", "none", tmp_path, 60, rows="cloze", blanked=0.3) > 0.8
