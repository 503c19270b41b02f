"""From what a user typed to one resolved config: dataclass defaults < recipes < file < ``--set`` < the flags that name things."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from recbench.config import Table, as_table, as_typed, build, known_tables, merge, read_config, system_digest
from recbench.errors import RecbenchError, nearest
from recbench.recommender import config_classes
from recbench.registry import BACKBONES, HEADS, LOSSES
from recbench.semantic_ids.build import IdSettings, id_settings
from recbench.training.settings import Settings, stage_settings

IDS = ["features", "method", "ids"]
"""Tables of semantic ids, as ``recbench ids`` takes them; for backbones that spell."""
TABLES = ["dataset", "seed", "backbone", "head", "loss", "train", "until", "from", *IDS]
FLAGS = {"backbone": "--backbone ", "head": "--reason ", "loss": "--set loss.name="}
PLURALS = {"backbone": "backbones", "head": "heads", "loss": "losses"}
ANY = "any"
"""The recipes of every family."""
SPELLING, CODES = "spelling", "codes"
"""The loss of backbones that spell, and the family of such losses."""
CLOSED_FORM = "closed form"
"""In place of a loss where nothing is trained by gradient."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was typed, before any default."""

    backbone: str | None = None
    head: str | None = None
    dataset: str | None = None
    config: Path | None = None
    """A TOML file, or the name of a shipped config."""
    assignments: Table | None = None
    until: str | None = None
    """Last stage of training."""
    start: str | None = None
    """Run to go on from."""

    def table(self) -> Table:
        """File, then ``--set``, then flags."""
        table = merge(read_config(self.config) if self.config else {}, self.assignments or {})
        known_tables(table, TABLES, str(self.config) if self.config else "--set")
        flags = {"backbone": {"name": self.backbone}, "head": {"name": self.head}}
        for key, flag in flags.items():
            if flag["name"] is not None:
                _refuse_another(key, table.get(key), flag["name"], self.config)
                table = merge(table, {key: flag})
        named = {"dataset": self.dataset, "until": self.until, "from": self.start}
        return merge(table, {key: value for key, value in named.items() if value is not None})


def _refuse_another(part: str, given: Any, flag: str, config: Path | None) -> None:
    """Settings of one backbone or head mean nothing to another.

    Raises:
        RecbenchError: the file holds those of another than the flag names.
    """
    if config is None or not isinstance(given, Mapping) or given.get("name") in (None, flag) or len(given) == 1:
        return
    option = {"backbone": "--backbone", "head": "--reason"}[part]
    raise RecbenchError(
        f"{config} is of {part} {given['name']}, and {option} says {flag}.",
        why=f"Its [{part}] holds settings that {flag} does not have.",
        fix=f"{option} {given['name']}, or leave {option} or --config out",
    )


@dataclass(frozen=True, slots=True)
class Resolved:
    """Every setting of one run."""

    backbone: str
    head: str
    backbone_config: Any
    head_config: Any
    loss: str
    loss_config: Any
    """None for what is not trained by gradient."""
    train: dict[str, Settings]
    """By stage; empty for what is not trained by gradient."""
    table: Table
    """The same as ``config.toml`` holds it, without dataset and seed."""
    until: str | None = None
    """Last stage of training; None: all."""
    start: str | None = None
    """Run folder to go on from; ``{seed}`` in it stands for the seed."""
    ids: IdSettings | None = None
    """How items are spelled; None where they are not."""

    @property
    def parts(self) -> dict[str, Any]:
        """The config of each part, by its table."""
        named = {"backbone": self.backbone_config, "head": self.head_config, "loss": self.loss_config}
        spelled = {} if self.ids is None else self.ids.parts
        return {table: config for table, config in (named | spelled).items() if config is not None}

    @property
    def stages(self) -> list[str]:
        """The stages a finished run of this has gone through."""
        names = list(self.train)
        return names[: names.index(self.until) + 1] if self.until else names

    def full(self, dataset: str, seed: int) -> Table:
        """``config.toml``: itself a valid ``--config``."""
        return {"dataset": dataset, "seed": seed, **self.table}

    def sha256(self, origin: str | None = None) -> str:
        """Equal for the seeds of one system; ``origin``: that of the run it goes on from."""
        return system_digest(self.table, origin)


