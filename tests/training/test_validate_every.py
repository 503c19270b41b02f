"""Validation behind each k-th epoch: training goes on as it would, and what is kept is chosen among what was validated."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbench.training.checkpoint import Progress, Store
from recbench.training.loop import Job, Watcher, fit
from recbench.training.seeding import seed_everything
from recbench.training.settings import Settings, stage_settings
from tests.interrupted import killed
from tests.systems import CPU, histories, queries, small_system

ITEMS = 20


def users(count: int, seed: int) -> list[list[int]]:
    return np.random.default_rng(seed).integers(1, ITEMS + 1, (count, 8)).tolist()


class Trained:
    """A model that learns noise, so that its best epoch is an early one."""

    def __init__(self, folder: Path, watcher: Watcher | None = None, **settings: object) -> None:
        seed_everything(3)
        self.model = small_system("sasrec", "none", ITEMS, width=16, dropout=0.1, attention_dropout=0.0)
        table = {"epochs": 8, "patience": 30, "batch_size": 200, "learning_rate": 0.01, **settings}
        stages = stage_settings(table, self.model.stages)
        folder.mkdir(exist_ok=True)
        asked = queries(users(60, 2), "valid")
        job = Job(histories(users(60, 1)), asked, stages, 0, CPU, folder, watcher or Watcher())
        self.store = Store(folder / "state")
        self.progress: Progress = fit(self.model, job, self.store)
        self.log: list[dict[str, Any]] = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]

    @property
    def validated(self) -> list[int]:
        return [line["epoch"] for line in self.log if "valid" in line]

    def curve(self, epoch: int) -> Mapping[str, Any]:
        """What a line says but for how long it took."""
        return {name: v for name, v in self.log[epoch - 1].items() if "second" not in name and name != "best"}


@pytest.mark.parametrize(
    ("every", "epochs", "validated"),
    [(1, 4, [1, 2, 3, 4]), (3, 8, [3, 6, 8]), (4, 8, [4, 8]), (9, 8, [8]), (2, 1, [1])],
)
def test_each_kth_epoch_is_validated_and_the_last_always(
    every: int, epochs: int, validated: list[int], tmp_path: Path
) -> None:
    trained = Trained(tmp_path, validate_every=every, epochs=epochs)
    assert trained.validated == validated
    assert [line["epoch"] for line in trained.log] == list(range(1, epochs + 1))
    assert trained.progress.best_epoch in validated
    assert all(not line["best"] and "monitor" not in line for line in trained.log if line["epoch"] not in validated)


def test_training_is_the_same_and_the_best_is_that_of_the_validated_epochs(tmp_path: Path) -> None:
    each, third = Trained(tmp_path / "each"), Trained(tmp_path / "third", validate_every=3)
    monitored = {epoch: each.log[epoch - 1]["monitor"] for epoch in third.validated}
    best = max(monitored, key=lambda epoch: monitored[epoch])
    assert (third.progress.best_epoch, third.progress.best) == (best, monitored[best])
    assert each.progress.best is not None
    assert third.progress.best is not None
    assert each.progress.best > third.progress.best  # an epoch between was better, and nobody looked
    for epoch in range(1, 9):
        losses = each.curve(epoch)["losses"]
        assert third.curve(epoch)["losses"] == losses
        if epoch in third.validated:
            assert third.curve(epoch) == each.curve(epoch)


def test_patience_counts_epochs_and_ends_at_a_validation(tmp_path: Path) -> None:
    trained = Trained(tmp_path, validate_every=2, epochs=80, patience=5)
    best, last = trained.progress.best_epoch, trained.progress.epochs
    assert best is not None
    assert last < 80
    assert last - best == 6  # the first validation with at least 5 epochs behind the best
    assert trained.validated[-1] == last
    assert not any("patience never ran out" in doubt for doubt in trained.progress.warnings)


def test_the_last_validation_speaks_for_the_epochs_since_the_one_before(tmp_path: Path) -> None:
    """Best in epoch 3, validated in 6 and 8: five epochs without a better one, not six."""
    settings = Settings(epochs=8, validate_every=3)
    assert [settings.judged(epoch) for epoch in range(1, 9)] == [0, 0, 3, 0, 0, 3, 0, 2]
    trained = Trained(tmp_path, validate_every=3, patience=6)
    assert trained.progress.best_epoch == 3
    assert any("patience never ran out in 8 epochs" in doubt for doubt in trained.progress.warnings)


class Killer(Watcher):
    """Kills its process in the first step behind some epoch."""

    def __init__(self, behind: int) -> None:
        self.behind, self.now = behind, 0

    def epoch(self, line: dict[str, Any]) -> None:
        self.now = line["epoch"]

    def step(self, step: int, steps: int, loss: float) -> None:
        if self.now == self.behind:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("behind", [1, 3, 5])
def test_killed_between_validations_a_resumed_run_ends_with_the_same_numbers(behind: int, tmp_path: Path) -> None:
    through = Trained(tmp_path / "through", validate_every=3)
    cut = tmp_path / "cut"
    assert killed(lambda: Trained(cut, Killer(behind), validate_every=3))
    resumed = Trained(cut, validate_every=3)
    assert [resumed.curve(epoch) for epoch in range(1, 9)] == [through.curve(epoch) for epoch in range(1, 9)]
    tensors, same = resumed.model.tensors(), through.model.tensors()
    assert all(torch.equal(tensors[name], same[name]) for name in same)
    assert resumed.progress.best_epoch == through.progress.best_epoch


def test_less_than_each_epoch_is_none() -> None:
    with pytest.raises(ValueError, match="validate_every is 0"):
        Settings(validate_every=0)
