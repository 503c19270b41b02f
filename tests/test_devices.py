"""Fit for a GPU: everything lies where it has to, bfloat16 stays out of scores, and with a GPU at hand, whole training."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recbench import experiment
from recbench.config import parse_assignments
from recbench.data.dataset import open_dataset
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.evaluate import evaluate
from recbench.experiment import Order
from recbench.reasoning.base import Stage
from recbench.recommender import GeneratorRecommender, ItemRecommender
from recbench.registry import HEADS
from recbench.settings import Asked, resolve
from recbench.trained import new_model, rank_again
from recbench.training.checkpoint import Store
from recbench.training.loop import Job, Watcher, fit
from recbench.training.precision import refuse_unfit, stepping
from recbench.training.settings import Settings, stage_settings
from tests.elsewhere import CUDA, Elsewhere
from tests.generators.spelled import GENERATORS, small
from tests.reasoning.test_heads import N_ITEMS, USERS, context, stages_that_run
from tests.systems import CPU, histories, item_losses, neural_backbones, queries, small_system, training_rows
from tests.training.test_learning import ITEMS, two_back
from tests.training.test_losses import system

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def batch_of(model: ItemRecommender, device: torch.device = CPU) -> Any:
    rows = training_rows(model, USERS)
    return next(rows.batches(1_000, np.random.default_rng(0), device))


# --- elsewhere ----------------------------------------------------------------------------------------------------------


def step(model: ItemRecommender | GeneratorRecommender, stage: Stage, device: torch.device) -> dict[str, float]:
    """The losses of one batch, forward and backward."""
    model = copy.deepcopy(model)
    told = context(model, stage)
    model = model.to(device)
    told.generator = torch.Generator(device).manual_seed(1)
    if told.reference is not None:
        told.reference = told.reference.to(device)
    model.begin(told)
    terms = model.losses(batch_of(model, device), told)
    torch.stack(list(terms.values())).sum().backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert all(grad.device.type == device.type and grad.isfinite().all() for grad in grads)
    return {name: term.item() for name, term in terms.items()}


def agree(model: ItemRecommender | GeneratorRecommender) -> None:
    """Training steps and rankings elsewhere are those of the host."""
    for module in model.modules():
        if isinstance(getattr(module, "p", None), float):
            module.p = 0.0  # elsewhere, dropout draws in another order
    asked = queries(USERS)
    for stage in stages_that_run(model):
        here = step(model.train(), stage, CPU)
        with Elsewhere():
            there = step(model, stage, CUDA)
        assert there == pytest.approx(here, rel=1e-4, abs=1e-5), stage.name
    ranks = evaluate(model, asked, CPU, top=5)
    with Elsewhere():
        found = evaluate(copy.deepcopy(model).to(CUDA), asked, CUDA, top=5)
    for name in ("above", "tied", "above_unseen", "tied_unseen", "top_items"):
        assert np.array_equal(getattr(found, name), getattr(ranks, name)), name


@pytest.mark.parametrize("backbone", neural_backbones())
@pytest.mark.parametrize("head", HEADS.entries())
def test_elsewhere_every_backbone_trains_and_ranks_as_on_the_host(head: str, backbone: str) -> None:
    agree(system("softmax", head, backbone))


@pytest.mark.parametrize("loss", [loss for loss in item_losses() if loss != "softmax"])
@pytest.mark.parametrize("head", HEADS.entries())
def test_elsewhere_every_loss_is_that_of_the_host(head: str, loss: str) -> None:
    agree(system(loss, head))


@pytest.mark.parametrize("head", ["diffuse", "lares", "lasar"])
def test_elsewhere_a_run_goes_through_all_its_stages_and_is_ranked_again(
    head: str, tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {
        "get_device_name": "a GPU",
        "max_memory_allocated": 2**20,
        "reset_peak_memory_stats": None,
        "synchronize": None,
    }
    for name, value in known.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    monkeypatch.setattr(torch.random, "fork_rng", lambda _: contextlib.nullcontext())
    small = ["backbone.width=8", "train.batch_size=400", "train.epochs=2"]
    if head == "lasar":  # which leaves rl out where align is not kept
        small += [
            "train.ground.learning_rate=1e-6",
            "train.align.epochs=2",
            "train.align.learning_rate=0.01",
            "train.rl.epochs=1",
        ]
    table = Asked("sasrec", head, "tiny", None, parse_assignments(small)).table()
    dataset = open_dataset("tiny", tiny_home)
    with Elsewhere():
        order = Order(dataset, resolve(table, dataset.card.family), 0, tmp_path, CUDA)
        done = experiment.run(order, Watcher())[0]
        assert rank_again(done, tiny_home, CUDA)[1] == 0
    assert done.manifest.stages == [stage.name for stage in small_system("sasrec", head).stages]
    assert rank_again(done, tiny_home, CPU)[1] == 0


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("head", HEADS.entries())
def test_elsewhere_items_are_spelled_as_on_the_host(head: str, generator: str) -> None:
    agree(small(generator, head))


# --- bfloat16 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", item_losses())
def test_scores_stay_in_float32_where_the_encoder_runs_in_bfloat16(loss: str) -> None:
    model = system(loss, "none")
    model.begin(context(model, model.stages[0]))
    u = torch.randn(9, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    target = torch.arange(1, 10)
    z = torch.stack([u, -u], dim=1)

    def told(u: Tensor, z: Tensor) -> list[Tensor]:
        score = model.score
        with score.step(torch.Generator().manual_seed(2), target):
            mix = torch.tensor([[0.5, 0.5]])
            made = [score.loss(u, target), *score.pooled(z, target, mix_MK=mix, divergence=0.1)]
        return [*made, score.log_prob(u, target[:, None]), *score.place(u, target), score.top(u, 3)]

    whole = told(u.float(), z.float())
    with torch.autocast("cpu", torch.bfloat16):
        coarse = told(u, z)
    for one, other in zip(whole, coarse, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("backbone", neural_backbones())
@pytest.mark.parametrize("head", HEADS.entries())
def test_every_head_trains_in_bfloat16_to_nearly_the_loss_of_float32(head: str, backbone: str) -> None:
    model = small_system(backbone, head, N_ITEMS, dropout=0.0, attention_dropout=0.0)
    for stage in stages_that_run(model):
        found = []
        for coarse in (False, True):
            told = context(model, stage)
            model.begin(told)
            model.zero_grad()
            torch.manual_seed(5)
            with torch.autocast("cpu", torch.bfloat16, enabled=coarse):
                terms = model.train().losses(batch_of(model), told)
            total = torch.stack([term.float() for term in terms.values()]).sum()
            total.backward()
            assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
            assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)
            found.append(total.item())
        assert found[1] == pytest.approx(found[0], rel=0.1, abs=0.1), stage.name


def trained(device: torch.device, folder: Path, **settings: object) -> tuple[ItemRecommender, float]:
    torch.manual_seed(3)
    model = small_system("sasrec", "none", ITEMS, width=16, dropout=0.0, attention_dropout=0.0).to(device)
    table = {"epochs": 15, "batch_size": 200, "learning_rate": 0.01, "patience": 30, **settings}
    asked = queries(two_back(60, 2), "valid")
    job = Job(histories(two_back(150, 1)), asked, stage_settings(table, model.stages), 0, device, folder, Watcher())
    fit(model, job, Store(folder / "state"))
    return model, evaluate(model, queries(two_back(60, 4)), device).means(["hr@1"])["hr@1"]


def test_the_loop_trains_in_bfloat16_and_leaves_weights_in_float32(tmp_path: Path) -> None:
    model, hits = trained(CPU, tmp_path, precision="bf16")
    assert hits > 0.8
    assert all(p.dtype == torch.float32 for p in model.parameters())
    (tmp_path / "plain").mkdir()
    plain, _ = trained(CPU, tmp_path / "plain")
    assert not torch.equal(plain.backbone.item_vectors(), model.backbone.item_vectors())


@pytest.mark.parametrize(("release", "cached"), [("2.6.0+cu124", False), ("2.10.1", False), ("2.11.0", True)])
def test_casts_of_weights_are_kept_only_where_they_keep_their_gradients(
    release: str, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path is drawn without gradient and then scored with one: of older releases the denoiser would get none."""
    monkeypatch.setattr(torch, "__version__", release)
    with stepping(Settings(precision="bf16"), CPU):
        assert torch.is_autocast_cache_enabled() == cached


