"""The scan over packed rows against a loop, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recbench.kernels.scan import scan, shifts

LENGTHS = [1, 2, 3, 5, 8, 9]
"""Around powers of 2, where doubling could go wrong."""
POSITION = torch.tensor([i for length in LENGTHS for i in range(length)])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def loop(u: Tensor, decay: Tensor) -> Tensor:
    states: list[Tensor] = []
    for n, position in enumerate(POSITION.tolist()):
        states.append(u[n] + decay * states[-1] if position else u[n])
    return torch.stack(states)


def test_every_row_is_its_own_recurrence() -> None:
    u, decay = drawn(len(POSITION), 4), 0.6 * drawn(4, seed=1)
    torch.testing.assert_close(scan(u, decay, shifts(POSITION, max(LENGTHS))), loop(u, decay), atol=1e-12, rtol=0)


def test_long_rows_in_float32_are_nearly_as_exact_as_a_loop() -> None:
    """Powers of a decay are where digits go: 4e-5 off by pow, a fourth of it by squaring."""
    T = 200
    decay = torch.polar(torch.full((8,), 0.99), torch.linspace(0.1, 6.2, 8))
    u = drawn(T, 8).cfloat()
    state, exact = torch.zeros(8, dtype=torch.complex128), []
    for x in u:
        state = decay * state + x
        exact.append(state)
    found = scan(u, decay, shifts(torch.arange(T), T))
    torch.testing.assert_close(found, torch.stack(exact).cfloat(), atol=2e-5, rtol=0)


def test_gradients_are_those_of_the_loop() -> None:
    u, decay = drawn(len(POSITION), 3).requires_grad_(), (0.6 * drawn(3, seed=1)).requires_grad_()
    weight = drawn(len(POSITION), 3, seed=2)
    fast = torch.autograd.grad((scan(u, decay, shifts(POSITION, 9)) * weight).real.sum(), (u, decay))
    slow = torch.autograd.grad((loop(u, decay) * weight).real.sum(), (u, decay))
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
    assert torch.autograd.gradcheck(lambda u, decay: scan(u, decay, shifts(POSITION, 9)), (u, decay))


def test_inputs_are_left_as_they_were() -> None:
    u, decay = drawn(len(POSITION), 2), drawn(2, seed=1)
    before = u.clone()
    scan(u, decay, shifts(POSITION, 9))
    assert torch.equal(u, before)


@pytest.mark.parametrize("longest", [1, 2, 3, 4, 5, 50])
def test_reaches_are_as_many_as_the_longest_row_needs(longest: int) -> None:
    reaches = [reach for reach, _ in shifts(torch.arange(longest), longest)]
    assert sum(reaches) >= longest - 1  # doubling gathers 1 + 1 + 2 + 4 ... tokens
    assert sum(reaches[:-1]) < max(longest - 1, 1)


def test_rows_of_one_token_are_left_alone_and_the_decay_gets_no_gradient() -> None:
    u, decay = drawn(3, 2).requires_grad_(), drawn(2, seed=1).requires_grad_()
    h = scan(u, decay, shifts(torch.zeros(3, dtype=torch.long), 1))
    assert torch.equal(h, u)
    h.real.sum().backward()
    assert not decay.grad.any()
