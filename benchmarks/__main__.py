"""``python -m benchmarks [names] [--quick]``, or ``make bench``."""

from __future__ import annotations

import argparse
from importlib import import_module

NAMES = (
    "startup",
    "training",
    "losses",
    "precision",
    "heads",
    "prefix_rows",
    "generators",
    "evaluation",
    "preparation",
    "comparison",
    "false_positives",
)


def main() -> None:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="name", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="fewer rounds and rows")
    asked = parser.parse_args()
    for name in asked.names:
        if name not in NAMES:
            parser.error(f"no benchmark {name!r}; there are: {', '.join(NAMES)}")
        import_module(f"benchmarks.{name}").main(asked.quick)


main()
