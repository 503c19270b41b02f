"""Runs that share their training up to some point are held against one another, run by run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recbench.comparison import Contrast
from recbench.evaluation.metrics import parse
from recbench.report import text, words
from recbench.runs.folder import MODEL
from recbench.stats.crossed import resampled_run_means, two_way_bootstrap
from recbench.stats.intervals import over_users_and_seeds
from recbench.stats.paired import Differences
from tests.comparison.test_compare import compared, row
from tests.run_folders import make_run, ranks

N = 2_000
HR = (parse("hr@10"),)


def hits(share: float, seed: int) -> np.ndarray:
    """Who is served, 0 or 1; runs differ in how many and in whom."""
    return (np.random.default_rng(seed).random(N) < share).astype(float)


def gained(hit: np.ndarray, gain: int) -> np.ndarray:
    """So many of those who were not served are."""
    more = hit.copy()
    more[np.flatnonzero(hit == 0)[:gain]] = 1.0
    return more


def run(
    home: Path, head: str, seed: int, hit: np.ndarray, own: str, start: str | None = None, **manifest: object
) -> Path:
    """A run with weights ``own`` that went on from weights ``start``."""
    table = ranks(np.where(hit == 1, 0, 500))
    origin = {} if start is None else {"folder": "runs/x", "model_sha256": start, "config_sha256": "c"}
    folder = make_run(
        home, "sasrec", table, head=head, seed=seed, started_from=origin, folder=f"{head}-{own}", **manifest
    )
    state = folder / "run.json"
    state.write_text(state.read_text().replace('"files": {', f'"files": {{"{MODEL}": "{own}", ', 1))
    return folder


BASE = [hits(share, seed) for seed, share in enumerate((0.2, 0.26, 0.3))]
GAINS = (20, 28, 24)
"""Users more than in the run before. The runs before lie 0.05 apart, the gains 0.002."""


def contrast(home: Path, **settings: object) -> Contrast:
    found = row(compared(home, metrics=HR, **settings), "sasrec+lasar", "hr@10").contrast
    assert found is not None
    return found


def stages(home: Path, starts: tuple[str | None, ...] = ("w0", "w1", "w2"), seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Three plain runs, and three that went on from them."""
    for seed, hit in enumerate(BASE):
        run(home, "none", seed, hit, f"w{seed}")
    for place, (seed, start) in enumerate(zip(seeds, starts, strict=True)):
        run(home, "lasar", seed, gained(BASE[place], GAINS[place]), f"v{place}", start)


def test_the_spread_between_runs_is_that_of_what_each_gains(tmp_path: Path) -> None:
    stages(tmp_path)
    found = contrast(tmp_path)
    gains = [gain / N for gain in GAINS]
    users = np.mean([gained(hit, gain) - hit for hit, gain in zip(BASE, GAINS, strict=True)], axis=0)
    assert found.paired_runs
    assert found.mean == pytest.approx(np.mean(gains))
    parts = np.var(users, ddof=1) / N, np.var(gains, ddof=1) / 3
    assert found.standard_error**2 == pytest.approx(sum(parts))
    assert found.df == pytest.approx(sum(parts) ** 2 / (parts[0] ** 2 / (N - 1) + parts[1] ** 2 / 2))
    assert found.interval.low > 0
    assert found.p_seeds < 0.05


def test_the_same_numbers_from_runs_of_their_own_decide_nothing(tmp_path: Path) -> None:
    stages(tmp_path, starts=(None, None, None))
    found = contrast(tmp_path)
    means = [float(hit.mean()) for hit in BASE]
    ours = [mean + gain / N for mean, gain in zip(means, GAINS, strict=True)]
    users = np.mean([gained(hit, gain) for hit, gain in zip(BASE, GAINS, strict=True)], axis=0)
    expected = over_users_and_seeds(Differences.between(users, np.mean(BASE, axis=0)), ours, means)
    assert not found.paired_runs
    assert (found.standard_error, found.df) == pytest.approx((expected.standard_error, expected.df))
    assert found.p_seeds > 0.5


def test_pairs_are_found_by_weights_not_by_seed_or_order(tmp_path: Path) -> None:
    stages(tmp_path / "one")
    stages(tmp_path / "other", seeds=(7, 5, 3))
    one, other = (contrast(tmp_path / home) for home in ("one", "other"))
    assert other.paired_runs
    assert other.standard_error == pytest.approx(one.standard_error)


def test_two_systems_that_went_on_from_the_same_runs_are_paired(tmp_path: Path) -> None:
    for seed, hit in enumerate(BASE):
        run(tmp_path, "lares", seed, hit, f"u{seed}", f"w{seed}")
        run(tmp_path, "lasar", seed, gained(hit, GAINS[seed]), f"v{seed}", f"w{seed}")
    assert contrast(tmp_path, baseline="sasrec+lares").paired_runs


@pytest.mark.parametrize(
    "starts", [("w0", "w0", "w0"), ("w0", "w1", None), ("w0", "w1", "elsewhere"), ("w0", "w1", "w1")]
)
def test_runs_that_do_not_pair_one_by_one_are_independent(starts: tuple[str | None, ...], tmp_path: Path) -> None:
    stages(tmp_path, starts=starts)
    assert not contrast(tmp_path).paired_runs


