"""Results of other tools, read as runs: result tables, TREC runs with their qrels, exports in RecBole's style."""

from __future__ import annotations

import csv
import hashlib
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recbench import columns
from recbench.errors import Exit, RecbenchError, nearest
from recbench.registry import BACKBONES, HEADS
from recbench.runs.folder import UNLISTED, Given, Run
from recbench.runs.folder import find as find_folders
from recbench.runs.manifest import NAME as MANIFEST
from recbench.runs.manifest import Manifest

SUFFIXES = (".parquet", ".csv", ".tsv", ".txt", ".inter", ".run", ".trec", ".res")
"""Files looked for in a folder that holds no run."""
_ALIASES = {
    columns.USER: ("user_id", "uid", "userid", "query", "qid"),
    columns.TARGET: ("item_id", "item", "target_item", "itemid"),
    columns.RANK: ("position", "target_rank"),
    columns.SYSTEM: ("model", "method", "run"),
}
_TYPED = re.compile(r":(token|float|token_seq|float_seq)$")
_METRIC = re.compile(r"^(hr|hit|recall|precision|ndcg|mrr|map)@[1-9][0-9]*$")
_SEED = re.compile(r"^(?P<system>.+?)[-_]s(?:eed)?(?P<seed>[0-9]+)$")
_BY_SPACES: dict[str, Any] = {"sep": r"\s+", "quoting": csv.QUOTE_NONE, "keep_default_na": False}
"""How TREC files are read: a quote is part of a name there, and an item may be called NA."""
_ABSENT = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None")
"""How tables write that they have no value."""
_WHOLE = re.compile(r"(?P<number>0|-?[1-9][0-9]*)(\.0+)?")
_COUNTS = (columns.ABOVE, columns.TIED, columns.ABOVE_UNSEEN, columns.TIED_UNSEEN)


def read(paths: Iterable[Path], *, qrels: Path | None = None, dataset: str | None = None) -> list[Run]:
    """Every run and every system of a table among ``paths``.

    A folder is a run, or a folder of runs; one that holds no run is a folder of tables. A file is a result table or a
    TREC run, told apart by what it holds.

    Args:
        paths: files and folders.
        qrels: what is relevant, for TREC runs.
        dataset: name of the data where a file does not say; else ``unnamed``, and for TREC the name of ``qrels``.

    Raises:
        RecbenchError: a file that cannot be read, or says something impossible; ``qrels`` or ``dataset`` where there is no file.
    """
    folders, files = [], []
    for path in paths:
        if path.is_dir() and not _holds_runs(path):
            found = sorted(inside for inside in path.iterdir() if inside.suffix.lower() in SUFFIXES)
            files += found
            folders += [] if found else [path]
        elif path.is_file():
            files.append(path)
        elif not path.exists() and path.suffix.lower() in SUFFIXES:
            raise _no_file(path)
        else:
            folders.append(path)
    for option, asked in (("--dataset", dataset), ("--qrels", qrels)):
        if asked is not None and not files:
            raise RecbenchError(
                f"{option} {asked} is about nothing that is compared.",
                why="It is for result tables and TREC runs; run folders say it of themselves.",
                fix=f"Leave {option} out; to compare some runs only, name them: recbench compare runs/NAME-*",
            )
    runs = find_folders(folders)
    for path in dict.fromkeys(files):
        if qrels is None or path.resolve() != qrels.resolve():  # a pattern may name it, too
            runs += _file(path, qrels, dataset)
    return runs


def _no_file(path: Path) -> RecbenchError:
    here = [found.name for found in path.parent.glob("*") if found.suffix.lower() in SUFFIXES]
    near = nearest(path.name, here)
    return RecbenchError(
        f"There is no file {path}.",
        why=f"Tables in {path.parent}/: {', '.join(sorted(here)[:3]) or 'none'}.",
        fix=f"Did you mean {path.parent / near}?" if near else f"ls {shlex.quote(str(path.parent))}",
        code=Exit.COMPARISON,
    )


def _holds_runs(folder: Path) -> bool:
    return (folder / MANIFEST).exists() or any(folder.glob(f"*/{MANIFEST}"))


