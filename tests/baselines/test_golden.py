"""The published values of four baselines on two real datasets, under every tie rule and both candidate sets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from recbench.baselines.base import Baseline, events
from recbench.baselines.ease import EASE
from recbench.baselines.itemknn import ItemKNN
from recbench.baselines.markov import Markov
from recbench.baselines.popularity import Popularity
from recbench.evaluation.metrics import metric
from recbench.scoring.counting import count, scratch_for
from tests.sequences import Sequences, read_sequences


@dataclass(frozen=True)
class System:
    """A baseline and how exactly its values are known."""

    baseline: Baseline
    tolerance: float
    """Of the expected and mid values; 0: as printed."""
    pess_tolerance: float
    """Of the pessimistic values."""


SYSTEMS = {
    "popularity": System(Popularity(), 0.0, 0.0),
    "markov-raw": System(Markov(Markov.Config(popularity_weight=0.0)), 0.0, 0.0),
    "markov": System(Markov(), 0.0, 0.0),
    # Its true ties are sums of irrational cosines, split or kept by the order of float operations.
    "itemknn": System(ItemKNN(), 1e-4, 1e-4),
    "ease": System(EASE(), 5e-5, 5e-5),
}

# HR@10 and NDCG@10: expected (6 decimals), mid, pess (4 decimals)
GOLDEN = """
Beauty popularity all    0.011313 0.005309 0.0106 0.0051 0.0106 0.0051
Beauty popularity unseen 0.011470 0.005438 0.0110 0.0053 0.0110 0.0053
Beauty markov-raw all    0.061347 0.041639 0.0584 0.0389 0.0511 0.0346
Beauty markov-raw unseen 0.061943 0.042565 0.0596 0.0399 0.0516 0.0354
Beauty markov     all    0.065853 0.042721 0.0656 0.0427 0.0656 0.0426
Beauty markov     unseen 0.066770 0.043930 0.0666 0.0439 0.0665 0.0438
Beauty itemknn    all    0.045550 0.023638 0.0455 0.0236 0.0452 0.0235
Beauty itemknn    unseen 0.056811 0.032558 0.0568 0.0325 0.0565 0.0323
Beauty ease       all    0.049814 0.025443 0.0498 0.0254 0.0498 0.0254
Beauty ease       unseen 0.067008 0.035633 0.0670 0.0356 0.0670 0.0356
Toys_and_Games popularity all    0.008912 0.004885 0.0089 0.0049 0.0089 0.0049
Toys_and_Games popularity unseen 0.009015 0.004936 0.0090 0.0049 0.0090 0.0049
Toys_and_Games markov-raw all    0.066968 0.046843 0.0661 0.0437 0.0562 0.0374
Toys_and_Games markov-raw unseen 0.067151 0.047258 0.0663 0.0441 0.0565 0.0379
Toys_and_Games markov     all    0.070446 0.047320 0.0703 0.0472 0.0702 0.0470
Toys_and_Games markov     unseen 0.070661 0.047869 0.0704 0.0477 0.0703 0.0475
Toys_and_Games itemknn    all    0.054227 0.028514 0.0540 0.0284 0.0537 0.0281
Toys_and_Games itemknn    unseen 0.066715 0.039170 0.0665 0.0390 0.0661 0.0387
Toys_and_Games ease       all    0.055172 0.029321 0.0552 0.0293 0.0552 0.0293
Toys_and_Games ease       unseen 0.070317 0.040892 0.0703 0.0409 0.0703 0.0409
"""
ROWS = [tuple(line.split()) for line in GOLDEN.strip().splitlines()]
BLOCK = 256


@cache
def data_of(shared_data: Path, dataset: str) -> Sequences:
    return read_sequences(shared_data, dataset)


def counts_of(baseline: Baseline, data: Sequences) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Above and tied of every test query, under both candidate rules."""
    baseline.fit(data.train, data.n_items)
    parts, scratch = [], None
    for start in range(0, len(data.test), BLOCK):
        rows = slice(start, start + BLOCK)
        scores_BV = torch.from_numpy(baseline.scores(data.test.histories, rows))
        scratch = scratch_for(scores_BV) if scratch is None else scratch
        given = (data.test.targets[rows], *events(data.test.histories, rows))
        counts = count(scores_BV, *(torch.from_numpy(array) for array in given), scratch=scratch)
        parts.append(torch.stack([counts.above, counts.tied, counts.above_unseen, counts.tied_unseen]))
    above, tied, above_unseen, tied_unseen = torch.cat(parts, dim=1).numpy()
    return {"all": (above, tied), "unseen": (above_unseen, tied_unseen)}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("dataset", ["Beauty", "Toys_and_Games"])
def test_baselines_give_their_published_values(shared_data, dataset, system):
    known = SYSTEMS[system]
    counts = counts_of(known.baseline, data_of(shared_data, dataset))
    SYSTEMS[system].baseline.__dict__.pop("_weights_VV", None)  # a gigabyte, no longer needed
    for _, _, candidates, *printed in (row for row in ROWS if row[:2] == (dataset, system)):
        cells = [(ties, name) for ties in ("expected", "mid", "pess") for name in ("hr@10", "ndcg@10")]
        for (ties, name), text in zip(cells, printed, strict=True):
            value = float(metric(name, *counts[candidates], ties).mean())
            rounding = 0.5 * 10.0 ** -len(text.partition(".")[2])
            slack = known.pess_tolerance if ties == "pess" else known.tolerance
            assert abs(value - float(text)) <= rounding + slack + 1e-12, (
                f"{candidates} {ties} {name}: {value} is not {text}"
            )


def test_popularity_over_all_events_is_the_leak_sentinel(shared_data):
    # Whoever prints these two has counted the test events.
    for dataset, hr, ndcg in (("Beauty", 0.015159, 0.006765), ("Toys_and_Games", 0.011333, 0.006056)):
        data = data_of(shared_data, dataset)
        stops = data.test.histories.stops + 1
        everything = type(data.train)(data.train.users, data.train.items, None, data.train.starts, stops)
        leaky = counts_of(Popularity(), Sequences(data.n_items, everything, data.test))["unseen"]
        assert float(metric("hr@10", *leaky).mean()) == pytest.approx(hr, abs=5e-7)
        assert float(metric("ndcg@10", *leaky).mean()) == pytest.approx(ndcg, abs=5e-7)
