"""`recbench doctor`: is this machine ready?"""

from __future__ import annotations

import shutil
from pathlib import Path
from time import perf_counter

from recbench.cli import options, render


def doctor(
    datasets: options.Datasets = Path("datasets"), runs: options.Runs = Path("runs"), as_json: options.Json = False
) -> None:
    """Versions, devices, memory, disk, and how fast this machine multiplies: what a bug report needs."""
    from recbench.runs import machine

    facts: dict[str, object] = {**machine.versions(), **machine.hardware()}
    facts["git"] = machine.git().get("commit", "installed copy")
    facts |= _torch()
    for home in (datasets, runs):
        there = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
        facts[f"disk free for {home}"] = f"{shutil.disk_usage(there).free / 2**30:.0f} GiB"
    try:
        import isal  # noqa: F401

        facts["fast gzip"] = "isal"
    except ImportError:
        facts["fast gzip"] = "standard library (pip install 'recbench[fast]' is about 3 times faster)"
    if as_json:
        render.show_json(facts)
    else:
        render.out.print(
            render.table("this machine", ["", ""], [[name, str(value)] for name, value in facts.items()], left=2)
        )


def _torch() -> dict[str, object]:
    import torch

    devices = ["cpu"]
    devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    found: dict[str, object] = {"devices": ", ".join(devices)}
    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        found[f"matrix rate, {threads} thread{'s' if threads > 1 else ''}"] = f"{_gflops():.0f} GFLOP/s"
    return found


def _gflops(rows: int = 128, width: int = 64, items: int = 12000) -> float:
    """The rate of the product that dominates training: answers times the item table."""
    import torch

    answers, table = torch.randn(rows, width), torch.randn(items, width)
    torch.mm(answers, table.t())
    began, times = perf_counter(), 30
    for _ in range(times):
        torch.mm(answers, table.t())
    return 2 * rows * width * items * times / (perf_counter() - began) / 1e9
