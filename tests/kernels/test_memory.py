"""What was freed goes back to the system."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recbench.kernels.memory import trim


def resident_mb() -> float:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024


def test_freed_blocks_between_living_ones_go_back() -> None:
    if not Path("/proc/self/status").exists() or not trim():
        pytest.skip("needs Linux and glibc")
    blocks = [torch.ones(16_000) for _ in range(2_000)]  # 64 kB each, too small for a mapping of their own
    held = resident_mb()
    blocks = blocks[::20]
    trim()
    assert resident_mb() < held - 80
    assert len(blocks) == 100
