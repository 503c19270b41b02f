"""Reference bands: between which values independent sources say that a model on a dataset must come out."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import mean
from typing import Any, Literal, get_args

from recbench.errors import Exit, RecbenchError

Gate = Literal["yes", "floor", "no"]
"""Does a value outside fail: on either side, below only, or never?"""
Candidates = Literal["all", "unseen"]
Place = Literal["below", "inside", "above"]


@dataclass(frozen=True, slots=True)
class Reference:
    """A dataset that bands are about. Its name may be anybody's; the hash says whether it is the one."""

    name: str
    title: str
    sequence_sha256: str
    split: str


@dataclass(frozen=True, slots=True)
class Band:
    """One metric of one model."""

    dataset: str
    """Name of a ``Reference``."""
    backbone: str
    loss: str
    """As runs state it, with its parameters."""
    candidates: Candidates
    metric: str
    low: float
    high: float
    gate: Gate
    source: str

    def place(self, value: float) -> Place:
        """Where a value lies; the ends belong to the band, and NaN is below."""
        if not value >= self.low:
            return "below"
        return "above" if value > self.high else "inside"


@dataclass(frozen=True, slots=True)
class Held:
    """A model's values, held against a band: their mean over seeds counts."""

    band: Band
    values: tuple[float, ...]
    """One a seed."""

    @property
    def mean(self) -> float:
        """Over seeds."""
        return mean(self.values)

    @property
    def place(self) -> Place:
        """Of the mean."""
        return self.band.place(self.mean)

    @property
    def failed(self) -> bool:
        """Does the gate stop it?"""
        stopped = {"yes": ("below", "above"), "floor": ("below",), "no": ()}
        return self.place in stopped[self.band.gate]


def verdict(held: Sequence[Held]) -> Literal["pass", "fail", "no gate"]:
    """Of all bands of a model: fail if one gate stops it, no gate if there is none."""
    if any(one.failed for one in held):
        return "fail"
    return "no gate" if all(one.band.gate == "no" for one in held) else "pass"


@dataclass(frozen=True, slots=True)
class Bands:
    """A file of bands."""

    references: tuple[Reference, ...]
    bands: tuple[Band, ...]

    @classmethod
    def read(cls, path: Path | None = None) -> Bands:
        """The bands of a file, or the shipped ones.

        Raises:
            RecbenchError: the file cannot be read as bands.
        """
        source = files("recbench") / "bands.toml" if path is None else path
        try:
            table = tomllib.loads(source.read_text(encoding="utf-8"))
            references = tuple(Reference(name=name, **known) for name, known in table["datasets"].items())
            return cls(references, tuple(band for entry in table["bands"] for band in _bands(entry)))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
            raise RecbenchError(
                f"{source} cannot be read as reference bands.",
                why=f"{type(error).__name__}: {error}",
                fix="It takes [datasets.NAME] with title, sequence_sha256 and split, and [[bands]] like those that are shipped.",
            ) from error

    def reference(self, name: str, sequence_sha256: str, split: str) -> Reference:
        """The reference that a prepared dataset is.

        Raises:
            RecbenchError: it is none of them, whatever it is called.
        """
        found = [known for known in self.references if known.sequence_sha256 == sequence_sha256]
        if found and split == found[0].split:
            return found[0]
        wanted = "; ".join(
            f"{known.title}, {known.split}, sequence hash {known.sequence_sha256[:12]}" for known in self.references
        )
        same = "the same sequences under another split" if found else "other sequences, whatever its name"
        raise RecbenchError(
            f"No reference band is about this {name}.",
            why=f"It has sequence hash {sequence_sha256[:12]} and split {split}: {same}. There are bands for: {wanted}.",
            fix=f"Prepare that one (recbench prepare {self.references[0].name}) and name it: --dataset NAME"
            if self.references
            else "Name a file that has some: --bands FILE",
            code=Exit.DATA,
        )

    def of(self, reference: Reference, backbone: str, loss: str) -> tuple[Band, ...]:
        """The bands of a model.

        Raises:
            RecbenchError: there is none.
        """
        here = [band for band in self.bands if band.dataset == reference.name]
        found = tuple(band for band in here if (band.backbone, band.loss) == (backbone, loss))
        if not found:
            known = "; ".join(dict.fromkeys(f"{band.backbone} ({band.loss})" for band in here))
            raise RecbenchError(
                f"No reference band for {backbone} with loss {loss} on {reference.name}.",
                why=f"There are bands for: {known or 'nothing'}.",
                fix="Name one of them (--loss NAME picks a loss), or a file of your own: --bands FILE",
            )
        return found


def _bands(entry: Mapping[str, Any]) -> list[Band]:
    shared = {key: value for key, value in entry.items() if key != "metrics"}
    made = [Band(metric=name, low=low, high=high, **shared) for name, (low, high) in entry["metrics"].items()]
    for band in made:
        if band.gate not in get_args(Gate) or band.candidates not in get_args(Candidates):
            raise ValueError(f"gate {band.gate!r} or candidates {band.candidates!r} of {band.backbone} mean nothing")
        if not band.low <= band.high:
            raise ValueError(f"{band.metric} of {band.backbone}: low {band.low} is above high {band.high}")
    return made
