"""What a finished run is good for: going on from it, and ranking again with other numbers of steps."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import nn

from recbench import experiment, trained
from recbench.config import merge, parse_assignments
from recbench.data.dataset import open_dataset
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.latency import latency
from recbench.evaluation.verify import verify
from recbench.experiment import Order
from recbench.runs.folder import Run
from recbench.settings import Asked, resolve
from recbench.training.checkpoint import read_tensors, write_tensors
from recbench.training.loop import Watcher
from tests.systems import CPU

SETTINGS = [
    "backbone.width=8",
    "backbone.inner=16",
    "train.batch_size=400",
    "train.learning_rate=0.01",
    "train.epochs=2",
    "train.rpt.epochs=2",
    "head.mean_steps=4",
    "head.filter_top=0",
    "head.rpt_positions=50",
]


def run(home: Path, runs: Path, *sets: str, **asked: Any) -> Run:
    """A small LARES run."""
    table = Asked(
        "sasrec",
        "lares",
        "tiny",
        None,
        merge(parse_assignments(SETTINGS), parse_assignments(sets)),
        asked.get("until"),
        asked.get("start"),
    ).table()
    dataset = open_dataset("tiny", home)
    return experiment.run(Order(dataset, resolve(table, dataset.card.family), 0, runs, CPU), Watcher())[0]


@pytest.fixture(scope="module")
def whole(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tiny_home, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def first_stage(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tiny_home, tmp_path_factory.mktemp("first"), until="spt")


def log(of: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (of.folder / "log.jsonl").read_text().splitlines()]


def test_two_stages_that_are_picked_by_two_metrics_are_refused(tiny_home: Path, tmp_path: Path) -> None:
    with pytest.raises(RecbenchError, match=r"train\.monitor is the same in all stages"):
        run(tiny_home, tmp_path, "train.rpt.monitor=hr@10")


def test_a_run_of_one_stage_says_so(first_stage: Run, whole: Run) -> None:
    assert first_stage.folder.name == "tiny-sasrec-lares-spt-s0"
    assert (first_stage.manifest.stages, whole.manifest.stages) == (["spt"], ["spt", "rpt"])
    assert {line["stage"] for line in log(first_stage)} == {"spt"}
    assert first_stage.manifest.config_sha256 != whole.manifest.config_sha256
    assert first_stage.config()["until"] == "spt"


def test_the_second_stage_from_a_run_of_the_first_equals_both_in_one_go(
    first_stage: Run, whole: Run, tiny_home: Path, tmp_path: Path
) -> None:
    second = run(tiny_home, tmp_path, start=str(first_stage.folder.parent / "tiny-sasrec-lares-spt-s{seed}"))
    assert (second.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    assert (second.folder / "users.parquet").read_bytes() == (whole.folder / "users.parquet").read_bytes()
    assert [line["losses"] for line in log(second)] == [line["losses"] for line in log(whole)[2:]]
    assert second.manifest.stages == ["spt", "rpt"]
    assert second.manifest.started_from["model_sha256"] == first_stage.manifest.files["model.safetensors"]
    first, own = first_stage.manifest.seconds["spt"], second.manifest.seconds["rpt"]
    assert second.manifest.training_seconds == own + first


def test_a_start_without_a_stage_left_is_refused(whole: Run, tiny_home: Path, tmp_path: Path) -> None:
    with pytest.raises(RecbenchError, match="leaves no stage"):
        run(tiny_home, tmp_path, start=str(whole.folder))
    assert not list(tmp_path.iterdir())


def test_a_start_of_other_sizes_is_refused(first_stage: Run, tiny_home: Path, tmp_path: Path) -> None:
    with pytest.raises(RecbenchError, match="another system") as refused:
        run(tiny_home, tmp_path, "backbone.width=16", start=str(first_stage.folder))
    assert "backbone.width: there 8, here 16" in refused.value.why


def test_a_start_trained_with_another_loss_is_refused_and_its_settings_are_told(
    first_stage: Run, tiny_home: Path, tmp_path: Path
) -> None:
    other = run(tiny_home, tmp_path / "first", "loss.name=gbce", "loss.negatives=16", until="spt")
    with pytest.raises(RecbenchError, match="another system") as refused:
        run(tiny_home, tmp_path / "second", start=str(other.folder))
    assert "loss.name: there gbce, here softmax; loss.negatives: there 16, here unset" in refused.value.why
    assert (
        refused.value.fix == "Go on with its settings: --set loss.name=gbce --set loss.negatives=16 --set loss.t=0.75"
    )
    with pytest.raises(RecbenchError, match="another system") as refused:
        run(tiny_home, tmp_path / "second", "loss.name=gbce", start=str(first_stage.folder))
    assert refused.value.fix == "Go on with its settings: --set loss.name=softmax without loss.negatives, loss.t"
    assert not (tmp_path / "second").exists()
    again = run(tiny_home, tmp_path / "second", "loss.name=gbce", "loss.negatives=16", start=str(other.folder))
    assert again.manifest.stages == ["spt", "rpt"]


def test_a_start_from_another_dataset_is_refused(first_stage: Run, tmp_path: Path) -> None:
    from recbench.data.prepare import Request, prepare

    prepare(Request(name="tiny", home=tmp_path / "d", source_format="synthetic", options={"users": "150"}))
    with pytest.raises(RecbenchError, match="trained on another dataset"):
        run(tmp_path / "d", tmp_path / "r", start=str(first_stage.folder))


def test_an_unfinished_start_is_refused(first_stage: Run, tiny_home: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    replace(first_stage.manifest, status="interrupted").write(broken)
    with pytest.raises(RecbenchError, match="interrupted, not finished") as refused:
        run(tiny_home, tmp_path, start=str(broken))
    assert refused.value.code == Exit.RUN


def test_any_number_of_steps_is_ranked_and_written(whole: Run, tiny_home: Path) -> None:
    found = trained.rank_at_steps(whole, [1, 4, 6], tiny_home, CPU)
    assert [one.at for one in found] == [1, 4, 6]
    configured = whole.ranks()
    np.testing.assert_array_equal(found[1].test.above, configured["above"])
    assert (found[0].test.above != found[2].test.above).any()
    counts = pd.read_parquet(whole.folder / "steps.parquet")
    assert len(counts) == 3 * 2 * 200
    assert counts.query("steps == 6 and split == 'test'")["above"].tolist() == found[2].test.above.tolist()
    table = pd.read_csv(whole.folder / "steps.csv")
    assert table["steps"].tolist() == [1, 4, 6]
    assert table["test_ndcg@10"][1] == pytest.approx(whole.manifest.metrics["test"]["ndcg@10"])
    assert (table[["ms_per_user", "latency_ms_batch_1", "latency_ms_batch_256"]] > 0).all(axis=None)


def test_steps_are_not_ranked_where_nothing_of_them_could_be_kept(
    whole: Run, tiny_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbench.trained.os.access", lambda path, _mode: path != whole.folder)
    monkeypatch.setattr("recbench.trained.load", lambda *_: pytest.fail("the work began"))
    with pytest.raises(RecbenchError, match="may not be written to") as refused:
        trained.rank_at_steps(whole, [1, 2], tiny_home, CPU)
    assert refused.value.code == Exit.RUN


def test_other_weights_than_a_run_states_are_refused_by_all_that_reads_them(
    first_stage: Run, tiny_home: Path, tmp_path: Path
) -> None:
    swapped = Run.open(Path(shutil.copytree(first_stage.folder, tmp_path / "swapped")))
    path = swapped.folder / "model.safetensors"
    write_tensors(path, {name: 2 * tensor for name, tensor in read_tensors(path).items()})  # sizes alone would not tell
    with pytest.raises(RecbenchError, match="safetensors is changed") as refused:
        trained.load(swapped, tiny_home, CPU)
    assert refused.value.code == Exit.RUN
    with pytest.raises(RecbenchError, match="safetensors is changed"):
        run(tiny_home, tmp_path / "runs", start=str(swapped.folder))


def test_weights_may_be_read_by_whoever_may_read_the_rest_of_a_run(whole: Run) -> None:
    modes = {(whole.folder / name).stat().st_mode for name in ("model.safetensors", "run.json", "users.parquet")}
    assert len(modes) == 1


@pytest.mark.parametrize(("stage", "rate"), [("spt", 0.2), ("rpt", 0.1), (None, 0.1)])
def test_draws_take_the_dropout_that_the_kept_weights_were_trained_with(
    stage: str | None, rate: float, whole: Run, tiny_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe's in stage spt, that of the stage's own settings in rpt; a run too old to say which counts as of its last."""
    rates = set()

    def evaluating(model: nn.Module, *_: object, dropout: bool) -> None:
        assert dropout
        rates.update(module.p for module in model.modules() if isinstance(module, nn.Dropout))

    monkeypatch.setattr(trained, "evaluate", evaluating)
    trained.rank_with_dropout(replace(whole, manifest=replace(whole.manifest, best_stage=stage)), 2, tiny_home, CPU)
    assert rates == {rate}


