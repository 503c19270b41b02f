"""How long looking around takes: `recbench --help`, and `recbench compare` on two small runs; neither imports torch."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.measure import children_seconds, in_turn, show
from tests.run_folders import make_run, ranks

COMMAND = "import sys; from recbench.cli.app import run; run({arguments!r}); sys.exit('torch' in sys.modules)"
USERS = 1_000


def main(quick: bool) -> None:
    """Print CPU and wall seconds of each command beside those of an empty interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(("popularity", "markov")):
            make_run(Path(folder), name, ranks(np.random.default_rng(place).integers(0, 50, USERS)))
        codes = {
            "recbench --help (no torch)": COMMAND.format(arguments=["--help"]),
            f"recbench compare, 2 runs of {USERS} users (no torch)": COMMAND.format(arguments=["compare", folder]),
            "python alone": "pass",
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in codes}

        def child(name: str) -> None:
            before, began = children_seconds(), perf_counter()
            subprocess.run([sys.executable, "-c", codes[name]], capture_output=True, check=True)
            taken[name].append((children_seconds() - before, perf_counter() - began))

        in_turn({name: lambda name=name: child(name) for name in codes}, 2 if quick else 5)
    show(
        "start-up, CPU seconds (wall seconds), medians",
        {name: "{:.2f} ({:.2f})".format(*np.median(seconds, axis=0)) for name, seconds in taken.items()},
    )
