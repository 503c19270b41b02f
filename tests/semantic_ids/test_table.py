"""The table: unique rows, tokens of their own, suffixes, what the report counts; and how it is built and kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbench.data.dataset import Dataset, open_dataset
from recbench.data.vectors import Vectors
from recbench.errors import RecbenchError
from recbench.semantic_ids import build
from recbench.semantic_ids.build import CODES, id_settings, ids_of, semantic_ids
from recbench.semantic_ids.table import N_SPECIAL, PAD, TooManyAlikeError, appended, report, suffixes, table_of
from tests.semantic_ids.spelling import random_table


def vectors(n: int = 300, *, copies: int = 1, unknown: int = 0) -> Vectors:
    """Drawn vectors, each ``copies`` times; the last ``unknown`` items have none."""
    drawn = np.random.default_rng(0).normal(size=(-(-n // copies), 8)).astype(np.float32)
    known = np.arange(n) < n - unknown
    x = np.repeat(drawn, copies, axis=0)[:n] * known[:, None]
    return Vectors(x.astype(np.float32), known, {"source": "text"})


@pytest.mark.parametrize("dedup", ["suffix", "sinkhorn"])
def test_rows_are_unique_and_inside_their_levels(dedup: str) -> None:
    table = ids_of(vectors(copies=3), id_settings({"ids": {"dedup": dedup, "codes": 8}}), seed=0)
    codes = table.codes_VM
    assert codes.dtype == np.int16
    assert (codes[0] == -1).all()
    assert len(np.unique(codes[1:], axis=0)) == 300
    assert codes[1:].min() >= 0
    assert (codes[1:] < np.array(table.level_sizes)).all()
    assert table.card["unique"] == 300


def test_the_same_seed_gives_the_same_table_and_another_seed_another() -> None:
    settings = id_settings({"ids": {"codes": 8}})
    one, same, other = (ids_of(vectors(), settings, seed) for seed in (0, 0, 1))
    assert one.card["codes_sha256"] == same.card["codes_sha256"] != other.card["codes_sha256"]
    assert np.array_equal(one.codes_VM, same.codes_VM)
    assert not np.array_equal(one.codes_VM, other.codes_VM)


def test_items_to_tokens_and_back_is_the_identity_and_levels_share_no_token() -> None:
    table = random_table(50, (4, 6, 3))
    tokens = table.tokens()
    assert (tokens[0] == PAD).all()
    back = {tuple(row): item for item, row in enumerate(tokens) if item}
    assert [back[tuple(row)] for row in tokens[1:]] == list(range(1, 51))
    per_level = [set(tokens[1:, level].tolist()) for level in range(len(table))]
    assert sum(map(len, per_level)) == len(set().union(*per_level))
    assert tokens[1:].min() >= N_SPECIAL
    assert tokens.max() < table.n_tokens


def test_a_suffix_is_0_alone_and_counts_within_a_group() -> None:
    codes = np.array([[0, 0], [1, 1], [0, 0], [2, 0], [0, 0]])
    found = suffixes(codes, seed=0, max_suffix=3)
    assert sorted(found[[0, 2, 4]].tolist()) == [0, 1, 2]
    assert found[[1, 3]].tolist() == [0, 0]
    orders = {tuple(suffixes(codes, seed, 3)[[0, 2, 4]]) for seed in range(20)}
    assert len(orders) > 2  # the order is drawn


def test_a_group_above_max_suffix_is_refused() -> None:
    with pytest.raises(TooManyAlikeError, match="3 items have equal codes; max_suffix is 2") as error:
        suffixes(np.array([[0], [0], [1], [0]]), seed=0, max_suffix=2)
    assert error.value.group.tolist() == [0, 1, 3]


def test_new_items_take_the_next_free_suffix_and_renumber_nobody() -> None:
    table = table_of(np.array([[0, 1, 0], [0, 1, 1], [2, 2, 0]]), (3, 3, 2), ())
    grown = appended(table, np.array([[0, 1], [1, 1], [0, 1]]))
    assert np.array_equal(grown.codes_VM[:4], table.codes_VM)
    assert grown.codes_VM[4:].tolist() == [[0, 1, 2], [1, 1, 0], [0, 1, 3]]
    assert grown.level_sizes == (3, 3, 4)
    with pytest.raises(ValueError, match="outside"):
        appended(table, np.array([[3, 0]]))


def test_the_report_counts_by_hand() -> None:
    found = report(np.array([[0, 0], [0, 0], [0, 1], [1, 1], [1, 1], [1, 1]]), (2, 4))
    assert found["paths"] == 3
    assert found["collision_rate"] == pytest.approx(0.5)
    assert found["items_in_groups"] == pytest.approx(5 / 6)
    assert (found["groups"], found["largest_group"], found["largest_groups"]) == (2, 3, [[4, 5, 6], [1, 2]])
    first, second = found["levels"]
    assert first == {"codes": 2, "used": 2, "perplexity": pytest.approx(2.0), "largest": 3, "prefixes": 2}
    assert (second["used"], second["largest"], second["prefixes"]) == (2, 4, 3)
    assert second["perplexity"] == pytest.approx(np.exp(-(2 / 6 * np.log(2 / 6) + 4 / 6 * np.log(4 / 6))))


def test_accepted_groups_share_a_path_and_have_no_suffix() -> None:
    table = ids_of(vectors(copies=3), id_settings({"ids": {"dedup": "accept", "codes": 8, "levels": 2}}), seed=0)
    assert table.codes_VM.shape == (301, 2)
    assert np.array_equal(table.codes_VM[1], table.codes_VM[2])
    assert table.card["unique"] == table.card["report"]["paths"] < 300


@pytest.mark.parametrize(("items", "size"), [(100, 25), (400, 64), (1999, 64), (2000, 256)])
def test_levels_are_as_wide_as_the_catalogue_allows(items: int, size: int) -> None:
    assert build._size(items) == size


def test_up_to_256_equal_items_are_told_apart_by_default() -> None:
    settings = id_settings({"ids": {"codes": 2, "levels": 1}})
    assert ids_of(vectors(512, copies=256), settings, seed=0).level_sizes == (2, 256)
    with pytest.raises(TooManyAlikeError, match="257 items have equal codes"):
        ids_of(vectors(514, copies=257), settings, seed=0)


def test_settings_of_sinkhorn_reach_the_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[float, int]] = []

    def told(codes_NL: np.ndarray, _distances: np.ndarray, eps: float, rounds: int) -> np.ndarray:
        given.append((eps, rounds))
        return codes_NL

    monkeypatch.setattr(build, "repair", told)
    ids_of(vectors(), id_settings({"ids": {"dedup": "sinkhorn", "codes": 8}}), seed=0)
    more = {"sinkhorn_eps": 0.5, "sinkhorn_rounds": 3}
    ids_of(vectors(), id_settings({"ids": {"dedup": "sinkhorn", "codes": 8, **more}}), seed=0)
    assert given == [(0.003, 20), (0.5, 3)]


def test_sinkhorn_leaves_fewer_collisions_than_there_were() -> None:
    table = ids_of(vectors(), id_settings({"ids": {"dedup": "sinkhorn", "codes": 32, "levels": 2}}), seed=0)
    assert table.card["after_dedup"]["collision_rate"] < 0.5 * table.card["report"]["collision_rate"]


def test_items_without_vectors_do_not_pile_up_on_one_path() -> None:
    table = ids_of(vectors(unknown=100), id_settings({"ids": {"codes": 16}}), seed=0)
    assert len(np.unique(table.codes_VM[-100:, :3], axis=0)) > 90


def test_fewer_items_than_codes_are_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match="rkmeans with 64 codes needs 64 items with vectors; there are 30"):
        ids_of(vectors(30), id_settings({"ids": {"codes": 64}}), seed=0)
    with pytest.raises(ValueError, match="balanced with 64 codes needs 128 items"):
        ids_of(vectors(100), id_settings({"ids": {"codes": 64}}, "balanced"), seed=0)


@pytest.fixture
def tiny(tiny_home: Path, tmp_path: Path) -> Dataset:
    """A copy to write into."""
    shutil.copytree(tiny_home, tmp_path / "home")
    return open_dataset("tiny", tmp_path / "home")


def test_a_table_is_kept_by_what_determines_it_and_read_again(tiny: Dataset) -> None:
    settings = id_settings({"ids": {"codes": 8}})
    first, folder, was_there = semantic_ids(tiny, settings, 0)
    assert not was_there
    again, same, was_there = semantic_ids(tiny, settings, 0)
    assert was_there
    assert same == folder
    assert np.array_equal(first.codes_VM, again.codes_VM)
    assert first.level_sizes == again.level_sizes
    assert all(np.array_equal(a, b) for a, b in zip(first.codebooks, again.codebooks, strict=True))
    assert again.card == json.loads((folder / "card.json").read_text())
    others = [(settings, 1), (id_settings({"ids": {"codes": 9}}), 0), (id_settings({"features": {"width": 5}}), 0)]
    assert len({folder, *(semantic_ids(tiny, other, seed)[1] for other, seed in others)}) == 4


def test_a_damaged_table_is_built_again(tiny: Dataset) -> None:
    settings = id_settings({"ids": {"codes": 8}})
    first, folder, _ = semantic_ids(tiny, settings, 0)
    codes = pd.read_parquet(folder / CODES)
    codes.loc[0, "code_1"] = (codes.loc[0, "code_1"] + 1) % 8
    codes.to_parquet(folder / CODES, index=False)
    again, _, was_there = semantic_ids(tiny, settings, 0)
    assert not was_there
    assert np.array_equal(first.codes_VM, again.codes_VM)


@pytest.mark.parametrize("source", ["text", "cooc"])
def test_no_table_opens_validation_or_test_events(tiny: Dataset, source: str) -> None:
    for part in ("valid", "test", "interactions"):
        (tiny.folder / f"{part}.parquet").unlink()
    items = pd.read_parquet(tiny.folder / "items.parquet")
    items["title"] = [f"thing {n % 7} {n % 11}" for n in range(len(items))]
    items.to_parquet(tiny.folder / "items.parquet", index=False)
    table, _, _ = semantic_ids(tiny, id_settings({"features": {"source": source}, "ids": {"codes": 8}}), 0)
    assert table.card["features"]["source"] == source
    assert table.n_items == tiny.n_items


def test_too_many_alike_names_some_of_them(tiny: Dataset) -> None:
    items = pd.read_parquet(tiny.folder / "items.parquet")
    items["title"] = ["same old thing" if n < 50 else f"thing {n % 7} {n % 11}" for n in range(len(items))]
    items.to_parquet(tiny.folder / "items.parquet", index=False)
    settings = id_settings({"features": {"source": "text"}, "ids": {"codes": 8, "max_suffix": 20}})
    with pytest.raises(RecbenchError, match="items of tiny have equal codes") as error:
        semantic_ids(tiny, settings, 0)
    assert "Among them: 'thing 0 0', 'thing " in error.value.why
    assert "ids.max_suffix" in error.value.fix
