"""A comparison in words: captions, verdicts and numbers, shared by every format people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from recbench.comparison import Contrast, Row, Settings, Table, Verdict
from recbench.data.describe import split_name
from recbench.evaluation.metrics import Metric
from recbench.stats.corrections import NAMES

ORACLE = "oracle (best reachable)"
DECIDED = (Verdict.BETTER, Verdict.WORSE, Verdict.BETTER_BUT_SMALL, Verdict.WORSE_BUT_SMALL)
_TIES = {
    "expected": "ties at their expectation",
    "mid": "ties at the middle place",
    "pess": "ties at the worst place",
    "opt": "ties at the best place, which flatters systems with many ties",
}
_WORTH_TELLING_TIED = 0.01


def score(row: Row) -> str:
    """``0.0416 +-0.0004``: mean and sd over seeds; the mean alone with one run."""
    mean = f"{row.score.mean:.4f}"
    return mean if row.score.sd is None else f"{mean} +-{row.score.sd:.4f}"


def difference(contrast: Contrast | None) -> str:
    """``+0.0015 [+0.0006, +0.0024]``; empty for the baseline."""
    if contrast is None:
        return ""
    return f"{signed(contrast.mean)} [{signed(contrast.interval.low)}, {signed(contrast.interval.high)}]"


def p_value(contrast: Contrast | None) -> str:
    """The corrected p, with a star where the difference is decided; empty for the baseline."""
    return "" if contrast is None else f"{p_number(contrast.p_adjusted)} {'*' if contrast.verdict in DECIDED else ' '}"


def signed(value: float) -> str:
    """Four decimals and a sign; a zero has none of minus."""
    return f"{round(value, 4) + 0.0:+.4f}"


def p_number(p: float) -> str:
    """Three decimals, or ``<0.001``."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def percent(share: float, decimals: int = 1) -> str:
    """``3.6 %``."""
    return f"{100 * share:.{decimals}f} %"


def count(number: int) -> str:
    """``22 363``."""
    return f"{number:,}".replace(",", " ")


def seeds(row: Row) -> str:
    """How many runs; a dash where another run would give the same."""
    return "-" if row.system.deterministic else str(len(row.system.seeds))


def title(table: Table) -> str:
    """Dataset, split and, where all trained systems share it, the loss."""
    split = table.protocol.get("split")
    name = split_name(split) if isinstance(split, Mapping) else split
    losses = {s.loss for s in table.systems if not s.deterministic}
    parts = [table.dataset, *([str(name)] if name else []), *([f"loss: {losses.pop()}"] if len(losses) == 1 else [])]
    return ", ".join(parts)


def caption(table: Table, settings: Settings, metric: Metric | None = None) -> list[str]:
    """Who was tested, on what, how, over which family, and what could have been seen; one sentence group a line."""
    metric = metric or settings.metrics[0]
    contrasts = [row.contrast for row in table.on(metric) if row.contrast is not None]
    ranked = f"{count(table.n_items)} items" if table.n_items else "items"
    ranked = f"all {ranked} ranked" if settings.candidates == "all" else f"unseen items ranked, of {ranked}"
    family = f"{len(contrasts)} comparison{'' if len(contrasts) == 1 else 's'} of this table on {metric.label}"
    test = f"p: paired t over users, {NAMES[settings.correction]} over the {family}."
    lines = [
        f"{count(table.n_users)} users, {_seed_counts(table)}, {ranked}, {_TIES[settings.ties]}.",
        f"d: {_against(contrasts)}. {_coverage(table, table.on(metric))}",
        f"{test} *: decided at {percent(settings.alpha, 0)}.",
        f"Smallest difference this comparison can see: {_visible(contrasts)}, at {percent(settings.power, 0)} power.",
    ]
    tied = [f"{s.label} {percent(s.tied)}" for s in table.systems if s.tied >= _WORTH_TELLING_TIED]
    return [*lines, f"Users whose target ties with another item: {', '.join(tied)}."] if tied else lines


