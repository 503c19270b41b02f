"""Run folders and comparisons for tests of what is shown: everything a page can hold, without training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recbench.comparison import Across, AgainstControl, Comparison, Cost, Slice, Table
from recbench.runs.folder import LOG, STEPS_TABLE
from recbench.stats import ranks as over
from recbench.stats.bayes import signed_rank
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


def filled(comparison: Comparison) -> Comparison:
    """The comparison with slices, costs and ranks over datasets, made of its own numbers."""
    tables = tuple(replace(t, slices=t.slices or _slices(t), costs=t.costs or _costs(t)) for t in comparison.tables)
    across = comparison.across or ((_across(comparison),) if len(tables) > 1 else ())
    return replace(comparison, tables=tables, across=across)


def _slices(table: Table) -> tuple[Slice, ...]:
    def scaled(factor: float) -> Any:
        return tuple(replace(r, score=replace(r.score, mean=r.score.mean * factor)) for r in table.rows)

    return (
        Slice(by="popularity", name="cold", n_users=60, rows=scaled(0.0)),
        Slice(by="popularity", name="tail", n_users=600, rows=scaled(0.6)),
        Slice(by="popularity", name="head", n_users=840, rows=scaled(1.4)),
        Slice(by="length", name="length 1-4", n_users=500, rows=scaled(0.9)),
        Slice(by="length", name="length 5-9", n_users=1000, rows=scaled(1.05)),
    )


def _costs(table: Table) -> tuple[Cost, ...]:
    quality = {s.label: table.rows[i].score.mean for i, s in enumerate(table.systems)}
    costs = []
    for place, s in enumerate(table.systems):
        mine = {
            "n_parameters": s.n_parameters or 0,
            "training_seconds": 10.0 * (place + 1),
            "ms_per_user": s.ms_per_user,
        }
        on_front = {
            "ms_per_user": not any(
                (o.ms_per_user or 0) <= (s.ms_per_user or 0) and quality[o.label] > quality[s.label]
                for o in table.systems
            )
        }
        costs.append(Cost(label=s.label, peak_memory_mb=512.0, trials=None, on_front=on_front, **mine))
    return tuple(costs)


def _across(comparison: Comparison) -> Across:
    metric = comparison.settings.metrics[0]
    labels = [s.label for s in comparison.tables[0].systems]
    scores = np.array([[t.row(label, metric).score.mean for label in labels] for t in comparison.tables])
    ranked = over.ranked(scores)
    order = np.argsort(ranked.mean(axis=0), kind="stable")
    means = ranked.mean(axis=0)[order]
    width = over.critical_difference(len(labels), len(scores))
    names = tuple(labels[i] for i in order)
    control = names.index(comparison.tables[0].reference)
    z, p = over.against_control(means, control, len(scores))
    relative = scores[:, order] / scores[:, [order[control]]] - 1
    against = tuple(
        AgainstControl(
            label=name,
            z=float(z[i]),
            p=float(p[i]),
            p_adjusted=float(p[i]),
            posterior=signed_rank([float(v) for v in relative[:, i]], 0.01, draws=200),
            differences=tuple(float(v) for v in relative[:, i]),
        )
        for i, name in enumerate(names)
        if i != control
    )
    return Across(
        metric=metric,
        datasets=tuple(t.dataset for t in comparison.tables),
        labels=names,
        ranks=tuple(tuple(float(r) for r in row[order]) for row in ranked),
        mean_ranks=tuple(float(m) for m in means),
        friedman=over.friedman(ranked),
        critical_difference=width,
        cliques=tuple(tuple(names[a : b + 1]) for a, b in over.cliques([float(m) for m in means], width)),
        nemenyi=tuple(tuple(float(v) for v in row) for row in over.nemenyi(means, len(scores))),
        control=names[control],
        against=against,
    )
