"""A system against its baseline: difference, intervals, tests, correction, verdict."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from recbench.comparison.model import CAUTIONS, Claims, Contrast, Settings, Test, Tested, Verdict
from recbench.errors import Exit, RecbenchError
from recbench.stats.bayes import bayesian_bootstrap
from recbench.stats.claims import equivalence, non_inferiority, superiority
from recbench.stats.corrections import CORRECTIONS
from recbench.stats.counting_tests import mcnemar, sign_test, wilcoxon
from recbench.stats.intervals import (
    Interval,
    Spread,
    bca,
    bootstrap_test,
    over_users,
    over_users_and_seeds,
    percentile,
    resampled_means,
    t_interval,
)
from recbench.stats.paired import Differences, FloatArray, Outcome, paired_t, randomisation, t_test
from recbench.stats.power import minimum_detectable, users_needed


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One system on one metric."""

    label: str
    users: FloatArray
    """Mean over seeds, by user."""
    seeds: tuple[float, ...]
    """Mean over users of each run; empty for a deterministic system."""


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """A contrast before its p is corrected."""

    against: str
    control_mean: float
    differences: Differences
    means: FloatArray
    """Resampled over users."""
    spread: Spread
    seeds_covered: bool
    tests: Mapping[Test, Outcome]
    both: Outcome
    """t over users and training runs; paired t over users where runs are not covered."""
    two_way: Interval | None
    paired_runs: bool


def raw_contrast(
    ours: Side,
    theirs: Side,
    settings: Settings,
    two_way: Interval | None = None,
    pairs: Sequence[int] | None = None,
) -> Raw:
    """Ours minus theirs.

    Args:
        ours: the system.
        theirs: its baseline.
        settings: of the comparison.
        two_way: the bootstrap over users and runs.
        pairs: for each of our runs the one of theirs that shares its training; None: runs are independent.

    Raises:
        RecbenchError: a test was asked for that does not apply to these differences.
    """
    d = Differences.between(ours.users, theirs.users)
    covered = all(len(side.seeds) != 1 for side in (ours, theirs))
    runs = ours.seeds, theirs.seeds
    if pairs is not None:  # what varies is what a run gains over its own start
        runs = tuple(mine - theirs.seeds[other] for mine, other in zip(ours.seeds, pairs, strict=True)), ()
    spread = over_users_and_seeds(d, *runs) if covered else over_users(d)
    both = t_test(d.mean, spread.standard_error, spread.df)
    means = resampled_means(d, settings.resamples, settings.seed)
    tests = {name: _TESTS[name](d, means, settings) for name in settings.tests}
    paired = covered and pairs is not None
    return Raw(theirs.label, float(theirs.users.mean()), d, means, spread, covered, tests, both, two_way, paired)


K = TypeVar("K", bound=Hashable)


def contrasts(raw: Mapping[K, Raw], settings: Settings) -> dict[K, Contrast]:
    """The contrasts of one family, corrected together."""
    found = list(raw.values())
    tested = {name: _adjusted([r.tests[name].p for r in found], settings) for name in settings.tests}
    both = _adjusted([r.both.p for r in found], settings)
    margins = [settings.rope * r.control_mean for r in found]
    pairs = list(zip(found, margins, strict=True))
    claims = zip(
        _adjusted([superiority(r.differences.mean, r.spread) for r in found], settings),
        _adjusted([equivalence(r.differences.mean, r.spread, m) for r, m in pairs], settings),
        _adjusted([non_inferiority(r.differences.mean, r.spread, m) for r, m in pairs], settings),
        strict=True,
    )
    done = {}
    for place, ((label, r), claim) in enumerate(zip(raw.items(), claims, strict=True)):
        of_users = {name: adjusted[place] for name, adjusted in tested.items()}
        done[label] = _contrast(
            r,
            of_users,
            both[place],
            Claims(superiority=claim[0], equivalence=claim[1], non_inferiority=claim[2]),
            settings,
        )
    return done


def verdict(mean: float, significant: bool, inner: Interval, rope: float) -> Verdict:
    """What may be said: decided by the corrected test, sized by the interval against the region of equivalence.

    A difference is called small, or two systems equivalent, only where the whole inner interval is inside the region.
    """
    small = inner.within(-rope, rope)
    if significant and mean > 0:
        return Verdict.BETTER_BUT_SMALL if small else Verdict.BETTER
    if significant:
        return Verdict.WORSE_BUT_SMALL if small else Verdict.WORSE
    return Verdict.EQUIVALENT if small else Verdict.UNDECIDED


