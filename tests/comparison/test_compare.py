"""Runs in, a comparison out: what is grouped, what is said, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recbench.comparison import Settings, compare
from recbench.comparison.model import Comparison, Row, Verdict
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.metrics import parse
from recbench.report import machine, markdown, tabular, text
from recbench.runs.folder import find
from recbench.runs.manifest import Manifest
from tests.run_folders import PROTOCOL, make_run, ranks

N = 2000


def places(share_of_hits: float, seed: int = 0, n: int = N) -> pd.DataFrame:
    """Targets at the first place for a share of users, else at place 100."""
    hit = np.random.default_rng(seed).random(n) < share_of_hits
    return ranks(np.where(hit, 0, 99))


def compared(home: Path, **settings: Any) -> Comparison:
    return compare(find([home]), Settings(**settings))


def row(comparison: Comparison, label: str, metric: str = "ndcg@10") -> Row:
    (table,) = comparison.tables
    (found,) = [r for r in table.rows if r.system.label == label and r.metric == parse(metric)]
    return found


def refusal(home: Path, **settings: Any) -> RecbenchError:
    with pytest.raises(RecbenchError) as error:
        compared(home, **settings)
    assert error.value.code == Exit.COMPARISON
    assert error.value.why
    assert error.value.fix
    return error.value


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"dataset": {"fingerprint": "0" * 64}}, "dataset.fingerprint"),
        ({"dataset": {"items": 5}}, "dataset.items"),
        ({"protocol": {**PROTOCOL, "split": {"name": "temporal"}}}, "protocol.split.name"),
        ({"protocol": {**PROTOCOL, "tie_rule": "hash"}}, "protocol.tie_rule"),
        ({"protocol": {**PROTOCOL, "catalogue": 7}}, "protocol.catalogue"),
        ({"protocol": {**PROTOCOL, "candidates": "100 sampled"}}, "protocol.candidates"),
        ({"protocol": {**PROTOCOL, "metrics": "optimistic"}}, "protocol.metrics"),
    ],
)
def test_runs_of_another_exam_are_refused_naming_field_values_and_runs(
    changed: dict[str, Any], field: str, tmp_path: Path
) -> None:
    make_run(tmp_path, "markov", places(0.1))
    make_run(tmp_path, "sasrec", places(0.2), **changed)
    error = refusal(tmp_path)
    assert field in error.what
    assert "markov" in error.why
    assert "sasrec" in error.why


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_an_unfinished_run_is_refused_with_the_command_that_finishes_it(status: str, tmp_path: Path) -> None:
    make_run(tmp_path, "markov", places(0.1))
    typed = ["train", "--backbone", "sasrec", "--set", "train.epochs=3", "--datasets", "my data"]
    make_run(tmp_path, "sasrec", places(0.2), status=status, argv=["/bin/recbench", *typed])
    error = refusal(tmp_path)
    assert status in error.why
    command = "recbench train --backbone sasrec --set train.epochs=3 --datasets 'my data' --dataset beauty --resume"
    assert f"{command}, or leave" in error.fix
    assert ("may still be at work" in error.why) == (status == "running")


def test_a_run_of_another_command_is_not_finished_by_recbench_train(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", places(0.1))
    make_run(tmp_path, "sasrec", places(0.2), status="failed", argv=["recbench", "demo"])
    error = refusal(tmp_path)
    assert "recbench train" not in error.fix
    assert "run.json: argv" in error.fix


def test_one_system_alone_and_a_seed_given_twice_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path, "sasrec", places(0.2))
    refusal(tmp_path)
    make_run(tmp_path, "sasrec", places(0.2), folder="again")
    assert "twice" in refusal(tmp_path).what


def test_other_users_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", places(0.1))
    make_run(tmp_path, "sasrec", places(0.1, n=N - 1))
    assert "same" in refusal(tmp_path).what + refusal(tmp_path).why


def test_ranks_that_were_changed_after_the_run_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", places(0.1))
    folder = make_run(tmp_path, "sasrec", places(0.1))
    places(0.9).to_parquet(folder / "users.parquet", index=False)
    with pytest.raises(RecbenchError, match="changed"):
        compared(tmp_path)


def test_ranks_that_are_none_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", places(0.1))
    folder = make_run(tmp_path, "sasrec", places(0.1).drop(columns="above_unseen"))
    with pytest.raises(RecbenchError, match=r"cannot be read\..*above_unseen"):
        compared(tmp_path)
    (folder / "users.parquet").write_bytes(b"torn")
    manifest = Manifest.read(folder)
    replace(manifest, files={}).write(folder)
    with pytest.raises(RecbenchError, match=r"users\.parquet cannot be read"):
        compared(tmp_path)


def test_seeds_are_averaged_within_a_user_and_their_spread_is_shown(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", ranks([99, 99, 0, 99]))
    make_run(tmp_path, "sasrec", ranks([0, 99, 0, 99]), seed=0)
    make_run(tmp_path, "sasrec", ranks([0, 0, 0, 99]), seed=1)
    found = row(compared(tmp_path, metrics=(parse("hr@10"),), baseline="markov"), "sasrec", "hr@10")
    assert found.system.seeds == (0, 1)
    assert found.score.by_seed == (0.5, 0.75)
    assert found.score.mean == pytest.approx(0.625)
    assert found.score.sd == pytest.approx(0.125 * 2**0.5)
    assert found.contrast is not None
    assert found.contrast.mean == pytest.approx(0.375)  # differences by user: 1, 1/2, 0, 0
    assert (found.contrast.better, found.contrast.worse, found.contrast.equal) == (0.5, 0.0, 0.5)
    assert found.contrast.seeds_covered


def test_systems_of_one_name_are_told_apart_by_the_settings_that_differ(tmp_path: Path) -> None:
    make_run(tmp_path, "sasrec", places(0.1), config="[train]\nlearning_rate = 0.001\n", folder="a")
    make_run(tmp_path, "sasrec", places(0.2), config="[train]\nlearning_rate = 0.01\n", folder="b")
    (table,) = compared(tmp_path).tables
    labels = {s.label for s in table.systems}
    assert labels == {"sasrec (train.learning_rate=0.001)", "sasrec (train.learning_rate=0.01)"}


def test_the_settings_in_a_name_are_written_as_they_are_typed(tmp_path: Path) -> None:
    make_run(tmp_path, "gru4rec", places(0.1), config="[backbone]\nnorm = true\n", folder="a")
    make_run(tmp_path, "gru4rec", places(0.2), folder="b")
    (table,) = compared(tmp_path).tables
    assert {s.label for s in table.systems} == {"gru4rec (backbone.norm=true)", "gru4rec (backbone.norm=unset)"}


def test_a_head_is_held_against_its_own_backbone_without_one(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", places(0.3))
    for backbone in ("sasrec", "gru4rec"):
        make_run(tmp_path, backbone, places(0.1))
        make_run(tmp_path, backbone, places(0.2), head="lares")
    (table,) = compared(tmp_path).tables
    held = {r.system.label: r.contrast.against for r in table.on(parse("ndcg@10")) if r.contrast}
    assert held == {"markov": "sasrec", "sasrec+lares": "sasrec", "gru4rec": "sasrec", "gru4rec+lares": "gru4rec"}


def test_a_baseline_that_one_dataset_lacks_is_refused_naming_it(tmp_path: Path) -> None:
    for name, baseline in (("beauty", "markov"), ("toys", "ease")):
        make_run(tmp_path, baseline, places(0.3), dataset={"name": name})
        make_run(tmp_path, "sasrec", places(0.1), dataset={"name": name})
    assert refusal(tmp_path, baseline="markov").what == "No system on toys is called 'markov'."


def test_an_unknown_baseline_is_answered_with_the_nearest(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", places(0.3))
    make_run(tmp_path, "sasrec", places(0.1))
    assert "markov" in refusal(tmp_path, baseline="markow").fix


def shifted(base: pd.DataFrame, better: int, worse: int = 0) -> pd.DataFrame:
    """``base`` with some misses turned to hits and some hits to misses."""
    changed = base.copy()
    for column in ("above", "above_unseen"):
        misses, hits = changed.index[base["above"] > 0], changed.index[base["above"] == 0]
        changed.loc[misses[:better], column] = 0
        changed.loc[hits[:worse], column] = 99
    return changed


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [
        (300, 0, Verdict.BETTER),
        (0, 300, Verdict.WORSE),
        (5, 0, Verdict.BETTER_BUT_SMALL),
        (0, 5, Verdict.WORSE_BUT_SMALL),
        (0, 0, Verdict.EQUIVALENT),
        (60, 50, Verdict.UNDECIDED),
    ],
)
def test_each_verdict_is_reached(better: int, worse: int, verdict: Verdict, tmp_path: Path) -> None:
    base = places(0.5)
    make_run(tmp_path, "markov", base)
    make_run(tmp_path, "ease", shifted(base, better, worse))
    contrast = row(compared(tmp_path, baseline="markov", metrics=(parse("hr@10"),)), "ease", "hr@10").contrast
    assert contrast is not None
    assert contrast.verdict == verdict
    assert 0 < contrast.p <= 1


def test_p_is_that_of_scipys_paired_t_and_holm_spans_the_table(tmp_path: Path) -> None:
    from scipy.stats import ttest_rel

    base = places(0.3)
    make_run(tmp_path, "markov", base)
    make_run(tmp_path, "ease", shifted(base, 40, 20))
    make_run(tmp_path, "itemknn", shifted(base, 10, 25))
    found = compared(tmp_path, baseline="markov", metrics=(parse("hr@10"),))
    ps = {}
    upper = []  # one-sided p of "better", and what they are corrected to
    for label, table in (("ease", shifted(base, 40, 20)), ("itemknn", shifted(base, 10, 25))):
        contrast = row(found, label, "hr@10").contrast
        assert contrast is not None
        expected = ttest_rel((table["above"] < 10).astype(float), (base["above"] < 10).astype(float)).pvalue
        assert contrast.p == pytest.approx(expected, rel=1e-9)
        ps[contrast.p] = contrast.p_adjusted
        assert contrast.p_seeds_adjusted == pytest.approx(contrast.p_adjusted)  # nothing is random in training
        assert contrast.claims is not None
        upper.append((contrast.p / 2 if contrast.mean > 0 else 1 - contrast.p / 2, contrast.claims.superiority))
    assert [told for _, told in upper] == pytest.approx([2 * upper[0][0], upper[1][0]])
    small, large = sorted(ps)
    assert ps[small] == pytest.approx(min(1, 2 * small))
    assert ps[large] == pytest.approx(max(large, 2 * small))


def test_unseen_candidates_use_their_own_counts(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", ranks([50] * 20, above_unseen=[50] * 20))
    make_run(tmp_path, "ease", ranks([50] * 20, above_unseen=[0] * 20))
    assert row(compared(tmp_path), "ease").score.mean == 0
    assert row(compared(tmp_path, candidates="unseen"), "ease").score.mean == 1


def warned(home: Path) -> str:
    (table,) = compared(home).tables
    return "\n".join(table.warnings)


def test_a_reader_is_warned_of_one_seed_mixed_losses_short_training_and_missing_baselines(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", places(0.1))
    make_run(tmp_path, "sasrec", places(0.2), best_epoch=30, epochs=30)
    make_run(tmp_path, "sasrec", places(0.2), head="lares", loss="BCE, one negative", inputs={"history": 20})
    told = warned(tmp_path)
    for words in (
        "One seed only",
        "Mixed training losses",
        "Best epoch is the last",
        "Missing trivial baselines",
        "Unequal inputs",
    ):
        assert words in told


def test_unequal_inputs_are_told_by_value(tmp_path: Path) -> None:
    for head, words in (("none", False), ("pause", False), ("lasar", True)):
        make_run(tmp_path, "sasrec", places(0.2), head=head, inputs={"history": 50, "text": words})
    assert "Unequal inputs: text differs. false: sasrec, sasrec+pause; true: sasrec+lasar." in warned(tmp_path)


def test_datasets_have_a_table_each(tmp_path: Path) -> None:
    for name in ("beauty", "toys"):
        for backbone in ("markov", "sasrec"):
            make_run(tmp_path, backbone, places(0.2), dataset={"name": name, "fingerprint": name})
    assert [table.dataset for table in compared(tmp_path).tables] == ["beauty", "toys"]


def test_every_format_says_the_same_numbers(tmp_path: Path) -> None:
    import csv
    import io
    import json

    base = places(0.3)
    oracle = {"test": {"ndcg@10": 0.9, "hr@10": 0.95}, "test_unseen": {"ndcg@10": 0.91, "hr@10": 0.96}}
    make_run(tmp_path, "markov", base, dataset={"oracle": oracle})
    make_run(tmp_path, "sasrec", shifted(base, 100), dataset={"oracle": oracle})
    found = compared(tmp_path, baseline="markov")
    shown = f"{row(found, 'sasrec').score.mean:.4f}"
    for rendered in (text.render(found), markdown.render(found)):
        assert shown in rendered
        assert "oracle" in rendered
        assert "0.9000" in rendered
    assert max(len(line) for line in text.render(found).splitlines()) <= 100
    rows = list(csv.DictReader(io.StringIO(tabular.render(found))))
    assert {r["system"] for r in rows} >= {"markov", "sasrec"}
    assert json.loads(machine.render(found))
