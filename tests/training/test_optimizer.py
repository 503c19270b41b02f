"""Learning rates step by step, what weight decay means, and that a resumed run has the rates of an uninterrupted one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from recbench.errors import RecbenchError
from recbench.reasoning.base import Stage
from recbench.training.checkpoint import Store, read_tensors
from recbench.training.loop import Watcher, fit
from recbench.training.optimizer import optimizer_of, set_rate, share_at
from recbench.training.settings import Settings, refuse_two_measures, stage_settings
from tests.training.test_average import EPOCHS, Killed, KilledError, job, run, system


def shares(steps: int, **settings: object) -> list[float]:
    return [share_at(Settings(**settings), step, steps) for step in range(1, steps + 1)]


def test_a_constant_rate_may_rise_to_it() -> None:
    assert shares(6, warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_cosine_falls_from_1_behind_the_rise_to_0_behind_the_last_step() -> None:
    found = shares(8, schedule="cosine", warmup_steps=2, hold_steps=2)
    expected = [0.5, 1.0, 1.0, 1.0] + [0.5 * (1 + math.cos(math.pi * part / 4)) for part in range(4)]
    assert found == pytest.approx(expected)
    assert shares(4, schedule="cosine")[0] == 1.0
    assert share_at(Settings(schedule="cosine"), 5, 4) == 0.0


def test_an_inverse_square_root_is_half_after_four_times_as_many_steps() -> None:
    found = shares(40, schedule="inverse_sqrt", hold_steps=10)
    assert found[:10] == [1.0] * 10
    assert found[39] == pytest.approx(0.5)
    assert found[10] == pytest.approx(math.sqrt(10 / 11))
    assert shares(4, schedule="inverse_sqrt") == pytest.approx([1.0, 2**-0.5, 3**-0.5, 0.5])
    assert shares(8, schedule="inverse_sqrt", warmup_steps=2) == pytest.approx(
        [0.5, 1.0, *(math.sqrt(2 / step) for step in range(3, 9))]
    )


def test_parameters_with_a_rate_of_their_own_keep_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    model = system()
    monkeypatch.setattr(type(model), "rates", {"backbone.items": 0.1})
    settings = Settings(learning_rate=0.5, warmup_steps=4)
    optimizer = optimizer_of(model, settings)
    set_rate(optimizer, settings, 2, 100)
    assert sorted(group["lr"] for group in optimizer.param_groups) == pytest.approx([0.025, 0.25])


def test_weight_decay_of_adam_bends_the_gradient_and_that_of_adamw_shrinks_weights() -> None:
    """By hand: with a gradient of 0 adamw takes the share rate x decay off; adam makes a whole step of it."""
    for kind, expected in (("adamw", 2.0 * (1 - 0.1 * 0.5)), ("adam", 2.0 - 0.1)):
        model = system()
        settings = Settings(optimizer=kind, learning_rate=0.1, weight_decay=0.5)
        optimizer = optimizer_of(model, settings)
        weight = model.backbone.items.weight
        with torch.no_grad():
            weight.fill_(2.0)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        torch.testing.assert_close(weight.detach(), torch.full_like(weight, expected))


def test_the_loop_gives_each_step_its_rate_and_logs_the_last(tmp_path: Path) -> None:
    settings = {"schedule": "cosine", "warmup_steps": 3, "optimizer": "adamw", "weight_decay": 0.01}
    model, _, _ = run(tmp_path / "scheduled", **settings)
    lines = [json.loads(line) for line in (tmp_path / "scheduled" / "log.jsonl").read_text().splitlines()]
    told = stage_settings({"learning_rate": 0.01, **settings}, model.stages)["train"]
    steps = 4  # 60 users x 7 targets, 100 a step
    expected = [0.01 * share_at(told, epoch * steps, EPOCHS * steps) for epoch in range(1, EPOCHS + 1)]
    assert [line["learning_rate"] for line in lines] == pytest.approx(expected)
    assert len(set(expected)) == EPOCHS
    run(tmp_path / "plain")
    assert "learning_rate" not in json.loads((tmp_path / "plain" / "log.jsonl").read_text().splitlines()[0])


def test_no_step_takes_a_gradient_longer_than_clip_norm(tmp_path: Path) -> None:
    def norms(folder: Path, **settings: object) -> list[float]:
        model, found = system(), []

        class Norms(Watcher):
            def step(self, step: int, steps: int, loss: float) -> None:
                found.append(
                    torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()
                )

        fit(model, job(model, folder, Norms(), epochs=1, **settings), Store(folder / "state"))
        return found

    free = norms(tmp_path / "free")
    limit = sorted(free)[1] / 2
    assert norms(tmp_path / "clipped", clip_norm=limit) == pytest.approx([limit] * len(free), rel=0.01)


@pytest.mark.parametrize("killed_at", [2, 7, 14])
@pytest.mark.parametrize("schedule", ["cosine", "inverse_sqrt"])
def test_a_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(tmp_path: Path, schedule: str, killed_at: int) -> None:
    settings = {"schedule": schedule, "warmup_steps": 6, "optimizer": "adamw", "weight_decay": 0.01}
    run(tmp_path / "whole", **settings)
    folder, model = tmp_path / "killed", system()
    with pytest.raises(KilledError):
        fit(model, job(model, folder, Killed(killed_at), **settings), Store(folder / "state"))
    run(folder, **settings)
    last, whole = (
        read_tensors(at / "state" / f"current-0-{EPOCHS}.safetensors") for at in (folder, tmp_path / "whole")
    )
    assert last.keys() == whole.keys()
    assert all(torch.equal(last[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"hold_steps": 5}, "schedule=constant has none"),
        ({"threads": 100_000}, "threads is 100000"),
    ],
)
def test_nonsense_is_refused(setting: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Settings(**setting)


def test_a_stage_may_have_a_schedule_of_its_own() -> None:
    stages = (Stage("one"), Stage("two"))
    found = stage_settings({"schedule": "cosine", "two": {"schedule": "constant"}}, stages)
    assert [found[stage.name].scheduled for stage in stages] == [True, False]


@pytest.mark.parametrize(("name", "value"), [("monitor", "hr@10"), ("monitor_candidates", "unseen")])
def test_stages_that_are_picked_by_different_measures_are_refused(name: str, value: str) -> None:
    stages = (Stage("one"), Stage("two"))
    refuse_two_measures({})  # closed form
    refuse_two_measures(stage_settings({name: value}, stages))
    with pytest.raises(RecbenchError, match=f"train.{name} is the same") as refused:
        refuse_two_measures(stage_settings({"two": {name: value}}, stages))
    assert f"{value} in two" in refused.value.why
    assert refused.value.fix == f"--set train.{name}={value}"
