"""Settings: precedence, types, and refusals that say what would have been right."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from recbench.config import (
    build,
    differences,
    digest,
    in_words,
    merge,
    parse_assignments,
    read_config,
    read_toml,
    shipped_configs,
    typed,
    write_toml,
)
from recbench.errors import Exit, RecbenchError
from recbench.settings import Asked, Resolved, held_back, resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    epochs: int = 3
    rate: float = 0.1
    kind: Literal["one", "two"] = "one"
    note: str | None = None
    steps: tuple[int, ...] = ()
    on: bool = False
    weight: float | Literal["auto"] = 1.0
    mix: Literal["add", "gate"] | None = None

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError("epochs is at least 0.")


def refusal(table: dict[str, object]) -> RecbenchError:
    with pytest.raises(RecbenchError) as error:
        build(Example, table, "train")
    assert error.value.code == Exit.USAGE
    return error.value


def test_an_unknown_name_is_answered_with_the_table_and_the_nearest() -> None:
    error = refusal({"epoch": 5})
    assert error.what == "Unknown setting train.epoch."
    assert error.why == "[train] takes: epochs, rate, kind, note, steps, on, weight, mix."
    assert error.fix == "Did you mean train.epochs?"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"epochs": "many"}, "a whole number"),
        ({"epochs": 1.5}, "a whole number"),
        ({"epochs": True}, "a whole number"),
        ({"rate": "fast"}, "a number"),
        ({"on": 1}, "true or false"),
        ({"note": 3}, "text"),
        ({"kind": "tow"}, "one, two"),
    ],
)
def test_a_value_of_the_wrong_type_names_the_right_one(table: dict[str, object], words: str) -> None:
    assert words in refusal(table).why


def test_what_the_dataclass_refuses_is_told_in_its_words() -> None:
    assert refusal({"epochs": -1}).why == "epochs is at least 0."


def test_whole_numbers_stand_for_floats_and_lists_for_tuples() -> None:
    built = build(Example, {"rate": 1, "steps": [1, 2]}, "train")
    assert built == Example(rate=1.0, steps=(1, 2))
    assert type(built.rate) is float


def test_a_setting_may_be_a_number_or_a_word() -> None:
    assert build(Example, {"weight": 2}, "train").weight == 2.0
    assert build(Example, {"weight": "auto"}, "train").weight == "auto"
    assert refusal({"weight": "aut"}).why == "It is a number, or one of: auto."
    assert refusal({"weight": "aut"}).fix == "--set train.weight=auto"


def test_a_choice_may_be_left_open() -> None:
    assert build(Example, {"mix": "gate"}, "train").mix == "gate"
    assert build(Example, {}, "train").mix is None
    assert refusal({"mix": "gat"}).why == "It is one of: add, gate."
    assert refusal({"mix": 1}).fix.startswith("--set train.mix=")
    assert refusal({"weight": True}).why == "It takes a number."


def test_assignments_are_toml_values_and_bare_words_are_text() -> None:
    parsed = parse_assignments(["train.epochs=5", "train.rate=1e-3", "backbone.name=sasrec", "a.b.c=[1, 2]", "on=true"])
    assert parsed == {
        "train": {"epochs": 5, "rate": 0.001},
        "backbone": {"name": "sasrec"},
        "a": {"b": {"c": [1, 2]}},
        "on": True,
    }


@pytest.mark.parametrize(
    "value", [5, 1e-3, True, "sasrec", "two words", " led", "5", "true", "", "it's", 'a "b"', [1, 2], ["a b", "c"]]
)
def test_a_value_as_typed_in_a_shell_is_read_back(value: object) -> None:
    (word,) = shlex.split(f"a.b={typed(value)}")
    assert parse_assignments([word]) == {"a": {"b": value}}


@pytest.mark.parametrize("bad", [["train.epochs"], ["=5"], ["train..x=1"], ["a.b=1", "a.b=2"]])
def test_assignments_that_cannot_be_read_or_contradict_are_refused(bad: list[str]) -> None:
    with pytest.raises(RecbenchError):
        parse_assignments(bad)


def test_later_tables_win_in_their_places() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}, "d": 4}) == {"a": {"b": 9, "c": 2}, "d": 4}


def test_differences_name_every_setting_that_differs() -> None:
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2, "d": 4}) == [("a.b", 1, 3), ("d", None, 4)]
    assert in_words([("a.b", 1, 3), ("d", None, 4)]) == "a.b: there 1, here 3; d: there unset, here 4."
    assert in_words([("a.b", True, False)]) == "a.b: there true, here false."  # as --set takes it
    assert in_words([("a", 1, 2), ("b", 1, 2), ("c", 1, 2)], most=1) == "a: there 1, here 2 and 2 more."


def test_toml_survives_a_round_trip_and_unset_values_are_left_out(tmp_path: Path) -> None:
    table = {"seed": 1, "train": {"rate": 0.001, "note": None, "steps": [1, 2]}}
    (tmp_path / "c.toml").write_text(write_toml(table))
    assert read_toml(tmp_path / "c.toml") == {"seed": 1, "train": {"rate": 0.001, "steps": [1, 2]}}
    assert digest(table) == digest(read_toml(tmp_path / "c.toml"))


def test_a_file_that_is_no_toml_or_absent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("train = [")
    for name in ("c.toml", "absent.toml"):
        with pytest.raises(RecbenchError, match=name):
            read_toml(tmp_path / name)


def test_defaults_then_recipe_then_file_then_set(tmp_path: Path) -> None:
    plain = resolve(Asked("sasrec").table(), "generic")
    amazon = resolve(Asked("sasrec").table(), "amazon")
    assert plain.train["train"].batch_size == 1024
    assert amazon.train["train"].batch_size == 2048
    (tmp_path / "c.toml").write_text(
        '[backbone]\nname = "sasrec"\nwidth = 32\n[train]\nbatch_size = 512\npatience = 7\n'
    )
    asked = Asked(config=tmp_path / "c.toml", assignments=parse_assignments(["train.batch_size=256"]))
    resolved = resolve(asked.table(), "amazon")
    assert resolved.backbone_config.width == 32
    assert resolved.train["train"].batch_size == 256
    assert resolved.train["train"].patience == 7


def test_a_stage_may_have_its_own_settings() -> None:
    resolved = resolve(
        Asked("sasrec", assignments=parse_assignments(["train.train.epochs=2", "train.epochs=9"])).table(), "generic"
    )
    assert resolved.train["train"].epochs == 2


@pytest.mark.parametrize(
    ("sets", "until", "told"),
    [
        (["train.epochs=1"], None, "align (24), rl (10), with values of their own: --set train.align.epochs=1"),
        (["train.epochs=1", "train.align.epochs=24"], None, "rl (10), with values of their own: --set train.rl.epochs=1"),
        (["train.epochs=1"], "align", "align (24), with values of their own: --set train.align.epochs=1"),
        (["train.epochs=1"], "ground", None),
        (["train.epochs=1", "train.align.epochs=2", "train.rl.epochs=3"], None, None),
        (["train.align.epochs=2"], None, None),
        (["train.weight_decay=0.1"], None, None),
        (["train.patience=8"], "align", None),
    ],
)  # fmt: skip
def test_what_is_asked_of_all_stages_and_does_not_hold_in_some_is_told(
    sets: list[str], until: str | None, told: str | None
) -> None:
    table = Asked("sasrec", "lasar", assignments=parse_assignments(sets), until=until).table()
    assert held_back(table, resolve(table, "generic")) == ([f"train.epochs=1 does not hold in {told}"] if told else [])


def test_nothing_is_held_back_of_a_run_that_is_made_again() -> None:
    table = Asked("sasrec", "lasar", assignments=parse_assignments(["train.epochs=1"])).table()
    again = resolve(table, "amazon").table
    assert held_back(again, resolve(again, "amazon")) == []
    closed = Asked("markov").table()
    assert held_back(closed, resolve(closed, "amazon")) == []


def test_a_loss_is_resolved_with_every_default() -> None:
    plain = resolve(Asked("sasrec").table(), "generic")
    assert plain.table["loss"] == {"name": "softmax"}
    for sets in (["loss.name=gbce", "loss.t=0.5"], ["loss=gbce"]):
        resolved = resolve(Asked("sasrec", assignments=parse_assignments(sets)).table(), "generic")
        assert resolved.loss == "gbce"
        assert resolved.table["loss"] == {"name": "gbce", "negatives": 256, "t": 0.5 if len(sets) == 2 else 0.75}
        assert resolve(resolved.table, "generic").table == resolved.table
        assert resolved.sha256() != plain.sha256()


def test_a_recipes_loss_gives_way_to_another_with_all_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = {"loss": {"name": "gbce", "negatives": 64}, "train": {"epochs": 7}}
    monkeypatch.setattr("recbench.settings.recipe", lambda _, name: shipped if name == "sasrec" else {})

    def loss(*sets: str) -> dict[str, object]:
        resolved = resolve(Asked("sasrec", assignments=parse_assignments(sets)).table(), "any")
        assert resolved.train["train"].epochs == 7
        return resolved.table["loss"]

    assert loss() == {"name": "gbce", "negatives": 64, "t": 0.75}
    assert loss("loss.t=0.1") == {"name": "gbce", "negatives": 64, "t": 0.1}
    assert loss("loss.name=softmax") == {"name": "softmax"}
    assert loss("loss.name=bce") == {"name": "bce", "negatives": 1}


def test_what_is_closed_form_takes_neither_head_nor_training() -> None:
    with pytest.raises(RecbenchError, match=r"takes no setting train\.epochs"):
        resolve(Asked("ease", assignments=parse_assignments(["train.epochs=2"])).table(), "generic")
    for loss in ("loss.name=bce", "loss=bce"):
        with pytest.raises(RecbenchError, match=r"takes no setting loss\.name"):
            resolve(Asked("ease", assignments=parse_assignments([loss])).table(), "generic")
    with pytest.raises(RecbenchError, match="Unknown head 'lares2'"):
        resolve(Asked("ease", "lares2").table(), "generic")


def test_a_setting_out_of_range_is_named_in_what_to_type() -> None:
    with pytest.raises(RecbenchError, match="out of range") as error:
        resolve(Asked("sasrec", "lares", assignments={"head": {"group": 1, "tla": 0.2}}).table(), "generic")
    assert error.value.fix == "Change it: --set head.group=VALUE."
    with pytest.raises(RecbenchError) as error:
        resolve(Asked("sasrec", "diffuse", assignments={"head": {"levels": 1, "start": 0.3}}).table(), "generic")
    assert "--set head.levels=VALUE or --set head.start=VALUE" in str(error.value.fix)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Asked(), "No backbone was named"),
        (Asked("sasrek"), "Unknown backbone 'sasrek'"),
        (Asked("sasrec", "nome"), "Unknown head 'nome'"),
        (Asked("sasrec", assignments={"trian": {"epochs": 1}}), "Unknown setting trian"),
        (Asked("sasrec", assignments={"backbone": {"widht": 1}}), "Unknown setting backbone.widht"),
        (Asked("sasrec", assignments={"backbone": {"width": 65}}), "out of range"),
        (Asked("sasrec", assignments={"loss": {"name": "sofmax"}}), "Did you mean softmax"),
        (Asked("sasrec", assignments={"loss": {"negatives": 5}}), "loss.negatives is set, but no loss is named"),
        (Asked("sasrec", assignments={"loss": {"name": "softmax", "t": 1}}), r"\[loss\] takes: nothing"),
        (Asked("sasrec", assignments={"loss": {"name": "gbce", "t": 2}}), "t is 2; it lies in"),
        (Asked("sasrec", assignments={"loss": 3}), "No loss was named"),
        (Asked("sasrec", assignments={"train": {"monitor": "ndgc@10"}}), "ndgc@10"),
    ],
)
def test_names_and_settings_that_do_not_exist_are_refused(asked: Asked, words: str) -> None:
    with pytest.raises(RecbenchError, match=words) as error:
        resolve(asked.table(), "generic")
    assert error.value.code == Exit.USAGE


def test_a_shipped_config_goes_by_its_name_and_a_file_of_that_name_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "esasrec" in shipped_configs()
    assert read_config(Path("esasrec")) == read_toml(shipped_configs()["esasrec"])
    Path("esasrec").write_text("seed = 5", encoding="utf-8")
    assert read_config(Path("esasrec")) == {"seed": 5}


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_every_shipped_config_resolves(name: str) -> None:
    assert resolve(Asked(config=Path(name)).table(), "amazon").train


def test_the_recipes_of_tiger_resolve_for_every_family_and_differ() -> None:
    names = [name for name in shipped_configs() if name.startswith("tiger-")]
    assert set(names) == {"tiger-paper", "tiger-paischer", "tiger-grid", "tiger-handbook", "tiger-cpu-small"}
    for family in ("amazon", "synthetic", "other"):
        found = [resolve(Asked(config=Path(name)).table(), family) for name in names]
        assert {one.backbone for one in found} == {"tiger"}
        assert len({one.sha256() for one in found}) == len(names)


def test_the_small_recipe_of_tiger_is_the_one_for_amazon_sets() -> None:
    recipe = resolve(Asked(backbone="tiger").table(), "amazon").table
    for family in ("amazon", "other"):
        assert resolve(Asked(config=Path("tiger-cpu-small")).table(), family).table == recipe


@pytest.mark.parametrize("family", ["amazon", "synthetic", "generic"])
def test_a_recipe_of_a_pair_stands_over_those_of_its_two(family: str) -> None:
    def asked(backbone: str, *more: str) -> Resolved:
        return resolve(Asked(backbone, "lasar", assignments=parse_assignments(list(more))).table(), family)

    tuned, pretrained = asked("sasrec"), asked("hf-lm", "backbone.path=somewhere")
    assert (tuned.head_config.readout, pretrained.head_config.readout) == ("last", "end")
    assert tuned.train["align"].learning_rate > 1e-4
    assert pretrained.train["align"].learning_rate == 5e-5
    assert pretrained.train["ground"].learning_rate == 3e-4
    typed = asked("hf-lm", "backbone.path=somewhere", "train.align.learning_rate=1e-3", "head.feed=rms")
    assert typed.train["align"].learning_rate == 1e-3
    assert (typed.head_config.feed, typed.head_config.readout) == ("rms", "end")


@pytest.mark.parametrize("family", ["amazon", "synthetic", "generic"])
@pytest.mark.parametrize("backbone", ["sasrec", "hf-lm"])
def test_a_recipe_says_nothing_of_a_stage_that_is_left_out_but_a_user_may_not(family: str, backbone: str) -> None:
    def skipping(stage: str, *more: str) -> Resolved:
        sets = [f"head.skip=['{stage}']", *(["backbone.path=somewhere"] if backbone == "hf-lm" else []), *more]
        return resolve(Asked(backbone, "lasar", assignments=parse_assignments(sets)).table(), family)

    short = skipping("rl")
    assert list(short.train) == ["ground", "align"]
    assert resolve(short.table, family).table == short.table
    assert list(skipping("ground").train) == ["align", "rl"]
    with pytest.raises(RecbenchError, match=r"There is no stage rl"):
        skipping("rl", "train.rl.epochs=3")


def test_a_config_that_is_neither_a_file_nor_shipped_is_refused() -> None:
    with pytest.raises(RecbenchError) as refused:
        read_config(Path("esasrek"))
    assert refused.value.fix == "Did you mean --config esasrec?"
    with pytest.raises(RecbenchError, match=r"mine\.toml cannot be read"):
        read_config(Path("mine.toml"))
