"""A damaged dataset: what is to be typed makes the same one again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from recbench.cli.app import run
from recbench.data.again import by_name
from recbench.data.card import Card
from recbench.data.dataset import Dataset, open_dataset
from recbench.errors import RecbenchError

OPTIONS = ["--columns", "user=who,item=what,timestamp=when", "--source-format", "table", "--core", "2"]
TEMPORAL = ["--split", "temporal", "--target", "all", "--quantile", "0.8", "--ties", "hash", "--tie-seed", "3"]
CUTS = ["--split", "temporal", "--valid-from", "60", "--test-from", "80"]
BUILT_IN = ["--source-format", "synthetic", "--set", "users=50", "--set", "steps=12"]


def raw(folder: Path) -> Path:
    path = folder / "my events.csv"
    rows = [f"u{n % 6},i{n * n % 7},{n // 2 * 2}" for n in range(120)]
    path.write_text("\n".join(["who,what,when", *rows, ""]), encoding="utf-8")
    return path


def fix(folder: Path) -> str:
    with pytest.raises(RecbenchError) as error:
        Dataset(folder).training()
    return error.value.fix


@pytest.mark.parametrize(
    "options",
    [
        [*OPTIONS, *TEMPORAL],
        [*OPTIONS, *CUTS],
        [*OPTIONS, "--max-bad-rows", "3", "--since", "1970-01-01", "--duplicates", "last"],
        [*OPTIONS, "--max-bad-rows", "0.5%"],
        BUILT_IN,
    ],
)
def test_the_command_for_a_damaged_dataset_makes_the_same_one_again(options: list[str], tmp_path: Path) -> None:
    source = [] if options is BUILT_IN else ["--source", str(raw(tmp_path))]
    home = tmp_path / "home of data"
    assert run(["prepare", "mine", *source, *options, "--datasets", str(home), "--quiet"]) == 0
    before = Card.read(home / "mine")
    (home / "mine" / "train.parquet").write_bytes(b"cut")

    command = fix(home / "mine").removeprefix("Prepare it again: ")
    assert run([*shlex.split(command)[1:], "--quiet"]) == 0
    after = Card.read(home / "mine")
    assert (after.fingerprint, after.split, after.filters) == (before.fingerprint, before.split, before.filters)
    assert after.tie_rule == before.tie_rule
    assert after.source["bad_rows"] == before.source["bad_rows"]


def test_a_dataset_without_metadata_is_made_without_it_again(tmp_path: Path) -> None:
    source = raw(tmp_path)
    asked = ["--source", str(source), *OPTIONS, "--no-metadata", "--datasets", str(tmp_path), "--quiet"]
    assert run(["prepare", "mine", *asked]) == 0
    (tmp_path / "mine" / "train.parquet").unlink()
    with pytest.raises(RecbenchError) as error:
        Dataset(tmp_path / "mine").training()
    assert error.value.why == "It is not there."
    assert " --no-metadata " in error.value.fix


def test_a_source_that_is_gone_is_named_before_the_command(tmp_path: Path) -> None:
    source = raw(tmp_path)
    assert run(["prepare", "mine", "--source", str(source), *OPTIONS, "--datasets", str(tmp_path), "--quiet"]) == 0
    (tmp_path / "mine" / "train.parquet").unlink()
    source.unlink()
    assert f"once {source} is there again" in fix(tmp_path / "mine")


def test_what_is_by_default_is_not_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["prepare", "synthetic", "--set", "users=50", "--quiet"]) == 0
    Path("datasets/synthetic/train.parquet").unlink()
    assert fix(Path("datasets/synthetic")) == "Prepare it again: recbench prepare synthetic --set users=50"


def test_only_a_name_of_the_catalogue_is_prepared_without_a_source(tmp_path: Path) -> None:
    assert by_name("beauty", Path("datasets")) == "recbench prepare beauty"
    assert by_name("mine", Path("datasets")) == "recbench prepare mine --source PATH"
    with pytest.raises(RecbenchError) as error:
        open_dataset("mine", tmp_path)
    assert error.value.fix == f"recbench prepare mine --source PATH --datasets {tmp_path}"


def test_a_card_that_cannot_be_read_sends_to_the_readme_that_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "card.json").write_text(json.dumps({"name": "mine"}))
    (tmp_path / "mine" / "README.md").touch()
    with pytest.raises(RecbenchError) as error:
        Card.read(tmp_path / "mine")
    assert str(tmp_path / "mine" / "README.md") in error.value.fix
    assert error.value.fix.endswith(f"recbench prepare mine --source PATH --datasets {tmp_path}")
