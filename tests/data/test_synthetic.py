"""The generator: reproducible, as documented, and nothing in it betrays the answer."""

import hashlib
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from recbench.data.dataset import column_bytes
from recbench.data.sources.synthetic import Synthetic, describe, parse_settings
from recbench.data.synthetic import Settings, generate
from recbench.errors import RecbenchError

GOLDEN = "2e27a13a48690966883125fd0492433340164762b9aef87b2575fbf8fd759666"
"""Of the default data. A change to it is a change to every number on the synthetic dataset: say so in CHANGELOG."""
SMALL = Settings(users=300, min_length=5, mean_length=8, max_length=20)


def sha256(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(column_bytes(array.astype(np.int64)) for array in arrays)).hexdigest()


def test_the_same_seed_gives_the_same_data_and_another_seed_other_data() -> None:
    one, again, other = (generate(replace(SMALL, seed=seed))[1] for seed in (7, 7, 8))
    assert sha256(one.items, one.times, one.lengths) == sha256(again.items, again.times, again.lengths)
    assert sha256(one.items) != sha256(other.items)
    assert sha256(one.times) != sha256(other.times)


def test_the_default_data_is_the_same_on_every_machine() -> None:
    world, sequences = generate(Settings())
    assert sha256(sequences.items, sequences.times, sequences.lengths, world.label_V) == GOLDEN


def test_default_users_and_items_have_five_events_so_that_a_5_core_drops_nothing() -> None:
    world, sequences = generate(Settings())
    assert np.bincount(sequences.items, minlength=world.n_items).min() >= 5
    assert sequences.lengths.min() >= 5
    assert 11 < sequences.lengths.mean() < 13


def test_no_user_has_an_item_twice_and_times_strictly_increase() -> None:
    _, sequences = generate(SMALL)
    for items in sequences.histories():
        assert len(np.unique(items)) == len(items)
    starts = np.cumsum(sequences.lengths)[:-1]
    assert all((np.diff(times) > 0).all() for times in np.split(sequences.times, starts))


@pytest.mark.parametrize("exponent", [0.6, 0.9, 1.2])
def test_popularity_inside_a_leaf_falls_as_the_zipf_exponent_says(exponent: float) -> None:
    settings = Settings(zipf=exponent, mean_length=6, max_length=10)
    _, sequences = generate(settings)
    count = np.bincount(sequences.items % settings.items_per_leaf, minlength=settings.items_per_leaf)
    slope, _ = np.polyfit(np.log(np.arange(1, len(count) + 1)), np.log(count), 1)
    assert slope == pytest.approx(-exponent, abs=0.12)  # a little flatter: nobody takes the head twice


def test_intents_of_a_family_share_their_middle_and_end_by_beginning_and_taste() -> None:
    world, _ = generate(SMALL)
    family = world.leaf_GZS[:, :4]  # three tastes, four variants, five steps
    assert len(np.unique(family[:, :, 1])) == len(np.unique(family[:, :, 2])) == 1
    assert len(np.unique(family[0, :, 0])) == 4
    for taste in range(3):
        assert (family[taste, :, 3:] == np.roll(family[0, :, 3:], -taste, axis=0)).all()


def test_what_follows_an_intent_is_another_permutation_for_each_taste() -> None:
    world, _ = generate(SMALL)
    assert (np.sort(world.successor_GZ, axis=1) == np.arange(20)).all()
    assert all((one != two).any() for one, two in pairwise(world.successor_GZ))


def test_length_says_nothing_of_the_items() -> None:
    """The first five items of users who stay five events and of those who stay longer have the same leaves."""
    settings = Settings(users=20_000, mean_length=6, max_length=10)
    _, sequences = generate(settings)
    fifth = np.array([items[4] // settings.items_per_leaf for items in sequences.histories()])
    short = sequences.lengths == 5
    tables = np.stack([np.bincount(fifth[which], minlength=settings.leaves) for which in (short, ~short)])
    expected = tables.sum(1, keepdims=True) * tables.sum(0) / tables.sum()
    chi2 = ((tables - expected) ** 2 / expected).sum()
    assert chi2 < 24 + 4 * np.sqrt(2 * 24)  # 24 degrees of freedom, four standard deviations


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("users", 0),
        ("distraction", 0.0),
        ("loyalty", math.inf),
        ("loyalty", 1e308),
        ("zipf", math.inf),
        ("zipf", 50.0),
        ("distraction", 1.0),
        ("repeat", 1.0),
        ("follow", 1.5),
        ("zipf", -1.0),
        ("leaves", 5),
        ("brands", 2),
        ("max_length", 41),
        ("mean_length", 3.0),
        ("loyalty", float("nan")),
        ("steps", 1),
    ],
)
def test_nonsense_is_refused_by_name(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=setting):
        Settings(**{setting: value})


def test_the_source_gives_coded_events_with_metadata_for_exactly_the_items_that_occur() -> None:
    events = Synthetic(None, {"users": 40, "seed": 3, "mean_length": 6, "max_length": "10"}).read(lambda _: None)
    world, sequences = generate(Settings(users=40, seed=3, mean_length=6, max_length=10))
    raw = world.raw_ids()
    assert [events.item_ids[code] for code in events.item] == [raw[item] for item in sequences.items]
    assert list(np.unique(events.item)) == list(range(len(events.item_ids)))
    assert len(events.item_ids) < world.n_items
    assert events.items is not None
    assert list(events.items["raw_id"]) == events.item_ids
    assert len(events.user_ids) == 40
    assert (np.bincount(events.user) == sequences.lengths).all()
    assert events.time_unit == "s"


def test_metadata_names_leaf_and_brand_and_only_those() -> None:
    world, _ = generate(Settings(leaves=35, brands=15))
    items = describe(world)
    leaf = items["categories"].map(tuple)
    assert leaf.nunique() == 35
    assert (leaf.map(len) == 2).all()
    assert items["brand"].nunique() == 15
    assert items["title"].is_unique
    assert items["price"].between(3, 300).all()
    rank = np.tile(np.arange(40), 35)
    assert abs(np.corrcoef(rank, items["raw_id"].str[1:].astype(int))[0, 1]) < 0.1
    assert abs(np.corrcoef(rank, items["price"])[0, 1]) < 0.1


def test_an_unknown_setting_names_the_nearest_and_a_bad_value_what_is_wrong_with_it() -> None:
    with pytest.raises(RecbenchError) as error:
        parse_settings({"user": 10})
    assert error.value.fix == "Did you mean users?"
    with pytest.raises(RecbenchError, match="users is 0; it must be at least 1"):
        parse_settings({"users": 0})
    with pytest.raises(RecbenchError, match="many"):
        parse_settings({"users": "many"})