def _file(path: Path, qrels: Path | None, dataset: str | None) -> list[Run]:
    try:
        if path.suffix.lower() == ".parquet":
            table = pq.read_table(path).to_pandas()
        else:
            first = _first_line(path)
            if _looks_like_trec(first):
                return [_trec(path, qrels, dataset)]
            table = read_table(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, f"{error}.") from error
    typed = any(_TYPED.search(str(name)) for name in table.columns)
    return _table(path, table, dataset, typed=typed)


def read_table(path: Path) -> pd.DataFrame:
    """A delimited file with a header, ids as they are written.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    first = _first_line(path)
    separator = max("\t,;", key=first.count)
    return pd.read_csv(path, sep=separator, skipinitialspace=True, **_ids_as_text(first, separator))


def _ids_as_text(heading: str, separator: str) -> dict[str, Any]:
    """Ids are read as they stand, so that 007 is not 7 and a user may be called NA; the other columns as pandas does."""
    names = next(csv.reader([heading], delimiter=separator, skipinitialspace=True))
    ours = _named(pd.DataFrame(columns=names)).columns
    ids = [name for name, known in zip(names, ours, strict=True) if known in (columns.USER, columns.TARGET)]
    return {
        "dtype": dict.fromkeys(ids, str),
        "keep_default_na": False,
        "na_values": {name: list(_ABSENT) for name in names if name not in ids},
    }


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8-sig") as handle:
        line = next((line for line in handle if line.strip()), "")
    if not line:
        raise _unreadable(path, "It is empty.")
    return line.strip()


def _looks_like_trec(line: str) -> bool:
    parts = line.split()
    return len(parts) == 6 and _is_number(parts[3]) and _is_number(parts[4])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _table(path: Path, raw: pd.DataFrame, dataset: str | None, *, typed: bool) -> list[Run]:
    """The systems of a result table, one run a system, dataset and seed."""
    table = _named(raw)
    kind = "recbole" if typed else "table"
    measured = [name for name in table.columns if _METRIC.match(name)]
    ranked = columns.RANK in table or columns.ABOVE in table
    if columns.USER not in table or not (ranked or measured) or (ranked and columns.TARGET not in table):
        near = nearest(columns.RANK, [str(name) for name in table.columns])
        raise _unreadable(
            path,
            f"Its columns are {', '.join(map(str, raw.columns))}. A result table has {', '.join(columns.RESULTS)}, or "
            "user and metrics such as ndcg@10.",
            "Name the columns so" + (f"; is {near!r} the rank?" if near else "."),
        )
    _fill_names(table, path, dataset)
    table[columns.USER] = ids(table[columns.USER], path, columns.USER)
    runs = []
    keys = [columns.DATASET, columns.SYSTEM, columns.SEED]
    for (data, system, seed), rows in table.groupby(keys, sort=False, dropna=False):
        given = _ranks(path, rows, kind) if ranked else _values(path, rows, measured, kind)
        runs.append(_run(path, str(data), str(system), _seed(path, seed), given))
    return runs


def _named(raw: pd.DataFrame) -> pd.DataFrame:
    """The same with our names: RecBole's types cut off, aliases resolved, ``hit@10`` as ``hr@10``."""
    names = {name: re.sub(r"^hit@", "hr@", _TYPED.sub("", str(name).strip().lower())) for name in raw.columns}
    table = raw.rename(columns=names)
    for ours, theirs in _ALIASES.items():
        for alias in theirs:
            if ours not in table and alias in table:
                table = table.rename(columns={alias: ours})
    return table.copy()


def _fill_names(table: pd.DataFrame, path: Path, dataset: str | None) -> None:
    """System and seed from the name of the file, ``<system>-s<seed>``, where no column says."""
    match = _SEED.match(path.stem)
    defaults = {
        columns.SYSTEM: match["system"] if match else path.stem,
        columns.SEED: int(match["seed"]) if match else 0,
        columns.DATASET: dataset or "unnamed",
    }
    for name in (columns.SYSTEM, columns.DATASET):
        if name in table and table[name].isna().any():
            raise _unreadable(path, f"{int(table[name].isna().sum())} of {len(table)} rows have no {name}.")
    for name, value in defaults.items():
        if name not in table:
            table[name] = value


