"""Small systems and datasets in memory, for tests of any layer."""

from __future__ import annotations

import numpy as np
import torch

from recbench.data.batching import Batch, Rows, TrainingRows, query_batches
from recbench.data.dataset import Histories, Queries
from recbench.recommender import ItemRecommender
from recbench.registry import BACKBONES, HEADS, LOSSES
from recbench.scoring.base import Score

CPU = torch.device("cpu")
SMALL = {"width": 8, "n_heads": 2, "inner": 16, "max_length": 12}
"""Settings that make any neural backbone small; those it does not know are left out."""


def neural_backbones() -> list[str]:
    """Names of the backbones that are trained by gradient."""
    return [name for name, entry in BACKBONES.entries().items() if entry.family == "neural"]


def item_losses() -> list[str]:
    """Names of the losses over item vectors; what spells has one of its own."""
    return [name for name, entry in LOSSES.entries().items() if entry.family != "codes"]


def small_backbone(name: str, n_items: int = 20, **changes: object) -> torch.nn.Module:
    """A backbone of that name with a few hundred weights, from a fixed seed."""
    torch.manual_seed(1)
    cls = BACKBONES.load(name)
    known = cls.Config.__dataclass_fields__
    config = cls.Config(**{key: value for key, value in {**SMALL, **changes}.items() if key in known})
    return cls(config, n_items)


def small_head(name: str, backbone: torch.nn.Module, **changes: object) -> torch.nn.Module:
    """A head of that name for this backbone; default settings but for ``changes``. If it must be taught to think, it was."""
    cls = HEADS.load(name)
    head = cls(cls.Config(**changes), backbone)
    if hasattr(head, "thinks"):
        head.thinks.fill_(True)
    return head


def small_score(name: str, backbone: torch.nn.Module, **changes: object) -> Score:
    """A loss of that name over this backbone's items; default settings but for ``changes``."""
    cls = LOSSES.load(name)
    return cls(backbone.item_vectors, config=cls.Config(**changes))


def small_system(
    backbone: str = "sasrec",
    head: str = "none",
    n_items: int = 20,
    *,
    changes: dict[str, object] | None = None,
    loss: dict[str, object] | None = None,
    **sizes: object,
) -> ItemRecommender:
    """A whole small recommender; ``sizes`` go to the backbone, ``changes`` to the head, ``loss`` (with its name) to the loss."""
    built = small_backbone(backbone, n_items, **sizes)
    settings = {"name": "softmax", **(loss or {})}
    score = small_score(str(settings.pop("name")), built, **settings)
    return ItemRecommender(built, small_head(head, built, **(changes or {})), score)


def histories(rows: list[list[int]], times: bool = False) -> Histories:
    """Rows of item ids as ``Histories``; users count from 1."""
    lengths = np.array([len(row) for row in rows])
    items = np.array([item for row in rows for item in row], dtype=np.int32)
    stops = np.cumsum(lengths)
    clock = np.arange(len(items), dtype=np.int64) if times else None
    return Histories(np.arange(1, len(rows) + 1, dtype=np.int32), items, clock, stops - lengths, stops)


def queries(rows: list[list[int]], split: str = "test") -> Queries:
    """The last item of each row is the target, the rest its history."""
    past = histories(rows)
    stops = past.stops - 1
    cut = Histories(past.users, past.items, past.times, past.starts, stops)
    return Queries(split, cut, past.items[stops])  # type: ignore[arg-type]


def packed(rows: list[list[int]], at: list[int] | None = None, times: list[list[int]] | None = None) -> Batch:
    """A batch of rows, sorted by length as batches are; asks after every token unless told otherwise.

    Args:
        times: of the rows as they come; left out, event i of a row happens on day i^2 and the next one an hour later.
    """
    order = sorted(range(len(rows)), key=lambda r: len(rows[r]))
    ordered = [rows[r] for r in order]
    clocks = [times[r] for r in order] if times else [[day(i) for i in range(len(row))] for row in ordered]
    layout = Rows(np.array([len(row) for row in ordered]), CPU)
    tokens = torch.tensor([item for row in ordered for item in row])
    asked = torch.arange(layout.n_tokens) if at is None else torch.tensor(at)
    return Batch(
        tokens,
        layout,
        asked,
        tokens.roll(-1)[asked],
        np.arange(1, len(rows) + 1),
        torch.tensor([time for clock in clocks for time in clock]),
        torch.tensor([time for clock in clocks for time in [*clock[1:], clock[-1] + 3600]]),
    )


def day(i: int) -> int:
    """When event ``i`` of a test row happens, in seconds."""
    return 86_400 * i * i


def prefix_backbones() -> list[str]:
    """Those of them that train on one row a prefix."""
    return [name for name in neural_backbones() if not BACKBONES.load(name).causal]


def training_rows(model: ItemRecommender, rows: list[list[int]], **kind: object) -> TrainingRows:
    """The rows that the training loop makes of these users for this system."""
    shape = {"every_position": model.every_position, "closed": model.closed, "blanked": model.blanked}
    options = {"max_length": model.max_length, "window": "last", **shape, **kind}
    return TrainingRows(histories(rows, times=True), **options)  # type: ignore[arg-type]


def training_batch(model: ItemRecommender, rows: list[list[int]], **kind: object) -> Batch:
    """All of those rows as one batch."""
    return next(training_rows(model, rows, **kind).batches(10_000, np.random.default_rng(0), CPU))


def last_batch(rows: list[list[int]], max_length: int) -> tuple[np.ndarray, Batch]:
    """The one batch evaluation would make of these rows."""
    return next(query_batches(histories(rows), max_length, len(rows), CPU))
