"""From a dataset to its table of semantic ids: vectors, codes, one path an item; kept beside the dataset by hash."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

import recbench
from recbench import columns
from recbench.conditions import OnlyWith
from recbench.config import Table, as_table, build, digest, known_tables
from recbench.data.dataset import Dataset, column_bytes
from recbench.data.replacement import taking_the_place_of
from recbench.data.vectors import VectorConfig, Vectors, fingerprint, item_vectors
from recbench.errors import Exit, RecbenchError
from recbench.files import sha256, usual_mode, write_text
from recbench.limits import above, at_least
from recbench.registry import TOKENISERS
from recbench.semantic_ids.base import Quantised
from recbench.semantic_ids.kmeans import squared_distances
from recbench.semantic_ids.sinkhorn import repair
from recbench.semantic_ids.table import SemanticIds, TooManyAlikeError, report, suffixes, table_of

FOLDER = "ids"
"""Folder in a prepared dataset that keeps its tables, one folder a hash."""
CODES, CODEBOOKS, CARD = "codes.parquet", "codebooks.safetensors", "card.json"
VERSION = 2
"""Of what is computed and kept: goes up when equal inputs give another table."""
TABLES = ["features", "method", "ids"]
SMALL, SMALL_SIZE, SIZE = 2_000, 64, 256
"""Codes of a level: below so many items, and else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdConfig:
    """The shape of ids, and how equal ones are told apart."""

    levels: int = 3
    """Quantised codes of an item. A suffix comes behind them."""
    codes: int = 0
    """Codes of a level; 0: 256, or 64 below 2,000 items, and never more than a quarter of the items."""
    dedup: Literal["suffix", "sinkhorn", "accept"] = "suffix"
    """suffix: one more code that counts within a group. sinkhorn: spread groups over the last level first. accept: share a path."""
    max_suffix: int = 256
    """Refuse a larger group of items with equal codes."""
    sinkhorn_eps: float = 0.003
    """Entropy of ``sinkhorn``: the smaller, the harder."""
    sinkhorn_rounds: int = 20
    """Passes of ``sinkhorn`` over all groups at most."""

    only_with: ClassVar[OnlyWith] = {
        "dedup=sinkhorn": "sinkhorn_eps sinkhorn_rounds",
        "dedup=suffix|sinkhorn": "max_suffix",
    }

    def __post_init__(self) -> None:
        at_least(1, self, "levels", "sinkhorn_rounds")
        above(0, self, "sinkhorn_eps")
        if self.codes < 0 or self.codes == 1 or self.codes > np.iinfo(np.int16).max:
            raise ValueError(f"codes is {self.codes}; it is 2 to 32767, or 0 for a number that fits the catalogue")
        if not 1 <= self.max_suffix <= np.iinfo(np.int16).max:
            raise ValueError(f"max_suffix is {self.max_suffix}; it is 1 to 32767")


@dataclass(frozen=True, slots=True)
class IdSettings:
    """Every setting of one table."""

    features: VectorConfig
    method: str
    method_config: Any
    ids: IdConfig

    @property
    def parts(self) -> dict[str, Any]:
        """The config of each table."""
        return {"features": self.features, "method": self.method_config, "ids": self.ids}

    def table(self) -> Table:
        """As it was typed, every default filled in."""
        tables = {name: as_table(config) for name, config in self.parts.items()}
        return tables | {"method": {"name": self.method, **tables["method"]}}


def id_settings(given: Mapping[str, Any], method: str | None = None) -> IdSettings:
    """Settings from ``[features]``, ``[method]`` and ``[ids]``; ``method`` names the tokeniser, else ``method.name`` does.

    Raises:
        RecbenchError: an unknown name or setting, or one out of range.
    """
    known_tables(given, TABLES, "--set")
    parts: dict[str, Table] = {}
    for name in TABLES:
        part = given.get(name, {})
        if not isinstance(part, Mapping):
            raise RecbenchError(
                f"{name} cannot be {part!r}.", why=f"[{name}] is a table.", fix=f"--set {name}.NAME=..."
            )
        parts[name] = dict(part)
    named = str(parts["method"].pop("name", "rkmeans"))
    method = method or named
    tokeniser = TOKENISERS.load(method)
    return IdSettings(
        build(VectorConfig, parts["features"], "features"),
        method,
        build(tokeniser.Config, parts["method"], "method"),
        build(IdConfig, parts["ids"], "ids"),
    )