def test_draws_follow_train_dropout(tiny_home: Path, tmp_path: Path) -> None:
    off = ["backbone.dropout=0", "backbone.attention_dropout=0", "train.epochs=1"]
    none = run(tiny_home, tmp_path / "off", *off, until="spt")
    with pytest.raises(RecbenchError, match="draws nothing"):
        trained.rank_with_dropout(none, 2, tiny_home, CPU)
    some = run(tiny_home, tmp_path / "on", *off, "train.dropout=0.5", until="spt")
    one, other = trained.rank_with_dropout(some, 2, tiny_home, CPU)
    assert (one.above != other.above).any()


def test_a_run_tells_what_one_user_costs_and_what_its_stages_found(whole: Run, tiny_home: Path) -> None:
    assert set(whole.manifest.latency_ms) == {"1", "256"}
    assert min(whole.manifest.latency_ms.values()) > 0
    model, dataset = trained.load(whole, tiny_home, CPU)
    assert latency(model, dataset.queries("test"), 7, CPU, steps=2) > 0


def test_the_log_holds_what_a_head_noted(whole: Run) -> None:
    spt, rpt = log(whole)[0], log(whole)[-1]
    assert {"next_item", "tla", "sla", "total"} == set(spt["losses"])
    assert {"policy", "kl", "total"} == set(rpt["losses"])
    assert {"similarity@2", "steps"} <= set(spt["diagnostics"])
    assert {"reward_mean", "reward_variance", "no_signal", "kl"} <= set(rpt["diagnostics"])


