"""`recbench report`, whole: status, stderr, files."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbench.cli.app import run
from recbench.data.dataset import Dataset
from tests.report.given import log, skill
from tests.run_folders import make_run

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_run(tmp_path / "runs", "markov", skill(0.1, 1, 500))
    log(make_run(tmp_path / "runs", "sasrec", skill(0.3, 2, 500)), 0.1, 5)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_is_written_and_nothing_goes_to_stdout(home: Path, capsys: Captured) -> None:
    assert run(["report"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "wrote report.html" in captured.err
    assert (home / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_figures_are_written_in_three_formats(home: Path, capsys: Captured) -> None:
    assert run(["report", "runs/*", "--output", "r.html", "--figures", "deep/figures"]) == 0
    names = {path.name for path in (home / "deep" / "figures").iterdir()}
    assert {"forest-beauty.png", "forest-beauty.svg", "forest-beauty.pdf", "learning-beauty.pdf"} <= names
    assert f"{len(names)} figure files" in capsys.readouterr().err


def test_settings_reach_the_page(home: Path) -> None:
    arguments = ["--metric", "hr@5", "--candidates", "unseen", "--baseline", "markov", "--correction", "by"]
    assert run(["report", *arguments, "--quiet"]) == 0
    text = (home / "report.html").read_text()
    for told in ("HR@5", "unseen items ranked", "against markov", "Benjamini-Yekutieli"):
        assert told in text


def test_the_card_and_the_slices_of_the_very_data_are_shown(tiny_home: Path, home: Path) -> None:
    import pandas as pd

    dataset = Dataset(tiny_home / "tiny")
    queries = dataset.queries("test")
    known = {"name": "tiny", "fingerprint": dataset.card.fingerprint, "items": dataset.n_items}
    for backbone, place in (("markov", 3), ("sasrec", 0)):
        columns = dict.fromkeys(("above", "tied", "above_unseen", "tied_unseen"), place)
        frame = pd.DataFrame({"split": "test", "user": queries.histories.users, "target": queries.targets, **columns})
        make_run(home / "real", backbone, frame, dataset=known)
    assert run(["report", "real", "--datasets", str(tiny_home), "--quiet"]) == 0
    text = (home / "report.html").read_text()
    assert 'id="slices-tiny-popularity"' in text
    assert dataset.card.sequence_sha256 in text
    assert run(["report", "--datasets", str(tiny_home), "--quiet"]) == 0
    assert "Data audit of beauty" in (home / "report.html").read_text()


def test_the_card_of_another_preparation_is_no_evidence(tiny_home: Path, home: Path) -> None:
    for backbone in ("markov", "sasrec"):
        make_run(home / "other", backbone, skill(0.2, 1, 300), dataset={"name": "tiny", "fingerprint": "0" * 64})
    assert run(["report", "other", "--datasets", str(tiny_home), "--quiet"]) == 0
    text = (home / "report.html").read_text()
    assert "is another preparation than the one the runs were made on" in text
    assert Dataset(tiny_home / "tiny").card.sequence_sha256 not in text
    assert "Slices of users" in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["report", "nowhere"], 4, "nowhere"),
        (["report", "--output", "."], 2, "It is a folder"),
        (["report", "--output", "no/where.html"], 2, "not a folder"),
        (["report", "--figures", "runs/beauty-markov-none-s0/run.json"], 2, "is a file"),
        (["report", "--baseline", "sasrek"], 5, "sasrec"),
        (["report", "--metric", "ndgc@10"], 2, "ndcg@10"),
        (["report", "--slice", "age"], 2, "Unknown slice"),
    ],
)
def test_mistakes_are_answered_with_their_code_and_write_nothing(
    arguments: list[str], code: int, words: str, home: Path, capsys: Captured
) -> None:
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert "fix: " in captured.err
    assert not (home / "report.html").exists()


def test_runs_of_another_exam_are_refused(home: Path, capsys: Captured) -> None:
    make_run(home / "runs", "ease", skill(0.3, 2, 500), dataset={"fingerprint": "0" * 64})
    assert run(["report"]) == 5
    assert "dataset.fingerprint" in capsys.readouterr().err


def test_without_the_extra_the_command_says_how_to_get_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    from recbench.report import extra

    monkeypatch.setattr(extra, "find_spec", lambda name: None if name == "matplotlib" else object())
    assert run(["report"]) == 2
    captured = capsys.readouterr()
    assert "matplotlib is not installed" in captured.err
    assert "recbench[report]" in captured.err
