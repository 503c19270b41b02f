"""The loop learns a rule, and does not learn what is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recbench.data.batching import Batch
from recbench.data.dataset import Histories, Queries
from recbench.errors import RecbenchError
from recbench.evaluation.evaluate import evaluate
from recbench.reasoning.base import Context, Stage
from recbench.recommender import ItemRecommender
from recbench.training.checkpoint import Progress, Store
from recbench.training.loop import Job, Watcher, fit
from recbench.training.seeding import epoch_generators, seed_everything
from recbench.training.settings import Settings, stage_settings
from tests.systems import CPU, histories, neural_backbones, queries, small_backbone, small_head, small_system

ITEMS = 20


def two_back(users: int, seed: int) -> list[list[int]]:
    """Each user repeats a pair of items: the next item is always the one two back."""
    pairs = np.random.default_rng(seed).integers(1, ITEMS + 1, (users, 2))
    return [[int(a), int(b)] * 4 for a, b in pairs]


def noise(users: int, seed: int) -> list[list[int]]:
    return np.random.default_rng(seed).integers(1, ITEMS + 1, (users, 8)).tolist()


def trained(
    rows: list[list[int]], asked: list[list[int]], folder: Path, name: str, **settings: object
) -> tuple[float, Progress]:
    """HR@1 on ``asked`` after training on ``rows``, and how training went."""
    seed_everything(3)
    model = small_system(name, "none", ITEMS, width=16, dropout=0.0, attention_dropout=0.0)
    table = {"epochs": 36, "batch_size": 200, "learning_rate": 0.01, "patience": 36, **settings}
    job = Job(histories(rows), queries(asked, "valid"), stage_settings(table, model.stages), 0, CPU, folder, Watcher())
    progress = fit(model, job, Store(folder / "state"))
    return evaluate(model, queries(asked), CPU).means(["hr@1"])["hr@1"], progress


@pytest.mark.parametrize("name", neural_backbones())
def test_a_rule_is_learned(name: str, tmp_path: Path) -> None:
    hits, _ = trained(two_back(200, 1), two_back(100, 2), tmp_path, name)
    assert hits > 0.9


@pytest.mark.parametrize("name", neural_backbones())
def test_noise_is_not_learned(name: str, tmp_path: Path) -> None:
    hits, _ = trained(noise(100, 1), noise(400, 2), tmp_path, name, epochs=5)
    assert hits < 1 / ITEMS + 3 * np.sqrt(1 / ITEMS / 400)


def test_training_stops_when_patience_runs_out_and_keeps_the_best_weights(tmp_path: Path) -> None:
    _, progress = trained(noise(60, 1), noise(60, 2), tmp_path, "sasrec", epochs=60, patience=3)
    assert progress.best_epoch is not None
    assert progress.epochs == progress.best_epoch + 3
    assert progress.finished


def test_the_last_epoch_as_the_best_is_doubted(tmp_path: Path) -> None:
    _, progress = trained(two_back(100, 1), two_back(50, 2), tmp_path, "sasrec", epochs=2)
    assert any("the best epoch is the last" in doubt for doubt in progress.warnings)


class TwoStages(ItemRecommender):  # type: ignore[misc] # a test may extend a final class
    """The second stage only harms: its loss drives scores of targets down."""

    def __init__(self) -> None:
        backbone = small_backbone("sasrec", ITEMS, width=16, dropout=0.0, attention_dropout=0.0)
        super().__init__(backbone, small_head("none", backbone))
        self.stages = (Stage("good"), Stage("bad"))
        self.began: list[tuple[str, bool]] = []

    def begin(self, context: object) -> None:
        self.began.append((context.stage, context.reference is not None))  # type: ignore[attr-defined]
        if context.reference is not None:  # type: ignore[attr-defined]
            assert not context.reference.training  # type: ignore[attr-defined]
            assert not any(p.requires_grad for p in context.reference.parameters())  # type: ignore[attr-defined]

    def losses(self, batch: object, context: object) -> dict[str, torch.Tensor]:
        sign = 1 if context.stage == "good" else -1  # type: ignore[attr-defined]
        return {name: sign * loss for name, loss in super().losses(batch, context).items()}  # type: ignore[arg-type]


def test_a_stage_that_only_harms_is_reported_and_not_kept(tmp_path: Path) -> None:
    seed_everything(3)
    model = TwoStages()
    table = {"epochs": 25, "batch_size": 200, "learning_rate": 0.01, "patience": 25, "bad": {"epochs": 2}}
    settings = stage_settings(table, model.stages)
    assert (settings["good"].epochs, settings["bad"].epochs) == (25, 2)
    asked = queries(two_back(50, 2), "valid")
    job = Job(histories(two_back(100, 1)), asked, settings, 0, CPU, tmp_path, Watcher())
    progress = fit(model, job, Store(tmp_path / "state"))
    assert model.began == [("good", False), ("bad", True)]
    assert any("no epoch was better than the stage before" in doubt for doubt in progress.warnings)
    assert evaluate(model, asked, CPU).means(["ndcg@10"])["ndcg@10"] == pytest.approx(progress.best)
    assert progress.best_stage == 0


class Opening(ItemRecommender):  # type: ignore[misc] # a test may extend a final class
    """Notes which of its steps open an epoch."""

    opened: list[tuple[int, bool]]

    def losses(self, batch: Batch, context: Context) -> dict[str, torch.Tensor]:
        self.opened.append((context.epoch, context.opens_epoch))
        return super().losses(batch, context)


def test_the_first_step_opens_each_epoch_also_where_one_row_fills_several(tmp_path: Path) -> None:
    """6 rows of 11 targets, 4 a step: 16 steps by their number, and 6 batches."""
    plain = small_system("sasrec", "none", ITEMS)
    model = Opening(plain.backbone, plain.head)
    model.opened = []
    rows = [(row * 4)[:12] for row in noise(6, 1)]
    settings = stage_settings({"epochs": 3, "batch_size": 4}, model.stages)
    fit(model, Job(histories(rows), queries(rows), settings, 0, CPU, tmp_path, Watcher()), Store(tmp_path / "state"))
    assert len(model.opened) == 3 * 6
    assert [epoch for epoch, opens in model.opened if opens] == [1, 2, 3]
    assert all(opens for _, opens in model.opened[::6])


def test_a_nan_model_ranks_every_target_last() -> None:
    model = small_system(n_items=ITEMS)
    torch.nn.init.constant_(model.backbone.positions.weight, float("nan"))
    ranks = evaluate(model, queries(noise(30, 1)), CPU)
    assert (ranks.above == ITEMS - 1).all()
    assert ranks.n_nan == 30
    assert ranks.means(["hr@10"])["hr@10"] == 0


class Spoiling(ItemRecommender):  # type: ignore[misc] # a test may extend a final class
    """Its loss is finite and the gradient of its last step is not."""

    def losses(self, batch: Batch, context: Context) -> dict[str, torch.Tensor]:
        losses = super().losses(batch, context)
        if context.step == context.epochs * context.steps:
            zero = self.backbone.positions.weight.sum() * 0.0
            losses["spoilt"] = torch.sqrt(zero)
        return losses


def test_a_last_step_that_spoils_the_weights_is_told_and_its_weights_are_not_kept(tmp_path: Path) -> None:
    plain = small_system("sasrec", "none", ITEMS)
    model, rows = Spoiling(plain.backbone, plain.head), noise(30, 1)
    settings = stage_settings({"epochs": 2, "batch_size": 10, "clip_norm": 0.0}, model.stages)
    job = Job(histories(rows), queries(rows, "valid"), settings, 0, CPU, tmp_path, Watcher())
    with pytest.raises(RecbenchError, match="30 validation targets have a NaN score") as failed:
        fit(model, job, Store(tmp_path / "state"))
    assert "stage train, epoch 2" in failed.value.why
    kept = Store(tmp_path / "state").load()
    assert kept is not None
    assert (kept.epoch, kept.best_epoch) == (1, 1)


def test_unseen_is_about_the_whole_history_also_beyond_what_the_model_sees() -> None:
    model = small_system(n_items=ITEMS, max_length=3)
    asked = queries([[*range(1, 16), 20]])
    ranks = evaluate(model, asked, CPU, top=ITEMS)
    order = ranks.top_items[0].astype(int).tolist()  # type: ignore[index]
    place = order.index(20)
    assert ranks.above[0] == place
    assert ranks.above_unseen[0] == sum(item > 15 for item in order[:place])


def test_every_query_is_ranked_whatever_the_order_of_lengths() -> None:
    model = small_system(n_items=ITEMS)
    rows = [row[: n % 7 + 2] for n, row in enumerate(noise(40, 1))]
    together = evaluate(model, queries(rows), CPU)
    for place in (0, 7, 23):
        assert evaluate(model, queries([rows[place]]), CPU).above[0] == together.above[place]


def test_randomness_of_an_epoch_follows_from_seed_stage_and_epoch() -> None:
    def draws(*key: int) -> tuple[float, float, float]:
        order, head = epoch_generators(*key, CPU)
        return order.random(), torch.rand(1, generator=head).item(), torch.rand(1).item()

    assert draws(1, 0, 4) == draws(1, 0, 4)
    assert len({draws(1, 0, 4), draws(2, 0, 4), draws(1, 1, 4), draws(1, 0, 5)}) == 4
    assert len(set(draws(1, 0, 4))) == 3


def test_settings_refuse_what_makes_no_sense() -> None:
    for bad in ({"epochs": -1}, {"batch_size": 0}, {"learning_rate": 0.0}, {"patience": 0}, {"clip_norm": -1.0}):
        with pytest.raises(ValueError, match=r"at least|above"):
            Settings(**bad)  # type: ignore[arg-type]


def test_histories_and_queries_agree_on_what_came_before(tiny_home: Path) -> None:
    from recbench.data.dataset import open_dataset

    dataset = open_dataset("tiny", tiny_home)
    train: Histories = dataset.training()
    valid: Queries = dataset.queries("valid")
    test: Queries = dataset.queries("test")
    for row in range(0, 200, 23):
        assert valid.histories.row(row).tolist() == train.row(row).tolist()
        assert test.histories.row(row).tolist() == [*train.row(row).tolist(), int(valid.targets[row])]