def ids(values: pd.Series[Any], path: Path, what: str) -> pd.Series[Any]:
    """Whole numbers as int64, where all are written as one; anything else as text."""
    absent = values.isna() | (values.astype(str).str.strip() == "")
    if absent.any():
        raise _unreadable(path, f"{int(absent.sum())} of {len(values)} rows have no {what}.")
    if pd.api.types.is_string_dtype(values):
        values = values.str.strip()
        numbers = [_WHOLE.fullmatch(value) for value in values]
        whole = [int(number["number"]) for number in numbers if number]
        if len(whole) == len(values) and max(map(abs, whole), default=0) < 2**63:
            return pd.Series(whole, index=values.index, dtype=np.int64)
        return values.astype(str)
    if pd.api.types.is_float_dtype(values) and (values % 1 == 0).all():
        return values.astype(np.int64)
    return values.astype(np.int64) if pd.api.types.is_integer_dtype(values) else values.astype(str)


def _seed(path: Path, seed: Any) -> int:
    if not isinstance(seed, (int, float, np.integer, np.floating)) or pd.isna(seed) or seed != int(seed):
        raise _unreadable(path, f"The seed {_plain(pd.Series([seed]))} is no whole number.")
    return int(seed)


def _ranks(path: Path, rows: pd.DataFrame, kind: str) -> Given:
    """Counts from ranks. A row without a rank is a target that its list does not hold."""
    frame = rows[[columns.USER]].copy()
    frame[columns.TARGET] = ids(rows[columns.TARGET], path, columns.TARGET)
    depth = None
    if columns.ABOVE in rows:
        for name in _COUNTS:
            if name in rows:
                frame[name] = _whole(path, rows[name], name, least=0)
        for above, tied in ((columns.ABOVE, columns.TIED), (columns.ABOVE_UNSEEN, columns.TIED_UNSEEN)):
            if above in frame and tied not in frame:
                frame[tied] = 0
    else:
        ranks, unlisted = rows[columns.RANK], rows[columns.RANK].isna()
        listed = _whole(path, ranks[~unlisted], columns.RANK, least=1)
        frame[columns.ABOVE] = np.int64(UNLISTED)
        frame.loc[~unlisted, columns.ABOVE] = listed - 1
        frame[columns.TIED] = _whole(path, rows[columns.TIED], columns.TIED, least=0) if columns.TIED in rows else 0
        if unlisted.any():
            depth = int(listed.max()) if len(listed) else 0
    twice = frame.duplicated([columns.USER, columns.TARGET])
    if twice.any():
        row = frame[twice].iloc[0]
        raise _unreadable(path, f"User {row[columns.USER]} stands twice with target {row[columns.TARGET]}.")
    return Given(frame.reset_index(drop=True), kind, depth=depth, candidates=_candidates(path, rows))


def _whole(path: Path, values: pd.Series[Any], name: str, *, least: int) -> pd.Series[Any]:
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = numbers.isna() | (numbers % 1 != 0) | (numbers < least)
    if wrong.any():
        raise _unreadable(
            path,
            f"{name} is {_plain(values[wrong])} in {int(wrong.sum())} of {len(values)} rows; it is a whole number from "
            f"{least}.",
            "Count ranks from 1, leave empty what a list does not hold, and give ties as columns above and tied.",
        )
    return numbers.astype(np.int64)


def _plain(values: pd.Series[Any]) -> str:
    """The first of them as it was written."""
    return repr(values.tolist()[0])


def _candidates(path: Path, rows: pd.DataFrame) -> str | None:
    if "candidates" not in rows:
        return None
    stated = set(rows["candidates"])
    if len(stated) != 1 or not stated <= {"all", "unseen"}:
        raise _unreadable(path, f"candidates is {', '.join(map(repr, stated))}; it is all or unseen, one for a system.")
    return str(stated.pop())


def _values(path: Path, rows: pd.DataFrame, measured: Sequence[str], kind: str) -> Given:
    """Metrics by user as another tool computed them."""
    frame = rows[[columns.USER]].copy()
    frame[columns.TARGET] = ids(rows[columns.TARGET], path, columns.TARGET) if columns.TARGET in rows else 0
    for name in measured:
        values = pd.to_numeric(rows[name], errors="coerce")
        wrong = ~values.between(0, 1)
        if wrong.any():
            raise _unreadable(
                path, f"{name} is {_plain(rows[name][wrong])} in {int(wrong.sum())} rows; it lies in 0 .. 1."
            )
        frame[name] = values.astype(np.float64)
    if frame.duplicated([columns.USER, columns.TARGET]).any():
        twice = frame[columns.USER][frame.duplicated([columns.USER, columns.TARGET])].iloc[0]
        raise _unreadable(path, f"User {twice} stands twice.")
    return Given(frame.reset_index(drop=True), kind, measured=tuple(measured), candidates=_candidates(path, rows))


