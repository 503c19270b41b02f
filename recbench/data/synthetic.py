"""The built-in dataset: shoppers who follow multi-step intents. ``docs/synthetic.md`` has the equations.

The hidden state of a user is (taste, intent, step), a space small enough for ``oracle.py`` to sum over. Only uniform
draws and IEEE arithmetic decide an event, so one seed gives the same data on every machine.

Letters: R users or histories, T events, G tastes, Z intents, S steps of an intent, C leaf categories, N items a leaf,
V = C N items. An item's index is c N + n, n its popularity rank inside leaf c; raw ids are shuffled and tell neither.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

EPOCH = 1_577_836_800
"""First second of 2020, UTC: no event is earlier."""
DAY = 86_400
MOST_LOYAL = 1_000_000
"""Beyond, what is left of a leaf once its favoured items are gone would be lost in rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is generated. The defaults make a demo: small enough for a laptop, hard enough to tell systems apart."""

    seed: int = 0
    """Decides everything: the same seed and settings give the same events."""
    users: int = 6000
    """Users; each has ``min_length`` events or more."""
    leaves: int = 25
    """Leaf categories."""
    items_per_leaf: int = 40
    """Items in each leaf; at least ``max_length``, so that no leaf runs out."""
    brands: int = 12
    """Brands; brand b is to taste b mod ``tastes``."""
    tastes: int = 3
    """Kinds of users. A taste favours its brands and decides how intents end and which intent is next."""
    families: int = 5
    """Groups of intents that share their middle steps."""
    variants: int = 4
    """Intents in a family: each begins in its own leaf."""
    steps: int = 5
    """Steps of an intent."""
    zipf: float = 0.9
    """Exponent of popularity inside a leaf: weight = rank ** -zipf."""
    loyalty: float = 6.0
    """How many times likelier an item is for being of a favoured brand."""
    distraction: float = 0.1
    """Chance that an event is a popular item of anywhere."""
    repeat: float = 0.1
    """Chance to stay at a step for another item."""
    skip: float = 0.05
    """Chance to jump over a step."""
    follow: float = 0.9
    """Chance that the next intent is the one that intent and taste call for; else it is drawn afresh."""
    min_length: int = 5
    """Fewest events of a user."""
    mean_length: float = 12.0
    """Mean events of a user, before the cut at ``max_length``."""
    max_length: int = 40
    """Most events of a user."""

    def __post_init__(self) -> None:
        least = dict.fromkeys((field.name for field in fields(self)), 1) | {"seed": 0, "steps": 2, "zipf": 0, "skip": 0}
        least |= {"repeat": 0, "distraction": 0, "follow": 0}
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {low}")
        if not 0 < self.distraction < 1:
            raise ValueError(
                f"distraction is {self.distraction}; it must lie between 0 and 1, so that any item can come"
            )
        if not self.loyalty <= MOST_LOYAL:
            raise ValueError(f"loyalty is {self.loyalty}; it must be at most {MOST_LOYAL:,}")
        if not _zipf(self.zipf, self.items_per_leaf).all():
            raise ValueError(
                f"zipf is {self.zipf}; the last of the {self.items_per_leaf} items of a leaf would never come"
            )
        if self.follow > 1 or self.repeat + self.skip >= 1:
            raise ValueError(f"follow {self.follow} must be at most 1, repeat {self.repeat} + skip {self.skip} below 1")
        if not self.min_length <= self.mean_length <= self.max_length <= self.items_per_leaf:
            raise ValueError(
                f"min_length {self.min_length} <= mean_length {self.mean_length} <= max_length {self.max_length} "
                f"<= items_per_leaf {self.items_per_leaf} does not hold"
            )
        if self.leaves < self.leaves_of_a_family:
            raise ValueError(f"leaves is {self.leaves}; a family of these intents spans {self.leaves_of_a_family}")
        if self.brands < self.tastes:
            raise ValueError(f"brands is {self.brands}; {self.tastes} tastes need one each")

    @property
    def endings(self) -> int:
        """Steps at the end of an intent that are not shared by its family."""
        return 2 if self.steps >= 4 else 1

    @property
    def leaves_of_a_family(self) -> int:
        """Leaves in the beginnings, the shared middle and the endings of one family."""
        return self.variants + (self.steps - 1 - self.endings) + self.variants * self.endings


@dataclass(frozen=True, slots=True)
class World:
    """What is fixed for all users: who wants what, in which order, and how likely each item is at each step."""

    settings: Settings
    first_Z: np.ndarray
    """Chance of an intent that is drawn afresh."""
    successor_GZ: np.ndarray
    """The intent that follows intent z of a user of taste g; each row is a permutation."""
    leaf_GZS: np.ndarray
    """Where step s of intent z takes place for taste g."""
    brand_CN: np.ndarray
    weight_GCN: np.ndarray
    """p(item | leaf, taste), before items the user has are taken out."""
    popularity_CN: np.ndarray
    """p(item | distraction), likewise."""
    label_V: np.ndarray
    """A permutation of 0..V-1; the raw id is made of it."""

    @property
    def n_items(self) -> int:
        """Items that can be emitted."""
        return self.popularity_CN.size

    def raw_ids(self) -> list[str]:
        """The raw id of each item."""
        return [f"P{label:05d}" for label in self.label_V]


@dataclass(frozen=True, slots=True)
class Sequences:
    """What users did, user by user, oldest first: ``items`` and ``times`` (E,), ``lengths`` (R,)."""

    items: np.ndarray
    times: np.ndarray
    lengths: np.ndarray

    def histories(self) -> list[np.ndarray]:
        """Items of each user."""
        return np.split(self.items, np.cumsum(self.lengths)[:-1])


def generate(settings: Settings) -> tuple[World, Sequences]:
    """The world of these settings, and what its users did."""
    rng = np.random.Generator(np.random.PCG64(settings.seed))
    world = build_world(settings, rng)
    return world, draw_sequences(world, rng)


def build_world(settings: Settings, rng: np.random.Generator) -> World:
    """A world drawn at random."""
    s, n_intents = settings, settings.families * settings.variants
    zipf_N = _zipf(s.zipf, s.items_per_leaf)
    brand_CN = np.stack([_permutation(s.items_per_leaf, rng) % s.brands for _ in range(s.leaves)])
    favoured_GCN = brand_CN % s.tastes == np.arange(s.tastes)[:, None, None]
    return World(
        settings=s,
        first_Z=np.full(n_intents, 1 / n_intents),
        successor_GZ=np.stack([_permutation(n_intents, rng) for _ in range(s.tastes)]),
        leaf_GZS=_leaves_of_intents(s, rng),
        brand_CN=brand_CN,
        weight_GCN=_normalised(np.where(favoured_GCN, s.loyalty, 1.0) * zipf_N),
        popularity_CN=_normalised(np.tile(zipf_N, s.leaves)[None]).reshape(s.leaves, -1),
        label_V=_permutation(s.leaves * s.items_per_leaf, rng),
    )


def _leaves_of_intents(s: Settings, rng: np.random.Generator) -> np.ndarray:
    """``leaf_GZS``: own beginning, the family's middle, then the ending number (variant + taste) mod variants.

    A family takes the leaves that carry least so far, so that every leaf, and with it every item, is in use.
    """
    leaf_GZS = np.empty((s.tastes, s.families * s.variants, s.steps), dtype=np.int64)
    n_middle, load_C = s.steps - 1 - s.endings, np.zeros(s.leaves)
    for family in range(s.families):
        leaves = np.argsort(load_C + rng.random(s.leaves), kind="stable")[: s.leaves_of_a_family]
        middle, begin, end = np.split(leaves, [n_middle, n_middle + s.variants])
        load_C[leaves] += np.where(np.arange(len(leaves)) < n_middle, s.variants, 1)
        for variant in range(s.variants):
            for taste in range(s.tastes):
                ending = end.reshape(s.variants, -1)[(variant + taste) % s.variants]
                leaf_GZS[taste, family * s.variants + variant] = [begin[variant], *middle, *ending]
    return leaf_GZS


def draw_sequences(world: World, rng: np.random.Generator) -> Sequences:
    """What the users do. How long a user stays, and when, depends on nothing hidden: the oracle rests on that."""
    s, rows = world.settings, np.arange(world.settings.users)
    lengths_R = _draw_lengths(s, rng)
    taste_R = (rng.random(s.users) * s.tastes).astype(np.int64)
    intent_R = _pick(np.broadcast_to(world.first_Z, (s.users, len(world.first_Z))), rng.random(s.users))
    step_R = np.zeros(s.users, dtype=np.int64)
    seen_RV = np.zeros((s.users, world.n_items), dtype=bool)
    items_RT = np.empty((s.users, s.max_length), dtype=np.int64)
    for t in range(int(lengths_R.max())):
        on = rows[lengths_R > t]
        u_4R = rng.random((4, s.users))[:, on]  # a user's draws do not depend on how long others stay
        if t:
            intent_R[on], step_R[on] = _move(world, taste_R[on], intent_R[on], step_R[on], u_4R[:2])
        leaf = world.leaf_GZS[taste_R[on], intent_R[on], step_R[on]]
        items_RT[on, t] = _emit(world, taste_R[on], leaf, seen_RV[on], u_4R[2:])
        seen_RV[on, items_RT[on, t]] = True
    real_RT = np.arange(s.max_length) < lengths_R[:, None]
    return Sequences(items_RT[real_RT], _draw_times(s, rng)[real_RT], lengths_R)


def _move(
    world: World, taste_R: np.ndarray, intent_R: np.ndarray, step_R: np.ndarray, u_2R: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The next intent and step: stay, go on or jump; past the last step, the first step of the intent that follows."""
    s = world.settings
    step_R = step_R + 1 - (u_2R[0] < s.repeat) + (u_2R[0] >= 1 - s.skip)
    n_intents = len(world.first_Z)
    afresh_R = ((u_2R[1] - s.follow) / max(1 - s.follow, 1e-12) * n_intents).astype(np.int64).clip(0, n_intents - 1)
    next_R = np.where(u_2R[1] < s.follow, world.successor_GZ[taste_R, intent_R], afresh_R)
    over_R = step_R >= s.steps
    return np.where(over_R, next_R, intent_R), np.where(over_R, 0, step_R)


