"""A comparison in words: captions, verdicts and numbers, shared by every format people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from recbench.comparison import Across, Contrast, Cost, Row, Settings, Slice, Table, Verdict
from recbench.comparison.model import CAUTIONS, TEST_NAMES, Shown
from recbench.data.describe import count, number_of, split_name
from recbench.evaluation.metrics import Metric
from recbench.stats.corrections import NAMES
from recbench.stats.crossed import RESAMPLES as CROSSED_RESAMPLES

ORACLE = "oracle (best reachable)"
DECIDED = (
    Verdict.BETTER,
    Verdict.WORSE,
    Verdict.BETTER_BUT_SMALL,
    Verdict.WORSE_BUT_SMALL,
)
_TIES = {
    "expected": "ties at their expectation",
    "mid": "ties at the middle place",
    "pess": "ties at the worst place",
    "opt": "ties at the best place, which flatters systems with many ties",
}
_WORTH_TELLING_TIED = 0.01
FEW_RUNS = 5
"""Below this the spread between runs is a guess, and the bootstrap over users and runs coarse."""


def score(row: Row) -> str:
    """``0.0416 +-0.0004``: mean and sd over seeds; the mean alone with one run."""
    mean = f"{row.score.mean:.4f}"
    return mean if row.score.sd is None else f"{mean} +-{row.score.sd:.4f}"


def difference(contrast: Contrast | None, kind: Shown) -> str:
    """``+0.0015 [+0.0006, +0.0024]``; empty for the baseline."""
    if contrast is None:
        return ""
    shown = contrast.shown(kind)
    return f"{signed(contrast.mean)} [{signed(shown.low)}, {signed(shown.high)}]"


def p_value(contrast: Contrast | None) -> str:
    """The corrected p, with a star where the difference is decided; empty for the baseline."""
    return "" if contrast is None else f"{p_number(contrast.p_adjusted)} {'*' if contrast.verdict in DECIDED else ' '}"


def starred(p: float, alpha: float) -> str:
    """A corrected p with a star where it is below ``alpha``."""
    return f"{p_number(p)} {'*' if p < alpha else ' '}"


def relative(contrast: Contrast) -> str:
    """``+3.6 %``; empty where the control scores 0."""
    return "" if contrast.relative is None else f"{round(100 * contrast.relative, 1) + 0.0:+.1f} %"


def effect(d_z: float) -> str:
    """An effect size; ``inf`` where all users differ by the same."""
    return f"{d_z:+.3f}" if isfinite(d_z) else ("inf" if d_z > 0 else "-inf")


def probability(share: float) -> str:
    """Two decimals; never 0 or 1 of a simulated probability."""
    return "<0.01" if share < 0.005 else ">0.99" if share > 0.995 else f"{share:.2f}"


def visible(contrast: Contrast) -> str:
    """The smallest difference it can see: ``0.0009 (2.2 %)``. Empty where nothing varies, between users or between runs."""
    if not isfinite(contrast.minimum_detectable):
        return "never"
    if not contrast.minimum_detectable:
        return ""
    share = f" ({percent(_share(contrast))})" if contrast.control_mean else ""
    return f"{contrast.minimum_detectable:.4f}{share}"


def users_needed(contrast: Contrast) -> str:
    """Users at which the wished difference is seen; ``never`` where no number is enough.

    Empty where nothing can be wished for, since the control scores 0; where one user tells nothing of others; where nothing varies.
    """
    needed = contrast.users_needed
    knows = isfinite(contrast.minimum_detectable) and contrast.minimum_detectable > 0
    if needed is None or not contrast.control_mean or not knows:
        return ""
    return count(round(needed)) if isfinite(needed) else "never"


def cost(of: Cost, name: str) -> str:
    """A cost with a mark where it stands on the front; ``-`` where there is none, or it is not known."""
    value = getattr(of, name)
    if value is None:
        return "-  "
    told = (
        f"{value:.2f}"
        if name == "ms_per_user"
        else duration(value)
        if name == "training_seconds"
        else count(round(value))
    )
    return f"{told} {'^' if of.on_front.get(name) else ' '}"


def duration(seconds: float) -> str:
    """``0.8 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def mark(contrast: Contrast | None) -> str:
    """A verdict in two places: ``+*`` better, ``-*`` worse, ``==`` equivalent, ``??`` undecided, ``..`` too few users."""
    if contrast is None:
        return "  "
    if contrast.verdict in DECIDED:
        return "+*" if contrast.mean > 0 else "-*"
    marks = {Verdict.EQUIVALENT: "==", Verdict.TOO_FEW: "..", Verdict.NOT_WORSE: ">="}
    return marks.get(contrast.verdict, "??")


