"""Rationales that somebody has written: how they are read, cut and counted, and what stands in where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recbench.data.dataset import Dataset, open_dataset
from recbench.data.knowledge import ItemKnowledge
from recbench.errors import Exit, RecbenchError
from recbench.reasoning.anchors import AnchorConfig, source
from recbench.reasoning.rationales import cut, sentences
from tests.reasoning.test_anchors import Described, config, rows_of, told
from tests.systems import CPU, small_system


@pytest.fixture(scope="module")
def tiny(tiny_home: Path) -> Dataset:
    return open_dataset("tiny", tiny_home)


def written(tiny: Dataset, folder: Path, *lines: str) -> AnchorConfig:
    (folder / "why.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return config(file=str(folder / "why.jsonl"))


def test_written_rationales_are_read_and_the_rest_falls_back_to_templates(tiny: Dataset, tmp_path: Path) -> None:
    model = small_system("sasrec", "lasar", tiny.n_items)
    names = {user: name for name, user in ItemKnowledge(tiny).users().items()}
    training = tiny.training()
    user = int(training.users[np.argmax(training.lengths)])
    knowledge = Described(tiny, [f"word{i % 3} word{i % 5}" for i in range(tiny.n_items)])
    wanted = written(
        tiny,
        tmp_path,
        f'{{"user": "{names[user]}", "position": 1, "segments": ["word0 word1", "word2", "word4"]}}',
        '{"user": "nobody", "position": 1, "text": "word0."}',
    )
    rows = rows_of(tiny)
    found = source(wanted, model.backbone, told(rows, knowledge))
    assert found.facts["source"] == "file"
    assert (found.facts["rationales"], found.facts["unknown_users"]) == (1, 1)
    batch = next(rows.batches(10_000, np.random.default_rng(0), CPU))
    place = int(training.starts[list(training.users).index(user)]) + 1
    here = torch.from_numpy(np.flatnonzero(batch.place_Q == place))
    anchors = found.of(batch, torch.arange(len(batch.at_Q)), rows)
    assert anchors.s_P[here].tolist() == [3]
    assert (anchors.s_P > 0).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "It is not JSON"),
        ('{"position": 1, "text": "a"}', "It lacks 'user'"),
        ('{"user": "u", "position": "1", "text": "a"}', "position is a whole number"),
        ('{"user": "u", "position": 1, "segments": []}', "not empty"),
        ("[1]", "It is not an object"),
        ('{"user": "nobody", "position": 1, "text": "a"}', "none of which names a user"),
        ("", "It holds no line"),
    ],
)
def test_a_file_of_rationales_that_cannot_be_used_is_refused(
    tiny: Dataset, tmp_path: Path, line: str, message: str
) -> None:
    model = small_system("sasrec", "lasar", tiny.n_items)
    with pytest.raises(RecbenchError) as caught:
        source(written(tiny, tmp_path, line), model.backbone, told(rows_of(tiny), ItemKnowledge(tiny)))
    assert message in f"{caught.value.what} {caught.value.why}"
    assert caught.value.code == Exit.DATA


def test_a_rationale_of_a_held_out_event_is_refused(tiny: Dataset, tmp_path: Path) -> None:
    model = small_system("sasrec", "lasar", tiny.n_items)
    training = tiny.training()
    names = {user: name for name, user in ItemKnowledge(tiny).users().items()}
    length = int(training.lengths[0])
    line = f'{{"user": "{names[int(training.users[0])]}", "position": {length}, "text": "a"}}'
    with pytest.raises(RecbenchError, match="would leak it"):
        source(written(tiny, tmp_path, line), model.backbone, told(rows_of(tiny), ItemKnowledge(tiny)))


def test_a_text_is_cut_where_neighbouring_sentences_differ_and_joined_until_it_is_short_enough() -> None:
    assert sentences("One. Two!  Three?\nFour") == ["One.", "Two!", "Three?", "Four"]
    e = np.eye(3)
    x = np.stack([e[0], e[0], e[0], e[1], e[1], e[2]])
    assert len(cut(x, 8, whole=False)) == 3
    assert len(cut(x, 2, whole=False)) == 2
    assert len(cut(x, 8, whole=True)) == 6
