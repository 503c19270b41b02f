"""Every query ranked against the whole catalogue: per-user counts, averaged by nobody yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from recbench import columns
from recbench.data.batching import query_batches
from recbench.data.dataset import Histories, Queries, ranges
from recbench.evaluation.metrics import of_users, parse
from recbench.recommender import Ask, Recommender, Seen

USERS_A_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where each query's target stands. All arrays (Q,), in the order of the queries; a user may have several rows."""

    split: str
    users: np.ndarray
    targets: np.ndarray
    above: np.ndarray
    tied: np.ndarray
    above_unseen: np.ndarray
    tied_unseen: np.ndarray
    n_nan: int
    """Targets whose score is NaN: the system diverged."""
    n_repeated: int
    """Targets that stand in their own query: misses under the unseen rule."""
    seconds: float
    top_items: np.ndarray | None = None
    """(Q, K) the best items, best first."""
    top_scores: np.ndarray | None = None
    together: bool = False
    """Are the rows of a user one question with a set of targets?"""
    steps: np.ndarray | None = None
    """(Q,) reasoning steps that each query took, where the head decides; None where all take the same."""
    n_lost: int | None = None
    """Targets that a search lost though they beat the last item it found; None where nothing is searched."""

    def frame(self) -> pd.DataFrame:
        """The columns of ``users.parquet``; the last only where the number of steps is the head's decision."""
        frame = pd.DataFrame(
            {
                columns.SPLIT: self.split,
                columns.USER: self.users.astype(np.int32),
                columns.TARGET: self.targets.astype(np.int32),
                columns.ABOVE: self.above.astype(np.int32),
                columns.TIED: self.tied.astype(np.int32),
                columns.ABOVE_UNSEEN: self.above_unseen.astype(np.int32),
                columns.TIED_UNSEEN: self.tied_unseen.astype(np.int32),
            }
        )
        return frame if self.steps is None else frame.assign(**{columns.STEPS: self.steps.astype(np.int16)})

    def top_frame(self) -> pd.DataFrame:
        """The columns of ``topk.parquet``, one list a user: that of its last query. Places that could not be filled are left
        out."""
        if self.top_items is None or self.top_scores is None:
            raise ValueError("no lists were asked for")
        last = np.r_[self.users[1:] != self.users[:-1], True][: len(self.users)]
        items, scores = self.top_items[last], self.top_scores[last]
        U, K = items.shape
        frame = pd.DataFrame(
            {
                columns.USER: np.repeat(self.users[last].astype(np.int32), K),
                columns.POSITION: np.tile(np.arange(1, K + 1, dtype=np.int16), U),
                columns.ITEM: items.reshape(-1).astype(np.int32),
                columns.SCORE: scores.reshape(-1).astype(np.float32),
            }
        )
        return frame[frame[columns.ITEM] > 0]

    def means(self, names: Sequence[str], *, unseen: bool = False) -> dict[str, float]:
        """Each metric's mean over users, expected under random ties. For stopping and for show; the evidence is the counts."""
        return best_for_each([self], names, unseen=unseen)

    def of_users(self, name: str, *, unseen: bool = False) -> np.ndarray:
        """The metric of each user, (U,), users ascending."""
        above, tied = (self.above_unseen, self.tied_unseen) if unseen else (self.above, self.tied)
        return of_users(parse(name), above, tied, self.users, together=self.together)


def best_for_each(several: Sequence[Ranks], names: Sequence[str], *, unseen: bool = False) -> dict[str, float]:
    """Each metric's mean if every user were given the best of several rankings of the same queries, picked by the answer.

    A ceiling that no rule for picking need reach: rankings that differ by chance alone have one, too (``evaluate`` with
    ``dropout``). NaN without users.
    """
    if not len(several[0].users):
        return dict.fromkeys(names, float("nan"))
    return {name: float(np.max([r.of_users(name, unseen=unseen) for r in several], axis=0).mean()) for name in names}


def evaluate(
    model: Recommender,
    queries: Queries,
    device: torch.device,
    *,
    top: int = 0,
    steps: int | None = None,
    within: int | None = None,
    dropout: bool = False,
    tell: Callable[[int], None] | None = None,
) -> Ranks:
    """Rank every query's target among all items, and among those its user has not seen.

    Args:
        top: also keep the best ``top`` items of all, ties broken by a hash of user and item.
        steps: reasoning steps to take; None: as the model is configured.
        within: no metric will look further than this rank; a model that searches may then search less far.
        dropout: rank with dropout, as in training.
        tell: told the number of users done, after each batch.
    """
    if isinstance(model, nn.Module):
        model.train(dropout)
    began = perf_counter()
    arrays = {name: np.zeros(len(queries), dtype=np.int64) for name in ("above", "tied", "above_unseen", "tied_unseen")}
    lists = [np.zeros((len(queries), 0)), np.zeros((len(queries), 0))]
    n_nan = n_repeated = 0
    lost: list[int] = []
    steps_taken: np.ndarray | None = None
    for chosen, batch in query_batches(queries, model.max_length, USERS_A_BATCH, device, closed=model.closed):
        ranked = model.ranks(batch, Ask(seen_of(queries.histories, chosen, device), top, steps=steps, within=within))
        if ranked.counts is None:
            raise ValueError("queries carry targets")
        for name, values in arrays.items():
            values[chosen] = getattr(ranked.counts, name).cpu().numpy()
        n_nan += int(ranked.counts.nan.sum())
        n_repeated += int(ranked.counts.repeated.sum())
        lost += [] if ranked.lost_B is None else [int(ranked.lost_B.sum())]
        if ranked.steps_B is not None:
            steps_taken = np.zeros(len(queries), dtype=np.int64) if steps_taken is None else steps_taken
            steps_taken[chosen] = ranked.steps_B.cpu().numpy()
        _keep(lists, chosen, (ranked.top_items_BK, ranked.top_scores_BK))
        if tell is not None:
            tell(len(chosen))
    return Ranks(
        split=queries.split,
        users=queries.histories.users,
        targets=queries.targets,
        **arrays,
        n_nan=n_nan,
        n_repeated=n_repeated,
        seconds=perf_counter() - began,
        top_items=lists[0] if top else None,
        top_scores=lists[1] if top else None,
        together=queries.together,
        steps=steps_taken,
        n_lost=sum(lost) if lost else None,
    )


def seen_of(histories: Histories, chosen: np.ndarray, device: torch.device) -> Seen:
    """All events of the chosen rows, uncut."""
    lengths = histories.lengths[chosen]
    events = ranges(histories.starts[chosen], lengths)
    return Seen(
        torch.from_numpy(histories.items[events].astype(np.int64)).to(device),
        torch.from_numpy(np.repeat(np.arange(len(chosen)), lengths)).to(device),
    )


def _keep(lists: list[np.ndarray], chosen: np.ndarray, found: tuple[Tensor | None, Tensor | None]) -> None:
    for place, values in enumerate(found):
        if values is not None:
            if not lists[place].shape[1]:
                lists[place] = np.zeros((len(lists[place]), values.shape[1]))
            lists[place][chosen] = values.cpu().numpy()