def signed(value: float) -> str:
    """Four decimals and a sign; a zero has none of minus."""
    return f"{round(value, 4) + 0.0:+.4f}"


def p_number(p: float) -> str:
    """Three decimals, or ``<0.001``."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def percent(share: float, decimals: int = 1) -> str:
    """``3.6 %``."""
    return f"{100 * share:.{decimals}f} %"


def chosen(share: float, least: int = 0) -> str:
    """A share that somebody chose, whole: ``5 %``, ``97.5 %``, ``0.1 %``; with ``least`` decimals or as many as it takes."""
    of_hundred = 100 * share
    decimals = next((n for n in range(least, 6) if abs(round(of_hundred, n) - of_hundred) < 1e-9), 6)
    return percent(share, decimals)


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


def caption(table: Table, settings: Settings) -> list[str]:
    """Who was tested, on what, how, over which family, and what could have been seen; one sentence group a line."""
    metric, several = settings.metrics[0], len(settings.metrics) > 1
    contrasts = [row.contrast for row in table.on(metric) if row.contrast is not None]
    ranked = f"{count(table.n_items)} items" if table.n_items else "items"
    ranked = f"all {ranked} ranked" if settings.candidates == "all" else f"unseen items ranked, of {ranked}"
    family = f"{number_of(len(contrasts), 'comparison')} of this table on {'each metric' if several else metric.label}"
    seen = f"this comparison can see{f' on {metric.label}' if several else ''}"
    test = f"p: {_test(settings)}, {NAMES[settings.correction]} over the {family}."
    both = "" if settings.tests[0] == "t" else ", by t as well"
    lines = [
        f"{number_of(table.n_users, 'user')}, {_seed_counts(table)}, {ranked}, {_TIES[settings.ties]}.",
        f"d: {_against(contrasts)}. {_coverage(table, table.on(metric), settings)}",
        f"{test} *: decided at {chosen(settings.alpha)}{both}.",
        f"Smallest difference {seen}: {_visible(contrasts)}, at {chosen(settings.power)} power.",
    ]
    if few := _few(table):
        lines.append(f"Fewer than {FEW_RUNS} runs, so the spread between them is itself uncertain: {few}.")
    tied = [f"{s.label} {percent(s.tied)}" for s in table.systems if s.tied >= _WORTH_TELLING_TIED]
    return [*lines, f"Users whose target ties with another item: {', '.join(tied)}."] if tied else lines


def _few(table: Table) -> str:
    """Who has several runs and few, and how many."""
    trained = [s for s in table.systems if not s.deterministic]
    few = [s for s in trained if 1 < len(s.seeds) < FEW_RUNS]
    if len(few) == len(trained) > 2 and len({len(s.seeds) for s in few}) == 1:
        return f"{len(few[0].seeds)} of every trained system"
    return ", ".join(f"{s.label} {len(s.seeds)}" for s in few)


def _test(settings: Settings) -> str:
    """The deciding test, with its draws where it has any."""
    name = settings.tests[0]
    draws = (
        f", {count(settings.resamples)} resamples, seed {settings.seed}"
        if name in ("bootstrap", "randomisation")
        else ""
    )
    claim = "" if settings.claim == "difference" else f"; the verdicts are of {settings.claim}, one-sided t"
    return f"{TEST_NAMES[name]} over users{draws}{claim}"


def size_caption(table: Table, settings: Settings) -> list[str]:
    """What the table of sizes says, and how large the wished difference is."""
    found = [row.contrast for row in table.on(settings.metrics[0]) if row.contrast is not None]
    rope, wish = chosen(settings.rope, 1), chosen(settings.rope if settings.wish is None else settings.wish, 1)
    spans = sorted({f"{c.rope:.4f}" for c in found})
    runs = ", training runs as they are" if any(c.seeds_covered and c.two_way for c in found) else ""
    margin = " to ".join(dict.fromkeys((spans[0], spans[-1])))
    lines = [
        f"better, worse: share of users. P: Bayesian bootstrap over users{runs}; same: within +-{rope} (+-{margin}).",
        f"visible from: smallest difference seen with {chosen(settings.power)} power. users needed: to see {wish}.",
    ]
    if any(users_needed(c) == "never" for c in found):
        lines.append("never: the noise of training alone is larger; more runs would show it, more users would not.")
    return lines


def slice_caption(parts: Sequence[Slice], settings: Settings) -> list[str]:
    """What the marks of a slice mean, and over what p was corrected."""
    not_worse = ", >= not worse" if settings.claim == "non-inferiority" else ""
    marks = f"+* better, -* worse, == equivalent{not_worse}, ?? undecided, against the same systems as above"
    lines = [f"{marks}; {slice_family(parts, settings)}."]
    few = too_few(parts)
    return [*lines, f".. too few users for a verdict: {', '.join(few)}."] if few else lines


def slice_family(parts: Sequence[Slice], settings: Settings) -> str:
    """Over what the p of slices are corrected."""
    primary = settings.metrics[0]
    family = sum(row.contrast is not None for part in parts for row in part.rows if row.metric == primary)
    return f"{NAMES[settings.correction]} over the {number_of(family, 'comparison')} of this table"


def too_few(parts: Sequence[Slice]) -> list[str]:
    """Names of the parts that have no verdict."""
    return [part.name for part in parts if any(r.contrast and r.contrast.verdict is Verdict.TOO_FEW for r in part.rows)]


def across_caption(across: Across, settings: Settings) -> list[str]:
    """The tests over datasets, what the Nemenyi test cannot tell apart, and which datasets these are."""
    lines = [f"Datasets: {', '.join(across.datasets)}. Another choice can change the order."]
    if across.friedman is not None:
        f = across.friedman
        value = f"{f.f:.2f}" if isfinite(f.f) else "infinite"
        lines.append(
            f"Do the systems rank alike? Friedman chi2({f.df}) = {f.chi2:.2f}, p {p_number(f.p)}; Iman-Davenport "
            f"F({f.f_df[0]}, {f.f_df[1]}) = {value}, p {p_number(f.f_p)}."
        )
    tied = "; ".join(" = ".join(clique) for clique in across.cliques) or "none: all mean ranks differ"
    lines.append(f"Nemenyi critical difference {across.critical_difference:.2f} of mean rank. Not told apart: {tied}.")
    lines.append(
        f"z, p: rank against {across.control}, Holm over {len(across.against)}. P: Bayesian signed-rank of the relative "
        f"differences; same: within +-{chosen(settings.rope, 1)}."
    )
    return lines


def sentences(table: Table, settings: Settings, metric: Metric | None = None) -> list[str]:
    """One verdict a system, on one metric: the primary one unless told otherwise."""
    metric = metric or settings.metrics[0]
    return [
        f"{row.system.label}: {_judged(row.contrast, metric, settings)}"
        for row in table.on(metric)
        if row.contrast is not None
    ]


def _judged(c: Contrast, metric: Metric, settings: Settings) -> str:
    change = "" if c.relative is None else f" ({relative(c)})"
    if c.equal == 1 and c.verdict is Verdict.EQUIVALENT and settings.claim == "difference":
        return f"equivalent to {c.against}: the same {metric.label} for every user."
    if c.verdict is Verdict.UNDECIDED:
        return f"undecided against {c.against}: {signed(c.mean)} {metric.label}{change}. {_doubt(c, settings)}"
    if c.verdict is Verdict.TOO_FEW:
        return f"too few users for a verdict: {signed(c.mean)} {metric.label}{change}."
    if c.verdict in DECIDED:
        return _decided(c, metric, settings)
    if c.verdict is Verdict.NOT_WORSE and c.claims is not None:
        told = f"not worse than {c.against} by {c.rope:.4f} {metric.label} or more"
        return f"{told}: {signed(c.mean)}{change}, p {p_number(c.claims.non_inferiority)}."
    return f"equivalent to {c.against}: {signed(c.mean)} {metric.label}{change}, {_inside(c, settings)}."


def _decided(c: Contrast, metric: Metric, settings: Settings) -> str:
    change = "" if c.relative is None else f" ({relative(c)})"
    direction = "better" if c.mean > 0 else "worse"
    told = f"{direction} than {c.against} by {abs(c.mean):.4f} {metric.label}{change}"
    noise = "" if c.seeds_covered else "; training noise not covered"
    if c.verdict in (Verdict.BETTER_BUT_SMALL, Verdict.WORSE_BUT_SMALL):
        return f"{told}, but below the smallest effect of interest ({_inside(c, settings)}){noise}."
    return f"{told}; better for {percent(c.better)} of users, worse for {percent(c.worse)}{noise}."


def _inside(c: Contrast, settings: Settings) -> str:
    level = chosen(1 - 2 * settings.alpha)
    low, high = signed(c.inner_interval.low), signed(c.inner_interval.high)
    return f"{level} CI {low} to {high}, inside +-{c.rope:.4f}"


def _doubt(c: Contrast, settings: Settings) -> str:
    """Why a difference is open, and what the comparison would have seen."""
    alpha = settings.alpha
    if not isfinite(c.minimum_detectable):
        return "One user can show no difference."
    alike = "In these runs it is the same for every user. " if c.equal == 1 else ""
    seen = f"Visible from {c.minimum_detectable:.4f}{f' ({percent(_share(c))})' if c.control_mean else ''}."
    if settings.claim != "difference" and c.claims is not None:
        p = getattr(c.claims, settings.claim.replace("-", "_"))
        return f"{alike}{settings.claim.capitalize()} is not shown (p {p_number(p)}). {seen}"
    if alike:
        return f"{alike}{seen}"
    if c.p_adjusted < alpha and (c.two_way is None or settings.tests[0] in CAUTIONS):
        runs = " and training runs" if c.two_way else ""
        test = f"{TEST_NAMES[settings.tests[0]]} rejects (p {p_number(c.p_adjusted)})"
        return (
            f"The mean may be the same: {test}, t over users{runs} does not (p {p_number(c.p_seeds_adjusted)}). {seen}"
        )
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


def _coverage(table: Table, rows: Sequence[Row], settings: Settings) -> str:
    """Which interval is shown, and what it is an interval over."""
    if settings.interval != "t":
        return _bootstrapped(rows, settings)
    uncovered = [row.system.label for row in rows if row.contrast and not row.contrast.seeds_covered]
    if all(s.deterministic for s in table.systems):
        return "CI: over users."
    if not uncovered:
        return f"CI: over users and training runs{_paired(rows)}."
    if len(uncovered) == sum(row.contrast is not None for row in rows):
        return "CI: over users; training noise not covered."
    return f"CI: over users and training runs{_paired(rows)}; training noise not covered for {', '.join(uncovered)}."


def _bootstrapped(rows: Sequence[Row], settings: Settings) -> str:
    n_draws = CROSSED_RESAMPLES if settings.interval == "two-way" else settings.resamples
    draws = f"{count(n_draws)} resamples, seed {settings.seed}"
    rests = "Verdicts rest on t, not on it."
    found = [(row.system.label, row.contrast) for row in rows if row.contrast is not None]
    if settings.interval != "two-way":
        name = {"percentile": "percentile", "bca": "BCa"}[settings.interval]
        noise = " training noise not covered;" if any(not row.system.deterministic for row in rows) else ""
        return f"CI: {name} bootstrap over users;{noise} {draws}. {rests}"
    alone = [label for label, contrast in found if contrast.two_way is None]
    told = "" if not alone else f"; over users alone for {', '.join(alone)}, where no two random runs are on a side"
    return f"CI: bootstrap over users and training runs, crossed{_paired(rows)}{told}; {draws}. {rests}"


def _paired(rows: Sequence[Row]) -> str:
    against = [row for row in rows if row.contrast]
    labels = [row.system.label for row in against if row.contrast and row.contrast.paired_runs]
    which = "all others" if len(labels) == len(against) > 1 else ", ".join(labels)
    return f"; runs of {which} paired with those that share their start" if labels else ""


def _visible(contrasts: Sequence[Contrast]) -> str:
    found = sorted(
        (c.minimum_detectable, _share(c))
        for c in contrasts
        if c.minimum_detectable > 0 and isfinite(c.minimum_detectable)
    )
    if not found:
        return "none"
    (low, low_share), (high, high_share) = found[0], found[-1]
    if f"{low:.4f}" == f"{high:.4f}":
        return f"{high:.4f} ({percent(high_share)})" if high_share else f"{high:.4f}"
    shares = f" ({100 * low_share:.1f} to {percent(high_share)})" if low_share and high_share else ""
    return f"{low:.4f} to {high:.4f}{shares}, by system"


def _share(c: Contrast) -> float:
    return c.minimum_detectable / c.control_mean if c.control_mean else 0.0
