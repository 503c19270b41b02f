"""A run's numbers derived again: an honest run holds, and every kind of change is found and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recbench.cli.app import run as recbench
from recbench.data.prepare import Request, prepare
from recbench.evaluation.verify import verify
from recbench.files import sha256
from recbench.runs.folder import Run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_home: Path) -> Path:
    """A real run of markov on the tiny dataset."""
    home = tmp_path_factory.mktemp("verify")
    args = ["train", "--backbone", "markov", "--dataset", "tiny", "--datasets", str(tiny_home), "--runs", str(home)]
    assert recbench([*args, "--quiet"]) == 0
    return home / "tiny-markov-none-s0"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    import shutil

    return Path(shutil.copytree(made, tmp_path / made.name))


def wrong(folder: Path, datasets: Path) -> dict[str, str]:
    return {f.what: f.told for f in verify(Run.open(folder), datasets) if f.holds is False}


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def respoil(folder: Path, frame: pd.DataFrame) -> None:
    """Write other ranks and a matching hash: only the numbers can tell."""
    frame.to_parquet(folder / "users.parquet", index=False)
    stated = json.loads((folder / "run.json").read_text())["files"]
    edit(folder, files=stated | {"users.parquet": sha256(folder / "users.parquet")})


def test_an_honest_run_holds_in_everything(folder: Path, tiny_home: Path) -> None:
    findings = verify(Run.open(folder), tiny_home)
    assert [f for f in findings if f.holds is False] == []
    assert {f.what for f in findings if f.holds} >= {
        "users.parquet",
        "test",
        "test_unseen",
        "valid",
        "lists",
        "targets",
    }
    assert recbench(["verify", str(folder), "--datasets", str(tiny_home)]) == 0


def test_without_the_dataset_it_says_that_targets_were_not_compared(folder: Path, tmp_path: Path) -> None:
    found = {f.what: f.holds for f in verify(Run.open(folder), tmp_path)}
    assert found["dataset"] is None
    assert found["test"] is True


def test_a_polished_number_is_found_with_both_values(
    folder: Path, tiny_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = json.loads((folder / "run.json").read_text())["metrics"]
    metrics["test"]["ndcg@10"] += 1e-6
    edit(folder, metrics=metrics)
    found = wrong(folder, tiny_home)
    assert list(found) == ["test"]
    assert "ndcg@10 is" in found["test"]
    assert recbench(["verify", str(folder), "--datasets", str(tiny_home)]) == 4
    captured = capsys.readouterr()
    assert "WRONG" in captured.out
    assert "ndcg@10" in captured.err


@pytest.mark.parametrize("name", ["users.parquet", "topk.parquet", "config.toml", "model.safetensors"])
def test_a_changed_or_missing_file_is_found(name: str, folder: Path, tiny_home: Path) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content + b"\n")
    assert name in wrong(folder, tiny_home)
    (folder / name).unlink()
    assert wrong(folder, tiny_home)[name] == "missing"


def test_better_ranks_with_a_matching_hash_are_found_by_the_numbers_and_the_lists(
    folder: Path, tiny_home: Path
) -> None:
    frame = pd.read_parquet(folder / "users.parquet")
    respoil(folder, frame.assign(above=np.where(frame["split"] == "test", 0, frame["above"])))
    assert {"test", "lists"} <= set(wrong(folder, tiny_home))


def test_a_listed_target_cannot_have_fewer_rivals_than_its_place_says(folder: Path, tiny_home: Path) -> None:
    frame, top = pd.read_parquet(folder / "users.parquet"), pd.read_parquet(folder / "topk.parquet")
    listed = frame.merge(top.rename(columns={"item": "target"}), on=["user", "target"], how="left")["position"]
    polished = (frame["split"] == "test") & (listed.to_numpy() > 20)
    assert polished.any()
    respoil(folder, frame.assign(above=frame["above"].where(~polished, 0), tied=frame["tied"].where(~polished, 0)))
    assert wrong(folder, tiny_home)["lists"].startswith(f"{int(polished.sum())} of ")


def test_left_out_users_are_found_by_the_targets(folder: Path, tiny_home: Path) -> None:
    frame = pd.read_parquet(folder / "users.parquet")
    respoil(folder, frame.drop(frame.index[frame["split"] == "test"][:3]))
    assert "targets" in wrong(folder, tiny_home)


@pytest.mark.parametrize(
    ("column", "value", "words"), [("above", -1, "negative"), ("tied", 10**6, "more rivals"), ("user", 1, "twice")]
)
def test_impossible_counts_are_found(column: str, value: int, words: str, folder: Path, tiny_home: Path) -> None:
    frame = pd.read_parquet(folder / "users.parquet")
    respoil(folder, frame.assign(**{column: value, "target": 1 if column == "user" else frame["target"]}))
    assert words in wrong(folder, tiny_home)["counts"]


def test_other_settings_than_the_hash_says_are_found(folder: Path, tiny_home: Path) -> None:
    edit(folder, config_sha256="0" * 64, seed=5)
    told = wrong(folder, tiny_home)["settings"]
    assert "stated 000000000000" in told
    assert "its seed is 0, stated 5" in told


def test_another_dataset_and_another_best_epoch_are_found(folder: Path, tiny_home: Path) -> None:
    dataset = json.loads((folder / "run.json").read_text())["dataset"]
    edit(folder, dataset=dataset | {"fingerprint": "0" * 64}, best_epoch=4)
    (folder / "log.jsonl").write_text('{"epoch": 2, "best": true}\n{"epoch": 3, "best": false}\n')
    found = wrong(folder, tiny_home)
    assert "dataset" in found
    assert found["best epoch"] == "log 2, stated 4"


def test_the_best_epoch_is_that_of_its_stage(folder: Path, tiny_home: Path) -> None:
    lines = [("align", 1, True), ("align", 2, False), ("rl", 1, True), ("rl", 2, False)]
    told = [json.dumps({"stage": stage, "epoch": epoch, "best": best}) for stage, epoch, best in lines]
    (folder / "log.jsonl").write_text("\n".join(told) + "\n")
    edit(folder, best_epoch=1, best_stage="rl", epochs=4, stage_epochs={"align": 2, "rl": 2})
    assert "best epoch" not in wrong(folder, tiny_home)
    edit(folder, best_stage=None, stage_epochs={})  # as older runs have it
    assert "best epoch" not in wrong(folder, tiny_home)
    edit(folder, best_stage="align")
    assert wrong(folder, tiny_home)["best epoch"] == "log rl 1, stated align 1"
    edit(folder, best_stage="rl", stage_epochs={"align": 2, "rl": 9})
    assert wrong(folder, tiny_home)["best epoch"] == "log has epochs align 2, rl 2, stated align 2, rl 9"


def test_a_run_that_did_not_finish_does_not_hold(folder: Path, tiny_home: Path) -> None:
    edit(folder, status="interrupted")
    assert wrong(folder, tiny_home)["status"] == "interrupted"


def test_json_says_the_same(folder: Path, tiny_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recbench(["verify", str(folder), "--datasets", str(tiny_home), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["holds"] is True


def test_a_list_that_lost_its_target_is_found(folder: Path, tiny_home: Path) -> None:
    frame, top = pd.read_parquet(folder / "users.parquet"), pd.read_parquet(folder / "topk.parquet")
    first = frame[(frame["split"] == "test") & (frame["above"] + frame["tied"] < 20)].iloc[0]
    lost = (top["user"] == first["user"]) & (top["item"] == first["target"])
    assert lost.sum() == 1
    top[~lost].to_parquet(folder / "topk.parquet", index=False)
    stated = json.loads((folder / "run.json").read_text())["files"]
    edit(folder, files=stated | {"topk.parquet": sha256(folder / "topk.parquet")})
    assert wrong(folder, tiny_home)["lists"].startswith("1 of")


def test_an_honest_run_of_successive_queries_holds_also_where_a_user_takes_an_item_twice(tmp_path: Path) -> None:
    rows = [(user, (user * step) % 5, 1000 + 10 * step) for user in range(1, 9) for step in range(10)]
    text = "user,item,timestamp\n" + "".join(f"{user},{item},{time}\n" for user, item, time in rows)
    (tmp_path / "log.csv").write_text(text, encoding="utf-8")
    plan = {"split": "temporal", "target": "successive", "quantile": 0.5}
    prepare(Request(name="log", home=tmp_path, source=tmp_path / "log.csv", core=0, **plan))
    args = ["train", "--backbone", "itemknn", "--dataset", "log", "--datasets", str(tmp_path), "--runs", str(tmp_path)]
    assert recbench([*args, "--quiet"]) == 0
    folder = tmp_path / "log-itemknn-none-s0"
    test = pd.read_parquet(folder / "users.parquet").query("split == 'test'")
    assert test.duplicated(["user", "target"]).any()
    assert len(test) > test["user"].nunique()
    assert wrong(folder, tmp_path) == {}

    top = pd.read_parquet(folder / "topk.parquet")
    top["item"] = top["item"].sample(frac=1, random_state=0).to_numpy()
    top.to_parquet(folder / "topk.parquet", index=False)
    assert "lists" in wrong(folder, tmp_path)
