"""What a mistyped word is answered with."""

from __future__ import annotations

from recbench.errors import meant, nearest


def test_the_nearest_known_word_is_found_whatever_its_case() -> None:
    assert nearest("SASREK", ["gru4rec", "SASRec"]) == "SASRec"
    assert nearest("xyz", ["gru4rec", "SASRec"]) is None


def test_a_fix_asks_for_it_as_it_is_typed_or_is_left_to_others() -> None:
    assert meant("hsah", ["source", "hash"]) == "Did you mean hash?"
    assert meant("hsah", iter(("source", "hash")), "--ties {}") == "Did you mean --ties hash?"
    assert meant("tiems", {"times": 1}, "{{}}={x}") == "Did you mean {times}={x}?"
    assert meant("xyz", ["source", "hash"]) is None