def resolve(table: Mapping[str, Any], family: str) -> Resolved:
    """Fill in every default.

    Args:
        table: what was asked for (``Asked.table``).
        family: of the dataset; picks the shipped recipe.

    Raises:
        RecbenchError: an unknown name or setting, or a pair that cannot work.
    """
    backbone, head = _named(table, "backbone"), _named(table, "head", "none")
    backbone_class, head_class = config_classes(backbone, head)
    shipped: Table = {}
    for name in (backbone, head, f"{backbone}+{head}"):
        for of in (ANY, family):
            shipped = merge(shipped, recipe(of, name))
    asked, table = table, merge(_fitting(shipped, table), table)
    backbone_config: Any = build(backbone_class, _without_name(table, "backbone"), "backbone")
    resolved: Table = {"backbone": {"name": backbone, **as_table(backbone_config)}, "head": {"name": head}}
    until, start = _text(table, "until"), _text(table, "from")
    ids = _ids(backbone, table)
    if head_class is None:
        _refuse_training(backbone, backbone_config, table)
        return Resolved(backbone, head, backbone_config, None, CLOSED_FORM, None, {}, resolved)
    head_config: Any = build(head_class, _without_name(table, "head"), "head")
    loss, loss_config = _loss(backbone, table)
    stages = HEADS.load(head).plan(head_config)
    left_out = {stage.name for stage in HEADS.load(head).stages} - {stage.name for stage in stages}
    unasked = left_out - set(_training(asked))  # what a recipe says of them
    train = stage_settings({name: value for name, value in _training(table).items() if name not in unasked}, stages)
    resolved["head"] |= as_table(head_config)
    resolved["loss"] = {"name": loss, **as_table(loss_config)}
    resolved["train"] = _train_table(train)
    resolved |= {} if ids is None else ids.table()
    if until is not None and until not in train:
        raise RecbenchError(
            f"Head {head} has no stage {until!r}.",
            why=f"Its stages are: {', '.join(train)}.",
            fix=f"--until {nearest(until, list(train)) or next(iter(train))}",
        )
    if until == stages[-1].name:  # all of it
        until = None
    resolved |= {key: value for key, value in (("until", until), ("from", start)) if value is not None}
    return Resolved(backbone, head, backbone_config, head_config, loss, loss_config, train, resolved, until, start, ids)


def held_back(table: Mapping[str, Any], resolved: Resolved) -> list[str]:
    """Settings that do not hold in a stage, since it has a value of its own or is not reached: a sentence each.

    Args:
        table: what was asked for, as ``resolve`` got it.
        resolved: what came of it.
    """
    asked, told = _training(table), []
    ends = list(resolved.train).index(resolved.until) + 1 if resolved.until else None
    for key, value in asked.items():
        if isinstance(value, Mapping):
            continue
        found = {stage: getattr(settings, key) for stage, settings in list(resolved.train.items())[:ends]}
        others = {stage: own for stage, own in found.items() if own != value and key not in asked.get(stage, {})}
        if others:
            typed = f"train.{key}={as_typed(value)}"
            stages = ", ".join(f"{stage} ({as_typed(own)})" for stage, own in others.items())
            of_one = f"--set train.{next(iter(others))}.{key}={as_typed(value)}"
            told.append(f"{typed} does not hold in {stages}, with values of their own: {of_one}")
    for stage in list(resolved.train)[ends:] if ends else []:
        if isinstance(own := asked.get(stage), Mapping) and own:
            typed = ", ".join(f"train.{stage}.{key}={as_typed(value)}" for key, value in own.items())
            told.append(f"{typed} does nothing here: training ends with stage {resolved.until} (--until)")
    return told


def _fitting(shipped: Table, asked: Mapping[str, Any]) -> Table:
    """A recipe without its loss where another loss is asked for: its parameters mean nothing there."""
    other = "loss" in asked and _named(asked, "loss", "") not in ("", shipped.get("loss", {}).get("name"))
    return {key: value for key, value in shipped.items() if key != "loss" or not other}


def _spells(backbone: str) -> bool:
    return bool(getattr(BACKBONES.load(backbone), "spells", False))


def _ids(backbone: str, table: Mapping[str, Any]) -> IdSettings | None:
    """How the items of a backbone that spells are spelled.

    Raises:
        RecbenchError: it does not spell, but settings of ids are given; or such a setting is wrong.
    """
    given = {name: table[name] for name in IDS if name in table}
    if _spells(backbone):
        return id_settings(given)
    if given:
        raise RecbenchError(
            f"[{next(iter(given))}] is set, but {backbone} takes no semantic ids.",
            why="They are for backbones that spell an item code by code.",
            fix="Remove it, or name such a backbone: recbench list backbones",
        )
    return None


