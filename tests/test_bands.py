"""Bands: what lies where, what a gate stops, which dataset is meant, and what the shipped file holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from recbench.bands import Band, Bands, Held, verdict
from recbench.data.catalog import cards
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.metrics import parse
from recbench.registry import LOSSES
from recbench.settings import CLOSED_FORM
from tests.systems import item_losses

TEXT = """
[datasets.small]
title = "A small one"
sequence_sha256 = "{hash}"
split = "leave-one-out"

[[bands]]
dataset = "small"
backbone = "sasrec"
loss = "softmax over all items"
candidates = "all"
gate = "{gate}"
metrics = {{ "hr@10" = [{low}, 0.5], "ndcg@10" = [0.2, 0.3] }}
source = "somebody"
"""
HASH = "ab" * 32


def band(gate: Any = "yes", low: float = 0.4, high: float = 0.5) -> Band:
    return Band("small", "sasrec", "softmax over all items", "all", "hr@10", low, high, gate, "somebody")


def written(path: Path, **changes: object) -> Bands:
    file = path / "bands.toml"
    file.write_text(TEXT.format(**{"hash": HASH, "gate": "yes", "low": 0.4, **changes}))
    return Bands.read(file)


@pytest.mark.parametrize(
    ("value", "place"),
    [(0.3999, "below"), (0.4, "inside"), (0.45, "inside"), (0.5, "inside"), (0.5001, "above"), (math.nan, "below")],
)
def test_the_ends_belong_to_a_band_and_nan_to_none(value: float, place: str) -> None:
    assert band().place(value) == place


@pytest.mark.parametrize(
    ("gate", "value", "failed"),
    [
        ("yes", 0.3, True),
        ("yes", 0.6, True),
        ("yes", 0.45, False),
        ("floor", 0.3, True),
        ("floor", 0.6, False),
        ("no", 0.3, False),
        ("no", 0.6, False),
        ("yes", math.nan, True),
    ],
)
def test_a_gate_stops_both_sides_a_floor_one_and_no_gate_none(gate: str, value: float, failed: bool) -> None:
    assert Held(band(gate), (value,)).failed is failed


def test_the_mean_over_seeds_counts() -> None:
    held = Held(band(), (0.35, 0.45, 0.43))  # mean 0.41, one seed below
    assert held.mean == pytest.approx(0.41)
    assert not held.failed
    assert Held(band(), (0.35, 0.45, 0.39)).failed  # mean 0.3967


def test_one_failed_gate_fails_and_bands_without_gates_neither_pass_nor_fail() -> None:
    inside, outside, told = Held(band(), (0.45,)), Held(band(), (0.6,)), Held(band("no"), (0.6,))
    assert verdict([inside, told]) == "pass"
    assert verdict([inside, outside, told]) == "fail"
    assert verdict([told, told]) == "no gate"


def test_a_file_of_bands_is_read_one_band_a_metric(tmp_path: Path) -> None:
    bands = written(tmp_path)
    reference = bands.reference("mine", HASH, "leave-one-out")
    assert (reference.name, reference.title) == ("small", "A small one")
    found = bands.of(reference, "sasrec", "softmax over all items")
    assert [(one.metric, one.low, one.high) for one in found] == [("hr@10", 0.4, 0.5), ("ndcg@10", 0.2, 0.3)]


@pytest.mark.parametrize(("sequence", "split"), [("cd" * 32, "leave-one-out"), (HASH, "temporal")])
def test_another_dataset_of_the_same_name_is_refused(sequence: str, split: str, tmp_path: Path) -> None:
    with pytest.raises(RecbenchError, match="No reference band is about this small") as refused:
        written(tmp_path).reference("small", sequence, split)
    assert refused.value.code == Exit.DATA
    assert HASH[:12] in refused.value.why


def test_another_loss_is_another_model(tmp_path: Path) -> None:
    bands = written(tmp_path)
    with pytest.raises(RecbenchError, match="BCE") as refused:
        bands.of(bands.reference("small", HASH, "leave-one-out"), "sasrec", "BCE, 1 uniform negative")
    assert "sasrec (softmax over all items)" in refused.value.why


@pytest.mark.parametrize("changes", [{"gate": "maybe"}, {"low": 0.6}, {"low": '"x"'}, {"hash": '"'}])
def test_a_file_that_makes_no_sense_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(RecbenchError, match="cannot be read as reference bands") as refused:
        written(tmp_path, **changes)
    assert refused.value.code == Exit.USAGE
    with pytest.raises(RecbenchError, match="cannot be read as reference bands"):
        Bands.read(tmp_path / "nowhere.toml")


def test_shipped_bands_name_datasets_metrics_and_losses_that_exist(tmp_path: Path) -> None:
    bands = Bands.read()
    known = {card.name: card.sequence_sha256 for card in cards(tmp_path)}
    for reference in bands.references:
        assert reference.sequence_sha256 == known[reference.name]
    import torch

    table = torch.zeros(1000, 2)
    losses = {LOSSES.load(name)(lambda: table).name for name in item_losses()} | {CLOSED_FORM}
    for one in bands.bands:
        assert one.dataset in {reference.name for reference in bands.references}
        assert one.loss in losses
        assert parse(one.metric)
        assert 0 < one.low < one.high < 1
        assert one.source
    names = [(one.dataset, one.backbone, one.loss, one.candidates, one.metric) for one in bands.bands]
    assert len(set(names)) == len(names)


def test_the_measured_seeds_of_sasrec_pass_its_gates() -> None:
    """Seeds 0, 1, 2 of results/beauty.md."""
    measured = {
        ("all", "hr@10"): (0.0815, 0.0842, 0.0848),
        ("all", "ndcg@10"): (0.0403, 0.0416, 0.0419),
        ("unseen", "hr@10"): (0.0905, 0.0918, 0.0924),
        ("unseen", "ndcg@10"): (0.0547, 0.0569, 0.0565),
    }
    bands = Bands.read()
    gated = bands.of(bands.references[0], "sasrec", "softmax over all items")
    assert {(one.candidates, one.metric) for one in gated} == set(measured)
    assert verdict([Held(one, measured[one.candidates, one.metric]) for one in gated]) == "pass"
    # S3-Rec's one-negative SASRec (0.0605 / 0.0318 unseen) would not pass for one trained with cross-entropy
    unseen = [one for one in gated if one.candidates == "unseen"]
    assert all(Held(one, ({"hr@10": 0.0605, "ndcg@10": 0.0318}[one.metric],)).failed for one in unseen)
