"""Work that is killed or stopped half-way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from recbench.training.loop import Watcher


def killed(work: Callable[[], object]) -> bool:
    """Was a forked process that does ``work`` killed by SIGKILL?"""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


class Stopper(Watcher):
    """Presses Ctrl-C after an epoch."""

    def __init__(self, after: int) -> None:
        self.after = after

    def epoch(self, line: dict[str, Any]) -> None:
        if line["epoch"] == self.after:
            raise KeyboardInterrupt