def _emit(world: World, taste_R: np.ndarray, leaf_R: np.ndarray, seen_RV: np.ndarray, u_2R: np.ndarray) -> np.ndarray:
    """An item each user does not have yet: of the step's leaf, or a distraction."""
    n = world.settings.items_per_leaf
    item_R = np.empty(len(leaf_R), dtype=np.int64)
    astray = u_2R[0] < world.settings.distraction
    item_R[astray] = _pick(world.popularity_CN.reshape(-1) * ~seen_RV[astray], u_2R[1, astray])
    there = ~astray
    seen_RN = np.take_along_axis(seen_RV[there].reshape(-1, *world.brand_CN.shape), leaf_R[there, None, None], 1)[:, 0]
    weight_RN = world.weight_GCN[taste_R[there], leaf_R[there]] * ~seen_RN
    item_R[there] = leaf_R[there] * n + _pick(weight_RN, u_2R[1, there])
    return item_R


def _draw_lengths(s: Settings, rng: np.random.Generator) -> np.ndarray:
    """Events of each user: ``min_length`` plus a geometric number, cut at ``max_length`` by redrawing."""
    extra = s.mean_length - s.min_length
    tail = np.full(s.max_length - s.min_length + 1, extra / (extra + 1))
    tail[0] = 1.0
    return s.min_length + _pick(np.broadcast_to(np.cumprod(tail), (s.users, len(tail))), rng.random(s.users))


