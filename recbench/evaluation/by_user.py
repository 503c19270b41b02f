"""From stored counts to one value of a metric a user. The only place where queries are averaged within their user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from recbench import columns
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.metrics import Metric, Ties, of_users
from recbench.runs.folder import Run

COUNTS = {"all": (columns.ABOVE, columns.TIED), "unseen": (columns.ABOVE_UNSEEN, columns.TIED_UNSEEN)}


def asks_for_sets(run: Run) -> bool:
    """Are the targets of a user one set, as the run's protocol or the form of its file says?"""
    split = run.manifest.protocol.get("split")
    return run.given.several if run.given else isinstance(split, Mapping) and split.get("target") == "all"


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """The counts of one run, rows sorted by user and target."""

    run: Run
    frame: pd.DataFrame
    users: np.ndarray
    """The distinct users, ascending."""
    of_user: np.ndarray
    """Row to its place in ``users``."""
    together: bool
    """Are the targets of a user one set?"""

    @classmethod
    def of(cls, run: Run, split: str = "test") -> Places:
        """The counts of ``split``, sorted; whether targets are a set, as the run says."""
        frame = run.ranks(split).sort_values([columns.USER, columns.TARGET], kind="stable", ignore_index=True)
        users, of_user = np.unique(frame[columns.USER].to_numpy(), return_inverse=True)
        return cls(run, frame, users, of_user, asks_for_sets(run))

    def only(self, rows: np.ndarray) -> Places:
        """Some of the rows, by mask; users without one are gone."""
        frame = self.frame[rows].reset_index(drop=True)
        users, of_user = np.unique(frame[columns.USER].to_numpy(), return_inverse=True)
        return Places(self.run, frame, users, of_user, self.together)

    def counts(self, candidates: str) -> tuple[np.ndarray, np.ndarray]:
        """above and tied of each row.

        Raises:
            RecbenchError: the source ranked among other candidates.
        """
        above, tied = COUNTS[candidates]
        if self.run.given is not None and columns.ABOVE_UNSEEN not in self.frame:  # one rank, of one kind
            self._refuse_other_candidates(candidates)
            above, tied = COUNTS["all"]
        return self.frame[above].to_numpy(np.int64), self.frame[tied].to_numpy(np.int64)

    def tied(self, candidates: str) -> float:
        """Share of rows whose target ties with another candidate; 0 where only values are known."""
        if self.run.given is not None and self.run.given.measured:
            return 0.0
        return float((self.counts(candidates)[1] > 0).mean())

    def values(self, metric: Metric, candidates: str, ties: Ties) -> np.ndarray:
        """The metric of each user, in the order of ``users``.

        Raises:
            RecbenchError: the source cannot say: its lists are too short, or it holds other metrics.
        """
        given = self.run.given
        if given is not None and given.measured:
            return self._mean(self._measured(metric, candidates))
        if given is not None and given.depth is not None and metric.k > given.depth:
            raise self._refusal(
                f"Its lists end at rank {given.depth}, so {metric.label} is not known.",
                f"--metric {metric.family}@{given.depth}" if given.depth else "Leave it out.",
            )
        cutoff = self.run.manifest.rank_cutoff
        if cutoff is not None and metric.k > cutoff:
            raise self._refusal(
                f"Its beam ends at rank {cutoff}, so {metric.label} is not known.",
                f"--metric {metric.family}@{cutoff}, or train it with a wider beam: --set loss.beam={metric.k}",
            )
        above, tied = self.counts(candidates)
        if self.together and ties != "expected":
            raise self._refusal("With several targets a query only expected ties are defined.", "--ties expected")
        user = self.frame[columns.USER].to_numpy()
        return of_users(metric, above, tied, user, together=self.together, ties=ties)

    def _measured(self, metric: Metric, candidates: str) -> np.ndarray:
        if str(metric) not in self.frame:
            measured = self.run.given.measured if self.run.given else ()
            raise self._refusal(f"It holds {', '.join(measured)}, not {metric}.", f"--metric {measured[0]}")
        self._refuse_other_candidates(candidates)
        return self.frame[str(metric)].to_numpy(np.float64)

    def _mean(self, values: np.ndarray) -> np.ndarray:
        sizes: Any = np.bincount(self.of_user)
        return np.bincount(self.of_user, weights=values) / sizes

    def _refuse_other_candidates(self, candidates: str) -> None:
        stated = self.run.given.candidates if self.run.given else None
        if stated not in (None, candidates):
            raise self._refusal(f"It ranks among {stated} items, not {candidates}.", f"--candidates {stated}")

    def _refusal(self, why: str, fix: str) -> RecbenchError:
        return RecbenchError(f"{self.run.folder} cannot answer what was asked.", why=why, fix=fix, code=Exit.COMPARISON)
