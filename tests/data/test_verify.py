"""Verify finds what was changed, in a file, in the card, or beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recbench.cli.app import run
from recbench.data.verify import is_dataset, verify
from recbench.files import sha256


@pytest.fixture
def home(tiny_home: Path, tmp_path: Path) -> Path:
    """A copy of ``tiny`` to spoil."""
    shutil.copytree(tiny_home / "tiny", tmp_path / "tiny")
    return tmp_path


def problems(home: Path) -> dict[str, str]:
    return {check.what: check.problem for check in verify(home / "tiny") if check.problem}


def test_an_untouched_dataset_passes_every_check(home: Path) -> None:
    assert is_dataset(home / "tiny")
    names = [check.what for check in verify(home / "tiny")]
    assert {"train.parquet", "test.parquet", "oracle.parquet", "fingerprint", "sequence_sha256", "users"} <= {*names}
    assert not problems(home)


def test_a_changed_byte_a_lost_file_and_a_stranger_are_found(home: Path) -> None:
    path = home / "tiny" / "train.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    (home / "tiny" / "valid.parquet").unlink()
    shutil.copy(home / "tiny" / "test.parquet", home / "tiny" / "extra.parquet")
    found = problems(home)
    assert set(found) == {"train.parquet", "valid.parquet", "extra.parquet"}
    assert "sha256 is" in found["train.parquet"]
    assert "cannot be read" in found["valid.parquet"]


def test_files_and_card_changed_together_are_found_by_their_content(home: Path) -> None:
    path = home / "tiny" / "test.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    card = json.loads((home / "tiny" / "card.json").read_text())
    card["files"]["test.parquet"] = sha256(path)
    card["users"] += 1
    (home / "tiny" / "card.json").write_text(json.dumps(card))
    assert set(problems(home)) == {"fingerprint", "users"}


def test_the_command_says_what_is_wrong_and_exits_with_3(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "tiny", "--datasets", str(home)]) == 0
    assert "as written" in capsys.readouterr().out
    (home / "tiny" / "users.parquet").unlink()
    assert run(["verify", "tiny", "--datasets", str(home), "--json"]) == 3
    told = capsys.readouterr()
    (dataset,) = json.loads(told.out)
    assert dataset["holds"] is False
    assert "1 of 7 checks failed" in told.err
    assert "users.parquet: cannot be read" in told.err
    assert run(["verify", "nothing", "--datasets", str(home)]) == 4
    assert "no run and no prepared dataset nothing" in capsys.readouterr().err