def test_more_runs_on_one_side_are_independent(tmp_path: Path) -> None:
    stages(tmp_path)
    run(tmp_path, "none", 3, hits(0.25, 9), "w3")
    assert not contrast(tmp_path).paired_runs


def test_closed_forms_with_the_same_weights_are_no_pair(tmp_path: Path) -> None:
    """They have no runs to pair: nothing in them is random."""
    for k in (1, 2):
        folder = make_run(
            tmp_path, "markov", ranks(np.where(hits(0.2, k) == 1, 0, 500)), config=f"k = {k}\n", folder=f"m{k}"
        )
        state = folder / "run.json"
        state.write_text(state.read_text().replace('"files": {', f'"files": {{"{MODEL}": "same", ', 1))
    contrasts = [row_.contrast for row_ in compared(tmp_path, metrics=HR).tables[0].rows if row_.contrast]
    assert [(c.paired_runs, c.two_way) for c in contrasts] == [(False, None)]


def test_a_single_pair_says_nothing_of_training(tmp_path: Path) -> None:
    run(tmp_path, "none", 0, BASE[0], "w0")
    run(tmp_path, "lasar", 0, gained(BASE[0], 20), "v0", "w0")
    found = contrast(tmp_path)
    assert (found.seeds_covered, found.paired_runs, found.two_way) == (False, False, None)


def test_the_crossed_bootstrap_draws_pairs(tmp_path: Path) -> None:
    stages(tmp_path, seeds=(7, 5, 3))  # so that the runs of the two sides stand in other orders
    found = contrast(tmp_path)
    ours = np.stack([gained(hit, gain) for hit, gain in zip(BASE, GAINS, strict=True)][::-1], axis=1)
    means = resampled_run_means(np.concatenate([ours, np.stack(BASE, axis=1)], axis=1), seed=0)
    expected = two_way_bootstrap(means[:, :3] - means[:, [5, 4, 3]], np.zeros((len(means), 1)), seed=0)
    assert found.two_way == expected
    assert found.two_way is not None
    assert found.two_way.high - found.two_way.low < 0.02  # 0.1 and more where runs are drawn on their own


@pytest.mark.parametrize("interval", ["t", "two-way"])
def test_the_caption_names_what_is_paired(interval: str, tmp_path: Path) -> None:
    stages(tmp_path)
    make_run(tmp_path, "markov", ranks(np.where(hits(0.1, 5) == 1, 0, 500)))
    told = text.render(compared(tmp_path, metrics=HR, interval=interval), 400)
    assert "; runs of sasrec+lasar paired with those that share their start" in told
    assert "uncertain: sasrec 3, sasrec+lasar 3." in told


@pytest.mark.parametrize("interval", ["t", "two-way"])
def test_the_caption_is_short_where_it_is_so_of_all(interval: str, tmp_path: Path) -> None:
    stages(tmp_path)
    for seed, (hit, gain) in enumerate(zip(BASE, GAINS, strict=True)):
        run(tmp_path, "pause", seed, gained(hit, gain), f"p{seed}", f"w{seed}")
    told = text.render(compared(tmp_path, metrics=HR, interval=interval), 400)
    assert "; runs of all others paired with those that share their start" in told
    assert "uncertain: 3 of every trained system." in told


def test_a_stage_that_was_never_kept_is_equivalent_and_has_no_smallest_difference(tmp_path: Path) -> None:
    for seed, hit in enumerate(BASE):
        run(tmp_path, "none", seed, hit, f"w{seed}")
        run(tmp_path, "lasar", seed, hit, f"v{seed}", f"w{seed}")
    found = compared(tmp_path, metrics=HR)
    contrast_ = row(found, "sasrec+lasar", "hr@10").contrast
    assert contrast_ is not None
    assert (words.visible(contrast_), words.users_needed(contrast_)) == ("", "")
    told = text.render(found, 400)
    assert "sasrec+lasar: equivalent to sasrec: the same HR@10 for every user." in told
    assert "Smallest difference this comparison can see: none" in told


MORE = "sasrec+lasar went on from sasrec, {} longer: part of the difference may be what more training alone brings."


def warned(home: Path) -> str:
    return "\n".join(compared(home, metrics=HR).tables[0].warnings)


@pytest.mark.parametrize(
    ("epochs", "told"), [((9, 6, 9), "6 to 9 epochs"), ((6, 6, 6), "6 epochs"), ((1, 1, 1), "1 epoch")]
)
def test_who_went_on_from_another_was_trained_longer_and_that_is_told(
    epochs: tuple[int, ...], told: str, tmp_path: Path
) -> None:
    for seed, hit in enumerate(BASE):
        run(tmp_path, "none", seed, hit, f"w{seed}")
        run(tmp_path, "lasar", seed, hit, f"v{seed}", f"w{seed}", epochs=epochs[seed], best_epoch=1)
    assert MORE.format(told) in warned(tmp_path)


def test_who_kept_what_it_began_with_or_went_on_from_none_of_these_was_not(tmp_path: Path) -> None:
    run(tmp_path, "none", 0, BASE[0], "w0")
    run(tmp_path, "lasar", 0, BASE[0], "v0", "w0", best_epoch=0)
    run(tmp_path, "lares", 0, BASE[0], "u0", "elsewhere")
    make_run(tmp_path, "markov", ranks(np.where(BASE[0] == 1, 0, 500)))
    assert "longer" not in warned(tmp_path)
