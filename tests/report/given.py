"""Run folders and comparisons for tests of what is shown: everything a page can hold, without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from recbench.runs.folder import BEAMS_TABLE, LOG, STEPS_TABLE
from tests.run_folders import make_run, ranks

HEADS = ("none", "pause", "rearec-erl", "rearec-prl", "lares", "diffuse")
HOSTILE = "<script>alert('x')</script>&\"$a_b%#{}~^\\é中"
EVIDENCE: dict[str, Any] = {
    "versions": {"python": "3.11.7", "recbench": "0.1.0", "torch": "2.13.0"},
    "git": {"commit": "a" * 40, "dirty": False},
    "hardware": {"cpu": "Some CPU", "cores": 8, "device": "cpu", "threads": 1},
    "peak_memory_mb": 512.0,
}


def skill(share: float, seed: int, n: int) -> Any:
    """Ranks of a system that puts the target in its first 20 for so many users, the same users first for every system."""
    rng = np.random.default_rng(seed)
    hit = np.random.default_rng(99).random(n) + 0.15 * rng.normal(size=n) < share
    return ranks(np.where(hit, rng.integers(0, 20, n), rng.integers(30, 900, n)))


def log(folder: Path, best: float, epochs: int, stages: tuple[str, ...] = ("train",), *, deep: bool = False) -> None:
    """A ``log.jsonl`` whose validation metric climbs to ``best``."""
    lines = []
    for place, stage in enumerate(stages):
        for epoch in range(1, epochs + 1):
            value = best * (1 - np.exp(-(epoch + place * epochs) / 5))
            line = {"stage": stage, "epoch": epoch, "losses": {"total": 8 - value, "next_item": 7 - value}}
            line |= {"valid": {"ndcg@10": value, "hr@10": 2 * value}, "best": True, "users_per_second": 900.0}
            line |= {"seconds": 3.5}
            if deep:
                line["diagnostics"] = {f"depth@{k}": share for k, share in enumerate((0.1, 0.4, 0.3, 0.2), 1)}
            lines.append(json.dumps(line))
    (folder / LOG).write_text("\n".join(lines) + "\n", encoding="utf-8")


def steps(folder: Path, best: float) -> None:
    """A ``steps.csv`` with a peak."""
    lines = ["steps,valid_hr@10,valid_ndcg@10,test_hr@10,test_ndcg@10,ms_per_user"]
    lines += [
        f"{k},{best},{best - 0.001 * abs(k - 4)},{2 * best},{best - 0.0012 * abs(k - 3)},{0.2 * k}"
        for k in (1, 2, 4, 8)
    ]
    (folder / STEPS_TABLE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def beams(folder: Path) -> None:
    """A ``beams.csv``, the widest first."""
    lines = [
        "beam,valid_ndcg@10,test_ndcg@10,lost,ms_per_user",
        "900,0.0412,0.0402,0.0,9.5",
        "10,0.04,0.0391,0.054,0.7",
    ]
    (folder / BEAMS_TABLE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def study(home: Path, datasets: tuple[str, ...] = ("beauty",), *, seeds: int = 2, n: int = 1500) -> None:
    """Trivial baselines and one backbone with every head, on each dataset."""
    for d, name in enumerate(datasets):
        dataset = {"name": name, "fingerprint": str(d) * 64}
        for b, baseline in enumerate(("popularity", "markov")):
            make_run(
                home,
                baseline,
                skill(0.05 + 0.09 * b, 7, n),
                dataset=dataset,
                seconds={"fit": 0.2},
                ms_per_user=0.05,
                **EVIDENCE,
            )
        for h, head in enumerate(HEADS):
            for seed in range(seeds):
                share = 0.2 + 0.006 * h * (1 + 0.2 * d) + 0.002 * seed
                folder = make_run(
                    home,
                    "sasrec",
                    skill(share, 100 * h + seed + 10 * d, n),
                    head=head,
                    seed=seed,
                    dataset=dataset,
                    n_parameters=800_000 + 40_000 * h,
                    seconds={"train": 60.0 + 30 * h, "test": 2.0},
                    ms_per_user=0.2 + 0.15 * h,
                    **EVIDENCE,
                )
                stages = ("spt", "rpt") if head == "lares" else ("train",)
                log(folder, share / 3, 15, stages, deep=head == "lares")
                if head in ("lares", "diffuse") and seed == 0:
                    steps(folder, share / 3)


def cuts(path: Path, n: int = 1500) -> Path:
    """A table that puts users into two parts, for ``--slice FILE:COLUMN``."""
    lines = ["user,age", *(f"{user},{'old' if user % 3 else 'new'}" for user in range(1, n + 1))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
