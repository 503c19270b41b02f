"""Ranges of settings: what is refused, and that the message names the setting, its value and the range."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from recbench.limits import above, at_least, below_one, goes_into, shares


@dataclass
class Given:
    count: int | None = 1
    part: float = 0.5


@pytest.mark.parametrize(
    ("check", "name", "within", "refused", "rule"),
    [
        (lambda config: at_least(1, config, "count"), "count", [1, 2, None], [0, -3], "is at least 1"),
        (lambda config: above(0, config, "part"), "part", [1e-9, 3.0], [0.0, -0.5, float("nan")], "is above 0"),
        (lambda config: shares(config, "part"), "part", [0.0, 0.5, 1.0], [-0.1, 1.5], "lies in [0, 1]"),
        (lambda config: below_one(config, "part"), "part", [0.0, 0.99], [-0.1, 1.0], "lies in [0, 1)"),
    ],
)
def test_a_value_is_refused_outside_of_its_range_alone(check, name, within, refused, rule) -> None:  # type: ignore[no-untyped-def]
    for value in within:
        check(Given(**{name: value}))
    for value in refused:
        with pytest.raises(ValueError, match=f"^{name} is") as caught:
            check(Given(**{name: value}))
        assert str(caught.value) == f"{name} is {value:g}; it {rule}."


def test_the_first_that_is_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"^part is 0; it is above 0\.$"):
        above(0, Given(count=1, part=0), "count", "part")


def test_a_large_whole_number_is_told_digit_by_digit() -> None:
    with pytest.raises(ValueError, match=r"^count is -12345678; "):
        at_least(0, Given(count=-12_345_678), "count")


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    goes_into(Given(count=2, part=64), "count", "part")
    with pytest.raises(ValueError, match="part 65 is not a multiple of count 2"):
        goes_into(Given(count=2, part=65), "count", "part")