def test_weights_drawn_with_before_they_are_trained_get_their_gradients() -> None:
    model = small_system("sasrec", "diffuse", N_ITEMS, changes={"grpo_when": "after"}, dropout=0.0)
    torch.nn.init.normal_(model.head.denoiser.leave.weight)  # at 0 it hides what is before it
    told = context(model, model.stages[1])
    with stepping(Settings(precision="bf16"), CPU):
        terms = model.train().losses(batch_of(model), told)
    terms["grpo"].backward()
    assert list(terms) == ["grpo"]
    reached = {name for name, p in model.head.denoiser.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"enter.weight", "leave.weight", "blocks.0.inner.weight"} <= reached


def test_a_system_in_float32_keeps_all_of_its_digits_on_a_gpu(tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default: of recurrences, not of products
    dataset = open_dataset("tiny", tiny_home)
    new_model(resolve({"backbone": {"name": "gru4rec"}}, dataset.card.family), dataset, CPU)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_bfloat16_is_refused_where_it_does_not_pay() -> None:
    refuse_unfit({"train": Settings()}, CPU)
    with pytest.raises(RecbenchError, match="bf16 cannot be used on cpu") as refused:
        refuse_unfit({"one": Settings(), "two": Settings(precision="bf16")}, CPU)
    assert refused.value.code == Exit.USAGE
    assert "train.precision=float32" in refused.value.fix


# --- with a GPU ---------------------------------------------------------------------------------------------------------


@GPU
@pytest.mark.parametrize("head", HEADS.entries())
@pytest.mark.parametrize("loss", item_losses())
def test_losses_on_a_gpu_are_finite_and_without_draws_those_of_the_cpu(loss: str, head: str) -> None:
    found = []
    for device in (CPU, torch.device("cuda")):
        model = system(loss, head, dropout=0.0, attention_dropout=0.0).to(device)
        told = context(model, model.stages[0])
        told.generator = torch.Generator(device=device).manual_seed(1)
        model.begin(told)
        terms = model.train().losses(batch_of(model, device), told)
        torch.stack(list(terms.values())).sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        found.append(terms["next_item"].item() if "next_item" in terms else terms["plain"].item())
    if loss in ("softmax", "in-batch") and head in ("none", "pause"):
        assert found[1] == pytest.approx(found[0], rel=1e-3)


@GPU
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_training_on_a_gpu_learns_and_ranks_as_the_cpu_does(precision: str, tmp_path: Path) -> None:
    model, hits = trained(torch.device("cuda"), tmp_path, precision=precision)
    assert hits > 0.8
    asked = queries(two_back(60, 4))
    there = evaluate(model, asked, torch.device("cuda"))
    here = evaluate(model.to(CPU), asked, CPU)
    assert (there.above == here.above).mean() > 0.98
