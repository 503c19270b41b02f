"""The built-in dataset as a source: what was generated, with raw ids, titles, brands, categories and prices."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, final

import numpy as np
import pandas as pd

from recbench import columns
from recbench.data.oracle import Oracle
from recbench.data.sources.base import Events, Progress, Source
from recbench.data.sources.places import File
from recbench.data.synthetic import Settings, World, generate
from recbench.errors import RecbenchError, meant

DEPARTMENTS = {
    "Camping": ("Tent", "Sleeping Bag", "Lantern", "Camp Stove", "Backpack"),
    "Kitchen": ("Skillet", "Chef Knife", "Kettle", "Mixing Bowl", "Cutting Board"),
    "Garden": ("Planter", "Watering Can", "Pruning Shears", "Hose", "Seed Mix"),
    "Workshop": ("Drill", "Hand Saw", "Work Light", "Tool Box", "Clamp"),
    "Cycling": ("Helmet", "Bike Light", "Pannier", "Floor Pump", "Chain Lube"),
    "Music": ("Guitar Strings", "Tuner", "Microphone", "Music Stand", "Headphones"),
}
BRANDS = (
    "Alvor",
    "Brenna",
    "Corvid",
    "Dunmore",
    "Estrel",
    "Fennick",
    "Galeo",
    "Harrow",
    "Ivory & Oak",
    "Jorvik",
    "Kestra",
    "Lumen",
)
WORDS = (
    "Classic",
    "Compact",
    "Deluxe",
    "Everyday",
    "Folding",
    "Heavy-Duty",
    "Light",
    "Original",
    "Premium",
    "Pro",
    "Travel",
    "Urban",
)


@final
class Synthetic(Source):
    """Generated shoppers. ``options`` are the fields of ``synthetic.Settings``; there is no path to read."""

    family = "synthetic"

    @classmethod
    def recognises(cls, path: File, head: bytes) -> bool:
        """False: no file is of this format."""
        del path, head
        return False

    def read(self, progress: Progress) -> Events:
        progress(0)  # there is nothing to read
        settings = parse_settings(self.options)
        world, sequences = generate(settings)
        code, items = pd.factorize(sequences.items)
        raw_ids = world.raw_ids()
        return Events(
            user=np.repeat(np.arange(settings.users, dtype=np.int32), sequences.lengths),
            item=code.astype(np.int32),
            rating=None,
            timestamp=sequences.times,
            user_ids=[f"U{user:05d}" for user in range(settings.users)],
            item_ids=[raw_ids[item] for item in items],
            time_unit="s",
            items=describe(world).iloc[items].reset_index(drop=True),
            notes=(f"generated: seed {settings.seed}, {settings.users} users, {world.n_items} items on offer",),
            extra={"oracle": Oracle(world)},
        )


def parse_settings(options: dict[str, Any]) -> Settings:
    """The settings that ``options`` ask for.

    Raises:
        RecbenchError: an unknown name, or a value that is no number or out of range.
    """
    kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(Settings)}
    for name in options:
        if name not in kinds:
            raise RecbenchError(
                f"Unknown setting {name} of the synthetic data.",
                why=f"It takes: {', '.join(kinds)}.",
                fix=meant(name, kinds) or "Leave it out.",
            )
    values = {name: _number(name, value, kinds[name]) for name, value in options.items()}
    try:
        return Settings(**values)
    except (TypeError, ValueError) as error:
        raise RecbenchError(
            f"The synthetic data cannot be generated with {', '.join(f'{k}={v}' for k, v in options.items())}.",
            why=f"{error}.",
            fix="Change that setting, or leave it out for its default.",
        ) from error


def _number(name: str, value: Any, kind: Any) -> Any:
    try:
        return kind(value)
    except ValueError as error:
        raise RecbenchError(
            f"{name} of the synthetic data cannot be {value!r}.",
            why=f"It takes {'a whole number' if kind is int else 'a number'}.",
            fix=f"--set {name}={next(f.default for f in fields(Settings) if f.name == name)}",
        ) from error


def describe(world: World) -> pd.DataFrame:
    """Metadata of every item: raw_id, title, brand, categories (department, leaf) and price."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([world.settings.seed, 1])))
    leaf_V = np.repeat(np.arange(len(world.brand_CN)), world.brand_CN.shape[1])
    paths = [(department, leaf) for department, leaves in DEPARTMENTS.items() for leaf in leaves]
    departments, leaves = zip(*paths, strict=True)
    categories = [[departments[leaf % len(paths)], _name(leaves, leaf)] for leaf in leaf_V]
    brands = [_name(BRANDS, brand) for brand in world.brand_CN.reshape(-1)]
    words = [WORDS[int(u * len(WORDS))] for u in rng.random(world.n_items)]
    base_V = (5 + 195 * rng.random(len(world.brand_CN)) ** 2)[leaf_V]
    return pd.DataFrame(
        {
            columns.RAW_ID: world.raw_ids(),
            columns.TITLE: [
                f"{brand} {word} {path[1]} {label}"
                for brand, word, path, label in zip(brands, words, categories, world.label_V, strict=True)
            ],
            columns.BRAND: brands,
            columns.CATEGORIES: categories,
            columns.PRICE: np.round(base_V * (0.7 + 0.6 * rng.random(world.n_items)), 2),
        }
    )


def _name(names: tuple[str, ...], i: np.integer[Any]) -> str:
    """The i-th name; past the last one they start again, numbered."""
    again, place = divmod(int(i), len(names))
    return f"{names[place]} {again + 1}" if again else names[place]
