"""What is typed wrongly, and what cannot be written: what, why, fix and the exit code."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from recbench import registry
from recbench.cli.app import run
from tests.cli.commands import DIFFUSE, LARES, Captured, failed

pytestmark = pytest.mark.usefixtures("at_home")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["train"], 2, "No backbone was named"),
        (["train", "--backbone", "sasrek"], 2, "Did you mean sasrec?"),
        (["train", "--backbone", "sasrec", "--reason", "nonne"], 2, "Did you mean none?"),
        (["train", "--backbone", "sasrec", "--dataset", "tyni"], 3, "Did you mean tiny?"),
        (["train", "--backbone", "sasrec", "--set", "train.epoch=5"], 2, "Did you mean train.epochs?"),
        (["train", "--backbone", "sasrec", "--set", "epochs=3"], 2, "name its table, as in train.epochs"),
        (["compare", "runs/tiny-markov-none-s0"], 5, "recbench train --backbone popularity --dataset tiny"),
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


def test_a_plug_in_that_cannot_be_imported_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    (tmp_path / "torn_plugin.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = registry._third_party
    mine = (("torn", "torn_plugin:Torn"),)
    monkeypatch.setattr(registry, "_third_party", lambda group: mine if group == "recbench.backbones" else own(group))
    code, told = failed(["train", "--backbone", "torn"], capsys)
    assert code == 2
    assert "Backbone torn cannot be imported: torn_plugin:Torn" in told
    assert "No module named 'no_such_module_at_all'" in told