def sentences(table: Table, settings: Settings, metric: Metric | None = None) -> list[str]:
    """One verdict a system, on one metric: the primary one unless told otherwise."""
    metric = metric or settings.metrics[0]
    return [
        f"{row.system.label}: {_judged(row.contrast, metric, settings.alpha)}"
        for row in table.on(metric)
        if row.contrast is not None
    ]


def _judged(c: Contrast, metric: Metric, alpha: float) -> str:
    change = "" if c.relative is None else f" ({100 * c.relative:+.1f} %)"
    if c.equal == 1:
        return f"equivalent to {c.against}: the same {metric.label} for every user."
    if c.verdict is Verdict.UNDECIDED:
        return f"undecided against {c.against}: {signed(c.mean)} {metric.label}{change}. {_doubt(c, alpha)}"
    level = percent(1 - 2 * alpha, 0)
    inner = f"{level} CI {signed(c.inner_interval.low)} to {signed(c.inner_interval.high)}, inside +-{c.rope:.4f}"
    if c.verdict is Verdict.EQUIVALENT:
        return f"equivalent to {c.against}: {signed(c.mean)} {metric.label}{change}, {inner}."
    direction = "better" if c.mean > 0 else "worse"
    told = f"{direction} than {c.against} by {abs(c.mean):.4f} {metric.label}{change}"
    if c.verdict in (Verdict.BETTER_BUT_SMALL, Verdict.WORSE_BUT_SMALL):
        return f"{told}, but below the smallest effect of interest ({inner})."
    return f"{told}; better for {percent(c.better)} of users, worse for {percent(c.worse)}."


def _doubt(c: Contrast, alpha: float) -> str:
    """Why a difference is open, and what the comparison would have seen."""
    if not isfinite(c.minimum_detectable):
        return "One user can show no difference."
    seen = f"Visible from {c.minimum_detectable:.4f}{f' ({percent(_share(c))})' if c.control_mean else ''}."
    if c.p_adjusted < alpha:
        return f"It holds for other users, but may be training noise (p {p_number(c.p_seeds_adjusted)}). {seen}"
    return f"It may be chance (p {p_number(c.p_adjusted)}). {seen}"


def _seed_counts(table: Table) -> str:
    counts = sorted({len(s.seeds) for s in table.systems if not s.deterministic})
    if not counts:
        return "nothing random in training"
    told = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{told} seed{'' if counts == [1] else 's'}"


def _against(contrasts: Sequence[Contrast]) -> str:
    same = len({c.against for c in contrasts}) == 1
    return f"against {contrasts[0].against}" if same else "against the system named"


def _coverage(table: Table, rows: Sequence[Row]) -> str:
    """What the interval is an interval over."""
    uncovered = [row.system.label for row in rows if row.contrast and not row.contrast.seeds_covered]
    if all(s.deterministic for s in table.systems):
        return "CI: over users."
    if not uncovered:
        return "CI: over users and training runs."
    if len(uncovered) == sum(row.contrast is not None for row in rows):
        return "CI: over users; training noise not covered."
    return f"CI: over users and training runs; training noise not covered for {', '.join(uncovered)}."


def _visible(contrasts: Sequence[Contrast]) -> str:
    found = sorted((c.minimum_detectable, _share(c)) for c in contrasts if isfinite(c.minimum_detectable))
    if not found:
        return "none"
    (low, low_share), (high, high_share) = found[0], found[-1]
    if f"{low:.4f}" == f"{high:.4f}":
        return f"{high:.4f} ({percent(high_share)})" if high_share else f"{high:.4f}"
    shares = f" ({100 * low_share:.1f} to {percent(high_share)})" if low_share and high_share else ""
    return f"{low:.4f} to {high:.4f}{shares}, by system"


def _share(c: Contrast) -> float:
    return c.minimum_detectable / c.control_mean if c.control_mean else 0.0
