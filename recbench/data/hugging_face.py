"""A prepared dataset as a folder that ``datasets.load_dataset`` reads. That library is not needed to write it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recbench import columns
from recbench.data import describe
from recbench.data.dataset import PARTS, Dataset
from recbench.files import replacing, write_text

FILES = {
    "train": "data/train.parquet",
    "valid": "data/validation.parquet",
    "test": "data/test.parquet",
    "items": "data/items.parquet",
    "users": "data/users.parquet",
}
"""File of each table in a Hugging Face folder."""
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)
"""Names that the Hub knows for a size, each with the number of rows below which it holds."""


def write(dataset: Dataset, folder: Path) -> tuple[str, ...]:
    """Parquet files and a ``README.md`` whose head ``datasets.load_dataset`` reads: events by part, items, users.

    The columns of the three parts are the same, as one configuration needs; in training ``is_target`` is False.
    """
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    raw = {kind: dataset.table(f"{kind}s").column(columns.RAW_ID) for kind in (columns.USER, columns.ITEM)}
    for name, path in FILES.items():
        table = dataset.table(name)
        if name in PARTS:
            if columns.IS_TARGET not in table.column_names:
                table = table.append_column(columns.IS_TARGET, pa.array(np.zeros(table.num_rows, dtype=bool)))
            for kind, ids in raw.items():
                table = table.append_column(f"{kind}_{columns.RAW_ID}", ids.take(pc.subtract(table.column(kind), 1)))
        with replacing(folder / path) as beside:
            pq.write_table(table, beside, compression="zstd")
    write_text(folder / "README.md", f"{_head(dataset)}\n{describe.markdown(dataset.card)}")
    return (f'datasets.load_dataset("{folder}") reads it: configurations events, items and users.',)


def _head(dataset: Dataset) -> str:
    """The YAML head of a Hugging Face dataset card. Texts are quoted as JSON, which is YAML."""
    n = dataset.card.interactions
    size = next((name for most, name in SIZES if n < most), "n>1B")
    parts = [(SPLITS[name], FILES[name]) for name in PARTS]
    configs = [
        ("events", parts),
        ("items", [("train", FILES["items"])]),
        ("users", [("train", FILES["users"])]),
    ]
    lines = [
        "---",
        f"pretty_name: {json.dumps(dataset.name)}",
        "license: other",
        f"size_categories: [{json.dumps(size)}]",
    ]
    lines += ["tags: [recommendation, sequential-recommendation, recbench]", "configs:"]
    for config, files in configs:
        lines += [f"- config_name: {config}", "  data_files:"]
        lines += [f"  - split: {split}\n    path: {path}" for split, path in files]
    lines[lines.index("- config_name: events")] += "\n  default: true"
    return "\n".join([*lines, "---"])
