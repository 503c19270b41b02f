"""Raw ids as codes, over any number of batches, and columns that grow in place."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbench.data.sources import coding
from recbench.data.sources.coding import Coder, Column, RawIds

BATCHES = st.lists(st.lists(st.text("ab\u00e9 0", max_size=3), max_size=8), max_size=8)


def coded(batches: list[list[str]]) -> tuple[list[int], list[str]]:
    coder = Coder()
    for batch in batches:
        encoded = pa.array(batch, pa.string()).dictionary_encode()
        coder.add_encoded(encoded.dictionary, encoded.indices.to_numpy())
    return coder.codes().tolist(), [*coder.ids()]


@pytest.mark.parametrize("pending", [0, 3, 1000])
@given(batches=BATCHES)
def test_codes_follow_first_appearance_however_often_batches_are_merged(pending: int, batches: list[list[str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coding, "PENDING", pending)
        codes, ids = coded(batches)
    texts = [text for batch in batches for text in batch]
    assert ids == list(dict.fromkeys(texts))
    assert [ids[code] for code in codes] == texts


def test_texts_of_several_calls_share_their_codes() -> None:
    coder = Coder()
    coder.add(["b", "a", "b"])
    coder.add(["c"])
    assert coder.codes().tolist() == [0, 1, 0, 2]
    assert coder.ids() == ["b", "a", "c"]


def test_a_column_keeps_what_it_holds_while_it_grows() -> None:
    column = Column(np.int64)
    for begin in range(0, 300_000, 1_000):
        column.extend(np.arange(begin, begin + 1_000))
    assert (column.values() == np.arange(300_000)).all()


def test_a_column_of_whole_numbers_takes_a_decimal_one() -> None:
    column = Column(np.int64)
    column.extend(np.array([1, 2]))
    column.extend(np.array([2.5]))
    assert column.values().tolist() == [1.0, 2.0, 2.5]


def test_raw_ids_are_a_sequence_of_text() -> None:
    ids = RawIds.made(["x", "0205616461", "\u00e9 y"])
    assert ids == ["x", "0205616461", "\u00e9 y"]
    assert (ids[1], ids[np.int32(2)], len(ids)) == ("0205616461", "\u00e9 y", 3)
    assert ids.take(np.array([2, 0])) == ["\u00e9 y", "x"]
