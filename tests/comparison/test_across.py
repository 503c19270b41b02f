"""Several datasets: tested by rank from five on, refused below with the reason, never averaged."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from recbench.comparison import Comparison, Settings, compare
from recbench.evaluation.metrics import parse
from recbench.report import machine, markdown, tabular, text
from recbench.runs.folder import find
from tests.comparison.test_compare import places
from tests.run_folders import PROTOCOL, make_run

SHARES = {"popularity": 0.10, "markov": 0.20, "ease": 0.22}


def home(path: Path, n: int, systems: int = 3, **changes: dict[str, object]) -> Path:
    for number in range(n):
        for at, (name, share) in enumerate(list(SHARES.items())[:systems]):
            table = places(share, seed=10 * number + at, n=600)
            manifest = changes.get(f"d{number}", {})
            make_run(path, name, table, dataset={"name": f"d{number}", "fingerprint": str(number)}, **manifest)
    return path


def compared(path: Path, **settings: object) -> Comparison:
    return compare(find([path]), Settings(**settings))  # type: ignore[arg-type]


def test_five_datasets_are_tested_by_the_ranks_of_their_means(tmp_path: Path) -> None:
    found = compared(home(tmp_path, 5), metrics=(parse("hr@10"),), baseline="popularity")
    (across,) = found.across
    assert found.across_refused is None
    scores = np.array([[t.row(label, parse("hr@10")).score.mean for label in across.labels] for t in found.tables])
    assert across.friedman is not None
    assert across.friedman.p == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue)
    assert across.mean_ranks == pytest.approx(stats.rankdata(-scores, axis=1).mean(axis=0))
    assert list(across.mean_ranks) == sorted(across.mean_ranks)
    assert across.labels[-1] == "popularity"
    assert across.control == "popularity"
    ease = next(a for a in across.against if a.label == "ease")
    assert ease.z > 0
    assert ease.posterior.better > 0.95
    columns = {label: scores[:, across.labels.index(label)] for label in across.labels}
    assert ease.differences == pytest.approx(columns["ease"] / columns["popularity"] - 1)
    low, high = sorted(across.against, key=lambda a: a.p)
    assert (low.p_adjusted, high.p_adjusted) == pytest.approx((min(1, 2 * low.p), max(min(1, 2 * low.p), high.p)))


def test_every_format_tells_the_ranks(tmp_path: Path) -> None:
    found = compared(home(tmp_path, 5))
    for rendered in (text.render(found), markdown.render(found)):
        assert "over 5 datasets, by rank" in rendered
        assert "Nemenyi critical difference" in rendered
        assert "Iman-Davenport" in rendered
    assert len(machine.tree(found)["across"]) == 2


def test_the_csv_holds_every_test_over_datasets_a_line_each(tmp_path: Path) -> None:
    found = compared(home(tmp_path, 6), metrics=(parse("hr@10"),), baseline="popularity")
    (across,) = found.across
    assert across.friedman is not None
    lines = list(csv.DictReader(io.StringIO(tabular.render(found))))
    over = [line for line in lines if line["slice_by"] == "datasets"]
    assert [line["test"] for line in over] == [
        *("friedman", "iman-davenport", "nemenyi", "nemenyi", "nemenyi"),
        *("rank z", "signed-rank", "rank z", "signed-rank"),
    ]
    assert {(line["slice"], line["n_datasets"]) for line in over} == {("d0 d1 d2 d3 d4 d5", "6")}
    assert not any(line["dataset"] or line["mean"] or line["difference"] for line in over)
    friedman, f = over[:2]
    assert (float(friedman["t"]), float(friedman["p"])) == (across.friedman.chi2, across.friedman.p)
    assert (float(f["df"]), float(f["df2"])) == across.friedman.f_df == (2, 10)
    pair = next(line for line in over if line["test"] == "nemenyi" and line["against"] == "popularity")
    at = {label: place for place, label in enumerate(across.labels)}
    assert float(pair["p_adjusted"]) == across.nemenyi[at[pair["system"]]][at["popularity"]]
    assert float(pair["critical_difference"]) == across.critical_difference
    assert float(pair["mean_rank"]) < across.mean_ranks[at["popularity"]]
    z = next(line for line in over if line["test"] == "rank z" and line["system"] == "ease")
    (ease,) = [a for a in across.against if a.label == "ease"]
    assert [float(z[name]) for name in ("t", "p", "p_adjusted")] == [ease.z, ease.p, ease.p_adjusted]
    assert (z["against"], z["correction"], z["family"]) == ("popularity", "holm", "2")
    posterior = next(line for line in over if line["test"] == "signed-rank" and line["system"] == "ease")
    told = [float(posterior[f"posterior_{name}"]) for name in ("worse", "rope", "better")]
    assert told == [ease.posterior.worse, ease.posterior.rope, ease.posterior.better]
    assert sum(told) == pytest.approx(1)
    assert float(posterior["ci_low"]) == ease.posterior.interval.low


def test_one_dataset_has_no_such_lines(tmp_path: Path) -> None:
    assert "datasets," not in tabular.render(compared(home(tmp_path, 1))).replace("n_datasets,", "")


def test_four_datasets_are_refused_with_the_number_needed(tmp_path: Path) -> None:
    found = compared(home(tmp_path, 4))
    assert found.across == ()
    assert found.across_refused is not None
    assert "needs 5" in found.across_refused
    assert found.across_refused[:40] in text.render(found)


def test_one_dataset_is_nothing_to_refuse(tmp_path: Path) -> None:
    found = compared(home(tmp_path, 1))
    assert (found.across, found.across_refused) == ((), None)


def test_two_systems_have_no_friedman_but_a_posterior(tmp_path: Path) -> None:
    (across, *_) = compared(home(tmp_path, 5, systems=2)).across
    assert across.friedman is None
    assert across.against[0].posterior.better > 0.5
    assert "Friedman" not in text.render(compared(tmp_path))


def test_other_splits_are_not_ranked_together(tmp_path: Path) -> None:
    temporal = {"protocol": {**PROTOCOL, "split": {"name": "temporal"}}}
    found = compared(home(tmp_path, 5, d3=temporal))
    assert found.across_refused is not None
    assert "differ in split" in found.across_refused


def test_a_control_that_scores_nothing_is_refused(tmp_path: Path) -> None:
    path = home(tmp_path, 5)
    make_run(path, "itemknn", places(0.0, n=600), dataset={"name": "d0", "fingerprint": "0"})
    for number in range(1, 5):
        make_run(path, "itemknn", places(0.1, n=600), dataset={"name": f"d{number}", "fingerprint": str(number)})
    found = compared(path, baseline="itemknn")
    assert "scores 0" in str(found.across_refused)
