"""A system against its baseline: difference, interval, test, correction, verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recbench.comparison.model import Contrast, Settings, Verdict
from recbench.stats.corrections import CORRECTIONS
from recbench.stats.intervals import Interval, Spread, bootstrap, over_users, over_users_and_seeds, t_interval
from recbench.stats.paired import Differences, FloatArray, Outcome, paired_t, t_test
from recbench.stats.power import minimum_detectable


@dataclass(frozen=True, slots=True)
class Raw:
    """A contrast before its p is corrected."""

    against: str
    control_mean: float
    differences: Differences
    spread: Spread
    seeds_covered: bool
    users: Outcome
    """Paired t over users."""
    both: Outcome
    """t over users and training runs; the same as ``users`` where runs are not covered."""


def raw_contrast(
    against: str,
    users: tuple[FloatArray, FloatArray],
    seeds: tuple[tuple[float, ...], tuple[float, ...]],
) -> Raw:
    """Ours minus theirs.

    Args:
        against: label of the baseline.
        users: per-user metric of both, averaged over seeds.
        seeds: mean over users of each run of both; empty for a deterministic system.
    """
    d = Differences.between(*users)
    covered = all(len(means) != 1 for means in seeds)
    spread = over_users_and_seeds(d, *seeds) if covered else over_users(d)
    both = t_test(d.mean, spread.standard_error, spread.df)
    return Raw(against, float(users[1].mean()), d, spread, covered, paired_t(d), both)


def contrasts(raw: Mapping[str, Raw], settings: Settings) -> dict[str, Contrast]:
    """The contrasts of one table on one metric, corrected as one family."""
    adjust = CORRECTIONS[settings.correction]
    users = adjust([r.users.p for r in raw.values()])
    both = adjust([r.both.p for r in raw.values()])
    return {
        label: _contrast(r, p, p_seeds, settings)
        for (label, r), p, p_seeds in zip(raw.items(), users, both, strict=True)
    }


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


def _contrast(raw: Raw, p_adjusted: float, p_seeds_adjusted: float, settings: Settings) -> Contrast:
    d, level = raw.differences, 1 - settings.alpha
    inner = t_interval(d.mean, raw.spread, 1 - 2 * settings.alpha)
    rope = settings.rope * raw.control_mean
    # Both must hold: the user test alone takes training noise for a finding, one time in ten at three seeds.
    significant = max(p_adjusted, p_seeds_adjusted) < settings.alpha
    return Contrast(
        against=raw.against,
        control_mean=raw.control_mean,
        mean=d.mean,
        relative=d.mean / raw.control_mean if raw.control_mean else None,
        interval=t_interval(d.mean, raw.spread, level),
        inner_interval=inner,
        bootstrap=bootstrap(d, level, resamples=settings.resamples, seed=settings.seed),
        seeds_covered=raw.seeds_covered,
        standard_error=raw.spread.standard_error,
        df=raw.spread.df,
        t=raw.users.statistic,
        p=raw.users.p,
        p_adjusted=p_adjusted,
        p_seeds=raw.both.p,
        p_seeds_adjusted=p_seeds_adjusted,
        d_z=d.d_z,
        better=d.better,
        worse=d.worse,
        equal=d.equal,
        minimum_detectable=minimum_detectable(raw.spread.standard_error, alpha=settings.alpha, power=settings.power),
        rope=rope,
        verdict=verdict(d.mean, significant, inner, rope),
        differences=d,
    )
