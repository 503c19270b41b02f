"""What the demo trains, and the commands it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbench.cli.demo import PLAIN, _asked, _systems
from recbench.errors import RecbenchError


def test_heads_stand_on_the_last_plain_backbone_and_none_is_there_anyway() -> None:
    assert _systems("lasar, none,lares") == [
        *((name, "none") for name in PLAIN),
        ("sasrec", "lasar"),
        ("sasrec", "lares"),
    ]


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(RecbenchError, match="Unknown head 'larse'"):
        _systems("larse")


def test_a_head_that_begins_as_a_plain_run_goes_on_from_the_demos_own() -> None:
    table, command = _asked("sasrec", "lasar", Path("d"), Path("r"))
    assert table["from"] == "r/synthetic-sasrec-none-s0"
    assert command.endswith("--from r/synthetic-sasrec-none-s0")
    table, command = _asked("sasrec", "lares", Path("d"), Path("r"))
    assert "from" not in table
    assert "--from" not in command
