"""What ``--resume`` needs, written so that a kill at any moment leaves one complete state."""

from __future__ import annotations

import errno
import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recbench.errors import Exit, RecbenchError
from recbench.files import replacing, usual_mode, write_text

PROGRESS = "progress.json"
OPTIMIZER, WEIGHTS = "optimizer.", "weights."


@dataclass(slots=True)
class Progress:
    """Where training stands after its last complete epoch."""

    stage: int = 0
    """Index of the stage that is being run."""
    epoch: int = 0
    """Epochs finished in it."""
    best: float | None = None
    """Best validation metric so far, over all stages."""
    best_epoch: int | None = None
    """Its epoch in its stage, from 1; 0: the stage began with it."""
    best_stage: int = 0
    waited: int = 0
    """Epochs since this stage's best."""
    stage_best: float | None = None
    """The best validation metric of this stage's own epochs: a stage may begin below the one before it and still climb."""
    losses: list[float] = field(default_factory=list)
    """Total training loss of each epoch of this stage."""
    epochs: int = 0
    """Epochs over all stages."""
    stage_epochs: dict[str, int] = field(default_factory=dict)
    """Epochs by stage."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds by stage."""
    log_bytes: int = 0
    """Length of ``log.jsonl`` at this point; a resumed run cuts it here."""
    warnings: list[str] = field(default_factory=list)
    finished: bool = False
    """All stages are over."""
    current: str = ""
    """File with the weights and the optimiser of the last epoch."""
    best_file: str = ""
    """File with the best weights."""
    began_file: str = ""
    """File with the weights this stage began with: its reference, also after a resume."""
    told_words: bool = False
    """Has a stage learnt from what stands in words of items?"""
    facts: dict[str, Any] = field(default_factory=dict)
    """What stages found out as they began, by stage."""


class Store:
    """The ``state/`` folder of a run. ``progress.json`` is written last and names the files that belong to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, progress: Progress, current: dict[str, Tensor] | None, best: dict[str, Tensor] | None) -> None:
        """Keep the state after an epoch; ``best`` only when this epoch's weights are the best so far.

        ``current`` is None where no epoch of the stage is over yet.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{progress.stage}-{progress.epoch}.safetensors"
        progress.current = f"current-{name}" if current is not None else ""
        if current is not None:
            write_tensors(self.folder / progress.current, current)
        if best is not None:
            progress.best_file = f"best-{name}"
            write_tensors(self.folder / progress.best_file, best)
        write_text(self.folder / PROGRESS, json.dumps(asdict(progress), indent=1) + "\n")
        for path in self.folder.iterdir():
            if path.name not in (PROGRESS, progress.current, progress.best_file, progress.began_file):
                path.unlink()

    def load(self) -> Progress | None:
        """The last complete state, or None if there is none yet."""
        path = self.folder / PROGRESS
        if not path.exists():
            return None
        try:
            return Progress(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise RecbenchError(
                f"{path} cannot be read.",
                why=str(error),
                fix=f"Delete {self.folder.parent} and train again.",
                code=Exit.RUN,
            ) from error

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of one of the files that ``progress.json`` names."""
        return read_tensors(self.folder / name)

    def clear(self) -> None:
        """The run is finished: nothing is left to resume."""
        shutil.rmtree(self.folder, ignore_errors=True)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A safetensors file, whole or not at all. Tensors that share memory are stored once each.

    Raises:
        OSError: it cannot be written, for example to a full disk.
    """
    with replacing(path) as beside:
        try:
            with usual_mode(beside):
                save_file(
                    {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, beside
                )
        except SafetensorError as error:  # the number of the system's error stands in its text alone
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU."""
    try:
        path.open("rb").close()  # safetensors calls a file that may not be read one that is not there
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RecbenchError(
            f"{path} cannot be read.",
            why=str(error),
            fix=f"Train again into another folder, or delete {path.parent}.",
            code=Exit.RUN,
        ) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors; its settings come from the config."""
    return {
        f"{OPTIMIZER}{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser back what ``optimizer_tensors`` took."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith(OPTIMIZER):
            index, _, name = key.removeprefix(OPTIMIZER).partition(".")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
