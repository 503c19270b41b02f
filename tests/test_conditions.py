"""Settings that count only beside others: what is told of them, and that it is true, by training with and without each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from recbench import experiment, reference
from recbench.conditions import OnlyWith, Part, conditions, idle, read, without_effect
from recbench.config import parse_assignments
from recbench.data.dataset import open_dataset
from recbench.data.prepare import Request, prepare
from recbench.experiment import Order
from recbench.settings import Asked, resolve
from recbench.training.loop import Watcher
from tests.generators.checkpoints import NEEDED, checkpoint
from tests.systems import CPU


@dataclass(frozen=True, kw_only=True)
class Config:
    depth: Literal["policy", "sample", "fixed"] = "policy"
    fixed_depth: int = 4
    hidden: int = 8
    tla: float = 0.1
    sla: float = 0.0
    tau: float = 1.0
    bias: bool = True
    buckets: int = 128
    mix: Literal["add", "state"] | None = None
    scale: float = 3.0
    skip: tuple[str, ...] = ()
    group: int = 8

    only_with: ClassVar[OnlyWith] = {
        "depth=fixed": "fixed_depth",
        "depth=policy|sample": "hidden",
        "tla or sla": "tau",
        "bias": "buckets",
        "mix!=state": "scale",
        "skip!=rl and tla": "group",
    }


@pytest.mark.parametrize(
    ("condition", "changes", "met"),
    [
        ("depth=fixed", {}, False),
        ("depth=fixed", {"depth": "fixed"}, True),
        ("depth=policy|sample", {"depth": "sample"}, True),
        ("depth=policy|sample", {"depth": "fixed"}, False),
        ("tla or sla", {"tla": 0.0, "sla": 0.5}, True),
        ("tla or sla", {"tla": 0.0}, False),
        ("bias", {"bias": False}, False),
        ("mix!=state", {}, True),
        ("mix!=state", {"mix": "add"}, True),
        ("mix!=state", {"mix": "state"}, False),
        ("mix=state", {}, True),
        ("skip!=rl and tla", {}, True),
        ("skip!=rl and tla", {"skip": ("ground", "rl")}, False),
        ("skip=rl", {"skip": ("ground", "rl")}, True),
        ("skip!=rl and tla", {"tla": 0.0}, False),
    ],
)  # fmt: skip
def test_a_condition_is_met_or_not(condition: str, changes: dict[str, Any], met: bool) -> None:
    assert read(condition).holds(replace(Config(), **changes)) is met


def test_what_cannot_be_read_as_a_condition_is_a_mistake_of_who_wrote_it() -> None:
    with pytest.raises(ValueError, match="'tla and depth>3' is no condition"):
        read("tla and depth>3")


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("depth=policy|sample", "head.depth=policy|sample"),
        ("tla or sla", "head.tla above 0 or head.sla above 0"),
        ("bias", "head.bias=true"),
        ("mix!=state", "head.mix other than state"),
        ("skip!=rl and tla", "rl not in head.skip and head.tla above 0"),
        ("skip=rl", "rl in head.skip"),
    ],
)
def test_a_condition_is_said_as_it_is_typed(condition: str, words: str) -> None:
    assert read(condition).in_words(Config(), "head.") == words


def test_told_is_what_was_typed_is_not_the_default_and_does_nothing() -> None:
    config = Config(fixed_depth=3, tau=2.0, hidden=9)
    assert idle(config, ["fixed_depth", "tau", "hidden", "depth"]) == {"fixed_depth": read("depth=fixed")}
    assert idle(config, ["tau"]) == {}
    assert idle(Config(), ["fixed_depth"]) == {}
    assert idle(Config(depth="fixed", fixed_depth=3), ["fixed_depth"]) == {}


def test_it_is_told_in_a_sentence() -> None:
    given = {"head": {"fixed_depth": 3}, "dataset": "beauty", "loss": "softmax"}
    assert without_effect(given, {"head": Config(fixed_depth=3), "loss": Config(fixed_depth=3)}) == [
        "head.fixed_depth=3 does nothing here: it counts only where head.depth=fixed"
    ]


def test_train_tells_what_does_nothing_beside_the_rest_of_a_command() -> None:
    sets = ["head.fixed_depth=3", "backbone.start=item", "loss.scoring=exact", "loss.beam=9", "ids.sinkhorn_eps=0.1"]
    table = Asked("sid-lm", "lasar", assignments=parse_assignments(sets)).table()
    assert [told.split(" does nothing")[0] for told in without_effect(table, resolve(table, "generic").parts)] == [
        "head.fixed_depth=3", "loss.beam=9", "ids.sinkhorn_eps=0.1",
    ]  # fmt: skip
    again = resolve(table, "generic").table | {"loss": {"name": "spelling"}, "ids": {}}
    assert len(without_effect(again, resolve(again, "generic").parts)) == 1  # of a file, too


# --- is it true? ------------------------------------------------------------------------------------------------------

SMALL = [
    "backbone.width=8", "backbone.inner=16", "backbone.max_length=8", "backbone.dropout=0.1", "head.cuts=0", "head.filter_top=500",
    "train.batch_size=400", "train.learning_rate=0.01", "train.epochs=1",
    *[f"train.{stage}.epochs=1" for stage in ("rpt", "align", "rl")],
]  # fmt: skip
"""Of these a system gets what it has."""
ALONG = {"head.levels=0": ("head.grpo=0.0",)}
"""What a setting is refused without."""
DRAWN_FOR = {"head.policy_hidden", "head.min_depth", "head.anchors", "head.table_seed"}
"""They do nothing, but random numbers are drawn for them, so that all that are drawn later are others."""


def cases() -> Iterator[Any]:
    """Systems with all of their settings that do nothing beside some others: for each condition, each way not to meet it."""
    for name in reference.names():
        table, config = reference.config_class(name)
        words = {one.name.partition(".")[2]: one.words for one in reference.part(name).settings}
        found: dict[tuple[str, ...], list[str]] = {}
        for setting, condition in conditions(config).items():
            other = typed(table, setting, _other(getattr(config(), setting), words[setting]))
            each = [[typed(table, p.name, value) for value in _against(p, config(), words)] for p in condition.parts]
            ways = [tuple(way[0] for way in each)] if condition.any else [(one,) for way in each for one in way]
            for unmet in ways:
                found.setdefault(unmet, []).extend([] if f"{table}.{setting}" in DRAWN_FOR else [other])
        backbone = {"backbone": name, "head": "sasrec"}.get(table, "sid-lm")
        marks = [NEEDED] if backbone == "hf-lm" else []
        for unmet, changed in ((unmet, changed) for unmet, changed in found.items() if changed):
            system = backbone, name if table == "head" else "none"
            yield pytest.param(*system, unmet, tuple(changed), id=f"{name}, {' '.join(unmet)}", marks=marks)


def typed(table: str, name: str, value: Any) -> str:
    return f"{table}.{name}={json.dumps(value)}"


def _against(part: Part, default: Any, words: dict[str, tuple[str, ...]]) -> list[Any]:
    """Values of a setting with which a part of a condition does not hold."""
    value = getattr(default, part.name)
    if not part.sign:
        return [type(value)(0)]
    if isinstance(value, tuple):
        return [list(part.words)] if part.sign == "!=" else [list(value)]
    return [word for word in words[part.name] if (word in part.words) == (part.sign == "!=")]


def _other(value: Any, words: tuple[str, ...]) -> Any:
    """Another value of a setting."""
    if words and "a number" not in words:
        return next(word for word in words if word != value)
    if isinstance(value, bool):
        return not value
    return 3 if value is None else value + 1 if isinstance(value, int) else value / 2 + 0.05


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of datasets with 60 generated users."""
    home = tmp_path_factory.mktemp("datasets")
    prepare(Request(name="few", home=home, source_format="synthetic", options={"users": "60"}))
    return home


