"""Backbones' equations once more, one row at a time and slowly, to hold the fast code against. Nothing here is shared with it."""

from __future__ import annotations

import cmath
import math

import torch
from torch import Tensor, nn


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-12).sqrt() * layer.weight + layer.bias


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return x @ layer.weight.T + layer.bias


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def feed_forward(x: Tensor, part: nn.Module) -> Tensor:
    return norm(x + linear(gelu(linear(x, part.inner)), part.outer), part.norm)


def attention(x: Tensor, part: nn.Module, visible: Tensor, n_heads: int) -> Tensor:
    """Multi-head attention of one row (T, D); ``visible[t, s]``: may t see s?"""
    d = x.shape[1] // n_heads
    q, k, v = linear(x, part.query_key_value).chunk(3, dim=1)
    mixed = torch.empty_like(x)
    for head in range(n_heads):
        of = slice(head * d, (head + 1) * d)
        for t in range(len(x)):
            seen = visible[t].nonzero()[:, 0]
            weight = torch.stack([q[t, of] @ k[s, of] / math.sqrt(d) for s in seen]).softmax(0)
            mixed[t, of] = sum(w * v[s, of] for w, s in zip(weight, seen, strict=True))
    return norm(x + linear(mixed, part.attended), part.norm)


def causal(T: int) -> Tensor:
    return torch.ones(T, T).tril().bool()


def transform(x: list[complex]) -> list[complex]:
    """The discrete Fourier transform as its definition says."""
    N = len(x)
    return [sum(x[t] * cmath.exp(-2j * cmath.pi * k * t / N) for t in range(N)) for k in range(N)]


def back(X: list[complex]) -> list[float]:
    """The inverse transform; what is left of an imaginary part must be rounding."""
    N = len(X)
    x = [sum(X[k] * cmath.exp(2j * cmath.pi * k * t / N) for k in range(N)) / N for t in range(N)]
    assert max(abs(value.imag) for value in x) < 1e-12
    return [value.real for value in x]


def mirrored(half: list[complex], N: int) -> list[complex]:
    """Weights of all N frequencies from those of the real transform; a frequency that is its own mirror image is real."""
    whole = [0j] * N
    for k, weight in enumerate(half):
        whole[k] = complex(weight.real) if k in (0, N - k) else weight
        whole[-k % N] = whole[k].conjugate()
    return whole


def filtered(x: Tensor, weights: list[list[complex]], N: int) -> Tensor:
    """Each channel of a row (T, D), padded with zeros on the left to N places, times its weights in frequency; its own T places."""
    T, D = x.shape
    out = torch.empty_like(x)
    for d in range(D):
        padded = [0.0] * (N - T) + x[:, d].tolist()
        spectrum = [w * X for w, X in zip(mirrored(weights[d], N), transform(padded), strict=True)]
        out[:, d] = torch.tensor(back(spectrum)[N - T :], dtype=x.dtype)
    return out
