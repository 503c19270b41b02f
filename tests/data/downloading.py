"""What tests of downloads share: a file, and a place to fetch it to."""

from __future__ import annotations

import gzip
import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from recbench.data.catalog import DatasetCard
from recbench.data.download import Patience, fetch
from recbench.errors import Exit, RecbenchError

NAME = "reviews_Toy_5.json.gz"
PATH = f"/{NAME}"
BODY = gzip.compress(random.Random(0).randbytes(20_000), mtime=0)
OTHER = gzip.compress(random.Random(1).randbytes(20_000), mtime=0)
HALF = len(BODY) // 2
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"
LATE = "Wed, 01 Jan 2020 00:00:00 GMT"


class Bench:
    """A home, a clock that nobody waits for, and what was said."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.slept: list[float] = []
        self.said: list[str] = []
        self.progress: list[tuple[int, int | None]] = []
        self.folder = home / ".downloads" / "toy"
        self.target = self.folder / NAME
        self.part = self.folder / f"{NAME}.part"
        self.lock = self.folder / f"{NAME}.lock.json"

    def fetch(self, *urls: str, accept_changed: bool = False, timeout: float = 5.0, **known: Any) -> Path:
        return fetch(
            DatasetCard(name="toy", format="amazon2014-reviews", urls=urls, **known),
            self.home,
            lambda done, total: self.progress.append((done, total)),
            accept_changed=accept_changed,
            say=self.said.append,
            patience=Patience(timeout=timeout, sleep=self.slept.append),
        )

    def refused(self, *urls: str, **known: Any) -> RecbenchError:
        with pytest.raises(RecbenchError) as caught:
            self.fetch(*urls, **known)
        assert caught.value.code == Exit.DATA
        return caught.value

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
