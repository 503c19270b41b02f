"""Exports: the official Amazon 2023 split byte for byte, a Hugging Face folder, and what is refused."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from recbench.data.dataset import open_dataset
from recbench.data.export import FOLDERS, FORMATS, export
from recbench.data.prepare import Request, prepare
from recbench.errors import RecbenchError

COLUMNS = {"user": "user_id", "item": "parent_asin", "rating": "rating", "timestamp": "timestamp"}


@pytest.fixture
def all_beauty(shared_data: Path, tmp_path: Path) -> Path:
    """A home with the official All_Beauty of 2023, prepared from ``rating_only``; the official split beside it."""
    official = shared_data / "amazon2023" / "benchmark" / "5core"
    if not official.is_dir():
        pytest.skip(f"no real data at {official}")
    source = official / "rating_only" / "All_Beauty.csv.gz"
    prepare(Request(name="All_Beauty", home=tmp_path, source=source, options={"columns": COLUMNS}))
    return tmp_path


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_the_official_all_beauty_split_is_reproduced_byte_for_byte(
    part: str, all_beauty: Path, shared_data: Path
) -> None:
    export(open_dataset("All_Beauty", all_beauty), "amazon2023", all_beauty / "out")
    official = shared_data / "amazon2023" / "benchmark" / "5core" / "last_out_w_his" / f"All_Beauty.{part}.csv.gz"
    assert (all_beauty / "out" / f"All_Beauty.{part}.csv").read_bytes() == gzip.decompress(official.read_bytes())


def test_what_is_asked_is_the_official_row_history_included(all_beauty: Path, shared_data: Path) -> None:
    dataset = open_dataset("All_Beauty", all_beauty)
    users, items = (table["raw_id"].to_numpy() for table in (dataset.users(), dataset.items()))
    longest = 0
    for split in ("valid", "test"):
        folder = shared_data / "amazon2023" / "benchmark" / "5core" / "last_out_w_his"
        text = gzip.decompress((folder / f"All_Beauty.{split}.csv.gz").read_bytes()).decode()
        official = {row["user_id"]: row for row in csv.DictReader(io.StringIO(text))}
        queries = dataset.queries(split)  # type: ignore[arg-type]
        assert len(queries) == len(official) == 253
        for r in range(len(queries)):
            row = official[users[queries.histories.users[r] - 1]]
            assert items[queries.targets[r] - 1] == row["parent_asin"]
            assert items[queries.histories.row(r) - 1].tolist() == row["history"].split(" ")
            longest = max(longest, len(queries.histories.row(r)))
    assert longest == 62


def test_the_official_cuts_in_time_are_a_temporal_split(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "amazon2023" / "benchmark" / "5core" / "rating_only" / "All_Beauty.csv.gz"
    if not source.exists():
        pytest.skip(f"no real data at {source}")
    prepare(
        Request(
            name="cut",
            home=tmp_path,
            source=source,
            options={"columns": COLUMNS},
            split="temporal",
            target="successive",
            valid_from="1628643414042",
            test_from="1658002729837",
        )
    )
    export(open_dataset("cut", tmp_path), "amazon2023", tmp_path / "out")
    raw = pd.read_csv(source)
    expected = {
        "train": raw["timestamp"] < 1628643414042,
        "valid": (raw["timestamp"] >= 1628643414042) & (raw["timestamp"] < 1658002729837),
        "test": raw["timestamp"] >= 1658002729837,
    }
    for part, rows in expected.items():
        found = pd.read_csv(tmp_path / "out" / f"cut.{part}.csv")
        pd.testing.assert_frame_equal(found[[*raw]], raw[rows].reset_index(drop=True))


def test_a_hugging_face_folder_has_one_schema_a_configuration_and_a_head_that_names_every_file(
    tiny_home: Path, tmp_path: Path
) -> None:
    dataset = open_dataset("tiny", tiny_home)
    (said,) = export(dataset, "huggingface", tmp_path / "hf")
    assert "load_dataset" in said
    readme = (tmp_path / "hf" / "README.md").read_text()
    head = readme.split("---\n")[1]
    named = [line.split(": ")[1] for line in head.splitlines() if line.strip().startswith("path:")]
    assert sorted(named) == sorted(f"data/{path.name}" for path in (tmp_path / "hf" / "data").iterdir())
    assert 'size_categories: ["1K<n<10K"]' in head
    assert "## Length" in readme
    parts = {
        name: pq.read_table(tmp_path / "hf" / "data" / f"{name}.parquet") for name in ("train", "validation", "test")
    }
    assert len({str(table.schema.remove_metadata()) for table in parts.values()}) == 1
    assert sum(table.num_rows for table in parts.values()) == dataset.card.interactions
    assert not any(parts["train"].column("is_target").to_pylist())
    events = parts["test"].to_pandas()
    raw = dataset.items()["raw_id"].to_numpy()
    assert (raw[events["item"].to_numpy() - 1] == events["item_raw_id"].to_numpy()).all()


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_a_folder_does_not_go_to_stdout(name: str, tiny_home: Path) -> None:
    with pytest.raises(RecbenchError, match="is a folder") as error:
        export(open_dataset("tiny", tiny_home), name, io.BytesIO())
    assert error.value.fix == "--output FOLDER"


def test_an_unknown_format_names_the_nearest(tiny_home: Path, tmp_path: Path) -> None:
    with pytest.raises(RecbenchError, match="Unknown export format 'hugingface'") as error:
        export(open_dataset("tiny", tiny_home), "hugingface", tmp_path / "x")
    assert all(name in error.value.why for name in FORMATS)
    assert "huggingface" in error.value.fix


def test_a_place_that_cannot_be_written_is_refused(tiny_home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecbenchError, match="cannot be written"):
        export(open_dataset("tiny", tiny_home), "amazon2023", tmp_path / "file")


def test_ids_with_commas_and_quotes_survive_the_amazon_format(tmp_path: Path) -> None:
    rows = [["a,b", 'q"1', 1], ["a,b", "c", 2], ["a,b", "d", 3], ["z", "c", 4], ["z", "d", 5], ["z", 'q"1', 6]]
    with (tmp_path / "t.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["user", "item", "timestamp"], *rows])
    prepare(Request(name="x", home=tmp_path, source=tmp_path / "t.csv", core=0))
    export(open_dataset("x", tmp_path), "amazon2023", tmp_path / "out")
    test = pd.read_csv(tmp_path / "out" / "x.test.csv")
    assert test["user_id"].tolist() == ["a,b", "z"]
    assert test["history"].tolist() == ['q"1 c', "c d"]
    assert np.isnan(test["rating"]).all()


def test_items_whose_ids_hold_blanks_have_no_amazon_history(tmp_path: Path) -> None:
    rows = [f"u {u},i {i},{i}" for u in range(3) for i in range(4)]
    (tmp_path / "raw.csv").write_text("\n".join(["user,item,timestamp", *rows, ""]))
    prepare(Request(name="blanks", home=tmp_path, source=tmp_path / "raw.csv", core=0))
    with pytest.raises(RecbenchError, match=r"The id 'i \d' holds a blank") as error:
        export(open_dataset("blanks", tmp_path), "amazon2023", tmp_path / "out")
    assert error.value.fix == "--format csv"
    assert not (tmp_path / "out").exists()


def test_recbole_that_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    rows = [f'"u\t{u}",i{i},{i}' for u in range(3) for i in range(4)]
    (tmp_path / "raw.csv").write_text("\n".join(["user,item,timestamp", *rows, ""]))
    prepare(Request(name="tabs", home=tmp_path, source=tmp_path / "raw.csv", core=0))
    with pytest.raises(RecbenchError, match="holds a tab"):
        export(open_dataset("tabs", tmp_path), "recbole", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("asked", [{}, {"min_rating": 3}, {"ties": "hash"}], ids=["whole", "filtered", "hash"])
def test_a_csv_prepared_again_has_the_same_sequences(asked: dict[str, object], tmp_path: Path) -> None:
    events = [
        f"u{n % 5},i{7 * n % 11},{0 if n < 2 else 5},{n // 20}" for n in range(60)
    ]  # two users lose their first event
    (tmp_path / "raw.csv").write_text("\n".join(["user,item,rating,timestamp", *events, ""]))
    card = prepare(Request(name="x", home=tmp_path, source=tmp_path / "raw.csv", core=0, **asked))  # type: ignore[arg-type]
    export(open_dataset("x", tmp_path), "csv", tmp_path / "out.csv")
    again = prepare(Request(name="again", home=tmp_path, source=tmp_path / "out.csv", core=0))
    assert again.sequence_sha256 == card.sequence_sha256
    assert (again.fingerprint == card.fingerprint) == (not asked)