def _draw_times(s: Settings, rng: np.random.Generator) -> np.ndarray:
    """Seconds, strictly increasing per user: a start within two years, then gaps of up to 30 days, most short."""
    u_RT = rng.random((s.users, s.max_length))
    gap_RT = 1 + (u_RT * u_RT * u_RT * 30 * DAY).astype(np.int64)
    gap_RT[:, 0] = (u_RT[:, 0] * 730 * DAY).astype(np.int64)
    return EPOCH + np.cumsum(gap_RT, axis=1)


def _zipf(exponent: float, n: int) -> np.ndarray:
    """Weights by rank, rounded: the last bit of a power differs between machines."""
    return np.round(np.arange(1, n + 1, dtype=np.float64) ** -exponent, 12)


def _permutation(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.argsort(rng.random(n), kind="stable")


def _normalised(weights: np.ndarray) -> np.ndarray:
    """Rows that sum to 1; added up in order, for the same bits on every machine."""
    return weights / np.cumsum(weights, axis=-1)[..., -1:]


def _pick(weights_RN: np.ndarray, u_R: np.ndarray) -> np.ndarray:
    """One column a row, with chance proportional to its weight."""
    below_RN = np.cumsum(weights_RN, axis=1)
    return np.argmax(below_RN > (u_R * below_RN[:, -1])[:, None], axis=1)