def _trec(path: Path, qrels: Path | None, dataset: str | None) -> Run:
    """One TREC run against its qrels. Scores order a list, as in trec_eval; the rank column is not read."""
    if qrels is None:
        raise RecbenchError(
            f"{path} is a TREC run, and no qrels were given.",
            why="A run lists what was retrieved; which items are relevant stands in the qrels.",
            fix="--qrels FILE",
            code=Exit.COMPARISON,
        )
    names = ["query", "q0", "doc", "rank", "score", "tag"]
    run = pd.read_csv(path, names=names, dtype={"query": str, "doc": str, "tag": str}, **_BY_SPACES)
    scores = pd.to_numeric(run["score"], errors="coerce")
    if run["doc"].isna().any() or scores.isna().any():
        at = int((run["doc"].isna() | scores.isna()).argmax()) + 1
        raise _unreadable(path, f"Line {at} is not: query Q0 item rank score tag.")
    run["score"] = scores
    twice = run.duplicated(["query", "doc"])
    if twice.any():
        row = run[twice].iloc[0]
        raise _unreadable(path, f"Query {row['query']} lists {row['doc']} twice.")
    relevant = _qrels(qrels)
    run["above"] = run.groupby("query")["score"].rank(method="min", ascending=False).astype(np.int64) - 1
    run["tied"] = run.groupby(["query", "score"])["doc"].transform("size").astype(np.int64) - 1
    found = relevant.merge(run[["query", "doc", "above", "tied"]], on=["query", "doc"], how="left")
    frame = pd.DataFrame(
        {
            columns.USER: ids(found["query"], qrels, columns.USER),
            columns.TARGET: ids(found["doc"], qrels, columns.TARGET),
            columns.ABOVE: found["above"].fillna(UNLISTED).astype(np.int64),
            columns.TIED: found["tied"].fillna(0).astype(np.int64),
        }
    )
    depth = int(run.groupby("query").size().max())
    match = _SEED.match(str(run["tag"].iloc[0]))
    system, seed = (match["system"], int(match["seed"])) if match else (str(run["tag"].iloc[0]), 0)
    several = bool(frame.duplicated(columns.USER).any())
    return _run(path, dataset or qrels.stem, system, seed, Given(frame, "trec", depth=depth, several=several))


def _qrels(path: Path) -> pd.DataFrame:
    """Query and relevant item; a grade above 0 counts as relevant."""
    try:
        table = pd.read_csv(
            path,
            names=["query", "iteration", "doc", "grade"],
            dtype={"query": str, "doc": str},
            **_BY_SPACES,
        )
        grades = pd.to_numeric(table["grade"])
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise _unreadable(path, f"{error}. Qrels have four columns: query, 0, item, grade.") from error
    relevant = table[grades > 0][["query", "doc"]]
    if relevant.empty or relevant.duplicated().any():
        raise _unreadable(
            path, "It names no relevant item." if relevant.empty else "It names an item twice for a query."
        )
    return relevant


def _run(path: Path, dataset: str, system: str, seed: int, given: Given) -> Run:
    backbone, plus, head = system.rpartition("+")
    if not plus or head not in HEADS.entries():
        backbone, head = system, "none"
    entry = BACKBONES.entries().get(system)
    manifest = Manifest(
        status="finished",
        dataset={"name": dataset},
        protocol={},
        backbone=backbone,
        head=head,
        seed=seed,
        loss="closed form" if entry is not None and entry.family == "baseline" else "not stated",
        inputs={},
        argv=[],
        versions={},
        git={},
        hardware={},
        config_sha256=hashlib.sha256(f"{given.kind} {system}".encode()).hexdigest(),
        started="",
    )
    return Run(path, manifest, given)


def _unreadable(
    path: Path, why: str, fix: str = "Mend the file; docs/comparison.md shows the forms that are read."
) -> RecbenchError:
    return RecbenchError(f"{path} cannot be read as results.", why=why, fix=fix, code=Exit.COMPARISON)
