"""Cost beside quality: who is beaten by a system that is as good and cheaper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recbench.comparison.model import Cost, System

COSTS = ("n_parameters", "training_seconds", "ms_per_user", "peak_memory_mb", "trials")
"""Fields of ``System`` and ``Cost``; less is better."""


def any_known(of: Sequence[Cost]) -> bool:
    """Whether any system says what it costs."""
    return any(getattr(cost, name) is not None for cost in of for name in COSTS)


def costs(systems: Sequence[System], quality: Mapping[str, float]) -> tuple[Cost, ...]:
    """Each system's costs, and for each cost whether it stands on the Pareto front.

    Args:
        systems: of one table.
        quality: mean of the primary metric by label.
    """
    known = {name: {s.label: getattr(s, name) for s in systems if getattr(s, name) is not None} for name in COSTS}
    return tuple(
        Cost(
            label=s.label,
            n_parameters=s.n_parameters,
            training_seconds=s.training_seconds,
            ms_per_user=s.ms_per_user,
            peak_memory_mb=s.peak_memory_mb,
            trials=s.trials,
            on_front={name: _on_front(s.label, known[name], quality) for name in COSTS if s.label in known[name]},
        )
        for s in systems
    )


def _on_front(label: str, cost: Mapping[str, float], quality: Mapping[str, float]) -> bool:
    mine = (cost[label], -quality[label])
    others = [(cost[other], -quality[other]) for other in cost if other != label]
    return not any(o[0] <= mine[0] and o[1] <= mine[1] and o != mine for o in others)
