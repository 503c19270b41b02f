"""How a model is trained: the ``[train]`` table, and one ``[train.<stage>]`` table a stage for what differs there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from recbench.config import build
from recbench.data.batching import Window
from recbench.errors import RecbenchError, nearest
from recbench.evaluation.metrics import parse
from recbench.limits import above, at_least, below_one
from recbench.reasoning.base import Stage

MOST_THREADS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Optimiser, budget and stopping rule. Equal settings, or none, make two systems comparable."""

    epochs: int = 200
    """At most this many; patience usually ends sooner."""
    patience: int = 10
    """Epochs without a better validation metric after which training stops, at a validation."""
    validate_every: int = 1
    """Epochs from one validation to the next; the last epoch is always validated. Only weights that were can be kept."""
    batch_size: int = 1024
    """Targets a step. A causal backbone gets whole users with about so many targets in all."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """They differ in what weight_decay means."""
    learning_rate: float = 1e-3
    """The highest, where it is not the same in every step."""
    schedule: Literal["constant", "cosine", "inverse_sqrt"] = "constant"
    """Of the learning rate. cosine: down to 0 behind the last step of ``epochs``; inverse_sqrt: as 1 / sqrt(step)."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0, in a line."""
    hold_steps: int = 0
    """Steps behind those before the schedule takes it down."""
    weight_decay: float = 0.0
    """On every parameter. adam: an L2 penalty added to the gradient; adamw: each step takes the rate times this off the weights."""
    clip_norm: float = 0.0
    """Largest norm of the whole gradient; 0: not clipped."""
    ema: float = 0.0
    """Decay, a step, of an average of the weights that is validated and kept in place of the last ones; 0: no average."""
    dropout: float | None = None
    """Rate of every dropout of the model in this stage; unset: as the backbone and the head are configured."""
    window: Window = "last"
    """Users longer than the backbone's max_length. last: train on their newest part; exact: on every target, as prefix rows do.
    all: on every target, with its whole history and with each newer part of it: more rows, so longer epochs."""
    monitor: str = "ndcg@10"
    """Validation metric that picks the best weights."""
    monitor_candidates: Literal["all", "unseen"] = "all"
    """Candidates of that metric."""
    precision: Literal["float32", "bf16"] = "float32"
    """Of a step's forward pass. bf16: autocast, on GPUs only; the loss, ranks and weights stay in float32."""
    threads: int = 1
    """CPU threads of one operation; 0 leaves it to torch. On few cores small tensors run fastest on one; run seeds side by side."""

    def __post_init__(self) -> None:
        at_least(0, self, "epochs", "threads", "weight_decay", "clip_norm", "warmup_steps", "hold_steps")
        at_least(1, self, "patience", "validate_every", "batch_size")
        above(0, self, "learning_rate")
        below_one(self, "ema", "dropout")
        if self.threads > MOST_THREADS:
            raise ValueError(f"threads is {self.threads}; more than {MOST_THREADS} take a process down.")
        if self.hold_steps and self.schedule == "constant":
            raise ValueError("hold_steps puts off a fall, and schedule=constant has none.")
        parse(self.monitor)

    @property
    def scheduled(self) -> bool:
        """Does the learning rate change from step to step?"""
        return self.schedule != "constant" or self.warmup_steps > 0

    def judged(self, epoch: int) -> int:
        """How many epochs a validation behind ``epoch``, from 1, speaks for; 0: there is none."""
        since = (epoch - 1) % self.validate_every + 1
        return since if since == self.validate_every or epoch == self.epochs else 0


def stage_settings(table: Mapping[str, Any], stages: Sequence[Stage]) -> dict[str, Settings]:
    """Settings of each stage: ``[train]``, over it what the stage itself is known to need, over that ``[train.<stage>]``."""
    names = [stage.name for stage in stages]
    shared = {key: value for key, value in table.items() if not (key in names and isinstance(value, Mapping))}
    _refuse_no_stage(shared, names)
    build(Settings, shared, "train")
    return {
        stage.name: build(
            Settings,
            {**shared, **stage.defaults, **(own if isinstance(own := table.get(stage.name), Mapping) else {})},
            f"train.{stage.name}",
        )
        for stage in stages
    }


def _refuse_no_stage(shared: Mapping[str, Any], names: Sequence[str]) -> None:
    """Tables in ``[train]`` are of stages, and settings of a stage stand in its table.

    Raises:
        RecbenchError: there is a table of something else, or a value in the place of one.
    """
    for key, value in shared.items():
        if isinstance(value, Mapping):
            near = nearest(key, list(names)) or names[-1]
            raise RecbenchError(
                f"There is no stage {key} to set train.{key} for.",
                why=f"The stages are: {', '.join(names)}.",
                fix=f"--set train.{near}.{next(iter(value), 'epochs')}=VALUE",
            )
        if key in names:
            raise RecbenchError(
                f"train.{key} cannot be {value!r}.",
                why=f"[train.{key}] is a table.",
                fix=f"--set train.{key}.epochs=10",
            )


def refuse_two_measures(train: Mapping[str, Settings]) -> None:
    """Stages that are picked by different metrics: whether one is better than the one before could not be said.

    Raises:
        RecbenchError: there are some.
    """
    for name in ("monitor", "monitor_candidates"):
        values = [getattr(settings, name) for settings in train.values()]
        if len(set(values)) > 1:
            raise RecbenchError(
                f"train.{name} is the same in all stages of a run.",
                why=f"Weights of a stage are kept if they are better than those before; here it is "
                f"{', '.join(f'{value} in {stage}' for stage, value in zip(train, values, strict=True))}.",
                fix=f"--set train.{name}={values[-1]}",
            )
