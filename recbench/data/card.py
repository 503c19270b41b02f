"""The card of a prepared dataset: what it was made from, what was done to it, and what it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from recbench.errors import Exit, RecbenchError
from recbench.files import write_text

SCHEMA = 1
NAME = "card.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What was left after one step of preparation; the first step is the source as read."""

    step: str
    """For example ``read``, ``rating >= 4``, ``5-core, 3 rounds``."""
    users: int
    items: int
    interactions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """``card.json``. Two runs may be compared only if ``fingerprint`` and ``split`` agree."""

    name: str
    family: str
    """Which shipped recipes fit: ``amazon``, ``synthetic``, ``generic`` ..."""
    source: dict[str, Any]
    """format, path or urls, bytes and sha256 of every input file."""
    filters: dict[str, Any]
    """rating, de-duplication policy, cores: as asked for."""
    steps: tuple[Step, ...]
    split: dict[str, Any]
    """name (``leave-one-out``, ``temporal``) and its parameters; n_valid, n_test; users not evaluated and why."""
    tie_rule: str
    time_unit: str | None
    """``s``, ``ms`` or None where the source has no times."""
    users: int
    items: int
    """Catalogue size: ids run from 1 to this. Padding 0 is not counted."""
    interactions: int
    sequence_sha256: str
    """Hash of ``export --format sequences``: equal hashes mean the same users, items, events and order."""
    fingerprint: str
    """Hash of the columns of interactions, train, valid and test: what must agree between compared runs."""
    files: dict[str, str]
    """sha256 of each Parquet file."""
    audit: dict[str, Any]
    recbench: str
    """Version that wrote the card."""
    id_rule: str = ""
    """How raw ids became integers, with the seed."""
    notes: tuple[str, ...] = ()
    """Sentences a reader should see: 'canonical', or which number differs from the published one."""
    oracle: dict[str, Any] = field(default_factory=dict)
    """Synthetic data only: metrics of the best possible ranking."""
    schema: int = SCHEMA

    def write(self, folder: Path) -> None:
        """Write ``card.json`` whole or not at all."""
        write_text(folder / NAME, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Card:
        """The card of a prepared folder. A dataset is called what its folder is called, also once that was renamed.

        Raises:
            RecbenchError: no card, or one that this version cannot read.
        """
        path = folder / NAME
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            raw["steps"] = tuple(Step(**step) for step in raw["steps"])
            raw["notes"] = tuple(raw["notes"])
            card = cls(**raw)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecbenchError(
                f"{folder} holds no readable dataset card.",
                why=f"{path}: {error}",
                fix=_unread(folder),
                code=Exit.DATA,
            ) from error
        if card.schema != SCHEMA:
            raise RecbenchError(
                f"{path} has schema {card.schema}.",
                why=f"This version reads schema {SCHEMA}.",
                fix=_unread(folder),
                code=Exit.DATA,
            )
        return replace(card, name=folder.resolve().name)


def _unread(folder: Path) -> str:
    """What to do about a card that cannot be read: the options are lost with it, but the README says them, too."""
    from recbench.data.again import by_name  # needs what needs cards

    readme = folder / "README.md"
    told = f", with the options that {readme} tells" if readme.exists() else ", with the options it was made with"
    return f"Prepare it again{told}: {by_name(folder.name, folder.parent)}"
