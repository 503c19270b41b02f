"""Fit for a GPU: nothing is made on the wrong device, bfloat16 stays out of scores, and with a GPU at hand, whole training."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from recbench.errors import Exit, RecbenchError
from recbench.evaluation.evaluate import evaluate
from recbench.recommender import Ask, ItemRecommender, Seen
from recbench.registry import HEADS
from recbench.training.checkpoint import Store
from recbench.training.loop import Job, Watcher, fit
from recbench.training.precision import refuse_unfit
from recbench.training.settings import Settings, stage_settings
from tests.reasoning.test_heads import N_ITEMS, USERS, context, stages_that_run
from tests.systems import CPU, histories, item_losses, neural_backbones, packed, queries, small_system, training_rows
from tests.training.test_learning import ITEMS, two_back
from tests.training.test_losses import SETTINGS, system

MAKERS = {
    getattr(torch, name)
    for name in ("zeros", "ones", "empty", "full", "arange", "rand", "randn", "randint", "randperm", "tensor", "eye")
}
HOST = {
    ("dropout.py", "drop"): "the branch for CPUs",
    ("packing.py", "causal"): "the branch for CPUs",
    ("rearec_erl.py", "losses"): "weights of mixtures, read as numbers",
    ("anchors.py", "_rotation"): "drawn on the host, then moved",
    ("lares.py", "_pretrain"): "a number for the log",
    ("lares.py", "_reinforce"): "a number for the log",
}
"""Functions that may make a tensor without naming a device."""
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class Homeless(TorchFunctionMode):
    """Notes who makes a tensor without naming its device: beside a GPU it would lie on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in MAKERS and kwargs.get("device") is None:
            maker = traceback.extract_stack(limit=2)[0]
            self.found.add((Path(maker.filename).name, maker.name))
        return func(*args, **kwargs)


def homeless(work: Callable[[], object]) -> set[tuple[str, str]]:
    watching = Homeless()
    with watching:
        work()
    return watching.found - set(HOST)


def batch_of(model: ItemRecommender, device: torch.device = CPU) -> Any:
    rows = training_rows(model, USERS)
    return next(rows.batches(1_000, np.random.default_rng(0), device))


@pytest.mark.parametrize("backbone", neural_backbones())
@pytest.mark.parametrize("head", HEADS.entries())
def test_every_tensor_of_a_training_step_names_its_device(head: str, backbone: str) -> None:
    for loss in SETTINGS:
        model = system(loss, head, backbone).train()
        for stage in stages_that_run(model):
            told, batch = context(model, stage), batch_of(model)

            def step(model: ItemRecommender = model, told: Any = told, batch: Any = batch) -> None:
                model.begin(told)
                torch.stack(list(model.losses(batch, told).values())).sum().backward()

            assert not homeless(step)


@pytest.mark.parametrize("backbone", neural_backbones())
@pytest.mark.parametrize("head", HEADS.entries())
def test_every_tensor_of_a_ranking_names_its_device(head: str, backbone: str) -> None:
    model = small_system(backbone, head).eval()
    batch = packed([[1], [2, 3], [4, 5, 6]], at=[0, 2, 5])
    seen = Seen(torch.tensor([1, 2, 3, 4, 5, 6]), torch.tensor([0, 1, 1, 2, 2, 2]))
    assert not homeless(lambda: model.ranks(batch, Ask(seen, top=5, top_unseen=True)))


def test_a_tensor_without_a_device_is_found() -> None:
    def careless() -> Tensor:
        return torch.ones(3, device="cpu") + torch.zeros(3)

    assert homeless(careless) == {("test_devices.py", "careless")}
    assert not homeless(lambda: torch.zeros(3, device="cpu"))


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
