"""``recbench verify-model`` on the tiny synthetic set with bands made for it: trains, takes, passes, fails, refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from recbench.bands import Band, Held
from recbench.cli import render, verify_model
from recbench.cli.app import run
from recbench.data.card import Card

Captured = pytest.CaptureFixture[str]
BAND = """
[[bands]]
dataset = "synthetic"
backbone = "{backbone}"
loss = "{loss}"
candidates = "{candidates}"
gate = "{gate}"
metrics = {{ "hr@10" = [{low}, {high}] }}
source = "made up for this test"
"""


@pytest.fixture(scope="module")
def home(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny dataset."""
    home = tmp_path_factory.mktemp("verify")
    shutil.copytree(tiny_home, home / "datasets")
    return home


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def bands(home: Path, *entries: dict[str, Any]) -> str:
    card = Card.read(home / "datasets" / "tiny")
    head = f'[datasets.synthetic]\ntitle = "200 made users"\nsplit = "leave-one-out"\nsequence_sha256 = "{card.sequence_sha256}"\n'
    plain = {"backbone": "popularity", "loss": "closed form", "candidates": "all", "gate": "yes", "low": 0, "high": 1}
    path = home / "bands.toml"
    path.write_text(head + "".join(BAND.format(**plain | entry) for entry in entries))
    return str(path)


def verify(home: Path, backbone: str, *entries: dict[str, Any], more: tuple[str, ...] = ()) -> int:
    return run(
        ["verify-model", backbone, "--dataset", "tiny", "--bands", bands(home, *entries), "--device", "cpu", *more]
    )


def popularity_hits(home: Path, capsys: Captured) -> float:
    assert verify(home, "popularity", {}, more=("--json",)) == 0
    value: float = json.loads(capsys.readouterr().out)["bands"][0]["mean"]
    return value


def test_a_value_inside_its_band_passes_with_its_source(home: Path, capsys: Captured) -> None:
    value = popularity_hits(home, capsys)
    assert verify(home, "popularity", {"low": value - 0.01, "high": value + 0.01}) == 0
    said = capsys.readouterr()
    assert "pass: every gated value lies in its band" in said.out
    assert "made up for this test" in said.out
    assert "200 made users" in said.out
    assert "taken as they are: runs/tiny-popularity-none-s0" in said.err


@pytest.mark.parametrize("side", ["below", "above"])
def test_a_value_outside_fails_with_exit_code_4_and_both_numbers(home: Path, capsys: Captured, side: str) -> None:
    value = popularity_hits(home, capsys)
    low = value + 0.1 if side == "below" else value / 4
    assert verify(home, "popularity", {"low": low, "high": low + value / 4}) == 4
    said = capsys.readouterr()
    assert f"HR@10 among all items is {value:.4f}, {side} {low:.4f}-{low + value / 4:.4f}" in said.err
    assert "recbench show" in said.err
    assert "fail:" in said.out


def test_no_gate_is_told_and_not_failed(home: Path, capsys: Captured) -> None:
    assert verify(home, "popularity", {"low": 0.99, "high": 1, "gate": "no"}) == 0
    assert "no gate" in capsys.readouterr().out


def test_both_candidate_rules_have_their_own_values(home: Path, capsys: Captured) -> None:
    assert verify(home, "popularity", {}, {"candidates": "unseen"}, more=("--json",)) == 0
    told = json.loads(capsys.readouterr().out)
    everything, unseen = told["bands"]
    assert unseen["mean"] > everything["mean"] > 0
    manifest = json.loads((home / told["runs"][0] / "run.json").read_text())
    assert unseen["mean"] == pytest.approx(manifest["metrics"]["test_unseen"]["hr@10"])


def test_the_shipped_config_is_trained_and_its_finished_runs_are_taken(
    home: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = {"train": {"epochs": 1}, "backbone": {"width": 8, "inner": 16}}
    monkeypatch.setattr("recbench.settings.recipe", lambda _, name: shipped if name == "sasrec" else {})
    entry = {"backbone": "sasrec", "loss": "softmax over all items"}
    assert verify(home, "sasrec", entry, more=("--seeds", "0,1", "--json")) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["runs"] == ["runs/tiny-sasrec-none-s0", "runs/tiny-sasrec-none-s1"]
    assert len(first["bands"][0]["values"]) == 2
    Path("runs/tiny-sasrec-none-s0").rename("runs/renamed")
    before = Path("runs/renamed/run.json").read_bytes()
    assert verify(home, "sasrec", entry, more=("--seeds", "0,1,2", "--json")) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["runs"] == ["runs/renamed", "runs/tiny-sasrec-none-s1", "runs/tiny-sasrec-none-s2"]
    assert again["bands"][0]["values"][:2] == first["bands"][0]["values"]
    assert Path("runs/renamed/run.json").read_bytes() == before
    assert not Path("runs/tiny-sasrec-none-s0").exists()
    entry = {"backbone": "sasrec", "loss": "BCE, 1 uniform negative"}
    assert verify(home, "sasrec", entry, more=("--seeds", "0", "--loss", "bce", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["loss"] == "BCE, 1 uniform negative"
    assert told["runs"] == ["runs/tiny-sasrec-none-s0"]  # a seed 0 of another config lies there, too, and is not taken


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["popularity", "--dataset", "tiny"], 3, "No reference band is about this tiny"),
        (["popularty", "--dataset", "tiny", "--bands", "bands.toml"], 2, "Did you mean popularity?"),
        (
            ["markov", "--dataset", "tiny", "--bands", "bands.toml"],
            2,
            "No reference band for markov with loss closed form",
        ),
        (
            ["popularity", "--dataset", "tiny", "--bands", "bands.toml", "--loss", "bce"],
            2,
            "takes no setting loss.name",
        ),
        (["popularity", "--dataset", "tiny", "--bands", "nowhere.toml"], 2, "cannot be read as reference bands"),
        (["popularity", "--dataset", "tiny", "--bands", "bands.toml", "--seeds", "x"], 2, "--seeds 'x' cannot be read"),
    ],
)
def test_what_cannot_be_verified_is_refused_before_training(
    args: list[str], code: int, words: str, home: Path, capsys: Captured
) -> None:
    bands(home, {})
    assert run(["verify-model", *args]) == code
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""


def test_a_narrow_terminal_goes_without_seeds_and_keeps_the_candidates(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        render, "out", Console(highlight=False, soft_wrap=True, force_terminal=True, color_system=None, width=80)
    )
    told = {"system": "sasrec", "dataset": {"name": "tiny"}, "loss": "softmax over all items"}
    runs: list[Any] = [SimpleNamespace(manifest=SimpleNamespace(seed=seed, **told)) for seed in range(3)]
    band = Band("tiny", "sasrec", "softmax over all items", "unseen", "ndcg@10", 0.1, 0.2, "yes", "made up")
    verify_model._show("pass", "made", runs, [Held(band, (0.11, 0.12, 0.13))])
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "unseen items   NDCG@10   0.1200   0.0100   0.1000-0.2000    yes   inside" in said.out
    assert "no room for seed 2, seed 1, seed 0; --json has them" in said.err
