"""What segments say, written out by hand; their texts as anchors, encoded once, of training targets only."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.config import build
from recbench.data import encoder as encoders
from recbench.data.batching import Batch, TrainingRows
from recbench.data.dataset import Dataset, open_dataset
from recbench.data.knowledge import ItemKnowledge
from recbench.errors import Exit, RecbenchError
from recbench.reasoning.anchors import TEXT_WIDTH, ItemAnchors, source
from recbench.reasoning.kept import KeptSegments
from recbench.reasoning.segments import NAMES, heaviest, segments
from recbench.reasoning.wording import Texts, Told, WordAnchors, group_names, price_bands, write
from recbench.registry import HEADS
from tests.reasoning.test_anchors import config, told
from tests.systems import CPU, small_system

TITLES = ["", "blue pen", "red pen", "black ink", "", "stapler"]
BRANDS = ["", "Bic", "Bic", "Pelikan", "Novus", ""]
WINDOW = 6


def known() -> Told:
    """Items 1 and 2 are pens, 3 is ink, 4 has a brand only, 5 a title only; groups 1 pens, 2 ink, 3 without a category."""
    lines = ["", "blue pen. Bic. Pens", "red pen. Bic. Pens", "black ink. Pelikan. Ink", "Novus", "stapler"]
    titles = [title or line for title, line in zip(TITLES, lines, strict=True)]
    group_V, brand_V, band_V = (np.array(row) for row in ([0, 1, 1, 2, 3, 3], [0, 1, 1, 3, 2, 0], [0, 1, 2, 2, 2, 0]))
    return Told(
        lines, titles, group_V, ["", "Pens", "Ink", "novus"], brand_V, ["", "Bic", "Novus", "Pelikan"], band_V,
        ["", "$0-$5", "$5+"],
    )  # fmt: skip


def said(window: list[int], target: int, *, use_target: bool = True) -> dict[str, str]:
    """What each segment of one target says."""
    padded = torch.tensor([[0] * (WINDOW - len(window)) + window])
    next_group = torch.tensor([0, 2, 1, 1])
    group_V = torch.from_numpy(known().group_V)
    found = segments(padded, torch.tensor([target]), group_V, next_group, use_target=use_target)
    texts = Texts()
    row_S = write(found, known(), texts)[0]
    written = list(texts)
    return {name: written[row] for name, row in zip(NAMES, row_S, strict=True) if row >= 0}


# --- what they say --------------------------------------------------------------------------------------------------


def test_what_each_segment_says() -> None:
    assert said([5, 3, 1, 2], 3) == {
        "evidence": "black ink. Pelikan. Ink; blue pen. Bic. Pens; red pen. Bic. Pens",
        "theme 1": "Pens: blue pen; red pen",
        "preference": "Pens, Ink, novus. Bic, Pelikan. $5+",
        "intent": "Ink",
        "item": "black ink. Pelikan. Ink",
    }


def test_what_is_not_known_is_not_said() -> None:
    assert said([5, 4], 0) == {
        "evidence": "stapler; Novus", "theme 1": "novus: stapler; Novus", "preference": "novus. Novus. $5+",
    }  # fmt: skip
    assert said([], 5) == {"intent": "novus", "item": "stapler"}


def test_without_the_target_an_intent_is_guessed_and_no_item_is_named() -> None:
    found = said([3, 1], 5, use_target=False)
    assert found["intent"] == "Ink"
    assert "item" not in found


def test_equal_texts_are_kept_once_and_a_text_is_made_once_for_equal_keys() -> None:
    texts, asked = Texts(), []

    def say(key: list[int]) -> str:
        asked.append(key)
        return ["", "a", "b", "a"][key[0]]

    assert texts.rows(np.array([[1], [0], [3], [1], [2]]), say).tolist() == [0, -1, 0, 0, 1]
    assert len(asked) == 4
    assert list(texts) == ["a", "b"]
    assert texts.rows(np.array([[2]]), say).tolist() == [1]


def test_what_weighs_most_comes_first_and_of_equals_the_older() -> None:
    label = torch.tensor([[3, 1, 2, 2, 0, 0], [0, 0, 0, 0, 0, 7]])
    weight = torch.tensor([[0.5, 0.6, 0.4, 0.2, 9.0, 9.0]] * 2)
    assert heaviest(label, weight, 2).tolist() == [[1, 2], [7, 0]]
    assert heaviest(label, torch.ones(2, 6), 3).tolist() == [[2, 3, 1], [7, 0, 0]]
    assert heaviest(label[:, :2], weight[:, :2], 3).tolist() == [[1, 3, 0], [0, 0, 0]]


def test_bands_of_prices_hold_as_many_items_each() -> None:
    band, names = price_bands(np.array([np.nan, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 90.0]))
    assert names == ["", "$0-$3", "$3-$5", "$5-$7", "$7+"]
    assert band.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 4]
    assert price_bands(np.array([np.nan])) == ([0], [""])


def test_a_group_is_its_category_or_the_words_that_tell_it_from_others() -> None:
    texts = ["red pen", "blue pen", "pen ink", "red ink", "blue ink", ""]
    group = np.array([1, 1, 1, 2, 2, 0])
    assert group_names(texts, ["", "", "", "Ink", "", ""], group) == ["", "pen", "Ink"]
    assert group_names(texts, [""] * 6, group) == ["", "pen", "ink blue red"]


# --- looking up -----------------------------------------------------------------------------------------------------


def test_segments_that_were_kept_are_found_by_their_target() -> None:
    x = torch.eye(3)
    kept = KeptSegments(np.array([4, 9, 11]), np.array([2, 0, 3]), np.array([1, 0, 2, 2, 1]), x)
    found, count, known_P = kept.of(np.array([11, 5, 4, 9, 12]), 4)
    assert known_P.tolist() == [True, False, True, True, False]
    assert count.tolist() == [3, 0, 2, 0, 0]
    assert torch.equal(found[0], torch.stack([x[2], x[2], x[1], torch.zeros(3)]))
    assert torch.equal(found[2, :2], x[[1, 0]])
    assert not found[[1, 3, 4]].any()
    assert kept.of(np.array([11]), 2)[1].tolist() == [2]


# --- as anchors -----------------------------------------------------------------------------------------------------


@pytest.fixture
def described(tiny_home: Path, tmp_path: Path) -> Dataset:
    """A copy of ``tiny``, which has titles, brands, categories and prices, to cache beside."""
    shutil.copytree(tiny_home / "tiny", tmp_path / "home" / "tiny")
    return open_dataset("tiny", tmp_path / "home")


def training(dataset: Dataset) -> TrainingRows:
    return TrainingRows(dataset.training(), max_length=12, window="last", every_position=True)


def worded(dataset: Dataset, **changes: Any) -> tuple[WordAnchors, TrainingRows, Batch]:
    model, rows = small_system("sasrec", "lasar", dataset.n_items), training(dataset)
    found = source(config(pool="text", **changes), model.backbone, told(rows, ItemKnowledge(dataset)))
    assert isinstance(found, WordAnchors)
    return found, rows, next(rows.batches(300, np.random.default_rng(0), CPU))


def by_hand(dataset: Dataset, rows: TrainingRows, place: int) -> list[str]:
    """Texts of one training target, from the table of the items."""
    items, history = dataset.items(), rows.histories
    start = history.starts[np.searchsorted(history.starts, place, side="right") - 1]
    window, target = history.items[max(start, place - 20) : place], int(history.items[place])
    leaf = [names[-1] for names in items["categories"]]
    line = [f"{row.title}. {row.brand}. {leaf[n]}" for n, row in enumerate(items.itertuples())]
    groups = [leaf[item - 1] for item in window]
    weight = {name: sum(0.9**age for age, g in enumerate(groups[::-1]) if g == name) for name in groups}
    liked = sorted(weight, key=lambda name: -weight[name])[:3]
    count = {name: (groups.count(name), max(n for n, g in enumerate(groups) if g == name)) for name in groups}
    themes = [name for name in sorted(count, key=lambda name: count[name], reverse=True) if count[name][0] > 1][:3]
    out = ["; ".join(line[item - 1] for item in window[-3:])]
    for name in themes:
        titles = [items["title"][item - 1] for item, g in zip(window, groups, strict=True) if g == name]
        out.append(f"{name}: {'; '.join(titles)}")
    return [*out, ", ".join(liked), leaf[target - 1], line[target - 1]]


def test_the_texts_of_a_target_are_those_of_its_history_and_encoded_as_they_are(described: Dataset) -> None:
    found, rows, batch = worded(described, merge=1.1)
    space = ItemKnowledge(described).text_space(TEXT_WIDTH)
    for q in range(0, len(batch.at_Q), 40):
        assert batch.place_Q is not None
        texts = by_hand(described, rows, int(batch.place_Q[q]))
        alone = found.of(batch, torch.tensor([q]), rows)
        assert alone.s_P.tolist() == [len(texts)]
        for s, text in enumerate(texts):
            if s == len(texts) - 3:  # brands and the band stand behind the groups
                continue
            unit = F.normalize(torch.from_numpy(space.vectors([text])).float(), dim=1)
            torch.testing.assert_close(alone.c_PSX[0, s], found.lift(unit)[0], atol=1e-5, rtol=1e-5)


def test_a_run_says_how_much_was_written_and_kept(described: Dataset) -> None:
    found, rows, _ = worded(described)
    targets = np.unique(rows.target_events)
    assert found.facts["source"] == "text"
    assert found.facts["pool"] == "text"
    assert 4 * len(targets) <= found.facts["segments"] <= 7 * len(targets)
    assert found.facts["unique_strings"] == len(found.kept.x_UA) - 1 < found.facts["segments"]
    again, _, _ = worded(described)
    assert again.facts == found.facts
    assert worded(described, window=3)[0].facts["strings_sha256"] != found.facts["strings_sha256"]


def test_texts_that_say_the_same_are_merged_and_no_more_segments_than_thoughts_are_left(described: Dataset) -> None:
    every = torch.arange(200)
    split, rows, batch = worded(described, merge=1.1)
    joined, one = (worded(described, merge=merge, most=most)[0] for merge, most in ((0.3, 8), (1.1, 2)))
    s_P = split.of(batch, every, rows).s_P
    assert (joined.of(batch, every, rows).s_P <= s_P).all()
    assert joined.of(batch, every, rows).s_P.sum() < s_P.sum()
    assert one.of(batch, every, rows).s_P.max() == 2


def test_the_last_of_a_few_texts_is_still_the_target(described: Dataset) -> None:
    every = torch.arange(200)
    (all_of, rows, batch), (few_of, _, _) = (worded(described, merge=1.1, most=most) for most in (8, 5))
    found, few = all_of.of(batch, every, rows), few_of.of(batch, every, rows)
    assert found.s_P.max() == 7
    assert few.s_P.tolist() == found.s_P.clamp_max(5).tolist()
    last_PD, of_few_PD = (anchors.c_PSX[every, anchors.s_P - 1] for anchors in (found, few))
    apart_P = (of_few_PD - last_PD).square().mean(1)
    assert apart_P.max() < 1  # of unrelated ones, normed: 2; some are joined with what stands before them


def test_the_text_of_a_target_stays_by_itself_where_it_is_not_to_merge(described: Dataset) -> None:
    every = torch.arange(200)
    (seeing, rows, batch), (blind, _, _) = (worded(described, merge=0.3, merge_target=told) for told in (True, False))
    (history, _, _) = worded(described, merge=0.3, use_target=False)
    guessed_P, blind_P = history.of(batch, every, rows).s_P, blind.of(batch, every, rows).s_P
    assert ((blind_P == guessed_P) | (blind_P == guessed_P + 1)).all()  # the guess of the intent merges or does not
    assert not torch.equal(seeing.of(batch, every, rows).s_P, blind_P)
    assert blind.facts["merge_target"] is False


def test_auto_takes_text_too_and_items_stay_the_default(described: Dataset) -> None:
    model, rows = small_system("sasrec", "lasar", described.n_items), training(described)
    context = told(rows, ItemKnowledge(described))
    assert isinstance(source(config(kind="text", pool="text"), model.backbone, context), WordAnchors)
    items = source(config(), model.backbone, context)
    assert isinstance(items, ItemAnchors)
    assert items.facts["pool"] == "items"


def test_texts_are_made_without_a_look_at_validation_or_test(described: Dataset) -> None:
    anchors, rows, batch = worded(described)
    before = anchors.of(batch, torch.arange(50), rows).c_PSX
    for name in ("valid.parquet", "test.parquet"):
        (described.folder / name).unlink()
    again, rows, batch = worded(described)
    assert torch.equal(again.of(batch, torch.arange(50), rows).c_PSX, before)


def test_only_training_targets_have_texts(described: Dataset) -> None:
    found, rows, batch = worded(described)
    some = torch.tensor([0, 3])
    with pytest.raises(ValueError, match="training targets only"):
        found.of(replace(batch, place_Q=None), some, rows)
    assert batch.place_Q is not None
    first, beyond = int(rows.histories.starts[0]), len(rows.histories.items)
    for place in (first, beyond):  # nothing stands before the first event; behind the last are validation and test
        with pytest.raises(ValueError, match="training targets only"):
            found.of(replace(batch, place_Q=np.full_like(batch.place_Q, place)), some, rows)


@pytest.mark.parametrize("kind", ["auto", "cooc"])
def test_a_dataset_without_text_has_none_to_write(described: Dataset, kind: str) -> None:
    items = described.items()
    items["title"] = items["brand"] = None
    items["categories"] = [[] for _ in range(len(items))]
    items.to_parquet(described.folder / "items.parquet", index=False)
    with pytest.raises(RecbenchError, match=r"head\.segment_pool is text, but anchors are made of cooc") as caught:
        worded(described, kind=kind)
    assert caught.value.code == Exit.DATA
    assert "0 % of the training events" in caught.value.why
    assert "segment_pool=items" in caught.value.fix


@pytest.mark.parametrize(
    ("settings", "of"),
    [
        ({"anchor": "cooc"}, "cooc"),
        ({"anchor": "backbone"}, "backbone"),
        ({"anchor": "codes"}, "codes"),
        ({"anchor": "file", "rationale_file": "why.jsonl"}, "file"),
        ({"rationale_file": "why.jsonl"}, "file"),
    ],
)
def test_only_anchors_of_text_are_written_out(settings: dict[str, str], of: str) -> None:
    with pytest.raises(RecbenchError) as caught:
        build(HEADS.load("lasar").Config, {"segment_pool": "text", **settings}, "head")
    assert f"segment_pool is text and anchors are of {of}" in caught.value.why
    assert "--set head.segment_pool=VALUE" in caught.value.fix
    assert caught.value.code == Exit.USAGE


@pytest.mark.parametrize("anchor", ["auto", "text", "cooc", "codes"])
def test_only_a_backbone_reads_behind_a_history(anchor: str) -> None:
    with pytest.raises(RecbenchError) as caught:
        build(HEADS.load("lasar").Config, {"anchor_context": "prompt", "anchor": anchor}, "head")
    assert f"anchor_context is prompt and anchor is {anchor}" in caught.value.why
    assert caught.value.code == Exit.USAGE


# --- by a sentence encoder ------------------------------------------------------------------------------------------


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A stand-in for an encoder, which is not linear in words, and what it was asked."""
    asked: list[list[str]] = []

    def encode(encoder: str, texts: Sequence[str]) -> np.ndarray:
        asked.append(list(texts))
        return np.stack([np.random.default_rng([*text.encode(), 1]).standard_normal(24) for text in texts]).astype("f4")

    monkeypatch.setattr(encoders, "encode", encode)
    monkeypatch.setattr(encoders, "identity", lambda encoder: {"hub": encoder})
    return asked


