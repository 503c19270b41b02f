"""The diffusion behind head ``diffuse``: noise schedules, one reverse move for all samplers, and the denoiser.

Every process here is q(z_t | z*, h) = N(a_t z* + b_t h, v_t I) at levels t = 0 (clean) .. J, with z* the target's direction and h
the hypothesis, both of length sqrt(D). Sources: forward and posterior Ho et al., arXiv 2006.11239, eq. 4 to 7; noise-free move
Song et al., DDIM, arXiv 2010.02502, eq. 12; cosine schedule Nichol & Dhariwal, arXiv 2102.09672, eq. 17; a mean that slides from
the target to the hypothesis Yue et al., ResShift, arXiv 2307.12348, eq. 1 to 7; modulated layers Peebles & Xie, DiT, arXiv
2212.09748, 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbench.kernels.dropout import Dropout

Forward = Literal["gauss", "shift", "none"]
Schedule = Literal["information", "cosine"]
WIDEST = 256
"""Of a denoiser that nobody gave a width: beside a language model's states, 37 D^2 weights would be a model of their own."""


def direction(x: Tensor) -> Tensor:
    """x / |x| along the last axis, in float32 at least; 0 stays 0."""
    x = x if x.dtype == torch.float64 else x.float()
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-12)


def on_sphere(x: Tensor) -> Tensor:
    """x at length sqrt(D): unit variance a dimension."""
    return direction(x) * math.sqrt(x.shape[-1])


@dataclass(frozen=True, slots=True)
class Process:
    """a_t, b_t, v_t for t = 0..J, and q_t, the posterior's standard deviation of the move from t to t - 1."""

    a: tuple[float, ...]
    b: tuple[float, ...]
    v: tuple[float, ...]
    q: tuple[float, ...]

    @property
    def levels(self) -> int:
        """J."""
        return len(self.a) - 1

    def mean(self, z: Tensor, clean: Tensor, h: Tensor, t: int, sd: float) -> Tensor:
        """Mean of z_{t-1} given z_t = ``z`` and the predicted clean variable, for a move with standard deviation ``sd``.

        sd 0 is DDIM, sd q_t the ancestral posterior; from t = 1 it is ``clean`` itself.
        """
        before = self.a[t - 1] * clean + self.b[t - 1] * h if t > 1 else clean
        left = self.v[t - 1] - sd * sd
        if left <= 0 or not self.v[t]:
            return before
        noise = (z - self.a[t] * clean - self.b[t] * h) / math.sqrt(self.v[t])
        return before + math.sqrt(left) * noise

    def noised(self, clean_ND: Tensor, h_ND: Tensor, t_N: Tensor, noise_ND: Tensor) -> Tensor:
        """z_t of each row at its own level."""
        a, b, v = (
            torch.tensor(x, device=clean_ND.device, dtype=clean_ND.dtype)[t_N, None] for x in (self.a, self.b, self.v)
        )
        return a * clean_ND + b * h_ND + v.sqrt() * noise_ND


def process(
    forward: Forward,
    schedule: Schedule,
    levels: int,
    *,
    width: int,
    n_items: int,
    kappa: float = 1.0,
    info_high: float = 1.0,
    info_low: float = 0.05,
) -> Process:
    """The process of J = ``levels`` levels.

    ``information``: D snr_t / (2 ln V) falls geometrically from ``info_high`` to ``info_low``. Above 1 the nearest item to a noisy
    target is the target itself, so that nothing but decoding can be learned there.
    """
    zeros, ones = np.zeros(levels + 1), np.ones(levels + 1)
    if forward == "none":
        return Process(*(tuple(x.tolist()) for x in (ones, zeros, zeros, zeros)))
    with np.errstate(divide="ignore"):
        kept = cosine(levels) if schedule == "cosine" else None
        snr = (
            kept[1:] / (1 - kept[1:])
            if kept is not None
            else np.geomspace(info_high, info_low, levels) * 2 * math.log(n_items) / width
        )
    if forward == "gauss":
        kept = np.concatenate([[1.0], snr / (1 + snr)])
        a, b, v = np.sqrt(kept), zeros, 1 - kept
        rho = kept[1:] / kept[:-1]
    else:
        c = kappa**2 * np.concatenate([snr[:-1], [0.0]])
        eta = np.concatenate([[0.0], 1 + c / 2 - np.sqrt(c + c**2 / 4)])
        a, b, v = 1 - eta, eta, kappa**2 * eta
        rho = np.ones(levels)
    q = np.sqrt(np.maximum(v[:-1] * (1 - rho * v[:-1] / v[1:]), 0))
    return Process(*(tuple(x.tolist()) for x in (a, b, v, np.concatenate([[0.0], q]))))


