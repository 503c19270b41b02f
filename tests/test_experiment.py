"""A run from config to evidence: killed, stopped, failed, resumed, loaded again."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from recbench import experiment, trained
from recbench.config import parse_assignments
from recbench.data.dataset import Dataset, open_dataset
from recbench.data.prepare import Request, prepare
from recbench.errors import Exit, RecbenchError
from recbench.experiment import Order
from recbench.runs.folder import Run
from recbench.settings import Asked, resolve
from recbench.training.checkpoint import write_tensors
from recbench.training.loop import Watcher
from tests.interrupted import Stopper, killed
from tests.systems import CPU

SMALL = ["backbone.width=8", "backbone.inner=16", "train.epochs=3", "train.batch_size=400", "train.learning_rate=0.01"]


def order(
    tiny_home: Path, runs: Path, *sets: str, backbone: str = "sasrec", seed: int = 0, resume: bool = False
) -> Order:
    table = Asked(backbone, "none", "tiny", None, parse_assignments(SMALL if backbone == "sasrec" else [])).table()
    table = Asked(assignments=parse_assignments(sets)).table() if not table else _with(table, sets)
    dataset = open_dataset("tiny", tiny_home)
    return Order(dataset, resolve(table, dataset.card.family), seed, runs, CPU, resume)


def _with(table: dict[str, Any], sets: tuple[str, ...]) -> dict[str, Any]:
    from recbench.config import merge

    return merge(table, parse_assignments(sets))


def done(asked: Order, watcher: Watcher | None = None) -> Run:
    return experiment.run(asked, watcher or Watcher())[0]


@pytest.fixture(scope="module")
def whole(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run."""
    return done(order(tiny_home, tmp_path_factory.mktemp("runs")))


def kill_at_replacement(number: int) -> None:
    """From now on the ``number``-th file to be put in place kills this process just before."""
    replace, seen = Path.replace, [0]

    def counting(self: Path, target: Path) -> Path:
        seen[0] += 1
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    Path.replace = counting  # type: ignore[method-assign,assignment]


def same_numbers(one: Run, other: Run) -> None:
    assert (one.folder / "users.parquet").read_bytes() == (other.folder / "users.parquet").read_bytes()
    assert (one.folder / "model.safetensors").read_bytes() == (other.folder / "model.safetensors").read_bytes()
    pd.testing.assert_frame_equal(
        pd.read_parquet(one.folder / "topk.parquet"), pd.read_parquet(other.folder / "topk.parquet")
    )
    curves = [
        [
            (line["epoch"], line["losses"], line["valid"])
            for line in map(json.loads, (run.folder / "log.jsonl").read_text().splitlines())
        ]
        for run in (one, other)
    ]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13])
def test_killed_while_any_file_is_written_a_resumed_run_ends_with_the_same_numbers(
    number: int, whole: Run, tiny_home: Path, tmp_path: Path
) -> None:
    def work() -> None:
        kill_at_replacement(number)
        done(order(tiny_home, tmp_path))

    assert killed(work)
    same_numbers(done(order(tiny_home, tmp_path, resume=True)), whole)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("step", [1, 4, 9])
def test_killed_inside_an_epoch_a_resumed_run_ends_with_the_same_numbers(
    step: int, whole: Run, tiny_home: Path, tmp_path: Path
) -> None:
    class Killer(Watcher):
        steps = 0

        def step(self, step_: int, steps: int, loss: float) -> None:
            self.steps += 1
            if self.steps == step:
                os.kill(os.getpid(), signal.SIGKILL)

    assert killed(lambda: done(order(tiny_home, tmp_path), Killer()))
    assert Run.open(tmp_path / whole.folder.name).manifest.status == "running"
    same_numbers(done(order(tiny_home, tmp_path, resume=True)), whole)