def _loss(backbone: str, table: Mapping[str, Any]) -> tuple[str, Any]:
    """Name and settings of the loss: what spells has one of its own, all others take any of the others.

    Raises:
        RecbenchError: a loss that does not fit the backbone, or a wrong setting.
    """
    spells = _spells(backbone)
    name = _named(table, "loss", SPELLING if spells else "softmax")
    if (LOSSES.entry(name).family == CODES) != spells:
        raise RecbenchError(
            f"Loss {name} does not fit backbone {backbone}.",
            why=f"{backbone} spells items, and its only loss is {SPELLING}."
            if spells
            else f"{backbone} ranks item vectors and spells nothing.",
            fix="Leave loss.name out." if spells else "recbench list losses",
        )
    extra = _without_name(table, "loss") if spells else _of_a_named_loss(table)
    return name, build(LOSSES.load(name).Config, extra, "loss")


def _of_a_named_loss(table: Mapping[str, Any]) -> Table:
    """The settings of the loss.

    Raises:
        RecbenchError: there are some, but no loss is named: the default has none.
    """
    extra = _without_name(table, "loss")
    if extra and "name" not in table["loss"]:
        raise RecbenchError(
            f"loss.{next(iter(extra))} is set, but no loss is named.",
            why="The loss is then the full softmax, which takes no setting.",
            fix="Name the one it belongs to: --set loss.name=NAME; recbench list losses shows them",
        )
    return extra


def _refuse_training(backbone: str, config: Any, table: Mapping[str, Any]) -> None:
    """What is closed form has no stages, no loss and no head.

    Raises:
        RecbenchError: one of them is asked for.
    """
    if _text(table, "until") or _text(table, "from"):
        raise RecbenchError(
            f"{backbone} has no stages, so --until and --from cannot apply.",
            why=f"{backbone} is closed form: it is fitted at once.",
            fix="Leave them out.",
        )
    loss = table.get("loss", {})
    asked: dict[str, Mapping[str, Any]] = {"train": _training(table), "head": _without_name(table, "head")}
    asked["loss"] = loss if isinstance(loss, Mapping) else {"name": loss}
    for key, extra in asked.items():
        if extra:
            raise RecbenchError(
                f"{backbone} takes no setting {key}.{next(iter(extra))}.",
                why=f"{backbone} is closed form: it is neither trained by gradient nor given a head.",
                fix=f"Remove it. [backbone] takes: {', '.join(as_table(config)) or 'nothing'}.",
            )


def recipe(family: str, name: str) -> Table:
    """The shipped settings of a backbone, a head or a pair of the two for a family of datasets, or for ``ANY``; or none."""
    path = files("recbench") / "recipes" / f"{family}.toml"
    if not path.is_file():
        return {}
    return tomllib.loads(path.read_text(encoding="utf-8")).get(name, {})


def _named(table: Mapping[str, Any], key: str, default: str | None = None) -> str:
    name = table.get(key, {}).get("name", default) if isinstance(table.get(key, {}), Mapping) else table[key]
    if not isinstance(name, str):
        raise RecbenchError(
            f"No {key} was named.",
            why="A run needs one.",
            fix=f"{FLAGS[key]}NAME; recbench list {PLURALS[key]} shows them",
        )
    return name


def _text(table: Mapping[str, Any], key: str) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise RecbenchError(f"{key} cannot be {value!r}.", why="It takes text.", fix=f"--{key} NAME")
    return value


def _without_name(table: Mapping[str, Any], key: str) -> Table:
    found = table.get(key, {})
    if not isinstance(found, Mapping):
        return {}
    return {name: value for name, value in found.items() if name != "name"}


def _training(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ``[train]`` table.

    Raises:
        RecbenchError: a value stands in its place.
    """
    found = table.get("train", {})
    if not isinstance(found, Mapping):
        raise RecbenchError(f"train cannot be {found!r}.", why="[train] is a table.", fix="--set train.epochs=10")
    return found


def _train_table(train: dict[str, Settings]) -> Table:
    """One shared table if all stages agree, else one a stage."""
    tables = {stage: as_table(settings) for stage, settings in train.items()}
    first = next(iter(tables.values()))
    return {**first, **{stage: other for stage, other in tables.items() if other != first}}
