"""How to make a prepared dataset again: the command that its card stands for."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path

from recbench.data import catalog
from recbench.data.card import Card
from recbench.data.dataset import HOME
from recbench.data.detect import BUILT_IN
from recbench.data.prepare import TIE_RULES
from recbench.data.sources.bad import LIMIT, SHARE
from recbench.errors import RecbenchError


def same(card: Card, folder: Path) -> str:
    """A fix: the command that prepares what the card says, in its place; and what has to be there first."""
    words = [*_source(card, folder.parent), *_filters(card, folder.parent), *_split(card)]
    words += [*_ties(card), *_bad_rows(card), *_home(folder.parent)]
    raw = Path(str(card.source.get("path", folder)))
    gone = "" if "--source" not in words or raw.exists() else f" (once {raw} is there again)"
    return f"Prepare it again{gone}: {shlex.join(['recbench', 'prepare', *words])}"


def by_name(name: str, home: Path) -> str:
    """The command that prepares ``name`` where no card says how: from the catalogue, or from a source of one's own."""
    known = _known(name, home)
    source = [] if known and (known.urls or known.format == BUILT_IN) else ["--source", "PATH"]
    return shlex.join(["recbench", "prepare", name, *source, *_home(home)])


def _known(name: str, home: Path) -> catalog.DatasetCard | None:
    with contextlib.suppress(RecbenchError):  # a card of the user's that cannot be read: an error of its own
        return catalog.find(name, home)
    return None


def _source(card: Card, home: Path) -> Iterator[str]:
    """The name, and where the events come from."""
    known, source = _known(card.name, home), card.source
    yield card.name
    if "path" in source and not ("urls" in source and known):
        yield from ("--source", source["path"], "--source-format", source["format"])
    elif "path" not in source and (known is None or known.format != source["format"]):
        yield from ("--source-format", source["format"])
    options = dict(source.get("options", {}))
    if columns := options.pop("columns", None):
        yield from ("--columns", ",".join(f"{role}={column}" for role, column in columns.items()))
    for name, value in options.items():
        yield from ("--set", f"{name}={value}")
    described = source.get("metadata", {})
    if "path" in described and "urls" not in described:
        yield from ("--metadata", described["path"])
    if source.get("no_metadata"):
        yield "--no-metadata"


def _filters(card: Card, home: Path) -> Iterator[str]:
    known, asked = _known(card.name, home), card.filters
    if asked["core_from"] == "asked for":
        yield from ("--core", str(asked["core"]))
    if asked["min_rating"] is not None:
        yield from ("--min-rating", f"{asked['min_rating']:g}")
    if asked["duplicates"] != (known.duplicates if known else "keep"):
        yield from ("--duplicates", asked["duplicates"])
    for name, usual in (("since", known and known.since), ("until", known and known.until)):
        if asked.get(name) and asked[name] != usual:
            yield from (f"--{name}", asked[name])


def _split(card: Card) -> Iterator[str]:
    if card.split["name"] != "temporal":
        return
    yield from ("--split", "temporal")
    for name in ("target", "quantile", "valid_from", "test_from"):
        if name in card.split:
            yield from (f"--{name.replace('_', '-')}", str(card.split[name]))


def _ties(card: Card) -> Iterator[str]:
    told, _, _ = TIE_RULES["hash"].partition("{seed}")
    if card.tie_rule.startswith(told):
        yield from ("--ties", "hash", "--tie-seed", card.tie_rule.removeprefix(told))


def _bad_rows(card: Card) -> Iterator[str]:
    asked = card.source.get("bad_rows", {"limit": LIMIT, "share": SHARE})
    if asked["share"] is None:
        yield from ("--max-bad-rows", str(asked["limit"]))
    elif asked["limit"] != LIMIT:
        yield from ("--max-bad-rows", f"{100 * asked['share']:g}%")


def _home(home: Path) -> list[str]:
    return [] if home == HOME else ["--datasets", str(home)]
