"""Whole commands, in process: status, stdout, stderr."""

from __future__ import annotations

import errno
import json
import os
import runpy
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recbench.cli.app import COMMANDS, run
from tests.systems import prefix_backbones

SMALL = ["--set", "backbone.width=8", "--set", "backbone.inner=16", "--set", "train.epochs=2", "--device", "cpu"]
LARES = ["train", "--backbone", "sasrec", "--reason", "lares", "--dataset", "tiny"]
DIFFUSE = ["train", "--backbone", "sasrec", "--reason", "diffuse"]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def home(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny dataset and two finished runs."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_home, home / "datasets")
    places = ["--datasets", str(home / "datasets"), "--runs", str(home / "runs"), "--quiet"]
    assert run(["train", "--backbone", "sasrec", "--seeds", "0,1", *SMALL, *places]) == 0
    assert run(["train", "--backbone", "markov", *places]) == 0
    (home / "runs" / "tiny-lru.toml").write_text(
        '[backbone]\nname = "lru"\nwidth = 8\n[head]\nname = "lares"\ngroup = 4\n'
    )
    (home / "runs" / "broken.toml").write_text("x = [\n")
    (home / "runs" / "latin.toml").write_bytes(b"x = '\xe9'\n")
    return home


@pytest.fixture(scope="module")
def timed(home: Path) -> str:
    """A finished run of a system that looks at times."""
    small = ["--set", "backbone.width=8", "--set", "train.epochs=1", "--device", "cpu"]
    places = ["--datasets", str(home / "datasets"), "--runs", str(home / "others"), "--quiet"]
    assert run(["train", "--backbone", "hstu", "--dataset", "tiny", *small, *places]) == 0
    return "others/tiny-hstu-none-s0"


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def failed(args: list[str], capsys: Captured) -> tuple[int, str]:
    """Exit code and stderr of a command that must say what, why and fix, and nothing on stdout."""
    code = run(args)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "\nwhy: " in captured.err
    assert "\nfix: " in captured.err
    return code, captured.err


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["train"], 2, "No backbone was named"),
        (["train", "--backbone", "sasrek"], 2, "Did you mean sasrec?"),
        (["train", "--backbone", "sasrec", "--reason", "nonne"], 2, "Did you mean none?"),
        (["train", "--backbone", "sasrec", "--dataset", "tyni"], 3, "Did you mean tiny?"),
        (["train", "--backbone", "sasrec", "--set", "train.epoch=5"], 2, "Did you mean train.epochs?"),
        (["train", "--backbone", "sasrec", "--seed", "1", "--seed", "2"], 2, "--seed is given 2 times"),
        (["train", "--backbone", "sasrec", "--seed", "1", "--seeds", "1,2"], 2, "Both --seed and --seeds"),
        (["train", "--backbone", "sasrec", "--seeds", "1,x"], 2, "cannot be read"),
        (["train", "--backbone", "sasrec", "--seeds", "1,1"], 2, "Seeds differ"),
        (["train", "--backbone", "markov", "--seed", "-1"], 2, "The seed -1 cannot be used"),
        (["train", "--backbone", "markov", "--set", "seed=-4"], 2, "The seed -4 cannot be used"),
        (["train", "--backbone", "markov", "--set", "seed=one"], 2, "The seed 'one' cannot be used"),
        (["train", "--backbone", "sasrec", "--set", "train=1"], 2, "[train] is a table"),
        (["train", "--backbone", "sasrec", "--set", "train.rpt.epochs=1"], 2, "The stages are: train."),
        ([*LARES, "--set", "train.rtp.epochs=1"], 2, "fix: --set train.rpt.epochs=VALUE"),
        ([*LARES, "--set", "train.rpt=1"], 2, "[train.rpt] is a table"),
        (["train", "--backbone", "markov", "--set", "train=1"], 2, "[train] is a table"),
        (["train", "--backbone", "sasrec", "--set", "train.learning_rate=nan"], 2, "a finite number"),
        (["train", "--backbone", "sasrec", "--set", "train.clip_norm=inf"], 2, "a finite number"),
        (["train", "--backbone", "sasrec", "--device", "cpu:first"], 2, "Device 'cpu:first' is not here"),
        (["train", "--backbone", "sasrec", "--device", "cpu:"], 2, "Device 'cpu:' is not here"),
        (["train", "--backbone", "sasrec", "--device", "quantum"], 2, "Device 'quantum' is not here"),
        (["train", "--backbone", "sasrec", "--device", "mps"], 2, "Device mps cannot be used"),
        (["train", "--backbone", "sasrec", "--frobnicate"], 2, "--frobnicate"),
        (["train", "--backbone", "markov", "--reason", "lares"], 2, "takes no reasoning head"),
        (["train", "--backbone", "markov", "--until", "spt"], 2, "has no stages"),
        ([*LARES, "--set", "head.mean_steps=0"], 2, "mean_steps is 0; it is at least 1"),
        ([*LARES, "--set", "head.group=1"], 2, "at least 2"),
        ([*LARES, "--set", "head.pre_layers=2"], 2, "no layer is left for the core"),
        ([*LARES, "--set", "head.contrast_tau=0"], 2, "contrast_tau is 0; it is above 0"),
        ([*LARES, "--until", "sft"], 2, "Its stages are: spt, rpt"),
        ([*LARES, "--from", "runs/tiny-sasrec-none-s0"], 2, "Its head is none, here it is lares"),
        ([*LARES, "--from", "runs/nowhere"], 4, "No run at"),
        (["train", "--backbone", "sasrec", "--reason", "pause", "--set", "head.steps=0"], 2, "it is --reason none"),
        (["train", "--backbone", "sasrec", "--reason", "rearec-erl", "--set", "head.steps=-1"], 2, "at least 0"),
        (
            ["train", "--backbone", "sasrec", "--reason", "rearec-prl", "--set", "head.tau=0"],
            2,
            "tau is 0; it is above 0",
        ),
        ([*DIFFUSE, "--set", "head.group=1"], 2, "at least 2"),
        ([*DIFFUSE, "--set", "head.start=0.1"], 2, "refinement starts at a level from 1"),
        ([*DIFFUSE, "--set", "head.levels=1", "--set", "head.schedule=cosine"], 2, "at least 2 levels"),
        (["evaluate", "runs/tiny-sasrec-none-s0", "--steps", "0,1"], 2, "between 1 and 1,000"),
        (["evaluate", "runs/tiny-sasrec-none-s0", "--steps", "1000000"], 2, "between 1 and 1,000"),
        (["evaluate", "runs/tiny-sasrec-none-s0", "--steps", "1,x"], 2, "It is whole numbers with commas"),
        (["prepare", "synthetic", "--set", "users=abc"], 2, "It takes a whole number"),
        (["prepare", "synthetic", "--set", "users=abc"], 2, "--set users=6000"),
        (["train", "--backbone", "sasrec", "--config", "runs/tiny-lru.toml"], 2, "fix: --backbone lru"),
        (["train", "--reason", "pause", "--config", "runs/tiny-lru.toml"], 2, "fix: --reason lares"),
        (["train", "--backbone", "sasrec", "--config", "runs/broken.toml"], 2, "fix: Mend it there: runs/broken.toml"),
        (["train", "--backbone", "sasrec", "--config", "runs/latin.toml"], 2, "not UTF-8"),
        (["report", "runs", "--output", "page.pdf"], 2, "--output page.html"),
        (["verify", "nowhere"], 4, "no run and no prepared dataset"),
        (["evaluate", "runs/tiny-sasrec-none-s0", "--steps", "1,2"], 2, "takes no number of reasoning steps"),
        (["evaluate", "runs/tiny-markov-none-s0", "--steps", "1,2"], 2, "takes no number of reasoning steps"),
        (["evaluate", "runs/tiny-sasrec-none-s0", "--beams", "10,exact"], 2, "sasrec searches nothing"),
        (["evaluate", "runs/tiny-markov-none-s0", "--beams", "10"], 2, "scores every item"),
        (["evaluate", "runs/tiny-sasrec-none-s0", "--beams", "5,exact"], 2, "at least 10"),
        (["evaluate", "runs/tiny-sasrec-none-s0", "--beams", "all"], 2, "whole numbers and exact"),
        (["evaluate", "runs/tiny-sasrec-none-s0", "--beams", "10", "--draws", "2"], 2, "--draws and --beams cannot"),
        (["evaluate", "runs/tiny-sasrec-none-s0", "--draws", "1"], 2, "2 to 100 of them"),
        (["evaluate", "runs/tiny-sasrec-none-s0", "--draws", "2", "--steps", "1,2"], 2, "cannot be used together"),
        (["evaluate", "runs/tiny-markov-none-s0", "--draws", "2"], 2, "It has no dropout"),
        (["trian"], 2, "trian"),
        (["show", "nowhere"], 4, "neither a run, a prepared dataset nor a part"),
        (["evaluate", "runs/tiny-sasrec-none-s9"], 4, "Did you mean runs/tiny-sasrec-none-s"),
        (["list", "backbonse"], 2, "Did you mean backbones?"),
        (["recommend", "runs/tiny-sasrec-none-s0"], 2, "Neither --user nor --history"),
        (["recommend", "runs/tiny-sasrec-none-s0", "--history", "nothing"], 2, "No item 'nothing'"),
        (["recommend", "runs/tiny-sasrec-none-s0", "--user", "nobody"], 2, "No user 'nobody'"),
        (["recommend", "runs/tiny-sasrec-none-s0", "--history", " , "], 2, "--history is empty"),
    ],
)
def test_a_mistake_is_answered_with_what_why_fix_and_its_code(
    args: list[str], code: int, words: str, capsys: Captured
) -> None:
    got, text = failed(args, capsys)
    assert got == code
    assert words in text


