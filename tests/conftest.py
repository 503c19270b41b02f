"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and SciPy load: threads cost more than they save here
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Real data beside the checkout; tests that need it skip where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors run fastest on one thread, and forked children need it."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of datasets with ``tiny``: 200 generated users, prepared once. Read-only."""
    from recbench.data.prepare import Request, prepare

    home = tmp_path_factory.mktemp("datasets")
    prepare(Request(name="tiny", home=home, source_format="synthetic", options={"users": "200"}))
    return home
