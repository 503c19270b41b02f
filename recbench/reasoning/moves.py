"""Down the noise levels, S .. 1: without noise for what ranks, with noise for what is reinforced, and how probable that was.

A move is a draw from a normal around the posterior's mean (``diffusion.Process.mean``), and a path is as probable as its moves
together, as in DDPO (Black et al., arXiv 2305.13301).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from recbench.reasoning.diffuse_settings import DiffuReasonConfig
from recbench.reasoning.diffusion import Condition, Denoiser, Process

Predict = Callable[[Tensor, int, Tensor | None], Tensor]
"""zhat of z_t at level t, given the prediction before, if there is one."""


@final
class Moves:
    """The policy of refinements: a start, then one move a level. It has no parameters; a denoiser makes its means."""

    def __init__(self, process: Process, config: DiffuReasonConfig) -> None:
        self.process, self.config, self.S = process, config, config.first

    def predictions(self, predict: Predict, h_ND: Tensor, noise_SD: Tensor | None) -> Tensor:
        """zhat at levels S .. 1, (N, S, D); moves without noise, or with that of a table."""
        z_ND, clean_ND, made = self._start_mean(h_ND), None, []
        if noise_SD is not None:
            z_ND = z_ND + self._start_sd * noise_SD[0]
        for t in range(self.S, 0, -1):
            clean_ND = predict(z_ND, t, clean_ND)
            made.append(clean_ND)
            sd = 0.0 if noise_SD is None else self.config.test_explore * self.process.q[t]
            z_ND = self.process.mean(z_ND, clean_ND, h_ND, t, sd)
            if noise_SD is not None and sd:
                z_ND = z_ND + sd * noise_SD[self.S + 1 - t]
        return torch.stack(made, dim=1)

    def rollout(self, denoiser: Denoiser, known: Condition, generator: torch.Generator) -> list[Tensor]:
        """A noisy refinement of each row: z_S .. z_0, (N, D) each."""
        h_ND = known.h_ND

        def noise() -> Tensor:
            return torch.randn(h_ND.shape, generator=generator, device=h_ND.device, dtype=h_ND.dtype)

        path = [self._start_mean(h_ND) + self._start_sd * noise()]
        before_ND = None
        for t in range(self.S, 0, -1):
            before_ND = denoiser(path[-1], t, known, before_ND)
            sd = self._sd(t)
            mean_ND = self.process.mean(path[-1], before_ND, h_ND, t, sd)
            path.append(mean_ND + sd * noise() if sd else mean_ND)
        return path

    def path_log_prob(self, denoiser: Denoiser, path: list[Tensor], known: Condition) -> tuple[Tensor, list[Tensor]]:
        """log pi of each row's path with gradient through the means, (N,), and those means of the moves that count."""
        terms, means = [], []
        if self.config.policy_start and self._start_sd:
            terms.append(_log_normal(path[0], self._start_mean(known.h_ND), self._start_sd))
        before_ND = None
        for place, t in enumerate(range(self.S, 0, -1)):
            before_ND = denoiser(path[place], t, known, before_ND)
            if sd := self._sd(t):
                mean_ND = self.process.mean(path[place], before_ND, known.h_ND, t, sd)
                terms.append(_log_normal(path[place + 1], mean_ND, sd))
                means.append(mean_ND / sd)
        if not terms:
            raise ValueError("no move of the policy has noise: raise noise_floor or explore")
        per_move_ND = torch.stack(terms)
        return (per_move_ND.mean((0, 2)) if self.config.log_prob == "mean" else per_move_ND.sum((0, 2))), means

    def last_prediction(self, denoiser: Denoiser, path: list[Tensor], known: Condition) -> Tensor:
        """zhat behind the last move of a path, as its rollout made it, with the gradient of that one call, (N, D)."""
        before_ND = None
        if self.config.self_condition:
            with torch.no_grad():
                for place, t in enumerate(range(self.S, 1, -1)):
                    before_ND = denoiser(path[place], t, known, before_ND)
        made: Tensor = denoiser(path[-2], 1, known, before_ND)
        return made

    def _start_mean(self, h_ND: Tensor) -> Tensor:
        return (self.process.a[self.S] + self.process.b[self.S]) * h_ND

    @property
    def _start_sd(self) -> float:
        return math.sqrt(self.process.v[self.S])

    def _sd(self, t: int) -> float:
        return self.config.noise_floor if t == 1 else self.config.explore * self.process.q[t]


def _log_normal(x: Tensor, mean: Tensor, sd: float) -> Tensor:
    """log N(x; mean, sd^2) of each dimension."""
    return -((x - mean) / sd).square() / 2 - math.log(sd) - math.log(2 * math.pi) / 2