def outcome(home: Path, runs: Path, backbone: str, head: str, sets: tuple[str, ...]) -> Any:
    """Every loss of training, and where each user's item ranks."""
    names = {one.name for name in (backbone, head, "train") for one in reference.part(name).settings}
    names |= {f"train.{stage}.epochs" for stage in reference.part(head).stages if f'"{stage}"' not in str(sets)}
    small = [one for one in SMALL if one.partition("=")[0] in names - {one.partition("=")[0] for one in sets}]
    table = Asked(backbone, head, "few", assignments=parse_assignments([*small, *sets])).table()
    dataset = open_dataset("few", home)
    done, _ = experiment.run(Order(dataset, resolve(table, "generic"), 0, runs, CPU), Watcher())
    lines = (done.folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["losses"] for line in lines], (done.folder / "users.parquet").read_bytes()


@pytest.mark.parametrize(("backbone", "head", "unmet", "changed"), list(cases()))
def test_settings_that_are_told_to_do_nothing_do_nothing(
    backbone: str, head: str, unmet: tuple[str, ...], changed: tuple[str, ...], few: Path, tmp_path: Path
) -> None:
    opened = [f"backbone.path={checkpoint()}"] if backbone == "hf-lm" else []
    sets = (*unmet, *opened, *[more for one in unmet for more in ALONG.get(one, ())])
    plain = outcome(few, tmp_path / "plain", backbone, head, sets)
    assert outcome(few, tmp_path / "changed", backbone, head, (*sets, *changed)) == plain
