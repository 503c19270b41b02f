"""Terminal tables: they fit their page, lose nothing that has no other place, and say what their marks mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbench.comparison import Comparison, Settings, compare
from recbench.evaluation.metrics import parse
from recbench.report import markdown, text
from recbench.report.grid import Column, lines, wrapped
from recbench.report.words import chosen
from recbench.runs.folder import find
from recbench.runs.sources import read
from tests.comparison.test_compare import places
from tests.run_folders import make_run, ranks


@pytest.fixture
def found(tmp_path: Path) -> Comparison:
    long = "[backbone]\nrather_a_long_name_of_a_setting = "
    make_run(tmp_path, "markov", places(0.1), ms_per_user=0.2, seconds={"fit": 1.0}, peak_memory_mb=300.0)
    for seed in range(2):
        make_run(tmp_path, "sasrec", places(0.2, seed=seed), seed=seed, config=f"{long}1\n", folder=f"a{seed}")
        make_run(tmp_path, "sasrec", places(0.3, seed=seed), seed=seed, config=f"{long}2\n", folder=f"b{seed}")
    metrics = tuple(map(parse, ("ndcg@10", "hr@10", "mrr@20", "precision@5")))
    return compare(find([tmp_path]), Settings(metrics=metrics, tests=("t", "wilcoxon", "randomisation"), resamples=199))


@pytest.mark.parametrize("width", [60, 80, 100, 160, 240])
def test_a_page_is_never_wider_than_its_terminal(width: int, found: Comparison) -> None:
    assert max(map(len, text.render(found, width).splitlines())) <= max(width, 60)


def test_a_narrow_page_folds_and_keeps_every_metric_and_the_verdict(found: Comparison) -> None:
    for width in (60, 240):
        shown = " ".join(text.render(found, width).split())
        for words in ("NDCG@10", "HR@10", "MRR@20", "Precision@5", "d NDCG@10 [95% CI]", "users needed", "better than"):
            assert words in shown
    assert "Tests on HR@10, MRR@20, Precision@5" in text.render(found, 60)
    assert "Tests on HR@10" not in text.render(found, 400)


def test_marks_are_explained_where_they_stand(found: Comparison) -> None:
    shown = text.render(found, 160)
    assert "?: may reject equal means" in shown
    assert "^: no system here is as good" in shown
    assert "Fewer than 5 runs" in shown
    assert "training runs as they are" in shown


def test_markdown_holds_the_same_tables(found: Comparison) -> None:
    shown = markdown.render(found)
    for words in ("### Size of the difference on NDCG@10", "### Tests on NDCG@10", "### Cost", "| ---"):
        assert words in shown


def test_optional_columns_go_first_and_the_rest_folds_behind_the_first() -> None:
    columns = [
        Column("name", ("a", "b"), left=True),
        Column("one", ("1" * 10, "1")),
        Column("gone", ("9" * 10, "9"), optional="more"),
        Column("two", ("2" * 10, "2")),
    ]
    folded = lines(columns, 20)
    assert not any("gone" in line for line in folded)
    assert [line.split() for line in folded if "name" in line] == [["name", "one"], ["name", "two"]]
    assert lines(columns, 80)[0].split() == ["name", "one", "gone", "two"]


def test_columns_that_belong_together_go_together() -> None:
    columns = [
        Column("name", ("a",), left=True),
        Column("d one", ("1" * 10,), optional="one"),
        Column("p", ("1" * 5,), optional="one"),
        Column("d two", ("2" * 10,), optional="two"),
        Column("q", ("2" * 5,), optional="two"),
    ]
    assert lines(columns, 80)[0].split() == ["name", "d", "one", "p", "d", "two", "q"]
    assert lines(columns, 40)[0].split() == ["name", "d", "one", "p"]
    assert lines(columns, 20) == []


def test_at_no_width_a_difference_stands_without_its_p(found: Comparison) -> None:
    for width in range(60, 160, 5):
        shown = lines(text._main(found.tables[0], found.settings), width)
        headings = " ".join(line for line in shown if line.lstrip().startswith("system"))
        assert headings.count("CI]") == headings.split().count("p")


def test_a_number_keeps_its_percent_sign() -> None:
    assert wrapped(["of the users 12.5 % differ"], 17) == ["of the users", "  12.5 % differ"]


def of(home: Path, ours: object, theirs: object, **settings: Any) -> Comparison:
    make_run(home, "markov", ranks(theirs))
    make_run(home, "ease", ranks(ours))
    return compare(find([home]), Settings(baseline="markov", **settings))


def test_where_the_control_scores_nothing_no_share_of_it_is_wished_for(tmp_path: Path) -> None:
    shown = text.render(of(tmp_path, np.arange(600) % 50, np.full(600, 99)), 400)
    assert "users needed" in shown
    assert "never" not in shown


def test_one_user_is_undecided_in_words_as_in_the_verdict(tmp_path: Path) -> None:
    found = of(tmp_path, [3], [3])
    assert found.tables[0].row("ease", parse("ndcg@10")).contrast.verdict == "undecided"  # type: ignore[union-attr]
    assert "ease: undecided against markov" in text.render(found)


def test_p_of_each_metric_is_corrected_over_its_own_comparisons_and_the_caption_says_so(tmp_path: Path) -> None:
    for name, hits in (("markov", 0.1), ("ease", 0.3), ("itemknn", 0.2)):
        make_run(tmp_path, name, places(hits))
    runs = find([tmp_path])
    ndcg, hr = parse("ndcg@10"), parse("hr@10")
    both, one = (compare(runs, Settings(baseline="markov", metrics=metrics)) for metrics in ((ndcg, hr), (hr,)))
    (both_of,), (one_of,) = both.tables, one.tables
    for name in ("ease", "itemknn"):
        assert both_of.row(name, hr).contrast.p_adjusted == one_of.row(name, hr).contrast.p_adjusted  # type: ignore[union-attr]
    for render in (text.render, markdown.render):
        assert "Holm over the 2 comparisons of this table on each metric." in " ".join(render(both).split())
        assert "Holm over the 2 comparisons of this table on HR@10." in " ".join(render(one).split())


def test_what_somebody_chose_is_said_to_its_last_digit(tmp_path: Path) -> None:
    for name, hits in (("markov", 0.1), ("ease", 0.3)):
        make_run(tmp_path, name, places(hits))
    shown = compare(find([tmp_path]), Settings(alpha=0.001, rope=0.0004))
    for told in (" ".join(render(shown).split()) for render in (text.render, markdown.render)):
        assert "[99.9% CI]" in told
        assert "decided at 0.1 %" in told
        assert "within +-0.04 %" in told
    assert [chosen(share) for share in (0.05, 0.95, 0.975, 1 - 0.005)] == ["5 %", "95 %", "97.5 %", "99.5 %"]
    assert chosen(0.01, 1) == "1.0 %"


def test_a_test_of_counts_alone_is_not_said_to_hold_for_other_users(tmp_path: Path) -> None:
    """A puts the target first for 2 % of users, B third for 4 %: the mean NDCG is the same."""
    user = np.arange(4_000)
    make_run(tmp_path, "markov", ranks(np.where(user < 80, 0, 99)))
    make_run(tmp_path, "ease", ranks(np.where(user % 1_000 >= 960, 2, 99)))
    shown = " ".join(text.render(compare(find([tmp_path]), Settings(tests=("sign",)))).split())
    assert "The mean may be the same: sign test rejects (p <0.001), t over users does not (p 1.000)." in shown
    assert "training noise" not in shown
    assert "*: decided at 5 %, by t as well." in shown


def test_markdown_makes_no_markup_of_a_name(tmp_path: Path) -> None:
    names = ["[here](http://x.y)", "~~gone~~", "$x_1$", "&lt;b&gt; & co", "plain"]
    lines = [f'"{name}",beauty,0,{user},7,{1 + user % 9}' for name in names for user in range(9)]
    table = tmp_path / "given.csv"
    table.write_text("\n".join(["system,dataset,seed,user,target,rank", *lines]), encoding="utf-8")
    shown = markdown.render(compare(read([table])))
    for name in (r"[here\](http://x.y)", r"\~\~gone\~\~", r"\$x\_1\$", r"\&lt;b\&gt; & co"):
        assert f"| {name} | 1 |" in shown


def test_the_mark_of_not_worse_is_explained(tmp_path: Path) -> None:
    for name in ("markov", "ease"):
        make_run(tmp_path, name, places(0.2, n=1_500))
    cuts = tmp_path / "cuts.csv"
    cuts.write_text("user,age\n" + "".join(f"{user},{user % 2}\n" for user in range(1, 1_501)), encoding="utf-8")
    asked = Settings(claim="non-inferiority", rope=0.5, slices=(f"{cuts}:age",))
    shown = text.render(compare(find([tmp_path]), asked))
    assert " >=" in shown
    assert ">= not worse" in shown
    assert ">=" not in text.render(compare(find([tmp_path]), Settings(slices=asked.slices)))


def test_what_one_seed_decided_says_that_training_noise_is_not_covered(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path, "sasrec", places(0.1, seed=seed), seed=seed)
        make_run(tmp_path, "sasrec", places(0.3, seed=seed), head="lares", seed=seed)
    make_run(tmp_path, "sasrec", places(0.3), head="pause")
    lines = text.render(compare(find([tmp_path])), 400).splitlines()
    sentences = {line.partition(":")[0]: line for line in lines if ": better than sasrec by" in line}
    assert sentences["sasrec+pause"].endswith("; training noise not covered.")
    assert "training noise" not in sentences["sasrec+lares"]


def test_letters_of_two_places_leave_the_next_column_where_it_is() -> None:
    names = ("plain", "\N{CJK UNIFIED IDEOGRAPH-4E2D}\N{CJK UNIFIED IDEOGRAPH-6587}", "e\N{COMBINING ACUTE ACCENT}t")
    shown = lines([Column("system", names, left=True), Column("mean", ("1", "2", "3"))], 60)
    assert [line[2:] for line in shown[2:]] == [f"plain{' ' * 6}1", f"{names[1]}{' ' * 7}2", f"{names[2]}{' ' * 9}3"]
