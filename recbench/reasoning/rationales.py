"""Rationales that somebody has written, one a training target: JSON lines, cut into segments, as anchors.

A line is ``{"user": .., "position": .., "text": ".."}`` or has ``"segments": ["..", ..]`` in place of the text. ``user`` is the
name in the source, ``position`` the place of the target in its user's training sequence, from 0 at the oldest event. How a text is
cut stands in for LASAR's cutting by embeddings (arXiv 2605.10207), whose rule is not published.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.backbones.base import Backbone
from recbench.data.batching import Batch, TrainingRows
from recbench.data.knowledge import ItemKnowledge
from recbench.data.text import TextSpace
from recbench.data.vectors import VectorConfig
from recbench.errors import Exit, RecbenchError
from recbench.files import sha256
from recbench.reasoning.anchors import (
    ENOUGH_TEXT,
    TEXT_WIDTH,
    AnchorConfig,
    Anchors,
    ItemAnchors,
    Lift,
    Source,
    described,
    known_items,
    vectors,
)
from recbench.reasoning.base import Context
from recbench.reasoning.kept import KeptSegments
from recbench.reasoning.segments import joined, place_of, summed

SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
DROP = 0.5
"""Standard deviations below the mean of a text's neighbouring cosines at which it is cut."""


class FileAnchors(Source):
    """Segments of written rationales; targets without one that says something fall back to the templates.

    Templates stand in the space of the rationales where the items have text there, and share its lift; else they are made of what
    is near in training, and each of the two spaces has a lift of its own.
    """

    def __init__(self, config: AnchorConfig, backbone: Backbone, context: Context) -> None:
        knowledge, rows = context.items, context.train
        if knowledge is None or rows is None:
            raise ValueError("written rationales name users of a dataset")
        path = Path(config.file)
        written = read(path, knowledge, rows)
        pieces = [sentences(said) for said in written.said.values()]
        flat = [text for piece in pieces for text in piece]
        x_NA, x_RA, facts = _spaces(config, knowledge, rows, backbone.n_items, flat)
        segments_of = _cut_all(pieces, written, x_RA, config.most)
        if not segments_of:
            raise RecbenchError(
                f"No rationale of {path} can be used.",
                why="None has a word that stands in a second text, be it of an item or of a rationale.",
                fix="Check head.rationale_file, or read it with --set head.text_encoder=NAME.",
                code=Exit.DATA,
            )
        device = backbone.item_vectors().device
        items = known_items(x_NA.astype(np.float32), rows.histories, knowledge, device)
        self.templates = ItemAnchors(config, items, backbone.width, {})
        place_R = np.array(sorted(segments_of), dtype=np.int64)
        count_R = np.array([len(segments_of[place]) for place in place_R], dtype=np.int64)
        x_UA = torch.from_numpy(np.concatenate([segments_of[place] for place in place_R]).astype(np.float32)).to(device)
        self.kept = KeptSegments(place_R, count_R, np.arange(len(x_UA)), x_UA)
        self.lift = Lift(x_UA, backbone.width) if facts["templates_of"] == "cooc" else self.templates.lift
        self.most = config.most
        self.facts = (
            self.templates.facts
            | facts
            | {
                "width": int(x_RA.shape[1]),
                "rationales": len(place_R),
                "without_known_words": len(written.said) - len(place_R),
                "unknown_users": len(set(written.unknown)),
                "lines_of_unknown_users": len(written.unknown),
                "coverage": float(np.isin(np.unique(rows.target_events), place_R).mean()),
                "file_sha256": sha256(path),
            }
        )

    def of(self, batch: Batch, some_P: Tensor, rows: TrainingRows | None) -> Anchors:
        _, place_P = place_of(batch, some_P, rows)
        template = self.templates.of(batch, some_P, rows)
        c_PSD = F.pad(template.c_PSX, (0, 0, 0, self.most))[:, : self.most]
        written_PSA, count_P, here_P = self.kept.of(place_P, self.most)
        return Anchors(
            torch.where(here_P[:, None, None], self.lift(written_PSA), c_PSD),
            torch.where(here_P, count_P, template.s_P),
        )


@dataclass(frozen=True, slots=True)
class Written:
    """What a file of rationales holds."""

    said: dict[int, str | list[str]]
    """Rationales by the place of their target in the training part."""
    unknown: list[str]
    """Who is named and not in the dataset, a line each."""


