"""What is known of items, and whether a word of it was told."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbench.data.dataset import open_dataset
from recbench.data.knowledge import ItemKnowledge
from recbench.data.vectors import VectorConfig


@pytest.fixture
def items(tiny_home: Path) -> ItemKnowledge:
    return ItemKnowledge(open_dataset("tiny", tiny_home))


def test_which_items_have_words_and_what_stands_near_them_tells_no_word(items: ItemKnowledge) -> None:
    assert any(items.texts())
    items.prices()
    items.fields()
    items.vectors(VectorConfig(source="cooc"))
    assert not items.told_words


@pytest.mark.parametrize("part", ["titles", "brands", "categories", "users"])
def test_words_are_told(part: str, items: ItemKnowledge) -> None:
    assert getattr(items, part)()
    assert items.told_words


def test_vectors_of_words_tell_them(items: ItemKnowledge) -> None:
    items.vectors(VectorConfig(source="text"))
    assert items.told_words


def test_a_space_of_words_tells_them(items: ItemKnowledge) -> None:
    items.text_space(8)
    assert items.told_words
