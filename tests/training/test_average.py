"""The averaged weights are validated and kept; training goes on with its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recbench.evaluation.evaluate import evaluate
from recbench.reasoning.base import Context
from recbench.recommender import ItemRecommender
from recbench.training.average import Average
from recbench.training.checkpoint import Progress, Store, read_tensors
from recbench.training.loop import Job, Watcher, fit
from recbench.training.seeding import seed_everything
from recbench.training.settings import Settings, stage_settings
from tests.systems import CPU, histories, queries, small_system

ITEMS = 20
ROWS = np.random.default_rng(1).integers(1, ITEMS + 1, (60, 8)).tolist()
EPOCHS = 4


class KilledError(Exception):
    """A kill, as far as training can tell."""


class Killed(Watcher):
    """Ends training in the middle of an epoch."""

    def __init__(self, step: int) -> None:
        self.left = step

    def step(self, step: int, steps: int, loss: float) -> None:
        self.left -= 1
        if not self.left:
            raise KilledError


class Watched(Watcher):
    """Notes the live weights of one parameter after each epoch."""

    def __init__(self, model: ItemRecommender) -> None:
        self.model, self.live = model, []

    def epoch(self, line: dict[str, object]) -> None:
        self.live.append(self.model.backbone.items.weight.detach().clone())


def system(head: str = "none") -> ItemRecommender:
    seed_everything(3)
    return small_system("sasrec", head, ITEMS)


def job(model: ItemRecommender, folder: Path, watcher: Watcher, **settings: object) -> Job:
    table = {"epochs": EPOCHS, "batch_size": 100, "learning_rate": 0.01, "patience": 30, **settings}
    folder.mkdir(exist_ok=True)
    return Job(histories(ROWS), queries(ROWS, "valid"), stage_settings(table, model.stages), 0, CPU, folder, watcher)


def run(folder: Path, **settings: object) -> tuple[ItemRecommender, Progress, Watched]:
    model = system()
    watcher = Watched(model)
    progress = fit(model, job(model, folder, watcher, **settings), Store(folder / "state"))
    return model, progress, watcher


def test_a_step_keeps_the_share_it_says() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        average = Average(layer, 0.9)
        layer.weight.fill_(11.0)
        average.step()  # 0.9 x 1 + 0.1 x 11
        layer.weight.fill_(21.0)
        average.step()  # 0.9 x 2 + 0.1 x 21
    (kept,) = average.tensors().values()
    assert kept.item() == pytest.approx(3.9)
    assert layer.weight.item() == 21


def test_the_model_has_the_average_inside_the_block_and_its_own_weights_behind_it() -> None:
    layer = torch.nn.Linear(3, 2)
    live, held = layer.weight.detach().clone(), layer.weight
    average = Average(layer, 0.5)
    with torch.no_grad():
        layer.weight.add_(2.0)
    average.step()
    with average.in_place():
        torch.testing.assert_close(layer.weight.detach(), live + 1)
        assert layer.weight is held  # the optimiser's own parameter
    torch.testing.assert_close(layer.weight.detach(), live + 2)
    torch.testing.assert_close(average.tensors()["average.weight"], live + 1)


def test_its_own_weights_come_back_also_after_an_error() -> None:
    layer = torch.nn.Linear(3, 2)
    average = Average(layer, 0.5)
    with torch.no_grad():
        layer.weight.add_(2.0)
    live = layer.weight.detach().clone()
    with pytest.raises(KilledError), average.in_place():
        raise KilledError
    assert torch.equal(layer.weight, live)


def test_a_shared_parameter_is_averaged_once() -> None:
    layer = torch.nn.Linear(3, 3)
    both = torch.nn.ModuleList([layer, layer])
    average = Average(both, 0.5)
    with torch.no_grad():
        layer.weight.add_(2.0)
    average.step()
    assert len(average.tensors()) == 2
    with average.in_place():
        assert both[0].weight is both[1].weight
    average.restore({name: torch.zeros_like(tensor) for name, tensor in average.tensors().items()})
    with average.in_place():
        assert not layer.weight.any()


def test_training_goes_on_with_the_live_weights(tmp_path: Path) -> None:
    _, _, plain = run(tmp_path / "plain")
    _, _, averaged = run(tmp_path / "averaged", ema=0.9)
    assert len(plain.live) == EPOCHS
    for one, other in zip(plain.live, averaged.live, strict=True):
        assert torch.equal(one, other)


def test_what_is_validated_and_kept_is_the_average_of_every_step(tmp_path: Path) -> None:
    """By hand: the average of the weights behind each step of a run of one epoch."""
    model, decay = system(), 0.8
    seen: list[torch.Tensor] = [model.backbone.items.weight.detach().clone()]

    class Steps(Watcher):
        def step(self, step: int, steps: int, loss: float) -> None:
            seen.append(model.backbone.items.weight.detach().clone())

    progress = fit(model, job(model, tmp_path, Steps(), ema=decay, epochs=1), Store(tmp_path / "state"))
    expected = seen[0]
    for weights in seen[1:]:
        expected = decay * expected + (1 - decay) * weights
    assert len(seen) > 3
    assert progress.best_epoch == 1
    torch.testing.assert_close(model.backbone.items.weight.detach(), expected)
    assert not torch.allclose(expected, seen[-1], atol=1e-4)
    found = evaluate(model, queries(ROWS, "valid"), CPU).means(["ndcg@10"])["ndcg@10"]
    assert found == pytest.approx(progress.best)
    assert found == json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["monitor"]


def test_the_state_holds_live_and_averaged_weights_apart(tmp_path: Path) -> None:
    model = system()
    with pytest.raises(KilledError):
        fit(model, job(model, tmp_path, Killed(8), ema=0.9), Store(tmp_path / "state"))
    progress = Store(tmp_path / "state").load()
    assert progress is not None
    saved = read_tensors(tmp_path / "state" / progress.current)
    best = read_tensors(tmp_path / "state" / progress.best_file)
    name = "backbone.items.weight"
    assert not torch.equal(saved["weights." + name], saved["average." + name])
    assert progress.best_epoch == progress.epoch
    assert torch.equal(best[name], saved["average." + name])


@pytest.mark.parametrize("killed_at", [1, 7, 14])
def test_a_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(tmp_path: Path, killed_at: int) -> None:
    whole, whole_progress, _ = run(tmp_path / "whole", ema=0.9)
    folder = tmp_path / "killed"
    model = system()
    with pytest.raises(KilledError):
        fit(model, job(model, folder, Killed(killed_at), ema=0.9), Store(folder / "state"))
    resumed, progress, _ = run(folder, ema=0.9)
    assert progress.best == whole_progress.best
    assert progress.best_epoch == whole_progress.best_epoch
    for name, tensor in whole.tensors().items():
        assert torch.equal(resumed.tensors()[name], tensor), name
    last, last_whole = (
        read_tensors(at / "state" / f"current-0-{EPOCHS}.safetensors") for at in (folder, tmp_path / "whole")
    )
    assert last.keys() == last_whole.keys()
    assert all(torch.equal(last[name], tensor) for name, tensor in last_whole.items())


def test_a_decay_of_0_keeps_no_average_and_one_of_1_is_refused(tmp_path: Path) -> None:
    run(tmp_path, ema=0.0, epochs=1)
    (current,) = (tmp_path / "state").glob("current-*")
    assert not any(name.startswith("average.") for name in read_tensors(current))
    for bad in (1.0, -0.1):
        with pytest.raises(ValueError, match="ema"):
            Settings(ema=bad)


def test_a_stage_starts_a_new_average_from_the_best_weights(tmp_path: Path) -> None:
    model = system("diffuse")
    table = {"ema": 0.9, "align": {"epochs": 1, "learning_rate": 1e-12}, "epochs": 2}
    began, best = [], []
    begin, store = model.begin, Store(tmp_path / "state")

    def noted(context: Context) -> None:
        began.append(model.backbone.items.weight.detach().clone())
        if (progress := store.load()) is not None:
            best.append(store.tensors(progress.best_file)["backbone.items.weight"])
        begin(context)

    model.begin = noted  # type: ignore[method-assign]
    fit(model, job(model, tmp_path, Watcher(), **table), store)
    assert torch.equal(began[1], best[0])
    saved = read_tensors(tmp_path / "state" / "current-1-1.safetensors")
    torch.testing.assert_close(saved["average.backbone.items.weight"], began[1], atol=1e-6, rtol=0)
    assert not torch.allclose(began[0], began[1], atol=1e-3)
