"""CPU seconds of competitors, in turn, so that a machine that drifts drifts for all."""

from __future__ import annotations

import resource
import statistics
from collections.abc import Callable, Mapping
from time import process_time


def in_turn(competitors: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each competitor over ``rounds`` interleaved rounds, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for number in range(rounds + 1):
        for name, work in competitors.items():
            began = process_time()
            work()
            if number:
                seconds[name].append(process_time() - began)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def children_seconds() -> float:
    """CPU seconds of all finished child processes so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show(title: str, rows: Mapping[str, str]) -> None:
    """A heading and aligned lines."""
    print(f"\n{title}")
    width = max(len(name) for name in rows)
    for name, value in rows.items():
        print(f"  {name:<{width}}  {value:>12}")
