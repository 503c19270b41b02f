"""Head ``diffuse``: what is refused, and what is taken at the edge."""

from __future__ import annotations

from typing import Any

import pytest

from recbench.reasoning.diffuse import DiffuReason
from tests.reasoning.refining import (
    losses,
    system,
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_samples": 8}, "set test_explore"),
        ({"test_explore": 0.5, "forward": "none"}, "no noise to scale"),
        ({"start": 0.1}, "level 0"),
        ({"start": 0.0}, r"start is 0; it lies in \(0, 1\]"),
        ({"start": 1.1}, r"start is 1.1; it lies in \(0, 1\]"),
        ({"levels": 1, "schedule": "cosine"}, "cosine"),
        ({"info_low": 0.0}, "info_low is 0"),
        ({"info_low": 2.0}, "info_low is 2 and info_high 1"),
        ({"kappa": 0.0}, "kappa is 0"),
        ({"mix": "learned", "mix_weight": 0.0}, "mix_weight is 0; .* strictly between"),
        ({"mix": "learned", "mix_weight": 1.0}, "mix_weight is 1; .* strictly between"),
        ({"mix": "learned", "refined": 0.0}, "refined is 0"),
        ({"guidance": 1.0}, "drop_condition"),
        ({"guidance": 1.0, "drop_condition": 0.1, "denoise_mse": 0.0, "denoise_ce": 0.0}, "denoising terms"),
        ({"guidance": 1.0, "drop_condition": 0.1, "denoise_share": 0.0}, "denoising terms"),
        ({"guidance": 1.0, "drop_condition": 0.1, "forward": "none"}, "denoising terms"),
        ({"guidance": 1.0, "drop_condition": 0.1, "condition": "none"}, "none to lead away from"),
        ({"group": 1}, "group is 1"),
        ({"levels": 0}, "levels=0 makes none"),
        ({"kl": 0.1}, "kl is 0.1 and reference none"),
        ({"reference": "ema"}, "kl is 0 and reference ema"),
        ({"kl": 0.1, "reference": "stage"}, "grpo_when=after"),
        ({"forward": "none", "noise_floor": 0.0}, "No move"),
        ({"policy_start": False, "noise_floor": 0.0, "start": 0.25}, "No move"),
        ({"policy_start": False, "noise_floor": 0.0, "explore": 0.0}, "No move"),
        ({"policy": "item", "kl": 0.1, "reference": "ema", "forward": "none", "noise_floor": 0.0}, "kl is over moves"),
        ({"kl": 0.1, "reference": "ema", "explore": 0.0, "noise_floor": 0.0}, "kl is over moves"),
        ({"kl": 0.1, "reference": "ema", "start": 0.25, "noise_floor": 0.0}, "kl is over moves"),
        (dict.fromkeys(["plain", "hypothesis", "refined", "denoise_mse", "denoise_ce", "grpo"], 0.0), "every loss"),
        ({"plain": 0.0, "hypothesis": 0.0, "refined": 0.0, "denoise_share": 0.0, "grpo_when": "after"}, "every loss"),
        ({"plain": 0.0, "hypothesis": 0.0, "levels": 0, "grpo": 0.0}, "every loss"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DiffuReason.Config(**changes)


@pytest.mark.parametrize(
    ("names", "values", "words"),
    [
        (["steps", "levels", "grpo_ramp_epochs"], [-1], "at least 0"),
        (["plain", "hypothesis", "refined", "denoise_mse", "denoise_ce", "grpo", "kl"], [-0.1], "at least 0"),
        (["reward_softmax", "clip", "noise_floor", "guidance"], [-0.1], "at least 0"),
        (["grpo_positions", "reward_cutoff", "test_samples", "denoiser_width"], [0], "at least 1"),
        (["explore", "test_explore", "denoise_share", "mix_weight"], [-0.1, 1.1], r"in \[0, 1\]"),
        (["drop_condition", "feed_dropout", "denoiser_dropout"], [-0.1, 1.0], r"in \[0, 1\)"),
    ],
)
def test_a_value_out_of_its_range_is_named_with_its_range(names: list[str], values: list[float], words: str) -> None:
    for name in names:
        for value in values:
            with pytest.raises(ValueError, match=rf"^{name} is {value:g}; it .* ?{words}\.$"):
                DiffuReason.Config(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"levels": 0, "grpo": 0.0},
        {"plain": 0.0, "hypothesis": 0.0, "refined": 0.0, "denoise_mse": 0.0, "denoise_ce": 0.0},
        {"plain": 0.0, "hypothesis": 0.0, "refined": 0.0, "denoise_mse": 0.0, "grpo": 0.0},
        {"kl": 0.1, "reference": "ema", "start": 0.25},
        {"levels": 1, "schedule": "cosine", "forward": "none"},
        {"policy_start": False, "noise_floor": 0.0},
        {"explore": 0.0, "noise_floor": 0.0},
        {"forward": "none", "noise_floor": 0.0, "grpo": 0.0},
        {"forward": "none", "noise_floor": 0.0, "policy": "item"},
        {"schedule": "cosine", "levels": 8, "start": 0.5, "refined": 0.0, "detach_items": False, "denoise_ce": 1.0}
        | {"denoise_share": 1.0, "policy_start": False, "noise_floor": 0.0},
    ],
)
def test_what_stands_at_the_edge_is_taken_and_trains(changes: dict[str, Any]) -> None:
    model = system(**changes)
    terms = losses(model)
    assert terms
    assert all(term.isfinite() for term in terms.values())
