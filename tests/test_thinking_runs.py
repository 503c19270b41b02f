"""Whole runs of a head that decides how long to think: from a plain run, what they leave behind, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from recbench import experiment
from recbench.cli.app import app
from recbench.config import parse_assignments
from recbench.data.dataset import open_dataset
from recbench.errors import RecbenchError
from recbench.evaluation.verify import verify
from recbench.experiment import Order
from recbench.runs.folder import Run
from recbench.settings import Asked, resolve
from recbench.trained import rank_again
from recbench.training.loop import Watcher
from tests.systems import CPU

SMALL = ["backbone.width=8", "train.batch_size=400", "train.learning_rate=0.01", "train.epochs=3"]
HEAD = ["train.align.epochs=3", "train.align.learning_rate=0.01", "train.rl.epochs=2", "head.cuts=0"]


def run(home: Path, runs: Path, backbone: str, head: str, *sets: str, **asked: Any) -> Run:
    settings = parse_assignments([*SMALL, *sets])
    table = Asked(backbone, head, "tiny", None, settings, asked.get("until"), asked.get("start")).table()
    dataset = open_dataset("tiny", home)
    return experiment.run(Order(dataset, resolve(table, dataset.card.family), 0, runs, CPU), Watcher())[0]


@pytest.fixture(scope="module")
def plain(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tiny_home, tmp_path_factory.mktemp("plain"), "sasrec", "none", "backbone.inner=16")


@pytest.fixture(scope="module")
def thinking(plain: Run, tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    runs = tmp_path_factory.mktemp("thinking")
    return run(tiny_home, runs, "sasrec", "lasar", "backbone.inner=16", *HEAD, start=str(plain.folder))


def test_a_plain_run_is_its_first_stage(plain: Run, thinking: Run) -> None:
    m = thinking.manifest
    assert m.stages == ["ground", "align", "rl"]
    assert set(m.seconds) >= {"align"}
    assert "ground" not in m.seconds
    assert m.started_from["folder"] == str(plain.folder)


def test_it_says_that_it_learnt_from_words_and_so_does_what_goes_on_from_it(
    plain: Run, thinking: Run, tiny_home: Path, tmp_path: Path
) -> None:
    assert plain.manifest.inputs["text"] is False
    assert thinking.manifest.inputs["text"] is True
    small = ["backbone.inner=16", *HEAD]
    aligned = run(tiny_home, tmp_path, "sasrec", "lasar", *small, until="align", start=str(plain.folder))
    rewarded = run(tiny_home, tmp_path, "sasrec", "lasar", *small, start=str(aligned.folder))
    assert set(rewarded.manifest.stage_epochs) <= {"rl"}
    assert rewarded.manifest.inputs["text"] is True


def test_a_start_that_is_not_there_is_said_before_other_settings(thinking: Run, tiny_home: Path) -> None:
    with pytest.raises(RecbenchError, match="No run at"):
        run(tiny_home, thinking.folder.parent, "sasrec", "lasar", start="runs/nope-s{seed}")


def test_it_says_how_long_each_query_thought_and_what_that_bought(thinking: Run) -> None:
    users = pd.read_parquet(thinking.folder / "users.parquet")
    told = thinking.manifest.facts["thinking"]
    steps = users.loc[users["split"] == "test", "steps"]
    assert told["mean"] == pytest.approx(steps.mean())
    assert sum(told["share"].values()) == pytest.approx(1)
    assert set(told["plain"]) == {"hr@10", "ndcg@10"}
    assert set(told["plain_latency_ms"]) == {"1", "256"}
    assert set(told["sorted_latency_ms"]) == {"256"}
    assert told["valid"]["mean"] == pytest.approx(users.loc[users["split"] == "valid", "steps"].mean())
    anchor = thinking.manifest.facts["align"]["anchor"]
    assert anchor["source"] in ("text", "cooc")


def test_where_thoughts_did_not_help_its_ranks_are_the_plain_ones(plain: Run, tiny_home: Path, tmp_path: Path) -> None:
    harmful = ["train.align.learning_rate=5.0", "train.align.epochs=1"]
    spoiled = run(tiny_home, tmp_path, "sasrec", "lasar", "backbone.inner=16", *harmful, start=str(plain.folder))
    ours, theirs = (pd.read_parquet(one.folder / "users.parquet") for one in (spoiled, plain))
    assert (ours.pop("steps") == 0).all()
    assert ours.equals(theirs)
    assert any("align: no epoch was better" in warning for warning in spoiled.manifest.warnings)
    assert any("rl: left out" in warning for warning in spoiled.manifest.warnings)


def test_where_thoughts_did_not_help_a_run_that_goes_on_reinforces_none(
    plain: Run, tiny_home: Path, tmp_path: Path
) -> None:
    settings = ["backbone.inner=16", "train.align.learning_rate=5.0", "train.align.epochs=1", "train.rl.epochs=1"]
    spoiled = run(tiny_home, tmp_path, "sasrec", "lasar", *settings, start=str(plain.folder), until="align")
    assert spoiled.manifest.best_stage == "ground"
    rest = run(tiny_home, tmp_path, "sasrec", "lasar", *settings, start=str(spoiled.folder))
    assert not rest.manifest.stage_epochs
    assert any("rl: left out" in warning for warning in rest.manifest.warnings)
    assert rest.manifest.best_stage == "ground"
    assert all(finding.holds is not False for finding in verify(rest, tiny_home))


def test_its_numbers_can_be_verified_and_its_ranks_made_again(thinking: Run, tiny_home: Path) -> None:
    assert all(finding.holds is not False for finding in verify(thinking, tiny_home))
    assert rank_again(thinking, tiny_home, CPU)[1] == 0


def test_a_plain_run_of_another_backbone_is_no_start(tiny_home: Path, plain: Run, tmp_path: Path) -> None:
    with pytest.raises(RecbenchError, match="holds another system"):
        run(tiny_home, tmp_path, "sasrec", "lasar", "backbone.inner=32", start=str(plain.folder))


def test_a_plain_run_is_no_start_where_the_first_stage_has_a_loss_of_its_own(
    tiny_home: Path, plain: Run, tmp_path: Path
) -> None:
    with pytest.raises(RecbenchError, match="holds another system") as caught:
        run(
            tiny_home,
            tmp_path,
            "sasrec",
            "lasar",
            "backbone.inner=16",
            "head.ground_codes=0.1",
            start=str(plain.folder),
        )
    assert caught.value.fix.endswith("--reason lasar --until ground")


def test_who_holds_targets_back_for_rl_begins_with_a_ground_that_held_them_back(
    tiny_home: Path, plain: Run, tmp_path: Path
) -> None:
    def holding(share: float, runs: Path, **asked: Any) -> Run:
        settings = ["backbone.inner=16", "train.align.epochs=1", "train.rl.epochs=0"]
        return run(tiny_home, runs, "sasrec", "lasar", *settings, f"head.rl_holdout={share}", **asked)

    with pytest.raises(RecbenchError, match="holds another system"):
        holding(0.5, tmp_path, start=str(plain.folder))
    ground = str(holding(0.5, tmp_path, until="ground").folder)
    with pytest.raises(RecbenchError, match="holds another system") as caught:
        holding(0.0, tmp_path / "other", start=ground)
    assert caught.value.fix == "Go on with its settings: --set head.rl_holdout=0.5"
    assert holding(0.5, tmp_path / "same", start=ground).manifest.status == "finished"


def test_settings_that_change_what_a_head_consists_of_are_no_way_to_go_on(tiny_home: Path, tmp_path: Path) -> None:
    ground = run(tiny_home, tmp_path, "sasrec", "lasar", "backbone.inner=16", until="ground")
    for setting, typed in (
        ("max_depth=6", "max_depth=8"),
        ("anchor=backbone", "anchor=auto"),
        ("feed=linear", "feed=rms"),
    ):
        asked = ["backbone.inner=16", f"head.{setting}"]
        with pytest.raises(RecbenchError, match="weights that do not fit these settings") as caught:
            run(tiny_home, tmp_path, "sasrec", "lasar", *asked, start=str(ground.folder))
        assert caught.value.fix == f"Go on with its settings: --set head.{typed}"


def test_other_heads_do_not_begin_as_a_plain_run(tiny_home: Path, plain: Run, tmp_path: Path) -> None:
    with pytest.raises(RecbenchError, match="Its head is none, here it is lares"):
        run(tiny_home, tmp_path, "sasrec", "lares", "backbone.inner=16", start=str(plain.folder))


def test_it_spells_too(tiny_home: Path, tmp_path: Path) -> None:
    drawn = ["head.reward=prefix", "head.candidates=sample", "head.align_weight=auto"]
    found = run(tiny_home, tmp_path, "sid-lm", "lasar", "backbone.inner=16", *HEAD, *drawn)
    assert found.manifest.status == "finished"
    noted = [json.loads(line) for line in (found.folder / "log.jsonl").read_text().splitlines()]
    alphas = [line["diagnostics"]["align_weight"] for line in noted if line["stage"] == "align"]
    assert alphas[0] > 0
    assert alphas == pytest.approx([alphas[0]] * 3, rel=1e-5)
    assert found.manifest.facts["thinking"]["max"] >= 0


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        (["segment_pool=text"], {"pool": "text"}),
        (["anchor=backbone", "anchor_context=prompt"], {"source": "backbone", "context": "prompt"}),
    ],
)
def test_a_run_says_what_its_segments_are_made_of(
    settings: list[str], facts: dict[str, str], plain: Run, tiny_home: Path, tmp_path: Path
) -> None:
    sets = ["backbone.inner=16", "train.align.epochs=1", "train.rl.epochs=1", *(f"head.{one}" for one in settings)]
    found = run(tiny_home, tmp_path, "sasrec", "lasar", *sets, start=str(plain.folder))
    assert found.manifest.status == "finished"
    anchor = found.manifest.facts["align"]["anchor"]
    assert facts.items() <= anchor.items()
    assert ("unique_strings" in anchor) == ("pool" in facts)
    assert all(finding.holds is not False for finding in verify(found, tiny_home))


def test_show_tells_it_all(thinking: Run) -> None:
    shown = CliRunner().invoke(app, ["show", str(thinking.folder)])
    assert shown.exit_code == 0, shown.output
    assert "thinking, mean" in shown.output
    assert "anchor: source" in shown.output


def test_what_reads_off_a_token_of_its_own_has_a_ground_of_its_own(plain: Run, tiny_home: Path, tmp_path: Path) -> None:
    settings = ["backbone.inner=16", *HEAD, "head.readout=end"]
    with pytest.raises(RecbenchError, match="another system"):
        run(tiny_home, tmp_path, "sasrec", "lasar", *settings, start=str(plain.folder))
    made = run(tiny_home, tmp_path, "sasrec", "lasar", *settings)
    assert made.manifest.stages == ["ground", "align", "rl"]
    assert rank_again(made, tiny_home, CPU)[1] == 0
