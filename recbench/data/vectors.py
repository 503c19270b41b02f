"""A dataset's items as vectors, from an encoder, TF-IDF or training sequences; kept by the hash of what they follow from."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recbench import columns
from recbench.config import digest
from recbench.data import encoder as encoders
from recbench.data.cooccurrence import REACH, cooccurrence_vectors
from recbench.data.dataset import Dataset, Histories, column_bytes, ranges
from recbench.data.text import texts, tf_idf_vectors
from recbench.errors import Exit, RecbenchError
from recbench.files import replacing

CACHE = ".vectors"
"""Folder in the home of datasets that keeps vectors, one file a hash."""
DESCRIPTION = "description"
VERSION = 1
"""Of the arithmetic below: goes up when equal inputs give other vectors."""
WIDTHS = {"text": 64, "cooc": 128}
"""Of text far below the 256 often used: distances between short titles mean little in so many directions, and more ids collide."""
WORDS = ("text", "encoder")
"""Sources that say something of what stands in the items' texts."""
Source = Literal["auto", "encoder", "text", "cooc"]
Normalise = Literal["centre", "zscore", "whiten", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorConfig:
    """From what vectors are made, and how they are scaled."""

    source: Source = "auto"
    """encoder, text (TF-IDF and SVD), cooc (near in training); auto: the first of these that the data and ``encoder`` allow."""
    encoder: str = ""
    """A local directory of sentence-transformers or Hugging Face, or a name on its hub."""
    width: int = 0
    """Coordinates of text and cooc vectors at most; 0: 64 for text, 128 for cooc. An encoder has its own."""
    description: bool = False
    """Texts go on with what the source says of an item at length, where it does."""
    normalise: Normalise = "centre"
    """centre: length 1, then mean 0. zscore, whiten: then also variance 1 in each coordinate, in each principal direction. none."""

    def __post_init__(self) -> None:
        if self.width < 0:
            raise ValueError(f"width is {self.width}; it is a number of coordinates, or 0 for the default")
        if self.source == "encoder" and not self.encoder:
            raise ValueError("source is encoder, so encoder must name a directory or a model on the hub")
        if self.encoder and self.width:
            raise ValueError(f"width is {self.width}, but an encoder has its own; leave width out")
        if self.description and self.source == "cooc":
            raise ValueError("description is of texts, and source is cooc; leave out one of the two")
        if self.encoder and self.source not in ("auto", "encoder"):
            raise ValueError(f"encoder is given and source is {self.source}; leave out one of the two")


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of a dataset's items, row i is item i + 1. Items that nothing is known of have zeros."""

    x_NA: np.ndarray
    """(N, A) float32, normalised."""
    known_N: np.ndarray
    """(N,) bool: False where nothing is known of the item."""
    facts: dict[str, Any]
    """What a table's card says of its features: source, why, fields, counts, hash."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be made, before anything is computed."""

    source: str
    width: int
    encoder: str
    texts: Sequence[str]
    train: Histories | None
    n_items: int
    facts: dict[str, Any]
    sha256: str


def fingerprint(dataset: Dataset, config: VectorConfig) -> str:
    """Hash of what the vectors of ``dataset`` follow from: texts or training events, encoder, settings. Opens no later part."""
    return _key(_plan(dataset, config), config)


def item_vectors(dataset: Dataset, config: VectorConfig) -> Vectors:
    """The vectors of all items, from the cache if it has them. Opens ``items.parquet`` and, for cooc, ``train.parquet`` only.

    Raises:
        RecbenchError: text was asked for and there is none, or the encoder cannot be used.
    """
    plan = _plan(dataset, config)
    raw_NA = _kept(dataset, plan.sha256, plan.n_items, lambda: _compute(plan))
    known_N = _known(plan, raw_NA)
    facts = plan.facts | {
        "width": int(raw_NA.shape[1]),
        "normalise": config.normalise,
        "items_known": int(known_N.sum()),
        "items_unknown": int((~known_N).sum()),
        "sha256": _key(plan, config),
    }
    return Vectors(normalised(raw_NA, known_N, config.normalise), known_N, facts)


def encoded(dataset: Dataset, encoder: str, texts_N: Sequence[str]) -> np.ndarray:
    """Vectors of texts as a sentence encoder makes them, (N, A) float32, from the cache of ``dataset`` if it has them.

    Raises:
        RecbenchError: the encoder cannot be used.
    """
    content = hashlib.sha256()
    for text in texts_N:
        content.update(text.encode() + b"\0")
    settings = {"version": VERSION, "encoder": encoders.identity(encoder), "texts": content.hexdigest()}
    return _kept(dataset, digest(settings), len(texts_N), lambda: encoders.encode(encoder, texts_N))


def normalised(x_NA: np.ndarray, known_N: np.ndarray, how: Normalise) -> np.ndarray:
    """Scaled vectors, float32; means and variances are those of the known items, the others are 0."""
    if how == "none" or not known_N.any():
        return np.where(known_N[:, None], x_NA, 0).astype(np.float32)
    known = x_NA[known_N].astype(np.float64)
    length = np.linalg.norm(known, axis=1, keepdims=True)
    known = np.divide(known, length, out=np.zeros_like(known), where=length > 0)
    known -= known.mean(axis=0)
    if how == "zscore":
        deviation = known.std(axis=0)
        known = np.divide(known, deviation, out=np.zeros_like(known), where=deviation > 1e-12)
    elif how == "whiten":
        u, s, _ = np.linalg.svd(known, full_matrices=False)
        known = u[:, s > 1e-6 * s[0]] * np.sqrt(len(known)) if s[0] > 0 else known
    scaled = np.zeros((len(x_NA), known.shape[1]), dtype=np.float32)
    scaled[known_N] = known
    return scaled


def _plan(dataset: Dataset, config: VectorConfig) -> _Plan:
    items = dataset.items()
    all_texts = texts(items, description=config.description)
    n_texts = sum(map(bool, all_texts))
    source = config.source
    if source == "auto":
        source = "encoder" if config.encoder else "text" if 2 * n_texts >= len(items) else "cooc"
    if source != "cooc" and not n_texts:
        raise RecbenchError(
            f"Dataset {dataset.name} has no item text.",
            why=f"None of its {len(items):,} items has a title, a brand or a category.",
            fix="--set features.source=cooc, or prepare it with --metadata",
            code=Exit.DATA,
        )
    facts: dict[str, Any] = {"source": source}
    content = hashlib.sha256()
    train = None
    if source == "cooc":
        train = dataset.training()
        content.update(column_bytes(train.lengths))
        content.update(column_bytes(train.items[ranges(train.starts, train.lengths)]))
        facts |= {"made_from": "training events only", "reach": REACH}
        if config.source == "auto":
            facts["why"] = f"{n_texts:,} of {len(items):,} items have a title, brand or category"
    else:
        for text in all_texts:
            content.update(text.encode() + b"\0")
        found = [*fields(items), *([DESCRIPTION] if config.description else [])]
        facts |= {"fields": found, "items_without_title": int(items[columns.TITLE].isna().sum())}
    settings: dict[str, Any] = {
        "version": VERSION,
        "source": source,
        "content": content.hexdigest(),
        "items": len(items),
    }
    if source == "encoder":
        facts["encoder"] = config.encoder
        settings["encoder"] = encoders.identity(config.encoder)
    else:
        settings["width"] = config.width or WIDTHS[source]
    width = config.width or WIDTHS.get(source, 0)
    return _Plan(source, width, config.encoder, all_texts, train, len(items), facts, digest(settings))


def _key(plan: _Plan, config: VectorConfig) -> str:
    return digest({"vectors": plan.sha256, "normalise": config.normalise})


def fields(items: Any) -> list[str]:
    """The columns that some item has something in."""
    found = [name for name in (columns.TITLE, columns.BRAND, columns.PRICE) if items[name].notna().any()]
    some = any(value is not None and len(value) for value in items[columns.CATEGORIES])
    return [*found[:2], *([columns.CATEGORIES] if some else []), *found[2:]]


def _compute(plan: _Plan) -> np.ndarray:
    if plan.source == "cooc":
        if plan.train is None:
            raise ValueError("co-occurrence needs training events")
        return cooccurrence_vectors(plan.train, plan.n_items, plan.width)
    if plan.source == "text":
        return tf_idf_vectors(plan.texts, plan.width)
    return encoders.encode(plan.encoder, plan.texts)


def _known(plan: _Plan, raw_NA: np.ndarray) -> np.ndarray:
    """Items with a vector that says something: with text (an encoder gives empty text a vector, too), and not all zeros."""
    not_zero_N = np.abs(raw_NA).max(axis=1, initial=0.0) > 0
    return not_zero_N if plan.source == "cooc" else not_zero_N & np.array([bool(text) for text in plan.texts])


def _kept(dataset: Dataset, sha256: str, rows: int, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Vectors from the cache, or made and put there."""
    path = dataset.folder.parent / CACHE / f"{sha256}.npz"
    found = _read(path, rows)
    if found is None:
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside, beside.open("wb") as handle:
            np.savez(handle, vectors=found)  # a zip, so that its checksum tells damage
    return found


def _read(path: Path, n_items: int) -> np.ndarray | None:
    """Vectors kept at ``path``; None if there are none that fit, or if the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept_there:
            kept: np.ndarray = kept_there["vectors"]
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
        return None
    return kept if kept.ndim == 2 and len(kept) == n_items else None
