"""Results of other tools: every form that is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbench.comparison import Settings, compare
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.by_user import Places
from recbench.evaluation.metrics import parse
from recbench.runs.sources import read
from recbench.stats.paired import Differences, paired_t, randomisation
from tests.run_folders import PROTOCOL, make_run, ranks

RANKS = np.array([1, 3, 12, 1, 2, 50])


def table(**changes: object) -> pd.DataFrame:
    """Two systems on six users."""
    users = np.arange(1, 7)
    frames = [
        pd.DataFrame(
            {"system": system, "dataset": "beauty", "seed": 0, "user": users, "target": users * 7 % 101 + 1, "rank": r}
        )
        for system, r in (("theirs", RANKS), ("other", RANKS[::-1]))
    ]
    return pd.concat(frames, ignore_index=True).assign(**changes)


def write(path: Path, frame: pd.DataFrame) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix in (".tsv", ".inter") else ",")
    return path


def refusal(path: Path, **options: object) -> RecbenchError:
    with pytest.raises(RecbenchError) as error:
        read([path], **options)  # type: ignore[arg-type]
    assert error.value.code == Exit.COMPARISON
    assert str(path) in error.value.what
    assert error.value.fix
    return error.value


@pytest.mark.parametrize("name", ["results.parquet", "results.csv", "results.tsv"])
def test_a_result_table_is_a_run_a_system_and_seed(name: str, tmp_path: Path) -> None:
    runs = read([write(tmp_path / name, table())])
    assert [run.manifest.system for run in runs] == ["theirs", "other"]
    places = Places.of(runs[0])
    assert places.values(parse("mrr@20"), "all", "expected") == pytest.approx([1, 1 / 3, 1 / 12, 1, 1 / 2, 0])


def test_a_folder_of_tables_and_a_pattern_of_them_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", table())
    write(tmp_path / "b.csv", table(system="third").head(6))
    (tmp_path / "notes.md").write_text("no results")
    assert [run.manifest.system for run in read([tmp_path])] == ["theirs", "other", "third"]
    assert len(read([tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "a.csv"])) == 3


def test_names_come_from_the_file_where_no_column_says(tmp_path: Path) -> None:
    bare = table().head(6)[["user", "target", "rank"]]
    (run,) = read([write(tmp_path / "gru4rec-s3.csv", bare)], dataset="beauty")
    assert (run.manifest.system, run.manifest.seed, run.manifest.dataset["name"]) == ("gru4rec", 3, "beauty")


def test_an_export_in_recboles_style_is_read_with_its_typed_header(tmp_path: Path) -> None:
    frame = table().head(6)[["user", "target", "rank"]]
    frame.columns = pd.Index(["user_id:token", "item_id:token", "rank:float"])
    (run,) = read([write(tmp_path / "SASRec-s1.inter", frame)])
    assert run.given is not None
    assert run.given.kind == "recbole"
    assert Places.of(run).values(parse("hr@10"), "all", "expected").mean() == pytest.approx(4 / 6)


def test_metrics_by_user_are_taken_as_they_are_and_others_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_id:token": range(6), "ndcg@10:float": 0.25, "hit@10:float": 1.0})
    (run,) = read([write(tmp_path / "theirs.tsv", frame)])
    places = Places.of(run)
    assert places.values(parse("hr@10"), "all", "expected").mean() == 1
    assert places.values(parse("ndcg@10"), "all", "expected").mean() == 0.25
    with pytest.raises(RecbenchError, match="It holds ndcg@10, hr@10"):
        places.values(parse("ndcg@20"), "all", "expected")


def test_a_missing_rank_is_a_miss_and_no_metric_may_look_past_the_list(tmp_path: Path) -> None:
    frame = table().head(6).assign(rank=[1, 2, None, 10, None, 3])
    (run,) = read([write(tmp_path / "t.csv", frame)])
    places = Places.of(run)
    assert places.values(parse("hr@10"), "all", "expected").tolist() == [1, 1, 0, 1, 0, 1]
    with pytest.raises(RecbenchError, match="end at rank 10"):
        places.values(parse("hr@20"), "all", "expected")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": 0}, "from 1"),
        ({"rank": 1.5}, "whole number"),
        ({"rank": "first"}, "whole number"),
        ({"user": None}, "no user"),
        ({"user": 1, "target": 5}, "twice"),
        ({"seed": "x"}, "seed"),
        ({"system": None}, "no system"),
        ({"candidates": "sampled"}, "all or unseen"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    assert words in refusal(write(tmp_path / "t.csv", table(**changes))).why


@pytest.mark.parametrize("text", ["", "user,target\n1,2\n", "\n\n", "a;b\n1;2\n"])
def test_a_file_that_is_no_table_of_results_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    refusal(path)


def test_bytes_that_are_no_text_and_a_broken_parquet_are_refused(tmp_path: Path) -> None:
    for name in ("t.csv", "t.parquet"):
        path = tmp_path / name
        path.write_bytes(b"\xff\xfe\x00PAR1")
        refusal(path)


def test_a_table_beside_runs_is_compared_on_trust_and_says_so(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "markov", ranks(RANKS[::-1] - 1))
    write(tmp_path / "t.csv", table().head(6))
    found = compare(read([tmp_path / "runs", tmp_path / "t.csv"]), Settings(baseline="markov"))
    (told,) = [text for text in found.tables[0].warnings if "taken on trust" in text]
    assert "theirs" in told
    (system,) = [s for s in found.tables[0].systems if s.label == "theirs"]
    assert (system.source, system.n_parameters) == ("table", None)


def test_a_table_of_other_candidates_is_refused(tmp_path: Path) -> None:
    runs = read([write(tmp_path / "t.csv", table(candidates="unseen"))])
    with pytest.raises(RecbenchError, match="unseen items, not all"):
        compare(runs)
    assert compare(runs, Settings(candidates="unseen")).tables


def test_disjoint_users_and_text_for_numbers_are_refused_with_what_they_share(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", table().head(6))
    write(tmp_path / "b.csv", table(user=[f"u{n}" for n in range(12)]).tail(6))
    with pytest.raises(RecbenchError, match="0 pairs of user and target stand in both"):
        compare(read([tmp_path]))


@pytest.mark.parametrize("users", [[1, 2, 4], [1, 2]])
def test_a_table_of_metrics_of_other_users_is_refused(users: list[int], tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "markov", ranks([0, 1, 2]))
    path = write(tmp_path / "a.csv", pd.DataFrame({"user": users, "ndcg@10": 0.5}))
    with pytest.raises(RecbenchError, match="do not rank the same targets"):
        compare(read([tmp_path / "runs", path], dataset="beauty"), Settings(metrics=(parse("ndcg@10"),)))


def trec(folder: Path, seed: int) -> tuple[Path, Path]:
    """A run of 40 queries with lists of 30, and one to five relevant documents a query, some outside of the list."""
    rng, relevant = np.random.default_rng(seed), np.random.default_rng(0)
    run_lines, qrel_lines = [], []
    for q in range(40):
        docs = rng.permutation(60)[:30]
        run_lines += [f"q{q} Q0 d{doc} {place + 1} {-place}.5 sasrec-s2" for place, doc in enumerate(docs)]
        wanted = relevant.permutation(60)[: relevant.integers(1, 6)]
        qrel_lines += [f"q{q} 0 d{doc} 1" for doc in wanted] + [f"q{q} 0 d99 0"]
    run, qrels = folder / f"{seed}.run", folder / "toys.qrels"
    run.write_text("\n".join(run_lines))
    qrels.write_text("\n".join(qrel_lines))
    return run, qrels


def test_a_trec_run_scores_as_ir_measures_says(tmp_path: Path) -> None:
    ir_measures = pytest.importorskip("ir_measures")
    path, qrels = trec(tmp_path, 1)
    (run,) = read([path], qrels=qrels)
    assert (run.manifest.system, run.manifest.seed, run.manifest.dataset["name"]) == ("sasrec", 2, "toys")
    names = {
        "ndcg@10": "nDCG@10",
        "recall@10": "R@10",
        "hr@10": "Success@10",
        "precision@10": "P@10",
        "mrr@10": "RR@10",
        "map@30": "AP@30",
    }
    measures = {ours: ir_measures.parse_measure(theirs) for ours, theirs in names.items()}
    told = ir_measures.calc_aggregate(
        list(measures.values()), ir_measures.read_trec_qrels(str(qrels)), ir_measures.read_trec_run(str(path))
    )
    for ours, theirs in measures.items():
        if ours == "map@30":  # theirs divides by all relevant items, ours by those that fit; the same at this cut-off
            assert run.given is not None
        found = Places.of(run).values(parse(ours), "all", "expected").mean()
        assert found == pytest.approx(told[theirs], abs=1e-9), ours


def test_trec_runs_score_and_differ_as_ranx_says(tmp_path: Path) -> None:
    ranx = pytest.importorskip("ranx", reason="ranx is no dependency of the tests: it brings numba")
    from ranx.statistical_tests.fisher_randomization_test import fisher_randomization_test

    paths = [trec(tmp_path, seed)[0] for seed in (1, 2)]
    qrels = tmp_path / "toys.qrels"
    wanted = ranx.Qrels.from_file(str(qrels), kind="trec")
    theirs = [ranx.Run.from_file(str(path), kind="trec", name=path.stem) for path in paths]
    names = {"hr@10": "hit_rate@10"} | {
        name: name for name in ("ndcg@10", "recall@10", "precision@10", "mrr@10", "map@30")
    }
    for ours, name in names.items():
        told = [ranx.evaluate(wanted, run, name, return_mean=False) for run in theirs]
        scores = [Places.of(read([path], qrels=qrels)[0]).values(parse(ours), "all", "expected") for path in paths]
        for mine, other in zip(scores, told, strict=True):
            assert sorted(mine) == pytest.approx(sorted(other), abs=1e-9), ours
        found = ranx.compare(wanted, theirs, [name], stat_test="student")
        (p,) = [pair[name]["p_value"] for pair in found.comparisons.values()]
        d = Differences.between(*scores)
        assert paired_t(d).p == pytest.approx(p, rel=1e-6), ours
        p, _ = fisher_randomization_test(*scores, n_permutations=4_000)
        assert randomisation(d, resamples=4_000).p == pytest.approx(p, abs=4 * (0.5 / 4_000) ** 0.5), ours


def test_counts_without_ties_have_none_among_unseen_items_either(tmp_path: Path) -> None:
    counts = table().assign(above=lambda t: t["rank"] - 1, above_unseen=0).drop(columns="rank")
    found = compare(read([write(tmp_path / "a.csv", counts)]), Settings(candidates="unseen")).tables[0]
    assert [row.score.mean for row in found.rows] == [1.0] * 4
    assert compare(read([tmp_path / "a.csv"])).tables[0].rows[0].score.mean < 1


def sets(home: Path, target: str) -> tuple[Path, Path]:
    """A run folder, a table and a TREC run that rank the three targets of 60 users alike."""
    rng = np.random.default_rng(3)
    above = np.stack([rng.permutation(30)[:3] for _ in range(60)])
    wanted = np.tile([5, 6, 7], (60, 1))
    frame = ranks(above.ravel())
    frame["user"], frame["target"] = np.repeat(np.arange(1, 61), 3), wanted.ravel()
    make_run(home / "runs", "sasrec", frame, protocol={**PROTOCOL, "split": {"name": "temporal", "target": target}})
    given = pd.DataFrame({"user": frame["user"], "target": frame["target"], "rank": frame["above"] + 1})
    write(home / "theirs.csv", given.sample(frac=1, random_state=1))
    lists = np.arange(1_000, 1_030) + np.zeros((60, 1), int)
    np.put_along_axis(lists, above, wanted, axis=1)
    lines = [f"{u + 1} Q0 {item} {p} {-p} trec" for u, row in enumerate(lists) for p, item in enumerate(row)]
    (home / "theirs.run").write_text("\n".join(lines))
    (home / "qrels").write_text("\n".join(f"{user} 0 {item} 1" for user, item in given[["user", "target"]].to_numpy()))
    return home / "theirs.run", home / "qrels"


def test_the_targets_of_a_set_are_one_in_a_table_and_a_trec_run_beside_it(tmp_path: Path) -> None:
    path, qrels = sets(tmp_path, "all")
    runs = read([tmp_path / "runs", tmp_path / "theirs.csv", path], qrels=qrels, dataset="beauty")
    (found,) = compare(runs, Settings(metrics=tuple(map(parse, ("ndcg@10", "hr@10", "map@10"))))).tables
    assert len(found.rows) == 9
    for row in found.rows:
        assert row.score.mean == pytest.approx(found.row("sasrec", row.metric).score.mean)


def test_queries_of_a_target_each_are_not_compared_with_sets(tmp_path: Path) -> None:
    path, qrels = sets(tmp_path, "successive")
    with pytest.raises(RecbenchError, match="several targets a query"):
        compare(read([tmp_path / "runs", path], qrels=qrels, dataset="beauty"))
    (found,) = compare(read([tmp_path / "runs", tmp_path / "theirs.csv"], dataset="beauty")).tables
    assert {row.score.mean for row in found.rows if row.metric.family == "hr"} == {found.rows[-1].score.mean}


def test_equal_scores_of_a_trec_run_are_ties(tmp_path: Path) -> None:
    (tmp_path / "a.run").write_text("q Q0 d1 1 3 tag\nq Q0 d2 2 2 tag\nq Q0 d3 3 2 tag\n")
    (tmp_path / "qrels").write_text("q 0 d3 1\n")
    (run,) = read([tmp_path / "a.run"], qrels=tmp_path / "qrels")
    assert Places.of(run).values(parse("mrr@3"), "all", "expected").tolist() == [(1 / 2 + 1 / 3) / 2]


def test_a_trec_run_without_qrels_and_qrels_without_anything_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "a.run"
    run.write_text("q Q0 d1 1 3 tag\n")
    assert "--qrels" in refusal(run).fix
    empty = tmp_path / "qrels"
    empty.write_text("q 0 d1 0\n")
    with pytest.raises(RecbenchError, match="no relevant"):
        read([run], qrels=empty)


def test_a_line_of_a_trec_run_that_is_none_is_named(tmp_path: Path) -> None:
    run, qrels = tmp_path / "a.run", tmp_path / "qrels"
    run.write_text("q Q0 d1 1 3 tag\nq Q0 d2 2 high tag\n")
    qrels.write_text("q 0 d1 1\n")
    with pytest.raises(RecbenchError, match="Line 2"):
        read([run], qrels=qrels)
    run.write_text("q Q0 d1 1 3 tag\n")
    assert len(read([run, qrels], qrels=qrels)) == 1


def test_ids_are_taken_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item,rank\nNA,null,1\n007,7,2\n7,007,3\n7.0,x,\n", encoding="utf-8")
    frame = read([tmp_path / "a.csv"])[0].ranks()
    assert frame["user"].tolist() == ["NA", "007", "7", "7.0"]
    assert frame["target"].tolist() == ["null", "7", "007", "x"]
    assert frame["above"].tolist()[:3] == [0, 1, 2]
    assert frame["above"].iloc[3] > 10**9


def test_ids_that_are_all_whole_numbers_are_numbers_however_a_table_writes_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user;item;rank\n12.0; 3;1\n7.0;40 ;2\n", encoding="utf-8")
    frame = read([tmp_path / "a.csv"])[0].ranks()
    assert frame["user"].tolist() == [12, 7]
    assert frame["target"].tolist() == [3, 40]
    (tmp_path / "b.csv").write_text("user,item,rank\n1,2,1\n,3,2\n", encoding="utf-8")
    with pytest.raises(RecbenchError, match="1 of 2 rows have no user"):
        read([tmp_path / "b.csv"])


def test_quotes_and_words_for_nothing_are_names_in_trec_files(tmp_path: Path) -> None:
    (tmp_path / "qrels.txt").write_text('NA 0 d1 1\nq2 0 null 1\nq3 0 "d3 1\nq4 0 d4" 1\n', encoding="utf-8")
    lines = ["NA Q0 d1 1 2 a", "q2 Q0 d9 1 2 a", "q2 Q0 null 2 1 a", 'q3 Q0 "d3 1 2 a', 'q4 Q0 d4" 1 2 a']
    (tmp_path / "a.run").write_text("\n".join(lines) + "\n", encoding="utf-8")
    frame = read([tmp_path / "a.run"], qrels=tmp_path / "qrels.txt")[0].ranks()
    assert frame["user"].tolist() == ["NA", "q2", "q3", "q4"]
    assert frame["target"].tolist() == ["d1", "null", '"d3', 'd4"']
    assert frame["above"].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(("rank", "words"), [(0, "rank is 0 in"), (8.5, "rank is 8.5 in"), ("x", "rank is 'x' in")])
def test_a_wrong_value_is_told_as_it_was_written(rank: object, words: str, tmp_path: Path) -> None:
    assert words in refusal(write(tmp_path / "results.csv", table(rank=rank))).why


def test_a_wrong_seed_and_metric_are_told_as_they_were_written(tmp_path: Path) -> None:
    assert "The seed 1.5 is" in refusal(write(tmp_path / "seed.csv", table(seed=1.5))).why
    measured = table(**{"ndcg@10": 2.5}).drop(columns="rank")
    assert "ndcg@10 is 2.5 in" in refusal(write(tmp_path / "metric.csv", measured)).why
