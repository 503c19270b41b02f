"""A new dataset takes the place of an old one whole or not at all, wherever the process is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from recbench.data import folder, prepare, replacement
from recbench.data.card import Card
from recbench.data.dataset import open_dataset, prepared
from recbench.data.replacement import mend, taking_the_place_of
from recbench.data.verify import verify
from recbench.errors import RecbenchError
from tests.interrupted import killed

ROWS = "user,item,timestamp\n" + "".join(f"u{u},i{(u + t) % 5},{t}\n" for u in range(4) for t in range(4))
MORE = ROWS + "u9,i1,1\nu9,i2,2\nu9,i3,3\n"


def made(home: Path, text: str) -> Card:
    (home / "t.csv").write_text(text)
    return prepare.prepare(prepare.Request(name="x", home=home, source=home / "t.csv", core=0))


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def attempt(home: Path, monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> None:
    """Prepare the larger data and be killed when ``name`` is called."""
    monkeypatch.setattr(module, name, die)
    assert killed(lambda: made(home, MORE))
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("module", "name"),
    [(folder, "write_table"), (Card, "write"), (replacement, "_flush"), (prepare, "mark_last")],
    ids=["before the tables", "before the card", "before the move", "after the move"],
)
def test_a_kill_leaves_the_old_dataset_or_the_new_one_and_the_next_attempt_is_clean(
    module: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = made(tmp_path, ROWS)
    attempt(tmp_path, monkeypatch, module, name)
    there = open_dataset("x", tmp_path).card
    assert there.interactions in ((16,) if name != "mark_last" else (19,))
    assert not [check for check in verify(tmp_path / "x") if check.problem and not check.what.startswith("source")]
    assert made(tmp_path, MORE).interactions == 19
    assert before.interactions == 16
    assert not list(tmp_path.glob(".*.part"))


def test_a_kill_between_the_two_moves_brings_the_old_dataset_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, ROWS)
    moved = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.name == replacement.NEW:
            die()
        return moved(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    assert killed(lambda: made(tmp_path, MORE))
    monkeypatch.undo()
    assert not (tmp_path / "x").exists()
    assert open_dataset(None, tmp_path).card.interactions == 16
    assert prepared(tmp_path) == ["x"]
    assert not list(tmp_path.glob(".*.part"))


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    with taking_the_place_of(tmp_path / "x") as new:
        (new / "file").write_text("half")
        mend(tmp_path / "x")
        assert (new / "file").exists()
    assert (tmp_path / "x" / "file").read_text() == "half"


def test_a_full_disk_leaves_the_old_one_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "file").write_text("old")
    with pytest.raises(RecbenchError, match="cannot be written") as error, taking_the_place_of(tmp_path / "x"):
        raise OSError(28, "No space left on device")
    assert "still there" in error.value.why
    assert (tmp_path / "x" / "file").read_text() == "old"


def test_a_work_folder_without_a_lock_goes_if_its_process_is_gone_and_stays_if_not(tmp_path: Path) -> None:
    dead, alive = tmp_path / ".x.999999999.part", tmp_path / f".x.{os.getppid()}.part"
    for work in (dead, alive):
        work.mkdir()
    mend(tmp_path / "x")
    assert not dead.exists()
    assert alive.exists()