def test_an_encoder_reads_every_text_once_and_none_in_training(described: Dataset, encoded: list[list[str]]) -> None:
    found, rows, batch = worded(described, encoder="some/encoder", merge=1.1)
    assert [len(texts) for texts in encoded] == [described.n_items, found.facts["unique_strings"]]
    assert len(set(encoded[1])) == len(encoded[1])
    assert "" not in encoded[1]
    anchors = found.of(batch, torch.arange(len(batch.at_Q)), rows)
    assert len(encoded) == 2
    for q in (0, 77):
        assert batch.place_Q is not None
        text = by_hand(described, rows, int(batch.place_Q[q]))[-1]
        unit = F.normalize(torch.from_numpy(encoders.encode("", [text])), dim=1)
        torch.testing.assert_close(anchors.c_PSX[q, int(anchors.s_P[q]) - 1], found.lift(unit)[0])


def test_what_an_encoder_read_is_kept_for_the_next_stage_and_the_next_run(
    described: Dataset, encoded: list[list[str]]
) -> None:
    def anchors() -> Tensor:
        found, rows, batch = worded(described, encoder="some/encoder")
        return found.of(batch, torch.arange(20), rows).c_PSX

    first, calls = anchors(), len(encoded)
    assert torch.equal(anchors(), first)
    assert len(encoded) == calls
    worded(described, encoder="another/encoder")
    assert len(encoded) == calls + 2


@pytest.mark.parametrize("anchor", ["auto", "file"])
def test_how_many_segments_a_file_writes_is_not_for_a_setting_to_say(anchor: str) -> None:
    given = {"anchor": anchor, "rationale_file": "why.jsonl", "merge_target": False}
    with pytest.raises(RecbenchError) as caught:
        build(HEADS.load("lasar").Config, given, "head")
    assert "merge_target is false, but rationales are of a file" in caught.value.why
    assert caught.value.code == Exit.USAGE