def semantic_ids(
    dataset: Dataset, settings: IdSettings, seed: int = 0, *, rebuild: bool = False
) -> tuple[SemanticIds, Path, bool]:
    """The table of ``dataset`` under ``settings``, its folder, and whether it was there already.

    Validation and test events are never opened; a table of text does not open training events either.

    Args:
        rebuild: compute it even if it is there.

    Raises:
        RecbenchError: too few items, too many alike, or what ``item_vectors`` refuses.
    """
    facts = {"version": VERSION, "vectors": fingerprint(dataset, settings.features), "settings": settings.table()}
    key = digest(facts | {"seed": seed, "items": dataset.n_items})
    folder = dataset.folder / FOLDER / key[:16]
    if not rebuild and (kept := read(folder)) is not None:
        return kept, folder, True
    started = time.perf_counter()
    vectors = item_vectors(dataset, settings.features)
    read_at = time.perf_counter()
    table = _told(dataset, vectors, settings, seed)
    card = table.card | {
        "dataset": {"name": dataset.name, "fingerprint": dataset.card.fingerprint},
        "key": key,
        "seconds": {"vectors": read_at - started, "codes": time.perf_counter() - read_at},
        "recbench": recbench.__version__,
    }
    _write(folder, replace(table, card=card))
    table = read(folder) or table  # what a later reader gets
    return table, folder, False


def ids_of(vectors: Vectors, settings: IdSettings, seed: int) -> SemanticIds:
    """The table of items with these vectors. Items that nothing is known of get drawn codes, so that they do not share one path.

    Raises:
        ValueError: fewer known items than the method needs.
        TooManyAlikeError: a group of equal codes that the suffix cannot tell apart.
    """
    ids, n_items = settings.ids, len(vectors.known_N)
    tokeniser = TOKENISERS.load(settings.method)
    size = ids.codes or _size(n_items)
    n_known, least = int(vectors.known_N.sum()), tokeniser.least_items(size)
    if n_known < least:
        raise ValueError(f"{settings.method} with {size} codes needs {least} items with vectors; there are {n_known}")
    quantised: Quantised = tokeniser(settings.method_config).fit(vectors.x_NA[vectors.known_N], ids.levels, size, seed)
    codes_NL = np.random.default_rng([seed, 1]).integers(size, size=(n_items, ids.levels))
    codes_NL[vectors.known_N] = quantised.codes_NL
    sizes = [size] * ids.levels
    before = report(codes_NL, sizes)
    if ids.dedup == "sinkhorn":
        known = repair(
            quantised.codes_NL,
            squared_distances(quantised.residuals_NW, quantised.codebooks[-1]),
            ids.sinkhorn_eps,
            ids.sinkhorn_rounds,
        )
        codes_NL[vectors.known_N] = known
    facts: dict[str, Any] = {"fit": quantised.facts, "report": before}
    if ids.dedup != "suffix":
        facts["after_dedup"] = report(codes_NL, sizes)
    if ids.dedup != "accept":
        suffix_N = suffixes(codes_NL, seed, ids.max_suffix)
        codes_NL = np.column_stack([codes_NL, suffix_N])
        sizes.append(int(suffix_N.max()) + 1)
    table = table_of(codes_NL, sizes, quantised.codebooks)
    facts["unique"] = len(np.unique(codes_NL, axis=0))
    facts["codes_sha256"] = _hash(table)
    facts |= {"features": vectors.facts, "settings": settings.table(), "seed": seed, "level_sizes": sizes}
    return replace(table, card=facts)


