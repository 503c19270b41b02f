"""`recbench prepare` on generated reviews against unpacking them alone and against pandas; each in a process of its own."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import children_seconds, show

PEAK = "; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
WORDS = (
    "great",
    "the",
    "smell",
    "skin",
    "after",
    "week",
    "would",
    "buy",
    "again",
    "colour",
    "not",
    "for",
    "me",
    "price",
    "works",
    "and",
)


def write_reviews(path: Path, rows: int) -> None:
    """Review lines of realistic length, ascending by item as the real files are."""
    drawn = random.Random(0)
    per_item = 16
    with gzip.open(path, "wt", compresslevel=1, encoding="utf-8") as out:
        for row in range(rows):
            text = " ".join(drawn.choices(WORDS, k=drawn.randint(20, 160)))
            user, item, day = drawn.randrange(rows // 9), row // per_item, drawn.randrange(5000)
            out.write(
                f'{{"reviewerID": "A{user:013d}", "asin": "B{item:09d}", "reviewerName": "N", "helpful": [0, 0], '
                f'"reviewText": "{text}", "overall": 5.0, "summary": "good", "unixReviewTime": {86400 * day}, '
                f'"reviewTime": "01 1, 2014"}}\n'
            )


def measured(code: str) -> tuple[float, float]:
    """CPU seconds and peak MiB of a Python process that runs ``code``."""
    before = children_seconds()
    done = subprocess.run([sys.executable, "-c", code + PEAK], capture_output=True, text=True, check=True)
    return children_seconds() - before, float(done.stdout.split()[-1])


def main(quick: bool) -> None:
    """Print the ratios."""
    rows = 100_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reviews.json.gz"
        write_reviews(path, rows)
        ours = measured(
            "from pathlib import Path; from recbench.data.prepare import Request, prepare; "
            f"prepare(Request(name='x', home=Path({folder!r}), source=Path({str(path)!r})))"
        )
        unpack = measured(
            f"import gzip, shutil, io; shutil.copyfileobj(gzip.open({str(path)!r}), open('/dev/null', 'wb'), 1 << 20)"
        )
        pandas = measured(f"import pandas; pandas.read_json({str(path)!r}, lines=True)")
    show(
        f"preparing {rows} reviews, gzip of JSON lines: CPU seconds (peak MiB)",
        {
            "recbench prepare, all of it": f"{ours[0]:.1f} ({ours[1]:.0f})",
            "unpacking alone, Python's gzip": f"{unpack[0]:.1f} ({unpack[1]:.0f})",
            "pandas.read_json, reading alone": f"{pandas[0]:.1f} ({pandas[1]:.0f})",
            "recbench / unpacking": f"{ours[0] / unpack[0]:.2f}x",
            "pandas / recbench": f"{pandas[0] / ours[0]:.1f}x",
        },
    )
