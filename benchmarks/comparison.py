"""How long a comparison takes: 20 runs x 100,000 users x 9,999 resamples. ``python -m benchmarks comparison``."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

from recbench.comparison import Settings, compare
from recbench.runs.folder import find
from tests.run_folders import make_run, ranks

USERS, RUNS = 100_000, 20
HEADS = ("none", "pause", "rearec-erl", "lares", "diffuse")


def runs(home: Path, seeds: int) -> None:
    """``RUNS`` runs, ``seeds`` a system: a hit at the first ten places for a tenth of the users, correlated."""
    rng = np.random.default_rng(0)
    easy = rng.random(USERS)
    for system in range(RUNS // seeds):
        for seed in range(seeds):
            hit = 0.7 * easy + 0.3 * rng.random(USERS) < 0.17 + 0.002 * system
            above = np.where(hit, rng.integers(0, 10, USERS), rng.integers(10, 10_000, USERS))
            head, config = (HEADS[system], "") if seeds > 1 else ("none", f"[train]\nx = {system}\n")
            make_run(home, "sasrec", ranks(above), head=head, seed=seed, config=config, folder=f"r{system}-{seed}")


def main(quick: bool = False) -> None:
    """Print seconds for one seed a system and, unless ``quick``, for four."""
    for seeds in (1,) if quick else (1, 4):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            runs(home, seeds)
            began, used = perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
            found = compare(find([home]), Settings())
            wall, cpu = perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_utime - used
            contrasts = sum(row.contrast is not None for row in found.tables[0].rows)
            print(
                f"{RUNS // seeds} systems x {seeds} seeds x {USERS} users, {contrasts} contrasts: {wall:.1f} s, {cpu:.1f} s of CPU"
            )


if __name__ == "__main__":
    main()
