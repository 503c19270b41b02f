"""What a comparison says of tuning, selection, cost, slices, claims and tests."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbench.comparison import Settings, Verdict, compare
from recbench.comparison.contrast import Side, contrasts, raw_contrast
from recbench.comparison.costs import costs
from recbench.comparison.model import System
from recbench.errors import RecbenchError
from recbench.evaluation.metrics import parse
from recbench.report import markdown, tabular, text, words
from recbench.runs.folder import find
from recbench.runs.sources import read as read_runs
from tests.comparison.test_compare import compared, places, refusal, row, shifted, warned
from tests.run_folders import make_run, ranks

HR = (parse("hr@10"),)


def test_unequal_tuning_budgets_are_told_with_their_numbers(tmp_path: Path) -> None:
    make_run(tmp_path, "sasrec", places(0.2), tuning={"trials": 50})
    make_run(tmp_path, "sasrec", places(0.2), head="lares", tuning={"trials": 5})
    told = warned(tmp_path)
    assert "Unequal tuning budgets" in told
    assert "sasrec: 50 trials; sasrec+lares: 5 trials" in told
    assert row(compared(tmp_path), "sasrec+lares").system.trials == 5


def test_equal_budgets_are_no_warning(tmp_path: Path) -> None:
    for head in ("none", "lares"):
        make_run(tmp_path, "sasrec", places(0.2), head=head, tuning={"trials": 50})
    assert "budget" not in warned(tmp_path)


def test_selection_on_test_is_told_where_it_was_done_and_where_the_table_invites_it(tmp_path: Path) -> None:
    metrics = [{"valid": {"ndcg@10": value}} for value in (0.3, 0.4)]
    make_run(tmp_path, "sasrec", places(0.3), config="a = 1\n", folder="a", metrics=metrics[0])
    make_run(tmp_path, "sasrec", places(0.2), config="a = 2\n", folder="b", metrics=metrics[1])
    make_run(tmp_path, "sasrec", places(0.2), head="pause", tuning={"selected_on": "test"})
    told = warned(tmp_path)
    assert "Chosen on test: sasrec+pause" in told
    assert "2 variants of sasrec" in told
    assert "Validation picks sasrec (a=2)" in told


def test_a_label_says_first_that_training_stopped_after_a_stage(tmp_path: Path) -> None:
    settings = "a = {0}\nb = {0}\nc = {0}\n"
    make_run(tmp_path, "sasrec", places(0.2), head="lares", config=settings.format(1))
    make_run(tmp_path, "sasrec", places(0.2), head="lares", config=settings.format(2) + 'until = "spt"\n', folder="spt")
    labels = {system.label for system in compared(tmp_path).tables[0].systems}
    assert labels == {"sasrec+lares (until=unset, a=1, b=1)", "sasrec+lares (until=spt, a=2, b=2)"}


def test_costs_stand_beside_quality_and_the_front_is_marked(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", places(0.1), ms_per_user=0.1, seconds={"fit": 2.0, "test": 9.0}, peak_memory_mb=100.0)
    make_run(tmp_path, "sasrec", places(0.3), ms_per_user=2.0, seconds={"train": 90.0, "test": 9.0}, n_parameters=10)
    make_run(tmp_path, "sasrec", places(0.2), head="lares", ms_per_user=5.0, seconds={"train": 80.0}, n_parameters=10)
    (table,) = compared(tmp_path).tables
    found = {cost.label: cost for cost in table.costs}
    assert found["sasrec"].training_seconds == 90
    assert found["sasrec"].on_front == {"n_parameters": True, "training_seconds": True, "ms_per_user": True}
    assert found["sasrec+lares"].on_front == {"n_parameters": False, "training_seconds": True, "ms_per_user": False}
    assert found["markov"].on_front["ms_per_user"]
    assert "Pareto" in text.render(compared(tmp_path))


@pytest.mark.parametrize(("before", "told"), [({"training_seconds": 90.0}, 100.0), ({}, None)])
def test_training_counts_the_run_it_went_on_from_or_is_not_said(
    before: dict[str, float], told: float | None, tmp_path: Path
) -> None:
    make_run(tmp_path, "sasrec", places(0.2), seconds={"train": 90.0, "test": 3.0})
    origin = {"folder": "runs/none-s0", "model_sha256": "w", "config_sha256": "c", **before}
    seconds = {"align": 8.0, "rl": 2.0, "test": 3.0}
    make_run(tmp_path, "sasrec", places(0.2), head="lasar", seconds=seconds, started_from=origin)
    assert row(compared(tmp_path), "sasrec+lasar").system.training_seconds == told


def test_what_is_closed_form_has_no_parameters_and_no_front_of_them(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", places(0.1), ms_per_user=0.1)
    make_run(tmp_path, "sasrec", places(0.3), ms_per_user=2.0, n_parameters=10)
    (table,) = compared(tmp_path).tables
    found = {cost.label: cost for cost in table.costs}
    assert found["markov"].n_parameters is None
    assert "n_parameters" not in found["markov"].on_front
    assert words.cost(found["markov"], "n_parameters").strip() == "-"
    assert words.cost(found["sasrec"], "n_parameters") == "10 ^"


def system(label: str, ms: float | None) -> System:
    return System(
        label=label, backbone=label, head="none", config_sha256="", loss="", inputs={}, seeds=(0,), folders=("",),
        deterministic=False, tied=0.0, n_parameters=None, ms_per_user=ms,
    )  # fmt: skip


def test_the_front_by_hand() -> None:
    quality = {"a": 0.3, "b": 0.2, "c": 0.3, "d": 0.1, "e": 0.9}
    found = costs([system("a", 1.0), system("b", 1.0), system("c", 1.0), system("d", 0.5), system("e", None)], quality)
    assert {cost.label: cost.on_front.get("ms_per_user") for cost in found} == {
        "a": True,  # as good as c at the same cost: neither beats the other
        "b": False,  # a is better at the same cost
        "c": True,
        "d": True,  # cheapest
        "e": None,  # not known
    }


def test_several_tests_stand_side_by_side_and_the_first_decides(tmp_path: Path) -> None:
    base = places(0.3)
    make_run(tmp_path, "markov", base)
    make_run(tmp_path, "ease", shifted(base, 60, 20))
    found = compared(tmp_path, baseline="markov", metrics=HR, tests=("mcnemar", "t", "wilcoxon"), ties="mid")
    contrast = row(found, "ease", "hr@10").contrast
    assert contrast is not None
    assert [test.name for test in contrast.tests] == ["mcnemar", "t", "wilcoxon"]
    assert contrast.p == contrast.tests[0].p
    assert contrast.tests[0].caution is None
    assert contrast.tests[2].caution
    assert "Wilcoxon" in " ".join(found.tables[0].warnings)
    assert "McNemar over users" in text.render(found)


def test_mcnemar_on_what_is_no_hit_is_refused_with_a_command_that_works(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", ranks([0, 3, 5]))
    make_run(tmp_path, "ease", ranks([0, 2, 99]))
    assert "--metric hr@10" in refusal(tmp_path, tests=("mcnemar",)).fix


@pytest.mark.parametrize(
    ("claim", "better", "worse", "expected"),
    [
        ("superiority", 300, 0, Verdict.BETTER),
        ("superiority", 5, 0, Verdict.BETTER_BUT_SMALL),
        ("superiority", 0, 300, Verdict.UNDECIDED),
        ("equivalence", 2, 2, Verdict.EQUIVALENT),
        ("equivalence", 30, 0, Verdict.UNDECIDED),  # 0.015, beyond 2 % of 0.5
        ("equivalence", 300, 0, Verdict.UNDECIDED),
        ("non-inferiority", 40, 30, Verdict.NOT_WORSE),
        ("non-inferiority", 0, 300, Verdict.UNDECIDED),
    ],
)
def test_a_claim_is_shown_or_undecided(claim: Any, better: int, worse: int, expected: Verdict, tmp_path: Path) -> None:
    base = places(0.5)
    make_run(tmp_path, "markov", base)
    make_run(tmp_path, "ease", shifted(base, better, worse))
    found = compared(tmp_path, baseline="markov", metrics=HR, claim=claim, rope=0.02)
    contrast = row(found, "ease", "hr@10").contrast
    assert contrast is not None
    assert contrast.verdict is expected
    assert claim in text.render(found)


def test_twice_the_wish_needs_a_quarter_of_the_users(tmp_path: Path) -> None:
    base = places(0.5)
    make_run(tmp_path, "markov", base)
    make_run(tmp_path, "ease", shifted(base, 300, 100))
    needed = []
    for wish in (None, 0.01, 0.02):
        contrast = row(compared(tmp_path, baseline="markov", metrics=HR, wish=wish), "ease", "hr@10").contrast
        assert contrast is not None
        needed.append(contrast.users_needed)
    assert needed[0] == needed[1] == pytest.approx(4 * (needed[2] or 0), rel=1e-3)


def test_a_claim_and_another_first_test_are_refused() -> None:
    with pytest.raises(RecbenchError, match="do not go together"):
        Settings(claim="equivalence", tests=("wilcoxon", "t"))


@pytest.mark.parametrize("name", ["popularity", "zeta"])  # one stands before our own system, one behind it
def test_items_are_sliced_by_a_system_that_names_its_targets(name: str, tmp_path: Path) -> None:
    base = places(0.5)
    make_run(tmp_path / "runs", "sasrec", base)
    values = pd.DataFrame({"user": base["user"], "ndcg@10": (base["above"] == 0) * 1.0})
    values.to_csv(tmp_path / f"{name}.csv", index=False)
    pd.DataFrame({"item": np.arange(102), "odd": np.arange(102) % 2}).to_csv(tmp_path / "odd.csv", index=False)
    runs = read_runs([tmp_path / "runs", tmp_path / f"{name}.csv"], dataset="beauty")
    asked = Settings(metrics=(parse("ndcg@10"),), slices=(f"{tmp_path / 'odd.csv'}:odd",))
    sizes = {part.name: part.n_users for part in compare(runs, asked).tables[0].slices}
    odd = int((base["target"] % 2).sum())
    assert sizes == {"odd 0": len(base) - odd, "odd 1": odd}


def test_resamples_that_can_decide_nothing_are_told(tmp_path: Path) -> None:
    base = places(0.3)
    make_run(tmp_path, "markov", base)
    for k, other in enumerate(("popularity", "itemknn", "ease"), 1):
        make_run(tmp_path, other, shifted(base, 100 * k))
    told = {
        (n, correction): any("can decide nothing" in text for text in found.tables[0].warnings)
        for n in (49, 199)
        for correction in ("holm", "bh")
        for found in [compared(tmp_path, tests=("randomisation",), correction=correction, resamples=n)]
    }
    assert told == {(49, "holm"): True, (49, "bh"): False, (199, "holm"): False, (199, "bh"): False}


def test_a_column_of_ones_own_slices_and_few_users_get_no_verdict(tmp_path: Path) -> None:
    base = places(0.5)
    make_run(tmp_path / "runs", "markov", base)
    make_run(tmp_path / "runs", "ease", shifted(base, 300))
    country = np.where(base["user"] <= 100, "small", "large")
    pd.DataFrame({"user": base["user"], "country": country}).to_csv(tmp_path / "c.csv", index=False)
    found = compare(find([tmp_path / "runs"]), Settings(slices=(f"{tmp_path / 'c.csv'}:country",), baseline="markov"))
    parts = {part.name: part for part in found.tables[0].slices}
    assert {name: part.n_users for name, part in parts.items()} == {"country large": 1900, "country small": 100}
    judged = {name: part.rows[1].contrast for name, part in parts.items() if part.rows[1].contrast}
    assert judged["country small"].verdict is Verdict.TOO_FEW
    low, high = sorted(judged.values(), key=lambda contrast: contrast.p)  # both parts are one family
    assert (low.p_adjusted, high.p_adjusted) == pytest.approx((2 * low.p, max(high.p, 2 * low.p)))
    whole = found.tables[0].row("ease", parse("ndcg@10")).score.mean
    weighted = sum(part.rows[1].score.mean * part.n_users for part in parts.values()) / 2000
    assert weighted == pytest.approx(whole)
    assert "too few users for a verdict: country small" in text.render(found)
    rows = list(csv.DictReader(io.StringIO(tabular.render(found))))
    assert {r["slice"] for r in rows} == {"", "country large", "country small"}
    assert {r["family"] for r in rows if r["slice"] and r["against"]} == {"2"}


@pytest.mark.parametrize(
    ("users", "written"),
    [(("007", "7", "NA", "x"), ("007", "7", "NA", "x")), (("7", "8", "9", "10"), ("7.0", "8.0", "9.0", "10.0"))],
)
def test_users_of_a_slice_file_are_called_as_in_result_tables(
    users: tuple[str, ...], written: tuple[str, ...], tmp_path: Path
) -> None:
    for place, system in enumerate(("one", "two")):
        lines = [f"{user},i,{system},{place + 1}" for user in users]
        (tmp_path / f"{system}.csv").write_text("\n".join(["user,target,system,rank", *lines]))
    parts = [f"{user},{part}" for user, part in zip(written, "abab", strict=True)]
    (tmp_path / "c").write_text("\n".join(["user,part", *parts]))
    runs = read_runs([tmp_path / "one.csv", tmp_path / "two.csv"])
    found = compare(runs, Settings(slices=(f"{tmp_path / 'c'}:part",)))
    assert {part.name: part.n_users for part in found.tables[0].slices} == {"part a": 2, "part b": 2}


def test_numbers_of_many_values_are_cut_into_quarters(tmp_path: Path) -> None:
    base = places(0.5)
    make_run(tmp_path / "runs", "markov", base)
    make_run(tmp_path / "runs", "ease", base)
    ages = np.arange(len(base)) % 100
    pd.DataFrame({"user": base["user"], "age": ages}).to_parquet(tmp_path / "c.parquet")
    found = compare(find([tmp_path / "runs"]), Settings(slices=(f"{tmp_path / 'c.parquet'}:age",)))
    assert [part.n_users for part in found.tables[0].slices] == [500, 500, 500, 500]


@pytest.mark.parametrize(
    ("asked", "words"), [("lenght", "length"), ("popularity", "--datasets"), ("nowhere.csv:x", "FILE:COLUMN")]
)
def test_a_slice_that_cannot_be_had_is_refused(asked: str, words: str, tmp_path: Path) -> None:
    make_run(tmp_path, "markov", places(0.1))
    make_run(tmp_path, "ease", places(0.1))
    with pytest.raises(RecbenchError) as error:
        compare(find([tmp_path]), Settings(slices=(asked,)), datasets=tmp_path)
    assert words in error.value.fix


def test_a_user_that_a_slice_file_has_twice_is_refused_however_it_is_written(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", places(0.1, n=2))
    make_run(tmp_path, "ease", places(0.1, n=2))
    (tmp_path / "c.csv").write_text("user,part\n1,a\n1.0,b\n2,a\n")
    with pytest.raises(RecbenchError, match="user 1 stands there twice"):
        compare(find([tmp_path]), Settings(slices=(f"{tmp_path / 'c.csv'}:part",)))


def test_slices_of_the_dataset_are_those_of_the_protocol(tmp_path: Path, tiny_home: Path) -> None:
    from recbench.cli.app import run

    for backbone in ("markov", "popularity"):
        args = ["train", "--backbone", backbone, "--dataset", "tiny", "--datasets", str(tiny_home), "--quiet"]
        assert run([*args, "--runs", str(tmp_path)]) == 0
    found = compare(find([tmp_path]), Settings(slices=("length", "popularity", "cold")), datasets=tiny_home)
    by: dict[str, int] = {}
    for part in found.tables[0].slices:
        by[part.by] = by.get(part.by, 0) + part.n_users
    assert by == dict.fromkeys(("length", "popularity", "cold"), found.tables[0].n_users)
    assert "by length (users)" in markdown.render(found)


def test_what_another_training_may_not_show_is_undecided_and_said_to_be_noise(tmp_path: Path) -> None:
    base = places(0.1)
    make_run(tmp_path, "markov", base)
    make_run(tmp_path, "sasrec", base, seed=0)
    make_run(tmp_path, "sasrec", shifted(base, 400), seed=1)  # hits 0.1 and 0.3: over users sure, over two runs not
    found = compared(tmp_path, baseline="markov", metrics=HR)
    contrast = row(found, "sasrec", "hr@10").contrast
    assert contrast is not None
    assert contrast.p_adjusted < 0.001
    assert contrast.p_seeds_adjusted == pytest.approx(0.5, abs=0.01)  # t = 1 with one degree of freedom
    assert contrast.verdict is Verdict.UNDECIDED
    assert "It holds for other users, but may be training noise (p 0.5" in text.render(found, 400)


def test_runs_that_rank_all_alike_are_told_so_and_not_called_chance(tmp_path: Path) -> None:
    """A stage that is not kept leaves the ranks of the runs it began with; over other trainings that decides nothing."""
    for seed in range(2):
        for head in ("none", "lasar"):
            make_run(tmp_path, "sasrec", places(0.2 + 0.1 * seed, seed=seed), head=head, seed=seed)
    make_run(tmp_path, "markov", places(0.2, seed=0))
    found = compared(tmp_path, baseline="sasrec", metrics=HR)
    contrast = row(found, "sasrec+lasar", "hr@10").contrast
    assert contrast is not None
    assert (contrast.equal, contrast.verdict) == (1, Verdict.UNDECIDED)
    (told,) = (line for line in text.render(found, 400).splitlines() if line.startswith("sasrec+lasar: "))
    assert "+0.0000 HR@10 (+0.0 %). In these runs it is the same for every user. Visible from 0." in told
    assert "chance" not in told


def test_seeds_on_both_sides_give_an_interval_over_users_and_runs(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path, "sasrec", places(0.2, seed=seed), seed=seed)
        make_run(tmp_path, "sasrec", places(0.25, seed=9 + seed), head="lares", seed=seed)
    make_run(tmp_path, "markov", places(0.1, seed=20))
    found = compared(tmp_path)
    contrast = row(found, "sasrec+lares").contrast
    assert contrast is not None
    assert contrast.two_way is not None
    assert contrast.two_way.high - contrast.two_way.low > contrast.bootstrap.high - contrast.bootstrap.low
    assert row(found, "markov").contrast.two_way is not None  # type: ignore[union-attr]
    make_run(tmp_path, "ease", places(0.4, seed=30))
    again = row(compared(tmp_path), "sasrec+lares").contrast
    assert again is not None
    assert again.two_way == contrast.two_way  # a system more changes no interval of the others


def test_every_interval_lies_about_the_mean_and_has_the_level_asked_for(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path, "sasrec", places(0.2, seed=seed), seed=seed)
        make_run(tmp_path, "sasrec", places(0.4, seed=9 + seed), head="lares", seed=seed)
    widths, visible = [], []
    for alpha in (0.05, 0.32):
        contrast = row(compared(tmp_path, alpha=alpha, resamples=999), "sasrec+lares").contrast
        assert contrast is not None
        assert contrast.bca is not None
        assert contrast.two_way is not None
        assert contrast.posterior is not None
        found = [contrast.interval, contrast.bootstrap, contrast.bca, contrast.two_way, contrast.posterior.interval]
        assert [interval.level for interval in found] == [1 - alpha] * 5
        assert contrast.inner_interval.level == 1 - 2 * alpha
        for interval in (*found, contrast.inner_interval):
            assert 0.1 < interval.low < contrast.mean < interval.high < 0.3
        widths.append([interval.high - interval.low for interval in (*found, contrast.inner_interval)])
        visible.append(contrast.minimum_detectable)
    assert all(wide > 1.5 * narrow for wide, narrow in zip(*widths, strict=True))
    assert visible[0] > 1.2 * visible[1]


GAINS = [0.0, 0.0, 0.0, 0.3, 0.5, 1.0]
USERS = st.lists(st.tuples(*[st.sampled_from(GAINS)] * 3), min_size=2, max_size=40)
QUICK = Settings(resamples=99, tests=("t", "randomisation", "wilcoxon", "sign"))
PROPERTY = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def raw(ours: np.ndarray, theirs: np.ndarray) -> Any:
    return raw_contrast(Side("a", ours, ()), Side("b", theirs, ()), QUICK)


@PROPERTY
@given(USERS)
def test_swapping_two_systems_flips_signs_and_keeps_every_p(users: list[tuple[float, ...]]) -> None:
    a, b = np.array(users).T[:2]
    one, other = raw(a, b), raw(b, a)
    assert one.differences.mean == pytest.approx(-other.differences.mean, abs=1e-14)
    for name in QUICK.tests:
        assert one.tests[name].p == pytest.approx(other.tests[name].p, rel=1e-9), name
    first, second = contrasts({"x": one}, QUICK)["x"], contrasts({"x": other}, QUICK)["x"]
    assert first.interval.low == pytest.approx(-second.interval.high, abs=1e-12)
    assert (first.better, first.worse) == (second.worse, second.better)


@PROPERTY
@given(USERS, st.randoms(use_true_random=False))
def test_permuting_users_changes_nothing(users: list[tuple[float, ...]], random: Any) -> None:
    a, b = np.array(users).T[:2]
    shuffled = list(users)
    random.shuffle(shuffled)
    c, d = np.array(shuffled).T[:2]
    one, other = contrasts({"x": raw(a, b)}, QUICK)["x"], contrasts({"x": raw(c, d)}, QUICK)["x"]
    assert one.mean == other.mean
    assert one.bootstrap == other.bootstrap
    assert one.posterior == other.posterior
    assert [t.p for t in one.tests] == [t.p for t in other.tests]


@PROPERTY
@given(USERS, st.sampled_from(["holm", "bonferroni", "bh", "by"]))
def test_an_unrelated_system_never_lowers_a_p(users: list[tuple[float, ...]], correction: Any) -> None:
    a, b, c = np.array(users).T
    chosen = Settings(resamples=99, correction=correction)
    pair = contrasts({"x": raw_contrast(Side("a", a, ()), Side("b", b, ()), chosen)}, chosen)["x"]
    both = {"x": raw_contrast(Side("a", a, ()), Side("b", b, ()), chosen)}
    both["y"] = raw_contrast(Side("c", c, ()), Side("b", b, ()), chosen)
    joined = contrasts(both, chosen)["x"]
    assert joined.p == pair.p
    if correction in ("holm", "bonferroni"):  # a rate of false discoveries may be shared, an error rate is not
        assert joined.p_adjusted >= pair.p_adjusted - 1e-15


@pytest.mark.parametrize("size", [1, 2, 30])
def test_identical_constant_and_single_users_give_an_answer(size: int) -> None:
    constant = np.full(size, 0.5)
    found = contrasts({"x": raw(constant, constant)}, QUICK)["x"]
    assert found.mean == 0
    assert all(test.p == 1 for test in found.tests)
    assert found.verdict in (Verdict.EQUIVALENT, Verdict.UNDECIDED)
    assert (found.verdict is Verdict.UNDECIDED) == (size == 1)


def test_nan_is_refused_with_how_many() -> None:
    with pytest.raises(ValueError, match="1 of 2 differences are not finite"):
        raw(np.array([0.1, np.nan]), np.array([0.1, 0.2]))


def started(home: Path, seed: int, origin: str, weights: str, share: float, config: str = "") -> None:
    make_run(
        home,
        "sasrec",
        places(share, seed=seed),
        head="lares",
        seed=seed,
        config=f'from = "runs/{origin}"\n{config}',
        folder=f"{origin}{weights}{len(config)}",
        config_sha256=f"{origin.rpartition('-s')[0]} {config}",
        started_from={"folder": f"runs/{origin}", "model_sha256": weights, "config_sha256": "c"},
    )


def test_runs_that_went_on_from_seeds_of_one_system_are_seeds_of_one_system(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", places(0.1))
    for seed in range(2):
        started(tmp_path, seed, f"spt-s{seed}", weights=f"w{seed}", share=0.2)
    (table,) = compared(tmp_path).tables
    assert [(s.label, s.seeds) for s in table.systems] == [("markov", (0,)), ("sasrec+lares", (0, 1))]
    assert "went on from the same weights" not in warned(tmp_path)


def test_what_systems_went_on_from_tells_them_apart_without_a_path_or_seed(tmp_path: Path) -> None:
    for seed in range(2):
        started(tmp_path, seed, f"spt-s{seed}", weights=f"w{seed}", share=0.2)
        started(tmp_path, seed, f"longer-s{seed}", weights=f"v{seed}", share=0.3)
    (table,) = compared(tmp_path).tables
    assert {s.label for s in table.systems} == {"sasrec+lares (from=spt)", "sasrec+lares (from=longer)"}


def test_another_setting_tells_systems_apart_not_the_place_of_what_they_went_on_from(tmp_path: Path) -> None:
    for seed in range(2):
        started(tmp_path, seed, f"spt-s{seed}", weights=f"w{seed}", share=0.2)
        started(tmp_path, seed, f"spt-s{seed}", weights=f"w{seed}", share=0.3, config="x = 1\n")
    (table,) = compared(tmp_path).tables
    assert {s.label for s in table.systems} == {"sasrec+lares (x=unset)", "sasrec+lares (x=1)"}


def test_one_start_for_all_seeds_is_told(tmp_path: Path) -> None:
    make_run(tmp_path, "markov", places(0.1))
    for seed in range(2):
        make_run(
            tmp_path,
            "sasrec",
            places(0.2, seed=seed),
            head="lares",
            seed=seed,
            started_from={"folder": "runs/spt-s0", "model_sha256": "w", "config_sha256": "c"},
        )
    told = warned(tmp_path)
    assert "All runs of sasrec+lares went on from the same weights" in told
    assert "--from 'PATH-s{seed}'" in told
