"""What can be set, read off the code: nothing is left out, nothing is without a meaning, and what is told can be typed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from recbench import reference
from recbench.cli.app import run
from recbench.config import build, flat, parse_assignments
from recbench.registry import BACKBONES, HEADS, LOSSES, TOKENISERS

Captured = pytest.CaptureFixture[str]


def test_every_part_is_known() -> None:
    told = set(reference.names())
    assert told >= {*BACKBONES.entries(), *HEADS.entries(), *LOSSES.entries(), *TOKENISERS.entries()}
    assert told >= {"train", "features", "ids"}


@pytest.mark.parametrize("name", reference.names())
def test_every_setting_says_what_it_is_and_its_default_can_be_typed(name: str) -> None:
    part = reference.part(name)
    assert part.summary
    table, config = reference.config_class(name)
    assert not [one.name for one in part.settings if not one.meaning]
    typed = parse_assignments(f"{s.name}={shlex.split(s.default)[0]}" for s in part.settings if s.default != "unset")
    assert build(config, typed.get(table, {}), table) == config()


def test_words_are_those_that_a_setting_takes() -> None:
    settings = {one.name: one for one in reference.part("lasar").settings}
    assert settings["head.depth"].words == ("policy", "sample", "random", "fixed")
    assert settings["head.align_weight"].words == ("auto", "a number")
    assert settings["head.max_depth"].words == ()
    assert settings["head.policy_hidden"].default == "unset"


def test_what_a_config_extends_is_told_too() -> None:
    class Base:
        """No dataclass, but its fields are read as those of one."""

        width: int = 1
        """Of it."""

    class Wider(Base):
        """A field of its own."""

        depth: int = 2
        """Of this ``one``, over
        two lines."""
        bare: int = 3

    assert reference._meanings(Wider) == {"width": "Of it.", "depth": "Of this one, over two lines."}


def test_without_source_there_are_no_meanings() -> None:
    made = type("Made", (), {"__annotations__": {"width": int}, "width": 1})
    assert reference._meanings(made) == {}


def test_recipes_of_a_part_and_of_its_pairs_are_told_with_their_family() -> None:
    recipes = reference.part("hf-lm").recipes
    assert flat(recipes["any"])["backbone.max_length"] == 20
    assert flat(recipes["any, hf-lm+lasar"])["head.feed"] == "state"
    assert "any, hf-lm+lasar" in reference.part("lasar").recipes
    assert reference.part("markov").recipes == {}


def test_show_prints_settings_stages_and_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["show", "lasar"]) == 0
    told = capsys.readouterr().out
    rows = {line.split()[0]: line for line in told.splitlines() if line.strip()}
    assert "train.align.epochs=24" in told
    assert "recipe any, hf-lm+lasar" in told
    assert "policy | sample | random | fixed. At test:" in rows["head.depth"]
    assert rows["head.step_cost"].split()[1] == "0.005"
    assert "of kl. Only where align=kl." in rows["head.align_tau"]
    assert "Only" not in rows["head.max_depth"]
    assert run(["show", "popularity"]) == 0
    assert "nothing to set" in capsys.readouterr().out
    assert run(["show", "train", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"name": "train.validate_every", "default": "1", "words": [], "only_with": ""}.items() <= found["settings"][
        2
    ].items()


def test_a_run_or_a_dataset_goes_before_a_part_of_its_name(tiny_home: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "ids").symlink_to(tiny_home / "tiny")
    assert run(["show", "ids", "--datasets", str(tmp_path)]) == 0
    assert "leave-one-out" in capsys.readouterr().out


def test_what_is_none_of_all_is_refused_with_what_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["show", "lazar"]) == 4
    told = capsys.readouterr().err
    assert "lazar is neither a run, a prepared dataset nor a part with settings." in told
    assert "Did you mean recbench show lasar?" in told
