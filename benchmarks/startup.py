"""How long `recbench --help` takes, and what it does not import."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measure import children_seconds, in_turn, show

HELP = "import sys; from recbench.cli.app import run; run(['--help']); sys.exit('torch' in sys.modules)"


def main(quick: bool) -> None:
    """Print CPU seconds of the command beside those of an empty interpreter."""
    taken: dict[str, list[float]] = {"help": [], "python": []}

    def child(name: str, code: str) -> None:
        before = children_seconds()
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
        taken[name].append(children_seconds() - before)

    in_turn({"help": lambda: child("help", HELP), "python": lambda: child("python", "pass")}, 2 if quick else 5)
    show(
        "start-up, CPU seconds",
        {
            "recbench --help (no torch)": f"{sorted(taken['help'])[len(taken['help']) // 2]:.2f}",
            "python alone": f"{min(taken['python']):.2f}",
        },
    )