def test_ctrl_c_marks_the_run_interrupted_and_it_resumes_to_the_same_numbers(
    whole: Run, tiny_home: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        done(order(tiny_home, tmp_path), Stopper(2))
    stopped = Run.open(tmp_path / whole.folder.name)
    assert stopped.manifest.status == "interrupted"
    replace(stopped.manifest, started="2020-02-02T00:00:00+00:00").write(stopped.folder)
    resumed = done(order(tiny_home, tmp_path, resume=True))
    assert resumed.manifest.started == "2020-02-02T00:00:00+00:00"
    same_numbers(resumed, whole)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(whole: Run, tiny_home: Path, tmp_path: Path) -> None:
    same_numbers(done(order(tiny_home, tmp_path)), whole)
    other = done(order(tiny_home, tmp_path, seed=1))
    assert not other.ranks().equals(whole.ranks())


def test_a_finished_run_states_what_it_is(whole: Run) -> None:
    m = whole.manifest
    assert whole.folder.name == "tiny-sasrec-none-s0"
    assert (m.status, m.backbone, m.head, m.seed, m.loss) == ("finished", "sasrec", "none", 0, "softmax over all items")
    assert m.n_parameters > 0
    assert m.epochs == 3
    assert set(m.files) == {"config.toml", "log.jsonl", "users.parquet", "topk.parquet", "model.safetensors"}
    assert not (whole.folder / "state").exists()
    assert m.dataset["oracle"]["test"]["hr@10"] > m.metrics["test"]["hr@10"] >= 0
    assert any("patience never ran out" in text or "best epoch is the last" in text for text in m.warnings)


def test_stored_means_follow_from_the_stored_counts(whole: Run) -> None:
    from recbench.evaluation.metrics import metric

    ranks = whole.ranks()
    mean = metric("ndcg@10", ranks["above_unseen"].to_numpy(), ranks["tied_unseen"].to_numpy()).mean()
    assert mean == pytest.approx(whole.manifest.metrics["test_unseen"]["ndcg@10"], abs=1e-12)


def test_lists_are_fifty_long_best_first_and_agree_with_the_counts(whole: Run) -> None:
    top = pd.read_parquet(whole.folder / "topk.parquet")
    assert (top.groupby("user").size() == 50).all()
    assert (top.groupby("user")["score"].diff().dropna() <= 0).all()
    ranks = whole.ranks().set_index("user")
    for user, rows in list(top.groupby("user"))[:50]:
        hit = rows.loc[rows["item"] == ranks.loc[user, "target"], "position"]
        assert (ranks.loc[user, "above"] < 50) == bool(len(hit))


def test_the_resolved_config_is_itself_a_config_and_makes_the_same_run(
    whole: Run, tiny_home: Path, tmp_path: Path
) -> None:
    table = Asked(config=whole.folder / "config.toml").table()
    dataset = open_dataset(table["dataset"], tiny_home)
    same_numbers(done(Order(dataset, resolve(table, dataset.card.family), table["seed"], tmp_path, CPU)), whole)


def test_training_never_opens_the_test_targets(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    table = Dataset.table

    def spy(self: Dataset, part: str) -> Any:
        opened.append(part)
        return table(self, part)

    monkeypatch.setattr(Dataset, "table", spy)
    with pytest.raises(KeyboardInterrupt):
        done(order(tiny_home, tmp_path), Stopper(1))
    assert "test" not in opened
    assert "interactions" not in opened


def test_an_unfinished_run_is_not_overwritten_without_resume(tiny_home: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        done(order(tiny_home, tmp_path), Stopper(1))
    with pytest.raises(RecbenchError, match="unfinished") as refused:
        done(order(tiny_home, tmp_path))
    assert refused.value.code == Exit.RUN
    assert "--resume" in refused.value.fix


def test_a_finished_run_is_found_and_other_settings_are_refused(whole: Run, tiny_home: Path) -> None:
    found, was_there = experiment.run(order(tiny_home, whole.folder.parent), Watcher())
    assert was_there
    assert found.folder == whole.folder
    with pytest.raises(RecbenchError, match="other settings") as refused:
        done(order(tiny_home, whole.folder.parent, "train.epochs=4"))
    assert "train.epochs: there 3, here 4" in refused.value.why


def test_a_loss_that_is_not_finite_fails_with_the_epoch_and_a_fix(tiny_home: Path, tmp_path: Path) -> None:
    with pytest.raises(RecbenchError, match="not finite") as failed:
        done(order(tiny_home, tmp_path, "train.learning_rate=1e30"))
    assert failed.value.code == Exit.RUN
    assert "epoch" in failed.value.why
    manifest = Run.open(tmp_path / "tiny-sasrec-none-s0").manifest
    assert manifest.status == "failed"
    assert "learning_rate" in manifest.error["fix"]


def test_a_bug_leaves_the_run_failed_and_its_traceback(tiny_home: Path, tmp_path: Path) -> None:
    class Broken(Watcher):
        def epoch(self, line: dict[str, Any]) -> None:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        done(order(tiny_home, tmp_path), Broken())
    manifest = Run.open(tmp_path / "tiny-sasrec-none-s0").manifest
    assert (manifest.status, manifest.error["why"]) == ("failed", "out of memory")


def test_a_full_disk_fails_clearly_and_leaves_nothing_half_written(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbench.training import checkpoint

    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RecbenchError, match="No space"):
        done(order(tiny_home, tmp_path))
    assert Run.open(tmp_path / "tiny-sasrec-none-s0").manifest.status == "failed"
    assert not list(tmp_path.rglob("*.part")) + list(tmp_path.rglob("*.safetensors"))


def test_a_place_that_cannot_be_written_is_refused(tiny_home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RecbenchError, match="cannot be written") as refused:
        done(order(tiny_home, tmp_path / "file"))
    assert refused.value.code == Exit.RUN


def test_two_processes_cannot_share_a_run_folder(tiny_home: Path, tmp_path: Path) -> None:
    class Second(Watcher):
        refused = ""

        def epoch(self, line: dict[str, Any]) -> None:
            with pytest.raises(RecbenchError) as error:
                done(order(tiny_home, tmp_path, resume=True))
            self.refused = error.value.what

    watcher = Second()
    done(order(tiny_home, tmp_path), watcher)
    assert "another process" in watcher.refused


def test_ranks_made_again_equal_the_stored_ones(whole: Run, tiny_home: Path) -> None:
    _, differing = trained.rank_again(whole, tiny_home, CPU)
    assert differing == 0


def test_a_run_from_another_dataset_is_refused(whole: Run, tmp_path: Path) -> None:
    from recbench.data.prepare import Request, prepare

    prepare(Request(name="tiny", home=tmp_path, source_format="synthetic", options={"users": "150"}))
    with pytest.raises(RecbenchError, match="another tiny") as refused:
        trained.load(whole, tmp_path, CPU)
    assert refused.value.code == Exit.RUN


def test_recommendations_leave_out_the_history_unless_asked(whole: Run, tiny_home: Path) -> None:
    model, dataset = trained.load(whole, tiny_home, CPU)
    history = np.array([3, 5, 8])
    fresh, scores = trained.recommend(model, history, 0, dataset.n_items, CPU, unseen=True)
    everything, _ = trained.recommend(model, history, 0, dataset.n_items, CPU, unseen=False)
    assert set(everything) - set(fresh) == {3, 5, 8}
    assert (np.diff(scores) <= 0).all()


def test_a_run_says_whose_times_it_saw_and_without_times_in_the_data_none(tiny_home: Path, tmp_path: Path) -> None:
    small = ("backbone.width=8", "train.epochs=1")
    run = done(order(tiny_home, tmp_path / "timed", *small, backbone="hstu"))
    assert run.manifest.inputs["timestamps"] == "history"
    assert done(order(tiny_home, tmp_path / "gru", *small, backbone="gru4rec")).manifest.inputs["timestamps"] is False
    told = (*small, "backbone.query_time=target")
    asked = done(order(tiny_home, tmp_path / "told", *told, backbone="hstu"))
    assert asked.manifest.inputs["timestamps"] == "history and target"
    rows = "user item\n" + "\n".join(f"{user} {(user + step) % 9}" for user in range(9) for step in range(6))
    (tmp_path / "plain.csv").write_text(rows.replace(" ", ","), encoding="utf-8")
    prepare(Request(name="plain", home=tmp_path, source=tmp_path / "plain.csv"))
    timeless = replace(
        order(tiny_home, tmp_path / "plain", *small, backbone="hstu"), dataset=open_dataset("plain", tmp_path)
    )
    assert done(timeless).manifest.inputs["timestamps"] is False

    model, dataset = trained.load(run, tiny_home, CPU)
    history, times = np.array([3, 5, 8]), np.array([0, 86_400, 90_000_000])
    scores = [
        trained.recommend(model, history, 0, dataset.n_items, CPU, unseen=True, times=known)[1]
        for known in (times, times + 1000, None)
    ]
    assert np.array_equal(scores[0], scores[1])
    assert not np.allclose(np.sort(scores[0]), np.sort(scores[2]))


def test_milliseconds_reach_a_system_as_seconds(tiny_home: Path) -> None:
    dataset = open_dataset("tiny", tiny_home)
    seconds = dataset.training().times
    assert dataset.card.time_unit == "s"
    dataset.card = replace(dataset.card, time_unit="ms")
    assert np.array_equal(dataset.training().times, seconds // 1000)


@pytest.mark.parametrize("backbone", ["popularity", "markov", "itemknn", "ease"])
def test_a_baseline_leaves_the_same_evidence_and_can_be_loaded(backbone: str, tiny_home: Path, tmp_path: Path) -> None:
    run = done(order(tiny_home, tmp_path, backbone=backbone))
    assert run.manifest.loss == "closed form"
    assert pq.read_table(run.folder / "users.parquet").num_rows == 400
    assert trained.rank_again(run, tiny_home, CPU)[1] == 0


def test_a_run_says_how_many_settings_were_tried_if_it_is_told(tiny_home: Path, tmp_path: Path) -> None:
    told = done(replace(order(tiny_home, tmp_path, backbone="markov"), trials=8))
    assert told.manifest.tuning == {"trials": 8, "selected_on": "valid"}
    assert done(order(tiny_home, tmp_path / "other", backbone="markov")).manifest.tuning == {}


def test_how_many_settings_were_tried_can_be_told_when_a_run_is_finished(tiny_home: Path, tmp_path: Path) -> None:
    untold = order(tiny_home, tmp_path, backbone="markov")
    first = done(untold)
    told, was_there = experiment.run(replace(untold, trials=8), Watcher())
    assert was_there
    assert told.manifest.tuning == Run.open(first.folder).manifest.tuning == {"trials": 8, "selected_on": "valid"}
    assert done(untold).manifest.tuning["trials"] == 8  # and stays


def test_a_resumed_run_keeps_how_many_settings_were_tried(tiny_home: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        done(replace(order(tiny_home, tmp_path), trials=8), Stopper(1))
    assert done(order(tiny_home, tmp_path, resume=True)).manifest.tuning["trials"] == 8


def test_histories_too_short_to_train_on_are_refused_by_name(tiny_home: Path, tmp_path: Path) -> None:
    rows = "".join(f"u{user},i{(user + step) % 4},{step}\n" for user in range(6) for step in range(3))
    (tmp_path / "short.csv").write_text("user,item,timestamp\n" + rows, encoding="utf-8")
    prepare(Request(name="short", home=tmp_path, source=tmp_path / "short.csv", core=0))
    asked = replace(order(tiny_home, tmp_path / "runs"), dataset=open_dataset("short", tmp_path))
    with pytest.raises(RecbenchError, match="nothing to learn from") as refused:
        done(asked)
    assert refused.value.code == Exit.DATA
    assert "None of its 6 users" in refused.value.why


def test_what_the_disk_does_not_take_of_the_weights_is_an_error_of_the_system(tmp_path: Path) -> None:
    weights = {"table": torch.zeros(1000, 100)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # as a full disk: the writer gets no further
    try:
        with pytest.raises(OSError, match="os error") as refused:
            write_tensors(tmp_path / "model.safetensors", weights)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.value.errno == errno.EFBIG
    assert not any(tmp_path.iterdir())


def test_a_dataset_whose_folder_was_renamed_is_found_again_by_its_runs(tiny_home: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_home / "tiny", tmp_path / "kept")
    run = done(replace(order(tiny_home, tmp_path, backbone="markov"), dataset=open_dataset("kept", tmp_path)))
    assert run.folder.name == "kept-markov-none-s0"
    assert run.manifest.dataset["name"] == "kept"
    assert trained.rank_again(run, tmp_path, CPU)[1] == 0


def test_a_model_too_large_for_the_memory_is_told_so(tiny_home: Path, tmp_path: Path) -> None:
    with pytest.raises(RecbenchError, match="Memory ran out") as refused:
        done(order(tiny_home, tmp_path, "backbone.inner=10000000000000"))
    assert refused.value.code == Exit.RUN
    assert "allocate" in refused.value.why
    assert not any(tmp_path.iterdir())  # no run began, so no folder passes for one


def test_memory_that_runs_out_in_a_step_is_told_and_kept_in_the_run(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore lines")

    monkeypatch.setattr(experiment, "fit", full)
    asked = order(tiny_home, tmp_path)
    with pytest.raises(RecbenchError, match="Memory ran out"):
        done(asked)
    kept = Run.open(asked.folder).manifest
    assert kept.status == "failed"
    assert kept.error["why"] == "CUDA out of memory. Tried to allocate 2 GiB."
    assert "batch_size" in kept.error["fix"]


def test_files_are_hashed_before_training_but_that_of_the_test_targets_behind_it(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbench.data import dataset

    done_: list[str] = []
    digest, fit = dataset.sha256, experiment._fit

    def told(path: Path) -> str:
        done_.append(path.name)
        return digest(path)

    def fitted(*args: Any) -> Any:
        done_.append("training")
        return fit(*args)

    monkeypatch.setattr(dataset, "sha256", told)
    monkeypatch.setattr(experiment, "_fit", fitted)
    done(order(tiny_home, tmp_path))
    place = done_.index("training")
    assert set(done_[:place]) == set(experiment.BEFORE_TEST)
    assert done_[place + 1 :] == ["test.parquet"]
