"""LETTER and LC-Rec JSON: item numbers by user number, oldest first, with raw ids and item texts in files beside it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, final

import pandas as pd

from recbench import columns
from recbench.data.sources.base import Events, Progress, Source
from recbench.data.sources.coding import Coder
from recbench.data.sources.metadata import FIELDS, as_row, described
from recbench.data.sources.places import File, name_of
from recbench.data.sources.reading import blocks, shown
from recbench.data.sources.siblings import sibling
from recbench.errors import Exit, RecbenchError

START = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"\d+"\s*:\s*\[\s*[-\d\]]')
LIST = re.compile(rb'"(\d{1,18})"\s*:\s*\[([\d\s,]*)\]')
NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
BETWEEN_CATEGORIES = re.compile(r",(?! )")
"""LC-Rec joins category names by a comma alone; a comma and a blank stand inside a name (``Arts, Crafts & Sewing``)."""
USERS, ITEMS, METADATA = "user_ids", "item_ids", "metadata"


@final
class Letter(Source):
    """``X.inter.json``. Numbers count from 0; raw ids are those of the maps, or the numbers where there is no map."""

    files: ClassVar[tuple[str, ...]] = ("*.inter.json", "*.inter.json.gz")

    @classmethod
    def recognises(cls, path: File, head: bytes) -> bool:
        del path  # the content decides
        return START.match(head) is not None and not _attributes(head)

    def beside(self) -> dict[str, Path]:
        return {role: file for role, file in self._others().items() if isinstance(file, Path)}

    def _others(self) -> dict[str, File]:
        name = name_of(self.file).removesuffix(".gz").removesuffix(".json").removesuffix(".inter")
        wanted = [(USERS, "user_index.json"), (USERS, f"{name}.user2id")]  # X's own file before one that names no set
        wanted += [(ITEMS, "item_index.json"), (ITEMS, f"{name}.item2id"), (METADATA, f"{name}.item.json")]
        return {role: place for role, file in wanted if (place := sibling(self.file, file))}

    def read(self, progress: Progress) -> Events:
        path, beside = self.file, self._others()
        lists = _lists(path, progress)
        users = _names(beside.get(USERS), path, columns.USER, lists)
        items = _names(beside.get(ITEMS), path, columns.ITEM, sorted({n for listed in lists.values() for n in listed}))
        user, item = Coder(), Coder()
        for number, listed in lists.items():
            user.add([users[number]] * len(listed))
            item.add([items[n] for n in listed])
        codes = user.codes()
        n_empty = len(lists) - len(user.ids())
        return Events(
            user=codes,
            item=item.codes(),
            rating=None,
            timestamp=None,
            user_ids=user.ids(),
            item_ids=item.ids(),
            time_unit=None,
            items=_metadata(beside[METADATA], items) if METADATA in beside else None,
            notes=(f"{n_empty:,} users in the source have an empty list and are left out.",) if n_empty else (),
        )


def _attributes(head: bytes) -> bool:
    """Does it look like S3-Rec's item attributes? Same shape, but numbered from 1 as they appear, under scattered keys."""
    lists = LIST.findall(head)
    seen = dict.fromkeys(int(number) for _, text in lists for number in re.findall(rb"\d{1,18}", text))
    scattered = any(int(after) - int(before) != 1 for (before, _), (after, _) in pairwise(lists))
    return scattered and list(seen) == list(range(1, len(seen) + 1))


def _lists(path: File, progress: Progress) -> dict[int, list[int]]:
    """Item numbers of each user, users in order of their number."""
    lists: dict[int, list[int]] = {}
    for key, listed in _object(path, progress).items():
        if not NUMBER.fullmatch(key):
            raise _wrong(path, f"names a user {_brief(key)}", "Users are whole numbers from 0, in quotes.")
        wrong = [n for n in listed if not _is_number(n)] if isinstance(listed, list) else [listed]
        if wrong:
            why = "A user has a list of item numbers: whole numbers from 0, without quotes."
            raise _wrong(path, f"gives user {key} {_brief(wrong[0])}", why)
        lists[int(key)] = listed
    return dict(sorted(lists.items()))


def _names(path: File | None, source: File, kind: str, numbers: Iterable[int]) -> dict[int, str]:
    """Raw id of each number: that of the map, or the number itself where there is no map."""
    if path is None:
        return {number: str(number) for number in numbers}
    names: dict[int, str] = {}
    for raw, number in _object(path).items():
        if not _is_number(number):
            raise _wrong(path, f"maps {_brief(raw)} to {_brief(number)}", "A map goes from raw id to number from 0.")
        if number in names:
            why = f"{_brief(names[number])} and {_brief(raw)} cannot be told apart in {name_of(source)}."
            raise _wrong(path, f"gives two raw ids the number {number}", why)
        names[number] = raw
    wanted = list(numbers)
    missing = [number for number in wanted if number not in names]
    if missing:
        raise RecbenchError(
            f"{path} has no raw id for {kind} {missing[0]}.",
            why=f"{len(missing):,} of the {len(wanted):,} {kind}s of {name_of(source)} are not in it: it is cut, or another "
            "dataset's.",
            fix=f"Get the map that belongs to {name_of(source)}, or move this one away: ids are then the numbers.",
            code=Exit.DATA,
        )
    return {number: names[number] for number in wanted}


def _metadata(path: File, items: dict[int, str]) -> pd.DataFrame:
    """What ``X.item.json`` knows of the items, one row an item."""
    records = _object(path)
    rows = []
    for number, raw in items.items():
        record = records.get(str(number), {})
        if not isinstance(record, dict):
            raise _wrong(
                path, f"gives item {number} {_brief(record)}", "An item has a record: title, brand, categories."
            )
        if isinstance(names := record.get("categories"), str):
            record = record | {"categories": BETWEEN_CATEGORIES.split(names)}
        if record:
            rows.append(as_row(described(raw, record)))
    if not rows:
        raise _wrong(path, "describes none of the items", "Its keys are not the item numbers of the lists.")
    return pd.DataFrame(rows, columns=list(FIELDS))


def _object(path: File, progress: Progress = lambda _: None) -> dict[str, Any]:
    """A JSON object, or the lines ``raw id<TAB>number`` of a text map. No key may stand twice."""
    content = b"".join(blocks(path, progress))
    try:
        text = content.decode("utf-8-sig")
        if name_of(path).endswith((".user2id", ".item2id")):
            return _once([_pair(line) for line in text.split("\n") if line.strip()])
        held = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        end = content.rstrip()
        cut = "" if end.endswith(b"}") else f" The file ends in ...{shown(end[-20:])}, so it was probably cut."
        raise _wrong(path, "cannot be read", f"{error}.{cut}", "Get the file again.") from error
    if not isinstance(held, dict):
        raise _wrong(path, f"holds {_brief(held)}", "One JSON object is expected.")
    return held


def _is_number(value: Any) -> bool:
    return type(value) is int and value >= 0


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        often = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"{_brief(often[0])} stands in it {often[1]} times")
    return found


def _pair(line: str) -> tuple[str, int]:
    raw, _, number = line.rstrip("\r").rpartition("\t")
    if not raw or not NUMBER.fullmatch(number):
        raise ValueError(f"The line {_brief(line)} is not `raw id<TAB>number`")
    return raw, int(number)


def _brief(value: Any) -> str:
    return shown(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def _wrong(path: File, what: str, why: str, fix: str = "") -> RecbenchError:
    fix = fix or f"Mend {name_of(path)} or get it again, or name another --source-format."
    return RecbenchError(f"{path} {what}.", why=why, fix=fix, code=Exit.DATA)
