"""A kill at any moment leaves one complete state: also one between the log's line of an epoch and the state behind it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recbench.training.checkpoint import Progress, Store, write_tensors
from recbench.training.loop import Watcher, fit
from tests.training.test_average import EPOCHS, KilledError, job, run, system


class Torn(Store):
    """Is killed as it writes its second state, with the weights written and ``progress.json`` not."""

    left = 2

    def save(self, progress: Progress, current: dict[str, Tensor] | None, best: dict[str, Tensor] | None) -> None:
        self.left -= 1
        if not self.left and current is not None:
            write_tensors(self.folder / f"current-{progress.stage}-{progress.epoch}.safetensors", current)
            raise KilledError
        super().save(progress, current, best)


def logged(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["epoch"], line["monitor"]) for line in lines]


def test_a_line_of_the_log_without_its_state_is_written_once_by_a_resumed_run(tmp_path: Path) -> None:
    whole, _, _ = run(tmp_path / "whole")
    folder, model = tmp_path / "killed", system()
    with pytest.raises(KilledError):
        fit(model, job(model, folder, Watcher()), Torn(folder / "state"))
    assert [epoch for epoch, _ in logged(folder)] == [1, 2]
    resumed, _, _ = run(folder)
    assert [epoch for epoch, _ in logged(folder)] == list(range(1, EPOCHS + 1))
    assert logged(folder) == logged(tmp_path / "whole")
    assert all(torch.equal(resumed.tensors()[name], tensor) for name, tensor in whole.tensors().items())
    assert len(list((folder / "state").iterdir())) <= 3  # progress, the last weights, the best