def test_a_run_is_known_by_what_it_went_on_from_and_not_by_its_path(
    first_stage: Run, tiny_home: Path, tmp_path: Path
) -> None:
    copies = {}
    for number, name in enumerate(("one", "two")):
        copies[name] = tmp_path / name / f"spt-s{number}"
        shutil.copytree(first_stage.folder, copies[name])
    runs = [run(tiny_home, tmp_path / f"runs-{name}", start=str(copies[name])) for name in copies]
    assert runs[0].config()["from"] != runs[1].config()["from"]
    assert runs[0].manifest.config_sha256 == runs[1].manifest.config_sha256
    assert runs[0].manifest.started_from["config_sha256"] == first_stage.manifest.config_sha256
    other = replace(first_stage.manifest, config_sha256="0" * 64)
    other.write(copies["one"])
    elsewhere = run(tiny_home, tmp_path / "runs-three", start=str(copies["one"]))
    assert elsewhere.manifest.config_sha256 != runs[0].manifest.config_sha256
    findings = {finding.what: finding for finding in verify(runs[0], tiny_home)}
    assert findings["settings"].holds, findings["settings"]


def test_auto_takes_no_device_without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are summed in it; Apple's GPUs have none."""
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert trained.pick_device("auto") == CPU
    with pytest.raises(RecbenchError, match="mps cannot be used"):
        trained.pick_device("mps")
