"""Packed batches: the tokens of all rows one behind the other, nothing padded. The one place in ``data`` that knows torch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from recbench.data.dataset import Histories, Queries, ranges

Window = Literal["last", "exact", "all"]
BLANK = 0
"""Item id of a token that is to be filled in: what a model that fills blanks is asked for."""
WIDTHS = (4, 8, 16, 32, 64)
"""Bucket widths of the attention; beyond the last they double."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Neighbouring rows of similar length. Tokens ``first:last`` of the batch are these rows, one behind the other."""

    first: int
    last: int
    rows: int
    width: int
    cell_N: Tensor | None
    """Where token n of the bucket stands in the flat (rows x width) rectangle; None if every row fills its width."""


class Rows:
    """The layout of a packed batch: row b is tokens ``starts[b]:starts[b] + lengths[b]``. Rows are sorted by length.

    Args:
        lengths: tokens of each row, ascending, each at least 1.
    """

    def __init__(self, lengths: np.ndarray, device: torch.device) -> None:
        self.lengths = lengths
        self.starts = np.cumsum(lengths) - lengths
        self.n_tokens = int(lengths.sum())
        self.device = device
        self._stretched: dict[tuple[int, int], Rows] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    def stretched(self, times: int, more: int) -> Rows:
        """The rows that these become where each token is spelled by ``times`` tokens and each row has ``more`` besides."""
        if (times, more) not in self._stretched:
            self._stretched[times, more] = Rows(self.lengths * times + more, self.device)
        return self._stretched[times, more]

    @cached_property
    def position_N(self) -> Tensor:
        """Position of each token in its row, from 0 at the oldest."""
        return torch.from_numpy(np.arange(self.n_tokens) - np.repeat(self.starts, self.lengths)).to(self.device)

    @cached_property
    def age_N(self) -> Tensor:
        """Position of each token in its row, from 0 at the newest."""
        ends = np.repeat(self.starts + self.lengths, self.lengths)
        return torch.from_numpy(ends - 1 - np.arange(self.n_tokens)).to(self.device)

    def counted_N(self, origin: Literal["oldest", "newest"]) -> Tensor:
        """Position of each token in its row, from 0 at its oldest or at its newest."""
        return self.age_N if origin == "newest" else self.position_N

    @cached_property
    def row_N(self) -> Tensor:
        """Row of each token."""
        return torch.from_numpy(np.repeat(np.arange(len(self)), self.lengths)).to(self.device)

    @cached_property
    def last_B(self) -> Tensor:
        """The last token of each row."""
        return torch.from_numpy(self.starts + self.lengths - 1).to(self.device)

    @cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        """The rows cut where their lengths pass a bucket width; each bucket is as wide as its longest row."""
        widths, longest = list(WIDTHS), int(self.lengths[-1])
        while widths[-1] < longest:
            widths.append(widths[-1] * 2)
        cuts = np.unique(np.concatenate(([0], np.searchsorted(self.lengths, widths, side="right"))))
        return tuple(self._bucket(int(a), int(b)) for a, b in pairwise(cuts))

    def _bucket(self, a: int, b: int) -> Bucket:
        lengths, first = self.lengths[a:b], int(self.starts[a])
        width = int(lengths[-1])
        cell = None
        if int(lengths[0]) != width:
            rows = np.repeat(np.arange(b - a), lengths)
            inside = np.arange(lengths.sum()) - np.repeat(self.starts[a:b] - first, lengths)
            cell = torch.from_numpy(rows * width + inside).to(self.device)
        return Bucket(first, first + int(lengths.sum()), b - a, width, cell)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a backbone and a head see of B histories.

    ``items_N`` item ids, packed, ``BLANK`` where one is to be filled in; ``rows`` their layout; ``at_Q`` the tokens that are asked
    for, ascending; ``targets_Q`` what follows each of them, or fills it if it is a blank (None when that is not known);
    ``users_B``; ``times_N`` event times in seconds, or None where the dataset has none; ``next_times_N`` the time of the event
    that follows each token, if known: a state may depend on it only where the backbone says so (``times_seen``).
    """

    items_N: Tensor
    rows: Rows
    at_Q: Tensor
    targets_Q: Tensor | None
    users_B: np.ndarray
    times_N: Tensor | None = None
    next_times_N: Tensor | None = None
    place_Q: np.ndarray | None = None
    """Of training batches: the event each target is, a place in ``TrainingRows.histories.items``."""

    @property
    def row_Q(self) -> Tensor:
        """Row of each asked token."""
        return self.rows.row_N[self.at_Q]

    def only(self, rows_R: np.ndarray) -> tuple[Batch, Tensor, Tensor]:
        """The batch of some of its rows (ascending), and which of its tokens and of its asked ones those are."""
        rows = Rows(self.rows.lengths[rows_R], self.rows.device)
        token_N = torch.from_numpy(ranges(self.rows.starts[rows_R], rows.lengths)).to(self.rows.device)
        new = torch.full((self.rows.n_tokens,), -1, device=self.rows.device)
        new[token_N] = torch.arange(rows.n_tokens, device=self.rows.device)
        asked_Q = (new[self.at_Q] >= 0).nonzero()[:, 0]
        batch = Batch(
            items_N=self.items_N[token_N],
            rows=rows,
            at_Q=new[self.at_Q[asked_Q]],
            targets_Q=None if self.targets_Q is None else self.targets_Q[asked_Q],
            users_B=self.users_B[rows_R],
            times_N=None if self.times_N is None else self.times_N[token_N],
            next_times_N=None if self.next_times_N is None else self.next_times_N[token_N],
            place_Q=None if self.place_Q is None else self.place_Q[asked_Q.cpu().numpy()],
        )
        return batch, token_N, asked_Q


class TrainingRows:
    """The rows that training draws from: windows of at most ``max_length`` inputs, each input with the item that follows it.

    Args:
        window: what becomes of users with more than ``max_length`` inputs. ``last``: one row, the newest ``max_length``;
            older targets are not trained on (2.6 % of Beauty's at length 50). ``exact``: every target is trained on with its own
            last ``max_length`` inputs, as with one row a prefix. ``all``: every target with its newest 1, 2 .. ``max_length``
            inputs, so that histories that begin later are seen, too.
        every_position: True asks after every token of a row (causal backbones); False makes one row of every prefix and asks
            after its last token only.
        closed: a blank stands behind the newest event of every row; it is what is asked for.
        blanked: above 0, cloze rows instead of prefixes: each user's newest ``max_length`` + 1 events twice, once with this share
            of them blanked, drawn anew each epoch, and once with the newest blanked. Only where rows are closed.

    Raises:
        ValueError: blanks where every position is asked for, or a share of them in rows that do not end in one.
    """

    def __init__(
        self,
        histories: Histories,
        *,
        max_length: int,
        window: Window,
        every_position: bool,
        closed: bool = False,
        blanked: float = 0.0,
    ) -> None:
        if (closed and every_position) or (blanked and not closed):
            raise ValueError("rows with blanks are closed, and ask after their blanks only")
        self.histories = histories
        self.max_length = max_length
        self.closed = closed
        self.cloze = blanked > 0
        n_inputs = histories.lengths - 1
        users = np.flatnonzero(n_inputs > 0)
        inputs = n_inputs[users]
        if self.cloze:
            rows = _cloze(inputs, max_length, blanked)
        else:
            rows = (_windows if every_position else _prefixes)(inputs, max_length, window)
        self.row_user = users[rows[0]]
        self.start = histories.starts[self.row_user] + rows[1]
        self.length = rows[2]
        self.n_asked = rows[3]
        self.n_counted = self.n_asked
        """Of the targets of each row those that fill a batch."""

    @property
    def n_targets(self) -> int:
        """Targets that one epoch trains on."""
        return int(self.n_counted.sum())

    def left_out(self) -> tuple[int, int]:
        """Events with a history that are never a target, as ``window`` cuts it; and all that have a history."""
        follows = np.ones(len(self.histories.items), dtype=bool)
        follows[self.histories.starts[self.histories.lengths > 0]] = False
        of = int(follows.sum())
        follows[self.target_events] = False
        return int(follows.sum()), of

    def holding(self, wanted: np.ndarray) -> TrainingRows:
        """The rows that ask for one of these targets or more; of what they ask for, the others do not count towards a batch.

        Cloze rows stay as they are: which targets they ask for is drawn.

        Args:
            wanted: is each event one? By its place in ``histories.items``.
        """
        if self.cloze:
            return self
        before = np.concatenate([[0], np.cumsum(wanted)])
        ends = self.start + self.length + 1
        counted = before[ends] - before[ends - self.n_asked]
        part, held = copy.copy(self), counted > 0
        part.__dict__.pop("_targets_by_item", None)
        part.row_user, part.start, part.length = self.row_user[held], self.start[held], self.length[held]
        part.n_asked, part.n_counted = self.n_asked[held], counted[held]
        return part

    def target_counts(self, n_items: int) -> np.ndarray:
        """How often each item is a target in an epoch, by item id from 0, (n_items + 1,); where blanks are drawn, on average."""
        if not self.cloze:
            return np.bincount(self.histories.items[self.target_events], minlength=n_items + 1)
        scattered, newest = slice(0, None, 2), slice(1, None, 2)  # see _cloze
        length = self.length[scattered]
        events = np.concatenate([ranges(self.start[scattered], length), (self.start + self.length - 1)[newest]])
        times = np.concatenate([np.repeat(self.n_asked[scattered] / length, length), np.ones(len(length))])
        return np.bincount(self.histories.items[events], weights=times, minlength=n_items + 1)

    def is_last(self, place_Q: np.ndarray) -> np.ndarray:
        """Is each of these events (``Batch.place_Q``) the newest of its user's? (Q,) bool."""
        last = np.zeros(len(self.histories.items), dtype=bool)
        last[self.histories.stops - 1] = True
        return last[place_Q]

    def steps(self, batch_size: int) -> int:
        """Steps of an epoch, about ``batch_size`` targets each."""
        return max(1, round(self.n_targets / batch_size))

    def batches(self, batch_size: int, generator: np.random.Generator, device: torch.device) -> Iterator[Batch]:
        """One epoch in random order, in ``steps`` batches of nearly equal numbers of targets that count."""
        order = generator.permutation(len(self.length))
        steps = self.steps(batch_size)
        ends = np.cumsum(self.n_counted[order])
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, steps) / steps, side="left") + 1
        for some in np.split(order, np.unique(cuts)):
            if len(some):
                chosen = some[np.argsort(self.length[some], kind="stable")]
                yield self._cloze_batch(chosen, generator, device) if self.cloze else self._batch(chosen, device)

    def partners(self, place_A: np.ndarray, uniform_A: np.ndarray, device: torch.device) -> tuple[np.ndarray, Batch]:
        """For each target another training event of the same item, uniformly; itself if there is none.

        Args:
            place_A: the targets, as ``Batch.place_Q`` names them.
            uniform_A: one number in [0, 1) each, which decides.

        Returns:
            ``chosen``, and a batch whose row b is the history before the partner of target ``chosen[b]``, its newest
            ``max_length`` events, asked at its last.
        """
        by_item, rank, first = self._targets_by_item
        item_A = self.histories.items[place_A]
        count_A, own_A = first[item_A + 1] - first[item_A], rank[place_A]
        drawn_A = np.minimum((uniform_A * (count_A - 1)).astype(np.int64), np.maximum(count_A - 2, 0))
        other_A = np.where(count_A > 1, drawn_A + (drawn_A >= own_A), own_A)
        event_A = by_item[first[item_A] + other_A]
        user_A = np.searchsorted(self.histories.starts, event_A, side="right") - 1
        length_A = np.minimum(event_A - self.histories.starts[user_A], self.max_length)
        chosen = np.argsort(length_A, kind="stable")
        first_A = event_A[chosen] - length_A[chosen]
        laid = _laid(
            self.histories, first_A, length_A[chosen], self._times_at(event_A[chosen]), device, closed=self.closed
        )
        return chosen, Batch(
            items_N=laid.items_N,
            rows=laid.rows,
            at_Q=laid.rows.last_B,
            targets_Q=None,
            users_B=self.histories.users[user_A[chosen]],
            times_N=laid.times_N,
            next_times_N=laid.next_times_N,
            place_Q=event_A[chosen],
        )

    @cached_property
    def _targets_by_item(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Targets sorted by item; each event's rank among those of its item; where each item's begin."""
        events = np.unique(self.target_events)
        items = self.histories.items
        by_item = events[np.lexsort((events, items[events]))]
        first = np.searchsorted(items[by_item], np.arange(int(items.max()) + 2))
        rank = np.full(len(items), -1, dtype=np.int64)
        rank[by_item] = np.arange(len(by_item)) - first[items[by_item]]
        return by_item, rank, first

    @property
    def target_events(self) -> np.ndarray:
        """The events that are targets, places in ``histories.items``, as often as rows ask for them.

        In cloze rows any event may be blanked, and each user has two rows.
        """
        if self.cloze:
            return np.unique(ranges(self.start, self.length))
        return ranges(self.start + self.length - self.n_asked + 1, self.n_asked)

    def _batch(self, chosen: np.ndarray, device: torch.device) -> Batch:
        start, length, asked = self.start[chosen], self.length[chosen], self.n_asked[chosen]
        laid = _laid(self.histories, start, length, self._times_at(start + length), device, closed=self.closed)
        at = ranges(laid.rows.starts + laid.rows.lengths - asked, asked)
        return self._asking(chosen, laid, at, ranges(start + length - asked + 1, asked))

    def _cloze_batch(self, chosen: np.ndarray, generator: np.random.Generator, device: torch.device) -> Batch:
        """Blanks are the events that draw the smallest numbers of their row; in every second row it is the newest event."""
        start, length, asked = self.start[chosen], self.length[chosen], self.n_asked[chosen]
        laid = _laid(self.histories, start, length, None, device)
        row = np.repeat(np.arange(len(chosen)), length)
        key = generator.random(len(row))
        newest = chosen % 2 == 1  # see _cloze
        key[(laid.rows.starts + length - 1)[newest]] = -1.0
        order = np.lexsort((key, row))
        at = np.sort(order[ranges(laid.rows.starts, asked)])
        laid.items_N[torch.from_numpy(at).to(device)] = BLANK
        return self._asking(chosen, laid, at, ranges(start, length)[at])

    def _times_at(self, event_B: np.ndarray) -> np.ndarray | None:
        return None if self.histories.times is None else self.histories.times[event_B]

    def _asking(self, chosen: np.ndarray, laid: _Laid, at: np.ndarray, place: np.ndarray) -> Batch:
        device = laid.rows.device
        return Batch(
            items_N=laid.items_N,
            rows=laid.rows,
            at_Q=_long(at, device),
            targets_Q=_long(self.histories.items[place], device),
            users_B=self.histories.users[self.row_user[chosen]],
            times_N=laid.times_N,
            next_times_N=laid.next_times_N,
            place_Q=place,
        )


def query_batches(
    queries: Queries | Histories, max_length: int | None, size: int, device: torch.device, *, closed: bool = False
) -> Iterator[tuple[np.ndarray, Batch]]:
    """All queries, ``size`` at a time, sorted by length; with each batch the places its rows have in ``queries``.

    The last token of every row is asked for. Histories are cut to their last ``max_length`` events.

    Args:
        closed: a blank stands behind each history; it is the last token.
    """
    histories, targets = (queries.histories, queries.targets) if isinstance(queries, Queries) else (queries, None)
    lengths = histories.lengths if max_length is None else np.minimum(histories.lengths, max_length)
    order = np.argsort(lengths, kind="stable")
    target_times = queries.times if isinstance(queries, Queries) else None
    for first in range(0, len(order), size):
        chosen = order[first : first + size]
        after_B = None if target_times is None else target_times[chosen]
        laid = _laid(
            histories, histories.stops[chosen] - lengths[chosen], lengths[chosen], after_B, device, closed=closed
        )
        yield (
            chosen,
            Batch(
                items_N=laid.items_N,
                rows=laid.rows,
                at_Q=laid.rows.last_B,
                targets_Q=None if targets is None else _long(targets[chosen], device),
                users_B=histories.users[chosen],
                times_N=laid.times_N,
                next_times_N=laid.next_times_N,
            ),
        )


@dataclass(frozen=True, slots=True)
class _Laid:
    """Rows of events, and what each of their tokens holds."""

    rows: Rows
    items_N: Tensor
    times_N: Tensor | None
    next_times_N: Tensor | None


def _laid(
    histories: Histories,
    start_B: np.ndarray,
    length_B: np.ndarray,
    after_B: np.ndarray | None,
    device: torch.device,
    *,
    closed: bool = False,
) -> _Laid:
    """Rows of these events. A closing blank has the time of the event before it.

    Args:
        after_B: time of the event behind each row, None where it is not known: then no token has a next time.
    """
    rows = Rows(length_B + closed, device)
    token_N = ranges(start_B, rows.lengths)
    last_B = rows.starts + rows.lengths - 1
    if closed:
        token_N[last_B] -= 1
    items_N = _long(histories.items[token_N], device)
    if closed:
        items_N[rows.last_B] = BLANK
    if histories.times is None:
        return _Laid(rows, items_N, None, None)
    times_N, next_times_N = histories.times[token_N], None
    if after_B is not None:
        following = np.roll(times_N, -1)
        following[last_B] = after_B
        if closed:
            following[last_B - 1] = after_B
        next_times_N = _long(following, device)
    return _Laid(rows, items_N, _long(times_N, device), next_times_N)


def _windows(n_inputs: np.ndarray, max_length: int, window: Window) -> tuple[np.ndarray, ...]:
    """user, start, length, asked of the rows when every position is asked for."""
    user = np.arange(len(n_inputs))
    if window == "last":
        length = np.minimum(n_inputs, max_length)
        return user, n_inputs - length, length, length
    if window == "all":
        user, start = np.repeat(user, n_inputs), ranges(np.zeros_like(user), n_inputs)
        length = np.minimum(n_inputs[user] - start, max_length)
        return user, start, length, length
    length = np.minimum(n_inputs, max_length)
    later = np.repeat(user, n_inputs - length)
    start = ranges(np.ones(len(user), dtype=np.int64), n_inputs - length)
    full = np.full(len(later), max_length)
    return (
        np.concatenate([user, later]),
        np.concatenate([np.zeros_like(user), start]),
        np.concatenate([length, full]),
        np.concatenate([length, np.ones_like(full)]),
    )


def _prefixes(n_inputs: np.ndarray, max_length: int, window: Window) -> tuple[np.ndarray, ...]:
    """user, start, length, asked of one row a prefix; with ``all`` of one row a part, wherever it begins."""
    user = np.repeat(np.arange(len(n_inputs)), n_inputs)
    end = ranges(np.ones(len(n_inputs), dtype=np.int64), n_inputs)
    length = np.minimum(end, max_length)
    if window == "all":
        user, end, longest = np.repeat(user, length), np.repeat(end, length), length
        length = ranges(np.ones_like(longest), longest)
    return user, end - length, length, np.ones_like(length)


def _cloze(n_inputs: np.ndarray, max_length: int, share: float) -> tuple[np.ndarray, ...]:
    """user, start, length, asked: two rows a user, the first with a share of its events blanked, the second with its newest."""
    user = np.repeat(np.arange(len(n_inputs)), 2)
    events = np.repeat(n_inputs + 1, 2)
    length = np.minimum(events, max_length + 1)
    asked = np.maximum(1, np.round(share * length)).astype(np.int64)
    asked[1::2] = 1
    return user, events - length, length, asked


def _long(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(device)
