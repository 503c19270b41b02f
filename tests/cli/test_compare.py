"""`recbench compare`, whole: status, stdout, stderr, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recbench.cli.app import run
from tests.comparison.test_compare import places
from tests.run_folders import make_run

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_run(tmp_path / "runs", "markov", places(0.1))
    make_run(tmp_path / "runs", "sasrec", places(0.2, seed=1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_goes_to_stdout_and_warnings_to_stderr(home: Path, capsys: Captured) -> None:
    assert run(["compare"]) == 0
    captured = capsys.readouterr()
    assert "sasrec" in captured.out
    assert "Holm" in captured.out
    assert captured.out.endswith("\n")
    assert "warning" not in captured.out
    assert "One seed only" in captured.err


@pytest.mark.parametrize(
    "arguments", [["runs"], ["runs/*"], ["runs/beauty-markov-none-s0", "runs/beauty-sasrec-none-s0"]]
)
def test_runs_are_found_by_folder_pattern_or_name(arguments: list[str], home: Path, capsys: Captured) -> None:
    assert run(["compare", *arguments, "--quiet"]) == 0
    captured = capsys.readouterr()
    assert "markov" in captured.out
    assert captured.err == ""


def test_json_is_json_and_a_file_gets_the_format_of_its_suffix(home: Path, capsys: Captured) -> None:
    assert run(["compare", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert run(["compare", "--output", "table.md", "--quiet"]) == 0
    assert (home / "table.md").read_text().startswith("## beauty")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["compare", "nowhere"], 4, "No run at nowhere"),
        (["compare", "nowhere*"], 4, "Nothing matches"),
        (["compare", "--metric", "ndgc@10"], 2, "ndcg@10"),
        (["compare", "--baseline", "sasrek"], 5, "sasrec"),
        (["compare", "--output", "."], 2, "It is a folder"),
        (["compare", "--output", "no/where.md"], 2, "not a folder"),
        (["compare", "runs/beauty-sasrec-none-s0"], 5, "why: "),
        (["compare", "--json", "--format", "csv"], 2, "Leave out one"),
        (["compare", "--candidates", "some"], 2, "some"),
        (["compare", "--test", "wilcoxn"], 2, "wilcoxon"),
        (["compare", "--margin", "2"], 2, "share between 0 and 1"),
        (["compare", "--wish", "x"], 2, "--wish"),
        (["compare", "--slice", "lenght"], 2, "length"),
        (["compare", "--claim", "equivalence", "--test", "sign"], 2, "do not go together"),
        (["compare", "--test", "mcnemar", "--metric", "precision@10"], 5, "hits"),
    ],
)
def test_mistakes_are_answered_with_their_code(
    arguments: list[str], code: int, words: str, home: Path, capsys: Captured
) -> None:
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert "fix: " in captured.err


def test_no_runs_at_all_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["compare"]) == 4
    assert "recbench train" in capsys.readouterr().err


def test_tests_claims_and_margins_are_said_in_the_caption(home: Path, capsys: Captured) -> None:
    options = ["--test", "t,wilcoxon", "--margin", "2%", "--wish", "0.05", "--correction", "by", "--metric", "hr@10"]
    assert run(["compare", *options]) == 0
    captured = capsys.readouterr()
    for words in ("Benjamini-Yekutieli", "+-2.0 %", "to see 5.0 %", "Wilcoxon signed-rank"):
        assert words in captured.out
    assert "Wilcoxon leaves out" in captured.err
    assert run(["compare", "--claim", "non-inferiority", "--metric", "hr@10", "--quiet"]) == 0
    assert "one-sided t" in capsys.readouterr().out


def test_a_table_of_another_tool_stands_beside_runs(home: Path, capsys: Captured) -> None:
    users = range(1, 2001)
    lines = [f"{user},{user * 7 % 101 + 1},{1 if user % 4 == 0 else 30}" for user in users]
    (home / "theirs-s0.csv").write_text("user,target,rank\n" + "\n".join(lines) + "\n")
    assert run(["compare", "runs", "theirs-s0.csv", "--dataset", "beauty", "--metric", "hr@10"]) == 0
    captured = capsys.readouterr()
    assert "theirs" in captured.out
    assert "0.2500" in captured.out
    assert "taken on trust" in captured.err


@pytest.mark.parametrize("option", ["--dataset", "--qrels"])
def test_what_only_files_need_is_refused_where_there_are_none(option: str, home: Path, capsys: Captured) -> None:
    (home / "beauty").touch()
    assert run(["compare", "runs", option, "beauty"]) == 2
    assert f"{option} beauty is about nothing that is compared" in capsys.readouterr().err


def test_two_trec_runs_are_compared_by_their_qrels(tmp_path: Path, capsys: Captured) -> None:
    for tag, place in (("bm25", 1), ("dense", 2)):
        lines = [f"q{q} Q0 d{p} {p} {10 - p} {tag}" for q in range(30) for p in range(1, 4 if q % 2 else place + 2)]
        (tmp_path / f"{tag}.run").write_text("\n".join(lines))
    qrels = tmp_path / "news.qrels"
    qrels.write_text("\n".join(f"q{q} 0 d2 1" for q in range(30)))
    paths = [str(tmp_path / "bm25.run"), str(tmp_path / "dense.run")]
    assert run(["compare", *paths, "--qrels", str(qrels), "--metric", "mrr@3,hr@1"]) == 0
    assert capsys.readouterr().out.startswith("news")
    assert run(["compare", *paths]) == 5
    assert "--qrels" in capsys.readouterr().err


def test_one_user_is_no_evidence_and_no_size_is_made_of_it(tmp_path: Path, capsys: Captured) -> None:
    table = tmp_path / "one.csv"
    table.write_text("system,dataset,seed,user,target,rank\na,x,0,7,5,1\nb,x,0,7,5,3\n", encoding="utf-8")
    assert run(["compare", str(table)]) == 0
    captured = capsys.readouterr()
    assert "1 user, 1 seed" in captured.out
    assert "One user can show no difference." in captured.out
    assert "Size of the difference" not in captured.out
    assert "Only 1 user:" in captured.err


def test_a_suffix_that_says_no_format_is_refused_unless_the_format_is_said(home: Path, capsys: Captured) -> None:
    assert run(["compare", "--output", "x.foo"]) == 2
    assert "--output x.md" in capsys.readouterr().err
    assert not (home / "x.foo").exists()
    assert run(["compare", "--output", "x.foo", "--format", "csv", "--quiet"]) == 0
    assert run(["compare", "--output", "x.txt", "--quiet"]) == 0
    assert "Holm" in (home / "x.txt").read_text()


def test_a_wrong_choice_is_answered_in_our_words(home: Path, capsys: Captured) -> None:
    assert run(["compare", "--format", "foo"]) == 2
    assert capsys.readouterr().err.startswith("error: Invalid value for '--format': 'foo' is not one of 'table'")


def test_a_table_that_is_not_there_is_a_file_that_is_not_there(home: Path, capsys: Captured) -> None:
    (home / "neg.csv").touch()
    assert run(["compare", "nope.csv"]) == 5
    told = capsys.readouterr().err
    assert "There is no file nope.csv." in told
    assert "Did you mean neg.csv?" in told
