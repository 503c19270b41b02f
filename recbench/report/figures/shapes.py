"""What the figures draw: plain values, so that a figure can be made from anything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A difference to a baseline, with its interval."""

    label: str
    against: str
    mean: float
    low: float
    """May be infinite, as may ``high``."""
    high: float
    rope: float
    """Half the width of the region of practical equivalence."""
    kind: str
    """``better``, ``worse``, ``equivalent`` or ``undecided``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Points of one run, in order of x."""

    label: str
    """Of the system: runs of one system share colour, marker and dashes."""
    x: tuple[float, ...]
    y: tuple[float, ...]
    picked: int | None = None
    """Place of the point to mark, such as the best epoch."""
    breaks: tuple[float, ...] = ()
    """x at which another stage of training begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """One value a group and system, such as a metric by slice of users."""

    groups: tuple[str, ...]
    sizes: tuple[int, ...]
    """Users in each group."""
    values: dict[str, tuple[float | None, ...]]
    """By label, one a group; None where a group is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Shares at whole numbers, such as users by number of reasoning steps."""

    label: str
    at: tuple[int, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """Counts of what a dataset holds, bin by bin, such as users by number of events."""

    title: str
    names: tuple[str, ...]
    counts: tuple[int, ...]
    rows: str
    """What the bins are of."""
    counted: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """How far a value moves, over several draws, as shares of what it was."""

    label: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Mean ranks over datasets, best first; 1 is best."""

    labels: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    critical: float
    """Mean ranks further apart than this differ."""
    cliques: tuple[tuple[int, int], ...]
    """First and last place of systems that are not told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What a system costs, and how good it is."""

    label: str
    cost: float
    quality: float
    front: bool
    """Nothing is better at no higher cost, or as good at a lower one."""
