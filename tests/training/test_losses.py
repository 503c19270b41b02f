"""Every loss with every head and backbone: finite, learns, draws what a resumed run would draw, and leaves a head's draws alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recbench import experiment, trained
from recbench.data.dataset import open_dataset
from recbench.errors import Exit, RecbenchError
from recbench.experiment import Order
from recbench.recommender import ItemRecommender
from recbench.registry import HEADS
from recbench.runs.folder import Run
from recbench.scoring.softmax import ItemSoftmax
from recbench.settings import Asked, resolve
from recbench.training.checkpoint import Store
from recbench.training.loop import Job, Watcher, fit
from recbench.training.seeding import step_generator
from recbench.training.settings import stage_settings
from tests.interrupted import Stopper
from tests.reasoning.test_heads import N_ITEMS, USERS, context, losses, stages_that_run
from tests.systems import (
    CPU,
    histories,
    item_losses,
    neural_backbones,
    queries,
    small_system,
    training_batch,
    training_rows,
)

SETTINGS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "sampled-softmax": {"negatives": 12},
    "in-batch": {},
    "bce": {},
    "gbce": {"negatives": 8},
}
DRAWN = [name for name in SETTINGS if name != "softmax"]
SYSTEMS = [(head, "sasrec") for head in HEADS.entries()] + [("none", name) for name in neural_backbones()[1:]]
"""A loss sees answers and targets: it stands on every head with one backbone, and on every backbone with one head."""
EVERYWHERE = [(loss, head, backbone) for loss in DRAWN for head, backbone in SYSTEMS]


def system(loss: str, head: str, backbone: str = "sasrec", **sizes: object) -> ItemRecommender:
    return small_system(backbone, head, N_ITEMS, loss={"name": loss, **SETTINGS[loss]}, **sizes)


def test_every_loss_is_in_the_table_that_the_tests_run_over() -> None:
    assert set(SETTINGS) == set(item_losses())


@pytest.mark.parametrize(("loss", "head", "backbone"), EVERYWHERE)
def test_losses_are_finite_and_reach_parameters_in_every_stage(loss: str, head: str, backbone: str) -> None:
    model = system(loss, head, backbone)
    for stage in stages_that_run(model):
        model.zero_grad()
        terms = losses(model, stage)
        total = torch.stack(list(terms.values())).sum()
        total.backward()
        assert total.isfinite(), stage.name
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(("loss", "head", "backbone"), EVERYWHERE)
def test_targets_rise_in_the_full_ranking(loss: str, head: str, backbone: str) -> None:
    """A few steps on one batch: what is sampled in training is measured over the whole catalogue."""
    torch.manual_seed(2)
    model = system(loss, head, backbone, width=16)
    batch = training_batch(model, USERS)
    told = context(model, model.stages[0])
    model.begin(told)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def cross_entropy() -> float:
        with torch.no_grad():
            u = model.eval().head.answer(model.head.think(model.backbone, batch))
            return ItemSoftmax(model.backbone.item_vectors).loss(u, batch.targets_Q).item()

    before = cross_entropy()
    for _ in range(30):
        model.train()
        optimizer.zero_grad()
        torch.stack(list(model.losses(batch, told).values())).sum().backward()
        optimizer.step()
    assert cross_entropy() < before - 0.25


@pytest.mark.parametrize("head", HEADS.entries())
def test_a_head_draws_the_same_under_every_loss(head: str) -> None:
    states = []
    for loss in SETTINGS:
        model = system(loss, head)
        told = context(model, model.stages[0])
        told.negatives = torch.Generator().manual_seed(1)
        model.begin(told)
        model.eval().losses(training_batch(model, USERS), told)
        states.append(told.generator.get_state())
    assert all(torch.equal(state, states[0]) for state in states)


def test_negatives_follow_from_seed_stage_epoch_and_step() -> None:
    def drawn(*key: int) -> float:
        return torch.rand(1, generator=step_generator(*key, CPU)).item()

    assert drawn(1, 0, 4, 2) == drawn(1, 0, 4, 2)
    keys = [(1, 0, 4, 2), (2, 0, 4, 2), (1, 1, 4, 2), (1, 0, 5, 2), (1, 0, 4, 3)]
    assert len({drawn(*key) for key in keys}) == len(keys)


def test_the_loop_gives_each_step_its_own_generator_and_leaves_the_heads_alone(tmp_path: Path) -> None:
    seeds: list[int] = []

    class Noting(ItemRecommender):  # type: ignore[misc] # a test may extend a final class
        def losses(self, batch: Any, context: Any) -> dict[str, torch.Tensor]:
            seeds.append(context.negatives.initial_seed())
            before = context.generator.get_state()
            made = super().losses(batch, context)
            assert torch.equal(context.generator.get_state(), before)
            return made

    plain = system("bce", "none")
    model = Noting(plain.backbone, plain.head, plain.score)
    rows = [[1, 2, 3, 4, 5], [6, 7, 8, 9], [3, 5, 2, 1]] * 4
    settings = stage_settings({"epochs": 2, "batch_size": 10}, model.stages)
    fit(
        model,
        Job(histories(rows), queries(rows, "valid"), settings, 7, CPU, tmp_path, Watcher()),
        Store(tmp_path / "s"),
    )
    per_epoch = len(seeds) // 2
    assert per_epoch > 1
    expected = [step_generator(7, 0, epoch, step, CPU).initial_seed() for epoch in (1, 2) for step in range(per_epoch)]
    assert seeds == expected
    assert len(set(seeds)) == len(seeds)


def test_the_items_of_a_step_are_counted_as_targets() -> None:
    model = system("softmax", "none")
    counts = training_rows(model, USERS).target_counts(N_ITEMS)
    expected = [0] * (N_ITEMS + 1)
    for row in ([2, 3], [2, 3, 2], [6, 1, 3, 7], [9, 1, 2, 3, 4, 5, 6]):
        for item in row:
            expected[item] += 1
    assert counts.tolist() == expected
    prefixes = training_rows(model, USERS, every_position=False)
    assert prefixes.target_counts(N_ITEMS).tolist() == expected


# --- whole runs ---------------------------------------------------------------------------------------------------------


def order(tiny_home: Path, runs: Path, loss: dict[str, Any], *, resume: bool = False) -> Order:
    table = {
        "backbone": {"name": "sasrec", "width": 8, "inner": 16},
        "train": {"epochs": 3, "batch_size": 400, "learning_rate": 0.01},
        "loss": loss,
    }
    dataset = open_dataset("tiny", tiny_home)
    return Order(dataset, resolve(Asked(assignments=table).table(), dataset.card.family), 0, runs, CPU, resume)


@pytest.mark.parametrize("loss", DRAWN)
def test_a_resumed_run_draws_the_negatives_of_an_uninterrupted_one(loss: str, tiny_home: Path, tmp_path: Path) -> None:
    table = {"name": loss, **SETTINGS[loss]}
    whole, _ = experiment.run(order(tiny_home, tmp_path / "whole", table), Watcher())
    with pytest.raises(KeyboardInterrupt):
        experiment.run(order(tiny_home, tmp_path, table), Stopper(2))
    resumed, _ = experiment.run(order(tiny_home, tmp_path, table, resume=True), Watcher())
    assert (resumed.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    assert resumed.ranks().equals(whole.ranks())


def test_a_run_names_its_loss_and_is_loaded_with_it(tiny_home: Path, tmp_path: Path) -> None:
    run, _ = experiment.run(order(tiny_home, tmp_path, {"name": "gbce", "negatives": 8}), Watcher())
    assert run.manifest.loss == "gBCE, 8 uniform negatives, t 0.75"
    assert run.config()["loss"] == {"name": "gbce", "negatives": 8, "t": 0.75}
    model, _ = trained.load(Run.open(run.folder), tiny_home, CPU)
    assert isinstance(model, ItemRecommender)
    assert model.score.name == run.manifest.loss
    assert trained.rank_again(run, tiny_home, CPU)[1] == 0


def test_more_negatives_than_items_are_refused_before_training(tiny_home: Path, tmp_path: Path) -> None:
    with pytest.raises(RecbenchError, match="Loss gbce does not fit") as refused:
        experiment.run(order(tiny_home, tmp_path, {"name": "gbce", "negatives": 5000}), Watcher())
    assert refused.value.code == Exit.USAGE
    assert "loss" in refused.value.fix
