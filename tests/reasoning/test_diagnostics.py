"""What heads log of their thoughts, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from recbench.reasoning.diagnostics import note_similarity
from tests.reasoning.given import context

TURNING = [[[1.0, 0.0], [0.0, 2.0], [0.0, -1.0]], [[1.0, 0.0], [3.0, 0.0], [3.0, 3.0]]]
"""Two chains: a quarter turn and a half turn; no turn and an eighth."""


def test_successive_thoughts_are_as_alike_as_their_directions() -> None:
    told = context()
    note_similarity(told, torch.tensor(TURNING), first=3)
    assert told.noted() == pytest.approx({"similarity@4": (0 + 1) / 2, "similarity@5": (-1 + math.sqrt(0.5)) / 2})


def test_a_chain_that_has_stopped_says_nothing_of_later_steps() -> None:
    stopped = torch.tensor(TURNING)
    stopped[0, 2] = stopped[0, 1]  # it repeats its last thought, at cosine 1
    told = context()
    note_similarity(told, stopped, steps_Q=torch.tensor([1, 2]))
    assert told.noted() == pytest.approx({"similarity@1": 0.5, "similarity@2": math.sqrt(0.5)})
    note_similarity(told, stopped, steps_Q=torch.tensor([1, 0]))
    assert told.noted() == pytest.approx({"similarity@1": 0.0})