def cosine(levels: int) -> np.ndarray:
    """abar_0 .. abar_J of the cosine schedule, beta cut to [1e-4, 0.999]."""
    u = np.arange(levels + 1) / max(1, levels)
    g = np.cos(np.pi / 2 * (u + 0.008) / 1.008) ** 2
    beta = np.clip(1 - g[1:] / g[:-1], 1e-4, 0.999)
    return np.concatenate([[1.0], np.cumprod(1 - beta)])


@dataclass(frozen=True, slots=True)
class Condition:
    """What the denoiser knows of the history; its keys and values are made once for all levels."""

    h_ND: Tensor
    """The hypothesis, of length sqrt(D)."""
    keys_NKE: Tensor
    values_NKE: Tensor


class Denoiser(nn.Module):
    """zhat(z_t, t, H) = sqrt(D) n(h + W_o Net): the clean direction from a noisy one and the thoughts; about 37 D^2 parameters,
    32 E^2 + 6 D E where it is narrower.

    W_o starts at 0, so that the first prediction is the hypothesis itself, whatever the noise.

    Args:
        inner: E, the width that Net works in: what it reads is projected to it, W_o leads back. None: D, at most ``WIDEST``.
    """

    def __init__(
        self,
        width: int,
        levels: int,
        *,
        dropout: float,
        residual: bool,
        project: bool,
        previous: bool,
        inner: int | None = None,
    ) -> None:
        super().__init__()
        D, E = width, inner or min(width, WIDEST)
        self.residual, self.project, self.previous = residual, project, previous
        self.enter = nn.Linear((3 if previous else 2) * D, E)
        self.query, self.key, self.value, self.read = (nn.Linear(of, E) for of in (E, D, D, E))
        self.time = nn.Sequential(nn.Linear(E, 4 * E), nn.GELU(), nn.Linear(4 * E, E))
        self.blocks = nn.ModuleList(_Block(E, dropout) for _ in range(2))
        self.leave = nn.Linear(E, D)
        self.narrow = nn.Identity() if E == D else nn.Linear(D, E, bias=False)
        nn.init.zeros_(self.leave.bias)
        nn.init.zeros_(self.leave.weight) if residual else nn.init.normal_(self.leave.weight, std=0.02)
        self.register_buffer("waves", _waves(levels, E), persistent=False)

    waves: Tensor

    def condition(self, h_ND: Tensor, thoughts_NKD: Tensor) -> Condition:
        """What every call on these rows shares.

        Args:
            h_ND: hypothesis of length sqrt(D).
            thoughts_NKD: what may be read.
        """
        return Condition(h_ND, self.key(thoughts_NKD), self.value(thoughts_NKD))

    def forward(self, z_ND: Tensor, t: int | Tensor, known: Condition, previous_ND: Tensor | None = None) -> Tensor:
        """zhat, (N, D). ``t``: one level, or one a row (N,). ``previous_ND``: an earlier zhat (self-conditioning)."""
        h_ND = known.h_ND
        z_ND = z_ND * torch.rsqrt(z_ND.square().mean(-1, keepdim=True) + 1e-12)
        parts = [z_ND, h_ND]
        if self.previous:
            parts.append(torch.zeros_like(h_ND) if previous_ND is None else previous_ND)
        x_NE = self.enter(torch.cat(parts, dim=1))
        weight_NK = (known.keys_NKE @ self.query(x_NE)[..., None])[..., 0] * x_NE.shape[1] ** -0.5
        x_NE = x_NE + self.read((weight_NK.softmax(-1)[:, None] @ known.values_NKE)[:, 0])
        context_NE = self.time(self.waves[t]) + self.narrow(h_ND)
        for block in self.blocks:
            x_NE = block(x_NE, context_NE)
        out_ND = self.leave(x_NE)
        if self.residual:
            out_ND = h_ND + out_ND
        return on_sphere(out_ND) if self.project else out_ND


class _Block(nn.Module):
    """Residual MLP whose norm is shifted, scaled and gated by the context."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        self.modulate = nn.Linear(width, 3 * width)
        self.dropout = Dropout(dropout)

    def forward(self, x_ND: Tensor, context_ND: Tensor) -> Tensor:
        shift_ND, scale_ND, gate_ND = self.modulate(context_ND).chunk(3, dim=-1)
        y_ND = torch.addcmul(shift_ND, F.layer_norm(x_ND, x_ND.shape[-1:]), 1 + scale_ND)
        y_ND = self.dropout(self.outer(F.gelu(self.inner(y_ND))))
        return torch.addcmul(x_ND, gate_ND, y_ND)


def _waves(levels: int, width: int) -> Tensor:
    """Sines and cosines of each level, (J + 1, D)."""
    half = (width + 1) // 2
    rate = torch.exp(-math.log(10_000) * torch.arange(half) / half)
    angle = 1000 * torch.arange(levels + 1)[:, None] / max(1, levels) * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width]
