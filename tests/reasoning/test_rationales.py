"""Rationales that somebody has written: how they are read, cut and counted, and what stands in where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recbench.data import encoder as encoders
from recbench.data.batching import TrainingRows
from recbench.data.dataset import Dataset, open_dataset
from recbench.data.knowledge import ItemKnowledge
from recbench.errors import Exit, RecbenchError
from recbench.reasoning.anchors import AnchorConfig, Anchors, source
from recbench.reasoning.rationales import cut, sentences
from tests.reasoning.test_anchors import Described, config, rows_of, told
from tests.systems import CPU, small_system


@pytest.fixture(scope="module")
def tiny(tiny_home: Path) -> Dataset:
    return open_dataset("tiny", tiny_home)


@pytest.fixture
def bare(tiny: Dataset, tmp_path: Path) -> Dataset:
    """A copy of ``tiny`` whose items have no text."""
    shutil.copytree(tiny.folder, tmp_path / "home" / "tiny")
    dataset = open_dataset("tiny", tmp_path / "home")
    items = dataset.items()
    items["title"] = items["brand"] = None
    items["categories"] = [[] for _ in range(len(items))]
    items.to_parquet(dataset.folder / "items.parquet", index=False)
    return dataset


def written(folder: Path, *lines: str, **changes: object) -> AnchorConfig:
    (folder / "why.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return config(file=str(folder / "why.jsonl"), **changes)


def line(dataset: Dataset, user: int, said: str | list[str], position: int = 1) -> str:
    """What is said of the target at that place of the training sequence of the user on row ``user``."""
    names = {number: name for name, number in ItemKnowledge(dataset).users().items()}
    name = names[int(dataset.training().users[user])]
    kind = "segments" if isinstance(said, list) else "text"
    return json.dumps({"user": name, "position": position, kind: said})


def anchors_of(
    dataset: Dataset, settings: AnchorConfig, knowledge: ItemKnowledge | None = None
) -> tuple[Anchors, dict[str, Any], np.ndarray]:
    """Anchors of all training targets, what is said of them, and where the targets stand."""
    model, rows = small_system("sasrec", "lasar", dataset.n_items), rows_of(dataset)
    found = source(settings, model.backbone, told(rows, knowledge or ItemKnowledge(dataset)))
    batch = next(rows.batches(10_000, np.random.default_rng(0), CPU))
    assert batch.place_Q is not None
    return found.of(batch, torch.arange(len(batch.at_Q)), rows), found.facts, batch.place_Q


def targets_of(dataset: Dataset, users: list[int], place_Q: np.ndarray) -> Tensor:
    """Which targets are the second event of these users."""
    return torch.from_numpy(np.isin(place_Q, dataset.training().starts[users] + 1))


def test_written_rationales_are_read_and_the_rest_falls_back_to_templates(tiny: Dataset, tmp_path: Path) -> None:
    knowledge = Described(tiny, [f"word{i % 3} word{i % 5}" for i in range(tiny.n_items)])
    wanted = written(tmp_path, line(tiny, 5, ["word0 word1", "word2", "word4"]))
    anchors, facts, place_Q = anchors_of(tiny, wanted, knowledge)
    assert (facts["source"], facts["templates_of"]) == ("file", "text")
    assert facts["rationales"] == 1
    assert anchors.s_P[targets_of(tiny, [5], place_Q)].tolist() == [3]
    assert (anchors.s_P > 0).all()


SAID = [["red pen", "blue ink"], ["red ink"], ["blue pen", "red pen", "black paper"], ["black ink blue paper"]]


def test_without_item_text_rationales_have_a_space_of_their_own_and_templates_are_of_what_is_near(
    bare: Dataset, tmp_path: Path
) -> None:
    lines = [line(bare, user, said) for user, said in enumerate(SAID)]
    anchors, facts, place_Q = anchors_of(bare, written(tmp_path, *lines))
    assert (facts["source"], facts["made_of"], facts["templates_of"]) == ("file", "text", "cooc")
    assert (facts["rationales"], facts["interactions_with_text"]) == (4, 0.0)
    has_Q = targets_of(bare, [0, 1, 2, 3], place_Q)
    assert sorted(anchors.s_P[has_Q].tolist()) == [1, 1, 2, 3]
    assert anchors.c_PSX.isfinite().all()
    own = targets_of(bare, [0], place_Q)
    (red_pen, blue_ink), (again, _) = anchors.c_PSX[own][0, :2], anchors.c_PSX[targets_of(bare, [2], place_Q)][0, 1:3]
    torch.testing.assert_close(again, red_pen)
    assert (red_pen - blue_ink).abs().max() > 0.5
    near, _, _ = anchors_of(bare, config(kind="cooc"))
    assert (anchors.s_P[~has_Q] > 0).float().mean() == (near.s_P[~has_Q] > 0).float().mean() > 0.99
    torch.testing.assert_close(anchors.s_P[~has_Q], near.s_P[~has_Q])
    torch.testing.assert_close(anchors.c_PSX[~has_Q][:, :7], near.c_PSX[~has_Q])


def test_where_few_training_events_have_text_templates_are_of_what_is_near(tiny: Dataset, tmp_path: Path) -> None:
    few = Described(tiny, ["red pen", *[""] * (tiny.n_items - 1)])
    lines = [line(tiny, user, said) for user, said in enumerate(SAID)]
    anchors, facts, _ = anchors_of(tiny, written(tmp_path, *lines), few)
    assert facts["templates_of"] == "cooc"
    assert (anchors.s_P > 0).float().mean() > 0.99
    strangers = Described(tiny, [f"title{i}" for i in range(tiny.n_items)])  # no word of theirs stands in two texts
    anchors, facts, _ = anchors_of(tiny, written(tmp_path, *lines), strangers)
    assert (facts["templates_of"], facts["interactions_with_text"]) == ("cooc", 1.0)
    assert anchors.c_PSX.isfinite().all()


def test_an_encoder_is_not_asked_for_item_texts_that_are_not_there(
    bare: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def encode(encoder: str, texts: Sequence[str]) -> np.ndarray:
        asked.extend(texts)
        return np.stack([np.random.default_rng([*text.encode(), 1]).standard_normal(24) for text in texts]).astype("f4")

    monkeypatch.setattr(encoders, "encode", encode)
    monkeypatch.setattr(encoders, "identity", lambda encoder: {"hub": encoder})
    lines = [line(bare, user, said) for user, said in enumerate(SAID)]
    anchors, facts, place_Q = anchors_of(bare, written(tmp_path, *lines, encoder="some/encoder"))
    assert asked == [text for said in SAID for text in said]
    assert (facts["made_of"], facts["templates_of"], facts["width"]) == ("encoder", "cooc", 24)
    assert sorted(anchors.s_P[targets_of(bare, [0, 1, 2, 3], place_Q)].tolist()) == [1, 1, 2, 3]
    assert anchors.c_PSX.isfinite().all()


def test_a_rationale_without_a_known_word_falls_back_to_the_template_and_is_counted(
    tiny: Dataset, tmp_path: Path
) -> None:
    knowledge = Described(tiny, [f"word{i % 3} word{i % 5}" for i in range(tiny.n_items)])
    lines = [line(tiny, 0, "word0. Word1."), line(tiny, 1, "Qwrk zzyx."), line(tiny, 2, ["lorem", "word2", "ipsum"])]
    anchors, facts, place_Q = anchors_of(tiny, written(tmp_path, *lines), knowledge)
    assert (facts["rationales"], facts["without_known_words"]) == (2, 1)
    assert facts["coverage"] == 2 / len(place_Q)
    without, _, _ = anchors_of(tiny, config(), knowledge)
    own = targets_of(tiny, [1], place_Q)
    assert anchors.s_P[own] == without.s_P[own] > 0
    assert anchors.s_P[targets_of(tiny, [2], place_Q)].tolist() == [1]
    with pytest.raises(RecbenchError, match=r"No rationale of .* can be used") as caught:
        anchors_of(tiny, written(tmp_path, lines[1]), knowledge)
    assert "None has a word" in caught.value.why


def test_coverage_is_the_share_of_targets_however_often_each_is_asked_for(tiny: Dataset, tmp_path: Path) -> None:
    model = small_system("sasrec", "lasar", tiny.n_items)
    wanted = written(tmp_path, line(tiny, 0, "blue pen. Blue pen."))
    rows = TrainingRows(tiny.training(), max_length=50, window="all", every_position=True)
    targets = np.unique(rows.target_events)
    assert len(targets) < rows.n_targets
    facts = source(wanted, model.backbone, told(rows, ItemKnowledge(tiny))).facts
    assert facts["coverage"] == 1 / len(targets)


def test_who_is_not_in_the_dataset_is_counted_once_and_each_of_their_lines(tiny: Dataset, tmp_path: Path) -> None:
    nobody = [f'{{"user": "{name}", "position": 1, "text": "word0."}}' for name in ("ann", "bob", "ann")]
    _, facts, _ = anchors_of(tiny, written(tmp_path, line(tiny, 0, "Blue pen. Blue pen."), *nobody))
    assert (facts["rationales"], facts["unknown_users"], facts["lines_of_unknown_users"]) == (1, 2, 3)


def test_two_rationales_of_one_target_are_refused_by_their_lines(tiny: Dataset, tmp_path: Path) -> None:
    lines = [line(tiny, 1, "pen"), "", line(tiny, 0, "pen"), line(tiny, 1, "ink")]
    with pytest.raises(RecbenchError, match=r"why\.jsonl:4: user .* has a rationale at position 1 already") as caught:
        anchors_of(tiny, written(tmp_path, *lines))
    assert "on line 1." in caught.value.why
    assert caught.value.code == Exit.DATA


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("{", "It is not JSON"),
        ('{"position": 1, "text": "a"}', "It lacks 'user'"),
        ('{"user": "u", "position": "1", "text": "a"}', "position is a whole number"),
        ('{"user": "u", "position": true, "text": "a"}', "position is a whole number"),
        ('{"user": "u", "position": 1, "segments": []}', "not empty"),
        ("[1]", "It is not an object"),
        ("[" * 100_000, "It is not JSON"),
        ('{"user": "u", "position": ' + "1" * 5_000 + ', "text": "a"}', "It is not JSON"),
        ('{"user": "nobody", "position": 1, "text": "a"}', "none of which names a user"),
        ("", "It holds no line"),
    ],
)
def test_a_file_of_rationales_that_cannot_be_used_is_refused(
    tiny: Dataset, tmp_path: Path, wrong: str, message: str
) -> None:
    with pytest.raises(RecbenchError) as caught:
        anchors_of(tiny, written(tmp_path, wrong))
    assert message in f"{caught.value.what} {caught.value.why}"
    assert caught.value.code == Exit.DATA


def test_a_mark_of_byte_order_is_no_part_of_the_first_line(tiny: Dataset, tmp_path: Path) -> None:
    wanted = written(tmp_path, "\ufeff" + line(tiny, 0, "Blue pen. Blue pen."))
    assert anchors_of(tiny, wanted)[1]["rationales"] == 1


def test_a_line_ends_at_a_newline_alone(tiny: Dataset, tmp_path: Path) -> None:
    """JSON lets a text hold line separators of Unicode as they are, and language models write them."""
    said = json.loads(line(tiny, 0, "Blue pen.\u2028Blue pen.\x85Blue pen."))
    wanted = written(tmp_path, json.dumps(said, ensure_ascii=False) + "\r", line(tiny, 1, "Blue pen. Blue pen."))
    assert anchors_of(tiny, wanted)[1]["rationales"] == 2


def test_a_rationale_of_a_held_out_event_is_refused(tiny: Dataset, tmp_path: Path) -> None:
    too_late = line(tiny, 0, "a", position=int(tiny.training().lengths[0]))
    with pytest.raises(RecbenchError, match="would leak it"):
        anchors_of(tiny, written(tmp_path, too_late))


def test_a_text_is_cut_where_neighbouring_sentences_differ_and_joined_until_it_is_short_enough() -> None:
    assert sentences("One. Two!  Three?\nFour") == ["One.", "Two!", "Three?", "Four"]
    e = np.eye(3)
    x = np.stack([e[0], e[0], e[0], e[1], e[1], e[2]])
    assert len(cut(x, 8, whole=False)) == 3
    assert len(cut(x, 2, whole=False)) == 2
    assert len(cut(x, 8, whole=True)) == 6