def read(path: Path, knowledge: ItemKnowledge, rows: TrainingRows) -> Written:
    """The rationales of a file.

    Raises:
        RecbenchError: the file cannot be read, a line is wrong or of a validation or test event, two are of one target, or none is
            of use.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split(
            "\n"
        )  # splitlines cuts inside a text, too: at U+2028 and others
    except (OSError, UnicodeDecodeError) as error:
        raise RecbenchError(
            f"Rationales {path} cannot be read.", why=str(error), fix="Check head.rationale_file.", code=Exit.DATA
        ) from error
    ids, histories = knowledge.users(), rows.histories
    row_of = {int(user): row for row, user in enumerate(histories.users)}
    found: dict[int, str | list[str]] = {}
    line_of: dict[int, int] = {}
    unknown: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        user, position, said = _entry(line, f"{path}:{number}")
        if user not in ids:
            unknown.append(user)
            continue
        row = row_of.get(ids[user])
        length = 0 if row is None else int(histories.lengths[row])
        if row is None or not 1 <= position < length:
            raise RecbenchError(
                f"{path}:{number}: user {user!r} has no training target at position {position}.",
                why=f"Its training sequence has {length} events: targets stand at 1 to {length - 1}. "
                "A rationale of a validation or test event would leak it.",
                fix="Remove the line, or count from 0 at the user's oldest event.",
                code=Exit.DATA,
            )
        place = int(histories.starts[row]) + position
        if place in found:
            raise RecbenchError(
                f"{path}:{number}: user {user!r} has a rationale at position {position} already.",
                why=f"It is on line {line_of[place]}. A target takes one rationale, so one of the two would be lost.",
                fix="Remove one of the two lines.",
                code=Exit.DATA,
            )
        found[place], line_of[place] = said, number
    if not found:
        raise RecbenchError(
            f"No rationale of {path} can be used.",
            why=f"{len(unknown)} lines, none of which names a user of the dataset." if unknown else "It holds no line.",
            fix="Name users as the source does (users.parquet, column raw_id).",
            code=Exit.DATA,
        )
    return Written(found, unknown)


def _entry(line: str, where: str) -> tuple[str, int, str | list[str]]:
    why = "It is not JSON."
    try:
        entry = json.loads(line)
        user, position = str(entry["user"]), entry["position"]
        said = entry["segments"] if "segments" in entry else entry["text"]
        texts = said if isinstance(said, list) else [said]
        why = "position is a whole number; text is text, segments a list of texts, not empty."
        if type(position) is int and texts and all(isinstance(text, str) and text.strip() for text in texts):
            return user, position, said
    except (KeyError, TypeError) as error:
        why = f"It lacks {error}." if isinstance(error, KeyError) else "It is not an object."
    except (ValueError, RecursionError):  # an endless number or nest is none that anybody wrote
        pass
    raise RecbenchError(
        f"{where}: no rationale.",
        why=why,
        fix='{"user": "A1", "position": 3, "text": "..."} on one line',
        code=Exit.DATA,
    )


def sentences(said: str | list[str]) -> list[str]:
    """The pieces of a rationale that are never cut."""
    if isinstance(said, list):
        return said
    return [part.strip() for part in SENTENCE.split(said) if part.strip()]


def cut(x_NA: np.ndarray, most: int, *, whole: bool) -> np.ndarray:
    """Segments of a rationale from vectors of its pieces in order: unit vectors, (S, A), S at most ``most``.

    Between two pieces it is cut where their cosine is below the mean of all such cosines by half a standard deviation; then the
    most alike neighbours are joined until there are few enough. A piece without a vector falls out before.

    Args:
        whole: the pieces are segments already.
    """
    unit_NA = _unit(x_NA)
    unit_NA = unit_NA[unit_NA.any(axis=1)]
    if not len(unit_NA):
        return unit_NA
    starts = np.ones(len(unit_NA), dtype=bool)
    if not whole and len(unit_NA) > 2:
        alike = (unit_NA[1:] * unit_NA[:-1]).sum(1)
        starts[1:] = alike < alike.mean() - DROP * alike.std()
    x_PSA = torch.from_numpy(np.add.reduceat(unit_NA, np.flatnonzero(starts)))[None]
    found = _unit(summed(x_PSA, joined(x_PSA, torch.arange(x_PSA.shape[1])[None], most))[0].numpy())
    return found[np.abs(found).max(axis=1, initial=0) > 0]


def _cut_all(pieces: list[list[str]], written: Written, x_RA: np.ndarray, most: int) -> dict[int, np.ndarray]:
    """Segments by the place of their target, of rationales that have any.

    Args:
        x_RA: vectors of the pieces of all rationales.
    """
    parts = np.split(x_RA, np.cumsum([len(piece) for piece in pieces])[:-1])
    found = {
        place: cut(part, most, whole=isinstance(said, list))
        for part, (place, said) in zip(parts, written.said.items(), strict=True)
    }
    return {place: segments for place, segments in found.items() if len(segments)}


def _spaces(
    config: AnchorConfig, knowledge: ItemKnowledge, rows: TrainingRows, n_items: int, texts: list[str]
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Vectors of the items, those of these texts, and of what both are made. They are in one space where items have enough text."""
    _, share = described(n_items, rows.histories, knowledge)
    made_of = "encoder" if config.encoder else "text"
    facts = {"source": "file", "made_of": made_of, "templates_of": made_of, "interactions_with_text": share}
    all_texts = knowledge.texts() if share >= ENOUGH_TEXT else []
    if config.encoder:
        x_RA = knowledge.encoded(config.encoder, texts)
        words = VectorConfig(source="encoder", encoder=config.encoder, normalise="none")
        x_NA = knowledge.vectors(words).x_NA if all_texts else np.zeros((0, 0))
    else:
        space = TextSpace([*all_texts, *texts], TEXT_WIDTH)
        x_NA, x_RA = space.vectors(all_texts), space.vectors(texts)
    if not x_NA.any():
        _, x_NA, _ = vectors(replace(config, kind="cooc"), n_items, rows.histories, knowledge)
        facts["templates_of"] = "cooc"
    return x_NA, x_RA, facts


def _unit(x_NA: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x_NA, axis=1, keepdims=True)
    return np.divide(x_NA, length, out=np.zeros_like(x_NA, dtype=np.float64), where=length > 0)