def test_no_arguments_show_the_help_and_no_empty_error(capsys: Captured) -> None:
    assert run([]) == 2
    captured = capsys.readouterr()
    assert "prepare" in captured.out
    assert captured.err == ""


def test_help_names_every_command(capsys: Captured) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize(
    ("args", "code"), [(["--help"], 0), (["train", "--help"], 0), (["show", "nowhere"], 4), (["trian"], 2)]
)
def test_python_m_is_the_command_and_goes_by_its_name(
    args: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("sys.argv", ["-m", *args])
    with pytest.raises(SystemExit) as left:
        runpy.run_module("recbench", run_name="__main__", alter_sys=True)
    said = capsys.readouterr()
    assert left.value.code == code
    assert code or f"Usage: {' '.join(['recbench', *args[:-1]])} [OPTIONS]" in said.out
    assert "__main__" not in said.out + said.err
    assert "python" not in said.out + said.err
    assert run(args) == code
    assert capsys.readouterr() == said


def test_train_prints_both_candidate_rules_and_the_mean_over_seeds(capsys: Captured) -> None:
    assert run(["train", "--backbone", "sasrec", "--seeds", "0,1", *SMALL]) == 0
    captured = capsys.readouterr()
    for words in ("sasrec on tiny", "all items", "unseen items", "seed 1", "mean", "sd", "runs/tiny-sasrec-none-s0"):
        assert words in captured.out
    assert "dataset: tiny" in captured.err
    assert "finished already" in captured.err


def test_no_seed_is_trained_where_another_is_refused(home: Path, tmp_path: Path, capsys: Captured) -> None:
    until = ["--until", "spt", "--runs", str(tmp_path), "--quiet"]
    assert run([*LARES, *SMALL, *until]) == 0
    start = ["--from", f"{tmp_path}/tiny-sasrec-lares-spt-s{{seed}}", "--runs", str(tmp_path / "more")]
    code, told = failed([*LARES, *SMALL, "--seeds", "0,1", *start], capsys)
    assert (code, "tiny-sasrec-lares-spt-s1" in told) == (4, True)
    assert not (tmp_path / "more").exists()


def test_train_as_json_is_the_manifest(capsys: Captured) -> None:
    assert run(["train", "--backbone", "markov", "--json", "--quiet"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["status"] == "finished"
    assert told["backbone"] == "markov"


def test_other_settings_in_a_taken_folder_are_refused(capsys: Captured) -> None:
    args = ["train", "--backbone", "sasrec", *SMALL, "--set", "train.learning_rate=0.5"]
    code, text = failed([*args, "--quiet"], capsys)
    assert code == 4
    assert "train.learning_rate" in text


def test_list_shows_what_there_is(capsys: Captured) -> None:
    assert run(["list"]) == 0
    text = capsys.readouterr().out
    assert all(words in text for words in ("sasrec", "none", "tiny", "tiny-sasrec-none-s0", "finished"))
    assert run(["list", "runs", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert run(["list", "configs", "--json"]) == 0
    assert {"name": "esasrec"}.items() <= json.loads(capsys.readouterr().out)[0].items()


def test_show_tells_a_run_and_a_dataset(capsys: Captured) -> None:
    assert run(["show", "runs/tiny-sasrec-none-s0"]) == 0
    text = capsys.readouterr().out
    assert all(
        words in text for words in ("softmax over all items", "leave-one-out", "test, unseen items", "next_item")
    )
    assert run(["show", "tiny"]) == 0
    assert "200" in capsys.readouterr().out
    assert run(["show", "runs/tiny-sasrec-none-s0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 0


def test_show_tells_how_far_an_unfinished_run_is(home: Path, tmp_path: Path, capsys: Captured) -> None:
    shutil.copytree(home / "runs" / "tiny-sasrec-none-s0", tmp_path / "cut")
    manifest = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert manifest["n_parameters"] > 0
    manifest |= {"status": "interrupted", "seconds": {}, "metrics": {}, "epochs": 0, "best_epoch": None}
    (tmp_path / "cut" / "run.json").write_text(json.dumps(manifest))
    assert run(["show", str(tmp_path / "cut")]) == 0
    shown = capsys.readouterr().out
    assert "2 epochs so far" in shown
    (tmp_path / "cut" / "log.jsonl").unlink()
    (tmp_path / "cut" / "run.json").write_text(json.dumps(manifest | {"n_parameters": 0}))
    assert run(["show", str(tmp_path / "cut")]) == 0
    shown = capsys.readouterr().out
    assert "not yet" in shown
    assert "parameters" not in shown


def test_a_step_that_an_epoch_did_not_draw_is_blank_and_a_whole_stands_before_its_parts(
    home: Path, tmp_path: Path, capsys: Captured
) -> None:
    shutil.copytree(home / "runs" / "tiny-sasrec-none-s0", tmp_path / "run")
    log = tmp_path / "run" / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[0]["diagnostics"] = {"depth@0": 0.25, "depth": float("nan")}
    lines[1]["diagnostics"] = {"depth@10": 0.5, "depth@0": 0.125, "depth": 4.5}
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(["show", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "nan" not in shown
    assert [line.split() for line in shown.splitlines() if line.lstrip().startswith("depth")] == [
        ["depth", "4.5"],
        ["depth@0", "0.25", "0.125"],
        ["depth@10", "0.5"],
    ]


def test_evaluate_says_that_the_ranks_agree(capsys: Captured) -> None:
    assert run(["evaluate", "runs/tiny-sasrec-none-s0"]) == 0
    assert "equal the stored ones" in capsys.readouterr().out


def test_evaluate_says_what_the_best_of_several_draws_gains_by_chance(capsys: Captured) -> None:
    assert run(["evaluate", "runs/tiny-sasrec-none-s0", "--draws", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    each = [draw["test"]["ndcg@10"] for draw in told["draws"]]
    assert len(set(each)) == 3
    assert told["best_for_each_user"]["test"]["ndcg@10"] > max(each)
    assert run(["evaluate", "runs/tiny-sasrec-none-s0", "--draws", "3"]) == 0
    shown = capsys.readouterr().out
    assert "best for each" in shown
    assert f"{told['best_for_each_user']['test_unseen']['ndcg@10']:.4f}" in shown
    assert run(["evaluate", "runs/tiny-sasrec-none-s0"]) == 0  # nothing of it stays
    assert "equal the stored ones" in capsys.readouterr().out


def test_evaluate_says_when_the_ranks_differ(tmp_path: Path, capsys: Captured) -> None:
    import pandas as pd

    shutil.copytree("runs/tiny-markov-none-s0", tmp_path / "changed")
    path = tmp_path / "changed" / "users.parquet"
    ranks = pd.read_parquet(path)
    ranks.loc[:2, "above"] += 1
    ranks.to_parquet(path, index=False)
    assert run(["evaluate", str(tmp_path / "changed"), "--quiet"]) == 4
    assert "3 of the ranks differ" in capsys.readouterr().err


def test_recommend_lists_titles_for_a_user_and_for_a_typed_history(capsys: Captured) -> None:
    assert run(["recommend", "runs/tiny-sasrec-none-s0", "--user", "U00001", "--top", "5"]) == 0
    assert "next for user U00001" in capsys.readouterr().out
    import pandas as pd

    first, second = pd.read_parquet("datasets/tiny/items.parquet")["raw_id"].head(2)
    assert run(["recommend", "runs/tiny-markov-none-s0", "--history", f"{first}, {second}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [line["raw_id"] for line in told["history"]] == [first, second]
    assert len(told["items"]) == 10
    assert not {first, second} & {line["raw_id"] for line in told["items"]}


def test_a_typed_history_has_no_times_and_a_system_that_looks_at_them_says_so(timed: str, capsys: Captured) -> None:
    assert run(["show", timed]) == 0
    assert "and their times" in capsys.readouterr().out
    assert run(["recommend", timed, "--user", "U00001"]) == 0
    assert "no times" not in capsys.readouterr().err
    import pandas as pd

    first = pd.read_parquet("datasets/tiny/items.parquet")["raw_id"][0]
    assert run(["recommend", timed, "--history", first]) == 0
    assert "a typed-in history has no times" in " ".join(capsys.readouterr().err.split())
    assert run(["recommend", "runs/tiny-sasrec-none-s0", "--history", first]) == 0
    assert "no times" not in capsys.readouterr().err


@pytest.mark.parametrize("backbone", prefix_backbones())
def test_a_backbone_of_prefix_rows_goes_through_every_command(backbone: str, tmp_path: Path, capsys: Captured) -> None:
    runs, folder = ["--runs", str(tmp_path)], str(tmp_path / f"tiny-{backbone}-rearec-erl-s0")
    assert run(["train", "--backbone", backbone, "--reason", "rearec-erl", *SMALL, *runs]) == 0
    assert f"{backbone}+rearec-erl on tiny" in capsys.readouterr().out
    assert run(["evaluate", folder]) == 0
    assert "equal the stored ones" in capsys.readouterr().out
    assert run(["evaluate", folder, "--steps", "1,3", "--json"]) == 0
    assert [line["steps"] for line in json.loads(capsys.readouterr().out)["steps"]] == [1, 3]
    assert run(["recommend", folder, "--user", "U00001", "--top", "5", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["items"]) == 5
    assert run(["show", folder]) == 0


def test_cloze_rows_are_a_setting_of_the_backbone(tmp_path: Path, capsys: Captured) -> None:
    sets = ["--set", "backbone.rows=cloze", "--set", "backbone.blanked=0.4", "--json", "--quiet"]
    assert run(["train", "--backbone", "bert4rec", *SMALL, *sets, "--runs", str(tmp_path)]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["status"] == "finished"
    assert 'rows = "cloze"' in (tmp_path / "tiny-bert4rec-none-s0" / "config.toml").read_text(encoding="utf-8")


def test_a_window_that_cloze_rows_do_not_have_is_refused(tmp_path: Path, capsys: Captured) -> None:
    sets = ["--set", "backbone.rows=cloze", "--set", "train.window=all", "--quiet"]
    assert run(["train", "--backbone", "bert4rec", *SMALL, *sets, "--runs", str(tmp_path)]) == 2
    assert "train.window=all cannot be used with cloze rows" in capsys.readouterr().err


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """A background job of a shell is born deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_and_a_polite_kill_end_with_130_and_an_interrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    from recbench.training import loop

    train_epoch = loop._train_epoch
    for number in (signal.SIGINT, signal.SIGTERM):

        def stopped(*args: object, number: int = number) -> dict[str, float]:
            losses = train_epoch(*args)  # type: ignore[arg-type]
            os.kill(os.getpid(), number)
            return losses

        monkeypatch.setattr(loop, "_train_epoch", stopped)
        runs = tmp_path / str(int(number))
        assert run(["train", "--backbone", "sasrec", *SMALL, "--runs", str(runs)]) == 130
        assert "--resume" in capsys.readouterr().err
        assert json.loads((runs / "tiny-sasrec-none-s0" / "run.json").read_text())["status"] == "interrupted"


def test_compare_reads_the_runs_and_shows_the_oracle(capsys: Captured) -> None:
    assert run(["compare", "runs", "--baseline", "markov"]) == 0
    captured = capsys.readouterr()
    assert "markov" in captured.out
    assert "sasrec" in captured.out
    assert "oracle" in captured.out


def test_doctor_tells_versions_and_devices(capsys: Captured) -> None:
    assert run(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "cpu" in told["devices"]
    assert told["torch"]


def spoiled(home: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(home / "runs" / "tiny-sasrec-none-s0", tmp_path / "copy"))


@pytest.mark.parametrize(
    ("name", "text"), [("config.toml", "backbone = "), ("users.parquet", "PAR1"), ("run.json", "[")]
)
def test_evaluate_names_the_damaged_file_of_a_run(
    name: str, text: str, home: Path, tmp_path: Path, capsys: Captured
) -> None:
    run_ = spoiled(home, tmp_path)
    (run_ / name).write_text(text, encoding="utf-8")
    code, told = failed(["evaluate", str(run_)], capsys)
    assert code == 4
    assert str(run_ / name) in told


def test_damaged_ranks_are_written_again_by_what_compare_says_to_type(
    home: Path, tmp_path: Path, capsys: Captured
) -> None:
    run_ = spoiled(home, tmp_path)
    whole = (run_ / "users.parquet").read_bytes()
    (run_ / "users.parquet").write_bytes(whole[:300])
    asked = ["compare", str(run_), "runs/tiny-markov-none-s0"]
    code, told = failed(asked, capsys)
    assert code == 4
    command = told.partition("fix: ")[2]
    assert command.startswith(f"rm {run_}/users.parquet && recbench evaluate {run_}")
    (run_ / "users.parquet").unlink()
    assert run(["evaluate", str(run_)]) == 0
    assert f"{run_}/users.parquet was not there and is written again" in capsys.readouterr().out
    assert (run_ / "users.parquet").read_bytes() == whole
    assert run(asked) == 0


def test_evaluate_does_not_call_ranks_equal_where_there_were_none(home: Path, tmp_path: Path, capsys: Captured) -> None:
    run_ = spoiled(home, tmp_path)
    (run_ / "users.parquet").unlink()
    for differing in (None, 0):
        assert run(["evaluate", str(run_), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["differing"] == differing


@pytest.mark.parametrize(
    ("name", "fix"),
    [("users.parquet", "ranks again from its weights"), ("model.safetensors", "Copy the whole run folder")],
)
def test_verify_sends_to_weights_only_where_they_are_those_of_the_run(
    name: str, fix: str, home: Path, tmp_path: Path, capsys: Captured
) -> None:
    run_ = spoiled(home, tmp_path)
    (run_ / name).write_bytes(b"")
    assert run(["verify", str(run_), "--quiet"]) == 4
    assert fix in capsys.readouterr().err.partition("fix: ")[2]


@pytest.mark.parametrize(
    ("field", "value"), [("dataset", []), ("seed", "one"), ("protocol", None), ("metrics", {"test": {"ndcg@10": "x"}})]
)
def test_a_run_json_that_recbench_cannot_have_written_is_refused(
    field: str, value: object, home: Path, tmp_path: Path, capsys: Captured
) -> None:
    path = spoiled(home, tmp_path) / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}), encoding="utf-8")
    for asked in (["show"], ["verify"], ["evaluate"], ["compare", "runs/tiny-markov-none-s0"]):
        code, told = failed([*asked, str(path.parent)], capsys)
        assert code == 4
        assert f"{field} is" in told


def test_a_line_of_the_log_that_a_kill_cut_does_not_hide_the_run(home: Path, tmp_path: Path, capsys: Captured) -> None:
    run_ = spoiled(home, tmp_path)
    with (run_ / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"stage": "tr')
    assert run(["show", str(run_)]) == 0
    assert "* best so far" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        (["train", "--bogus"], "recbench train --help"),
        (["recommend", "runs/x", "--user"], "recbench recommend --help"),
        (["bogus"], "recbench --help"),
    ],
)
def test_a_line_that_cannot_be_read_leads_to_the_help_of_its_command(
    line: list[str], fix: str, capsys: Captured
) -> None:
    assert run(line) == 2
    assert f"fix: {fix}\n" in capsys.readouterr().err


def test_an_output_without_space_is_told_and_any_other_trouble_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def failing(number: int, path: str | None = None) -> Callable[..., int]:
        def app(*_args: object, **_named: object) -> int:
            raise OSError(number, "the disk's own words", path)

        return app

    monkeypatch.setattr("recbench.cli.app.app", failing(errno.ENOSPC))
    assert run(["list"]) == 4
    assert "No space is left for the output." in capsys.readouterr().err
    monkeypatch.setattr("recbench.cli.app.app", failing(errno.EACCES, "runs/theirs/model.safetensors"))
    assert run(["list"]) == 4
    assert "runs/theirs/model.safetensors is closed to you." in capsys.readouterr().err
    monkeypatch.setattr("recbench.cli.app.app", failing(errno.EBADF))
    with pytest.raises(OSError, match="own words"):
        run(["list"])
