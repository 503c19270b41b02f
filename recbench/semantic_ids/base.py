"""What a tokeniser is: vectors in, L codes an item out. Letters: N items, A coordinates, L levels, C codes of a level."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True, slots=True)
class Quantised:
    """Codes of items before they are made unique, and what decodes them."""

    codes_NL: np.ndarray
    """(N, L) int64, each in 0..C - 1."""
    codebooks: tuple[np.ndarray, ...]
    """One (C, W) float32 a level; W is the width in which the method quantises."""
    residuals_NW: np.ndarray
    """What is left before the last level, (N, W) float32: its distances to the last codebook choose the last code."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What a card says of the fit: errors by level, epochs."""


class Tokeniser(ABC):
    """Codes from vectors. Every class holds its ``Config``, a frozen dataclass."""

    Config: ClassVar[type[Any]]

    def __init__(self, config: Any = None) -> None:
        self.config = config or self.Config()

    @abstractmethod
    def fit(self, x_NA: np.ndarray, levels: int, codes: int, seed: int) -> Quantised:
        """Learn codebooks and quantise. The same arguments give the same codes.

        Args:
            x_NA: vectors of the known items; at least ``codes`` of them.
        """

    @classmethod
    def least_items(cls, codes: int) -> int:
        """Items needed for ``codes`` codes a level."""
        return codes
