"""`recbench prepare` on generated reviews, beside unpacking and parsing alone and beside pandas; each in its own process.

``python -m benchmarks.preparation 1000000 3000000 10000000`` runs the named sizes, ``python -m benchmarks preparation`` the first.
"""

from __future__ import annotations

import argparse
import gzip
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import children_seconds, show

SIZES = (1_000_000, 3_000_000, 10_000_000)
QUICK = 100_000
PANDAS_UP_TO = 1_000_000
"""pandas keeps every text: about 5 GiB a million rows."""
WORDS = 30_000
TEXTS = 50_000
"""Distinct review texts: far more than gzip's window holds, so the file packs about as well as real reviews do."""
CHUNK = 50_000
PEAK = "; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
UNPACK = "import gzip, shutil; shutil.copyfileobj(gzip.open({path!r}), open('/dev/null', 'wb'), 1 << 20)"
PARSE = "import gzip, msgspec; [None for line in gzip.open({path!r}) if msgspec.json.decode(line) is None]"
PANDAS = "import pandas; pandas.read_json({path!r}, lines=True)"
OURS = (
    "from pathlib import Path; from recbench.data.prepare import Request, prepare; "
    "prepare(Request(name='x', home=Path({home!r}), source=Path({path!r})))"
)


def write_reviews(path: Path, rows: int) -> None:
    """Review lines of realistic length, ascending by item as the real files are, users and items as skewed."""
    drawn, generator = random.Random(0), np.random.default_rng(0)
    words = ["".join(drawn.choices("etaoinshrdlu", k=drawn.randint(2, 9))) for _ in range(WORDS)]
    summed = np.cumsum(1 / np.arange(1, WORDS + 1)).tolist()
    texts = [" ".join(drawn.choices(words, cum_weights=summed, k=drawn.randint(20, 160))) for _ in range(TEXTS)]
    n_users, n_items = rows // 9, rows // 16
    user = (n_users * generator.random(rows) ** 1.5).astype(np.int64)
    item = np.sort((n_items * generator.random(rows) ** 2).astype(np.int64))
    day, text = generator.integers(0, 5000, rows), generator.integers(0, TEXTS, rows)
    with gzip.open(path, "wt", compresslevel=1, encoding="utf-8") as out:
        for first in range(0, rows, CHUNK):
            part = slice(first, first + CHUNK)
            out.writelines(
                f'{{"reviewerID": "A{u:013d}", "asin": "B{i:09d}", "reviewerName": "N", "helpful": [0, 0], '
                f'"reviewText": "{texts[t]}", "overall": 5.0, "summary": "good", "unixReviewTime": {86400 * d}, '
                f'"reviewTime": "01 1, 2014"}}\n'
                for u, i, d, t in zip(*(c[part].tolist() for c in (user, item, day, text)), strict=True)
            )


def measured(code: str) -> tuple[float, float]:
    """CPU seconds and peak MiB of a Python process that runs ``code``."""
    before = children_seconds()
    done = subprocess.run([sys.executable, "-c", code + PEAK], capture_output=True, text=True, check=True)
    return children_seconds() - before, float(done.stdout.split()[-1])


def one_size(rows: int) -> None:
    """Print what ``rows`` reviews cost."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reviews.json.gz"
        write_reviews(path, rows)
        contenders = {"recbench prepare, all of it": OURS, "unpacking alone": UNPACK, "unpacking and parsing": PARSE}
        if rows <= PANDAS_UP_TO:
            contenders["pandas.read_json, reading alone"] = PANDAS
        found = {name: measured(code.format(path=str(path), home=folder)) for name, code in contenders.items()}
        megabytes = path.stat().st_size / 1e6
    ours = found["recbench prepare, all of it"]
    lines = {
        name: f"{seconds:.1f} s, {rows / seconds:,.0f} rows/s, {peak:,.0f} MiB"
        for name, (seconds, peak) in found.items()
    }
    ratios = {
        f"recbench / {name}": f"{ours[0] / seconds:.2f}x" for name, (seconds, _) in found.items() if seconds != ours[0]
    }
    show(f"preparing {rows:,} reviews, {megabytes:.0f} MB of gzip: CPU seconds, peak memory", lines | ratios)


def main(quick: bool) -> None:
    """Print the smallest size, or a tenth of it."""
    one_size(QUICK if quick else SIZES[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preparation", description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, default=SIZES, help="sizes to run; default: all three")
    for asked in parser.parse_args().rows:
        one_size(asked)
