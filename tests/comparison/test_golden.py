"""The golden comparison: two baselines without randomness on real data, values computed independently."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from recbench import columns
from recbench.baselines.base import Baseline
from recbench.baselines.ease import EASE
from recbench.baselines.markov import Markov
from recbench.comparison import Settings, Verdict, compare
from recbench.data.dataset import Histories
from recbench.evaluation.metrics import parse
from recbench.runs.folder import find
from recbench.scoring.counting import count
from tests.run_folders import make_run

TOYS = "176c680c688d497598c4a89a03b402c0fe78d795e5db335c2e78dd5f2d778a3f"
N_ITEMS = 11_924


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of markov and ease on Toys."""
    path = Path(__file__).resolve().parents[3] / "shared" / "data" / "amazon2014" / "s3rec" / "Toys_and_Games.txt"
    if not path.exists():
        pytest.skip(f"no real data at {path}")
    raw = path.read_bytes()
    assert hashlib.sha256(raw).hexdigest() == TOYS
    rows = [np.array(line.split()[1:], np.int32) for line in raw.decode().splitlines()]
    lengths = np.array([len(row) for row in rows])
    stops = np.cumsum(lengths)
    users, items = np.arange(1, len(rows) + 1, dtype=np.int32), np.concatenate(rows)
    train = Histories(users, items, None, stops - lengths, stops - 2)
    queries = Histories(users, items, None, stops - lengths, stops - 1)
    home = tmp_path_factory.mktemp("toys")
    for name, baseline in (("markov", Markov()), ("ease", EASE())):
        baseline.fit(train, N_ITEMS)
        make_run(home, name, _ranks(baseline, queries, items[stops - 1]), dataset={"name": "toys", "items": N_ITEMS})
    return home


def _ranks(baseline: Baseline, queries: Histories, targets: np.ndarray) -> pd.DataFrame:
    found: list[pd.DataFrame] = []
    for start in range(0, len(queries), 256):
        chunk = np.arange(start, min(start + 256, len(queries)))
        seen = torch.from_numpy(np.concatenate([queries.row(r) for r in chunk]))
        seen_row = torch.from_numpy(np.repeat(np.arange(len(chunk)), queries.lengths[chunk]))
        scores = torch.from_numpy(baseline.scores(queries, chunk))
        counts = count(scores, torch.from_numpy(targets[chunk]), seen, seen_row)
        table = {name: getattr(counts, name).numpy() for name in columns.RANKS[3:]}
        users = {columns.SPLIT: "test", columns.USER: queries.users[chunk], columns.TARGET: targets[chunk]}
        found.append(pd.DataFrame(users | table))
    return pd.concat(found, ignore_index=True)


def test_markov_minus_ease_on_toys(toys: Path) -> None:
    table = compare(find([toys]), Settings(candidates="unseen", baseline="ease")).tables[0]
    assert table.n_users == 19_412
    hits = table.row("markov", parse("hr@10")).contrast
    assert hits is not None
    assert hits.mean == pytest.approx(0.000343, abs=1e-6)
    assert hits.differences.sd == pytest.approx(0.267486, abs=1e-5)
    assert hits.t == pytest.approx(0.1789, abs=5e-4)
    assert hits.p == pytest.approx(0.858, abs=5e-4)
    assert (hits.interval.low, hits.interval.high) == pytest.approx((-0.003420, 0.004106), abs=2e-6)
    assert hits.verdict is Verdict.UNDECIDED
    ndcg = table.row("markov", parse("ndcg@10")).contrast
    assert ndcg is not None
    assert ndcg.mean == pytest.approx(0.006977, abs=1e-6)
    assert ndcg.differences.sd == pytest.approx(0.175290, abs=1e-5)
    assert ndcg.t == pytest.approx(5.5458, abs=1e-3)
    assert ndcg.p == pytest.approx(2.96e-08, rel=0.01)
    assert (ndcg.interval.low, ndcg.interval.high) == pytest.approx((0.004511, 0.009443), abs=2e-6)
    assert ndcg.d_z == pytest.approx(0.0398, abs=1e-4)
    assert (ndcg.better, ndcg.worse) == pytest.approx((0.0543, 0.0416), abs=1e-4)
    assert ndcg.verdict is Verdict.BETTER