def claimed(claims: Claims, small: bool, settings: Settings) -> Verdict:
    """What may be said of the one claim that was to be shown: it holds, or nothing is decided."""
    if settings.claim == "superiority" and claims.superiority < settings.alpha:
        return Verdict.BETTER_BUT_SMALL if small else Verdict.BETTER
    if settings.claim == "equivalence" and claims.equivalence < settings.alpha:
        return Verdict.EQUIVALENT
    if settings.claim == "non-inferiority" and claims.non_inferiority < settings.alpha:
        return Verdict.NOT_WORSE
    return Verdict.UNDECIDED


def _adjusted(p: list[float], settings: Settings) -> list[float]:
    return CORRECTIONS[settings.correction](p)


def _contrast(
    raw: Raw, adjusted: Mapping[Test, float], p_seeds_adjusted: float, claims: Claims, settings: Settings
) -> Contrast:
    d, level, error = raw.differences, 1 - settings.alpha, raw.spread.standard_error
    inner = t_interval(d.mean, raw.spread, 1 - 2 * settings.alpha)
    rope = settings.rope * raw.control_mean
    first = settings.tests[0]
    # Both must hold: the user test alone takes training noise for a finding, one time in ten at three seeds.
    significant = max(adjusted[first], p_seeds_adjusted) < settings.alpha
    small = inner.within(-rope, rope)
    judged = verdict(d.mean, significant, inner, rope)
    wished = (settings.rope if settings.wish is None else settings.wish) * raw.control_mean
    return Contrast(
        against=raw.against,
        control_mean=raw.control_mean,
        mean=d.mean,
        relative=d.mean / raw.control_mean if raw.control_mean else None,
        interval=t_interval(d.mean, raw.spread, level),
        inner_interval=inner,
        bootstrap=percentile(raw.means, level),
        bca=bca(d, raw.means, level),
        two_way=raw.two_way,
        posterior=bayesian_bootstrap(d, rope, level=level, seed=settings.seed),
        seeds_covered=raw.seeds_covered,
        paired_runs=raw.paired_runs,
        standard_error=error,
        df=raw.spread.df,
        t=raw.tests[first].statistic,
        p=raw.tests[first].p,
        p_adjusted=adjusted[first],
        p_seeds=raw.both.p,
        p_seeds_adjusted=p_seeds_adjusted,
        tests=tuple(_tested(name, raw, adjusted[name]) for name in settings.tests),
        claims=claims,
        d_z=d.d_z,
        better=d.better,
        worse=d.worse,
        equal=d.equal,
        minimum_detectable=minimum_detectable(raw.spread, alpha=settings.alpha, power=settings.power),
        users_needed=users_needed(d, raw.spread, wished, alpha=settings.alpha, power=settings.power),
        rope=rope,
        verdict=judged if settings.claim == "difference" else claimed(claims, small, settings),
        differences=d,
    )


def _tested(name: Test, raw: Raw, p_adjusted: float) -> Tested:
    found = raw.tests[name]
    of_hits = name == "sign" and bool((abs(raw.differences.values[raw.differences.values != 0]) == 1).all())
    caution = None if of_hits else CAUTIONS.get(name)
    return Tested(name=name, statistic=found.statistic, p=found.p, p_adjusted=p_adjusted, caution=caution)


def _hits(d: Differences) -> Outcome:
    try:
        return mcnemar(d)
    except ValueError as error:
        raise RecbenchError(
            "McNemar's test does not apply here.",
            why="It compares hits, 0 or 1 for each user. NDCG, MRR, several seeds averaged and ties at their expectation "
            "give values between.",
            fix="--test mcnemar --metric hr@10 --ties mid, with one seed a system; or leave --test out",
            code=Exit.COMPARISON,
        ) from error


_TESTS: dict[Test, Callable[[Differences, FloatArray, Settings], Outcome]] = {
    "t": lambda d, _means, _settings: paired_t(d),
    "bootstrap": lambda d, means, _settings: bootstrap_test(d, means),
    "randomisation": lambda d, _means, s: randomisation(d, resamples=s.resamples, seed=s.seed),
    "wilcoxon": lambda d, _means, _settings: wilcoxon(d),
    "sign": lambda d, _means, _settings: sign_test(d),
    "mcnemar": lambda d, _means, _settings: _hits(d),
}
