"""Best and second best."""

from __future__ import annotations

from recbench.report.marks import marks


def test_the_largest_is_best_and_the_next_second() -> None:
    assert marks([0.1, 0.3, 0.2]) == ["", "best", "second"]


def test_what_prints_alike_is_marked_alike() -> None:
    assert marks([0.30001, 0.30004, 0.2, 0.2]) == ["best", "best", "second", "second"]


def test_one_system_alone_is_not_the_best_of_anything() -> None:
    assert marks([0.3]) == [""]
    assert marks([]) == []


def test_where_all_are_equal_none_is_best() -> None:
    assert marks([0.1, 0.1, 0.10001]) == ["", "", ""]
    assert marks([0.1, 0.1, 0.2]) == ["second", "second", "best"]