def read(folder: Path) -> SemanticIds | None:
    """The table kept in ``folder``; None if there is none, or if it is not what its card says."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if any(sha256(folder / name) != known for name, known in card["files"].items()):
            return None
        codes = pd.read_parquet(folder / CODES).set_index(columns.ITEM)
        books = load_file(folder / CODEBOOKS)
        sizes = card["level_sizes"]
        table = table_of(codes.to_numpy(), sizes, [books[f"level_{level + 1}"] for level in range(len(books))])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    return replace(table, card=card)


def facts(table: SemanticIds) -> dict[str, Any]:
    """What a run says of the table it spells by."""
    card = table.card
    return {
        "codes_sha256": _hash(table),
        "level_sizes": list(table.level_sizes),
        **{name: card[name] for name in ("key", "seed", "unique") if name in card},
        **(_origin(card) if card else {}),
    }


def _origin(card: dict[str, Any]) -> dict[str, str]:
    """Of what and by what a table was made, and why of that, where ``auto`` chose it."""
    features = card["features"]
    why = {"features_why": features["why"]} if "why" in features else {}
    return {"features": features["source"], **why, "method": card["settings"]["method"]["name"]}


def _told(dataset: Dataset, vectors: Vectors, settings: IdSettings, seed: int) -> SemanticIds:
    """``ids_of``, with refusals in the words of the user."""
    try:
        return ids_of(vectors, settings, seed)
    except TooManyAlikeError as error:
        shown = dataset.items().iloc[error.group[:3]]
        names = ", ".join(
            repr(t if isinstance(t, str) else raw)
            for t, raw in zip(shown[columns.TITLE], shown[columns.RAW_ID], strict=True)
        )
        raise RecbenchError(
            f"{len(error.group):,} items of {dataset.name} have equal codes.",
            why=f"At most {settings.ids.max_suffix} can be told apart by a suffix. Among them: {names}.",
            fix="--set ids.codes=... for more codes, --set ids.dedup=sinkhorn, or --set ids.max_suffix=...",
            code=Exit.DATA,
        ) from error
    except ValueError as error:
        raise RecbenchError(
            f"Dataset {dataset.name} has too few items for these ids.",
            why=f"{error}.",
            fix=_fewer(vectors, settings),
            code=Exit.DATA,
        ) from error


def _fewer(vectors: Vectors, settings: IdSettings) -> str:
    """What to type where there are too few items for so many codes, if anything helps."""
    n_known = int(vectors.known_N.sum())
    if n_known >= TOKENISERS.load(settings.method).least_items(2):
        return f"--set ids.codes={max(2, n_known // 4)}"
    if settings.features.source == "cooc" or vectors.facts["source"] == "cooc":
        return "Prepare more data: items need others near them in training, or texts (recbench prepare NAME --metadata FILE)"
    return "--set features.source=cooc, or prepare the dataset with a file that describes its items: --metadata FILE"


def _size(n_items: int) -> int:
    return max(2, min(SMALL_SIZE if n_items < SMALL else SIZE, n_items // 4))


def _hash(table: SemanticIds) -> str:
    return digest({"codes": column_bytes(table.codes_VM).hex(), "sizes": list(table.level_sizes)})


def _write(folder: Path, table: SemanticIds) -> None:
    with taking_the_place_of(folder) as new:
        frame = pd.DataFrame(table.codes_VM[1:], columns=[columns.code(level) for level in range(len(table))])
        frame.insert(0, columns.ITEM, np.arange(1, table.n_items + 1, dtype=np.int32))
        frame.to_parquet(new / CODES, index=False)
        with usual_mode(new / CODEBOOKS):
            save_file({f"level_{level + 1}": book for level, book in enumerate(table.codebooks)}, new / CODEBOOKS)
        files = {name: sha256(new / name) for name in (CODES, CODEBOOKS)}
        write_text(new / CARD, json.dumps(table.card | {"files": files}, indent=2, ensure_ascii=False) + "\n")
