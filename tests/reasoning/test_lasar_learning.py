"""LASAR trained whole: what thoughts make learnable, and what they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbench.evaluation.evaluate import evaluate
from recbench.recommender import ItemRecommender
from recbench.training.checkpoint import Store
from recbench.training.loop import Job, Start, Watcher, fit
from recbench.training.seeding import seed_everything
from recbench.training.settings import stage_settings
from tests.reasoning.test_lasar import STILL
from tests.systems import CPU, histories, queries, small_system


def two_hops(users: int, seed: int, noise: bool = False) -> list[list[int]]:
    """Items 1..20 in a drawn order; each next item is the one two further than the last item points to."""
    random = np.random.default_rng(seed)
    step = np.random.default_rng(7).permutation(20)
    rows = []
    for _ in range(users):
        row = [int(random.integers(20))]
        for _ in range(5):
            row.append(int(random.integers(20)) if noise else int(step[step[row[-1]]]))
        rows.append([item + 1 for item in row])
    return rows


def trained(folder: Path, rows: list[list[int]], asked: list[list[int]], **head: Any) -> ItemRecommender:
    seed_everything(3)
    model = small_system("sasrec", "lasar", 20, width=16, changes=head, **STILL)
    table = {"epochs": 10, "batch_size": 60, "learning_rate": 0.02, "patience": 10}
    own = {"align": {"learning_rate": 0.01, "epochs": 10, "patience": 10}, "rl": {"epochs": 2, "learning_rate": 1e-3}}
    names = {stage.name for stage in model.stages}
    settings = stage_settings(table | {name: own[name] for name in own if name in names}, model.stages)
    folder.mkdir(exist_ok=True)
    job = Job(histories(rows, times=True), queries(asked, "valid"), settings, 0, CPU, folder, Watcher())
    fit(model, job, Store(folder / "state"))
    return model


def test_a_rule_is_learned_in_one_stage_of_thoughts(tmp_path: Path) -> None:
    asked = two_hops(60, 2)
    model = trained(tmp_path, two_hops(60, 1), asked, skip=("ground", "rl"), cuts=0)
    assert bool(model.head.thinks)
    assert evaluate(model, queries(asked), CPU).means(["hr@1"])["hr@1"] > 0.6  # chance is 0.05


PLACES = 6


def pointers(users: int, seed: int, *, mixed: bool) -> list[list[int]]:
    """Rows whose first six items each name a place among them, so that they make a ring; then questions, each with its answer.

    A question (items 7..12) names a place, and the item there follows; or it asks for two hops (13..18), and what follows is the
    item at the place that the item there names. One layer of attention can look once.

    Args:
        mixed: six questions of both kinds; else one of two hops.
    """
    random, rows = np.random.default_rng(seed), []
    for _ in range(users):
        ring = random.permutation(PLACES)
        points = np.empty(PLACES, dtype=int)
        points[ring] = np.roll(ring, -1)
        row = [1 + int(place) for place in points]
        for place in random.permutation(PLACES)[: PLACES if mixed else 1]:
            two = not mixed or random.random() < 0.5
            row += [1 + int(place) + PLACES * (1 + two), 1 + int(points[points[place]] if two else points[place])]
        rows.append(row)
    return rows


def hopper(**head: object) -> ItemRecommender:
    """A network of one layer that was not taught to think."""
    sizes = {"width": 32, "inner": 32, "n_layers": 1, "max_length": 3 * PLACES, "norm": "pre"}
    changes = {"depth": "fixed", "align": "none", "cuts": 0, "skip": ("rl",), **head}
    model = small_system("sasrec", "lasar", 3 * PLACES, changes=changes, **sizes, **STILL)
    model.head.thinks.fill_(False)
    return model


def hopping(
    folder: Path, model: ItemRecommender, start: Start | None = None, until: str | None = None, epochs: int = 9
) -> float:
    """Share of unseen questions of two hops that the model answers once it is trained."""
    table = {"batch_size": 300, "learning_rate": 0.005, "epochs": 5, "patience": 99}
    settings = stage_settings(table | {"align": table | {"epochs": epochs}}, model.stages)
    rows, asked = histories(pointers(1000, 1, mixed=True), times=True), pointers(200, 2, mixed=False)
    folder.mkdir(exist_ok=True)
    job = Job(rows, queries(asked, "valid"), settings, 0, CPU, folder, Watcher(), start, until)
    fit(model, job, Store(folder / "state"))
    return evaluate(model, queries(asked), CPU).means(["hr@1"])["hr@1"]


@pytest.fixture(scope="module")
def one_hop(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """What all arms go on from: the plain network, after it has met the questions."""
    model = hopper()
    hopping(tmp_path_factory.mktemp("ground"), model, until="ground")
    plain = {name: tensor.clone() for name, tensor in model.tensors().items() if name.startswith("backbone.")}
    return Start(plain, ("ground",), backbone_only=True)


def test_a_rule_of_two_hops_is_learned_by_two_thoughts_and_not_without(one_hop: Start, tmp_path: Path) -> None:
    """The network can look once, so who looks a second time has been told by a thought what the first look found."""
    assert hopping(tmp_path / "two", hopper(fixed_depth=2), one_hop) > 0.9
    assert hopping(tmp_path / "none", hopper(fixed_depth=0), one_hop) < 0.6


def test_a_token_behind_two_thoughts_answers_for_them(one_hop: Start, tmp_path: Path) -> None:
    assert hopping(tmp_path, hopper(fixed_depth=2, readout="end"), one_hop, epochs=14) > 0.9


def test_thoughts_that_are_told_nothing_learn_no_second_hop(one_hop: Start, tmp_path: Path) -> None:
    assert hopping(tmp_path, hopper(fixed_depth=2, feed="constant"), one_hop) < 0.6


def test_nothing_is_learned_from_noise(tmp_path: Path) -> None:
    asked = two_hops(200, 2, noise=True)
    model = trained(tmp_path, two_hops(60, 1, noise=True), asked)
    for steps in (None, 0, 4):
        assert evaluate(model, queries(asked), CPU, steps=steps).means(["hr@1"])["hr@1"] < 0.12
