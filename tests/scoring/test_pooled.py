"""The pooled loss and its divergence, made a few rows at a time, equal plain autograd over one big table of scores."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import combinations, permutations
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from recbench.scoring.pooled import pooled_loss
from recbench.scoring.softmax import ItemSoftmax

MIXTURES = {
    "mean": [[1 / 3, 1 / 3, 1 / 3]],
    "last": [[0.0, 0.0, 1.0]],
    "each": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    "general": [[0.2, 0.5, 0.3], [1.0, 0.0, -0.4]],
}


def example(rows: int = 23, states: int = 3, items: int = 17, width: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    z = torch.randn(rows, states, width, generator=generator, dtype=torch.float64, requires_grad=True)
    table = torch.randn(items + 1, width, generator=generator, dtype=torch.float64, requires_grad=True)
    return [z, table, torch.randint(1, items + 1, (rows,), generator=generator)]


def divergence(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


def textbook(
    z: torch.Tensor, table: torch.Tensor, target: torch.Tensor, mix: torch.Tensor, tau: float, form: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of the mixtures and divergence, from all scores at once, pair by pair."""
    scores = z @ table[1:].T / tau
    mixed = torch.einsum("mk,nkv->mnv", mix, scores)
    loss = sum(F.cross_entropy(one, target - 1) for one in mixed)
    log_p = scores.log_softmax(-1).unbind(1)
    if form == "paper":
        return loss, sum((divergence(p, q) for p, q in combinations(log_p, 2)), torch.zeros(()))
    pairs = [divergence(p, q.detach()) for p, q in permutations(log_p, 2)]
    return loss, torch.stack(pairs).mean()


def assert_equal_with_gradients(ours: torch.Tensor, theirs: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("tau", [1.0, 0.3, 2.5])
@pytest.mark.parametrize("mixture", MIXTURES)
def test_value_and_gradients_equal_the_textbook(mixture: str, tau: float, form: str) -> None:
    z, table, target = example()
    mix = torch.tensor(MIXTURES[mixture], dtype=torch.float64)
    loss, apart = pooled_loss(z, table, target, mix, tau, -0.7, form, 8)  # type: ignore[arg-type]
    plain, far = textbook(z, table, target, mix, tau, form)
    torch.testing.assert_close(loss, plain, atol=1e-12, rtol=0)
    torch.testing.assert_close(apart, -0.7 * far, atol=1e-12, rtol=0)
    assert_equal_with_gradients(3 * (loss + apart), 3 * (plain - 0.7 * far), [z, table])


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("chunk", [1, 7, 23, 100])
def test_the_chunk_changes_neither_loss_nor_gradient(chunk: int, form: str) -> None:
    z, table, target = example()
    mix = torch.tensor(MIXTURES["mean"], dtype=torch.float64)
    plain, far = textbook(z, table, target, mix, 0.5, form)
    loss, apart = pooled_loss(z, table, target, mix, 0.5, -0.3, form, chunk)  # type: ignore[arg-type]
    assert_equal_with_gradients(loss + apart, plain - 0.3 * far, [z, table])


@pytest.mark.parametrize("form", ["code", "paper"])
def test_one_state_is_plain_cross_entropy_and_nothing_apart(form: str) -> None:
    z, table, target = example(states=1)
    loss, apart = pooled_loss(z, table, target, torch.ones(1, 1), 0.5, -1.0, form, 8)  # type: ignore[arg-type]
    assert apart == 0
    assert_equal_with_gradients(loss, F.cross_entropy(z[:, 0] @ table[1:].T / 0.5, target - 1), [z, table])


def test_two_states_are_two_ordered_pairs_or_one_unordered() -> None:
    z, table, target = example(states=2)
    p, q = (z @ table[1:].T).log_softmax(-1).unbind(1)
    one_way, other_way = divergence(p, q), divergence(q, p)
    mix = torch.full((1, 2), 0.5)
    assert pooled_loss(z, table, target, mix, 1.0, 1.0, "code", 8)[1].item() == pytest.approx(
        (one_way + other_way).item() / 2, abs=1e-12
    )
    assert pooled_loss(z, table, target, mix, 1.0, 1.0, "paper", 8)[1].item() == pytest.approx(
        one_way.item(), abs=1e-12
    )


def test_the_code_form_equals_the_difference_of_log_sum_exps_with_a_detached_second_state() -> None:
    """KL(p_j || p_i) = (r_j - r_i) . ebar_j - lse_j + lse_i: the same value and the same gradient without any pair of rows."""
    z, table, target = example()
    mix = torch.tensor(MIXTURES["mean"], dtype=torch.float64)
    loss, apart = pooled_loss(z, table, target, mix, 1.0, 1.0, "code", 8)
    items, pairs = table[1:], []
    for j, i in permutations(range(3), 2):
        own, other = z[:, j] @ items.T, (z[:, i] @ items.T).detach()
        p = own.softmax(-1)
        first = ((p @ items) * z[:, j]).sum(-1) - own.logsumexp(-1)
        second = ((p @ items.detach()) * z[:, i].detach()).sum(-1) - other.logsumexp(-1)
        pairs.append((first - second).mean())
    expected = textbook(z, table, target, mix, 1.0, "code")[0] + torch.stack(pairs).mean()
    assert_equal_with_gradients(loss + apart, expected, [z, table])


@pytest.mark.parametrize("form", ["code", "paper"])
def test_equal_states_lie_nowhere_apart_and_get_no_gradient_from_that(form: str) -> None:
    z, table, target = example(states=1)
    same = z.detach().expand(-1, 3, -1).clone().requires_grad_()
    mix = torch.tensor(MIXTURES["mean"], dtype=torch.float64)
    loss, apart = pooled_loss(same, table, target, mix, 1.0, -5.0, form, 8)  # type: ignore[arg-type]
    assert apart.item() == pytest.approx(0, abs=1e-12)
    plain = F.cross_entropy(same.mean(1) @ table[1:].T, target - 1)
    assert_equal_with_gradients(loss + apart, plain, [same, table])


@pytest.mark.parametrize("form", ["code", "paper"])
def test_certain_states_give_a_finite_divergence_and_gradient(form: str) -> None:
    """p = (1, 0), q = (0, 1) to the last bit, scores 200 apart: KL(p || q) = KL(q || p) = 200."""
    table = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    z = torch.tensor([[[200.0, 0.0], [0.0, 200.0]]], requires_grad=True)
    loss, apart = pooled_loss(z, table, torch.tensor([1]), torch.full((1, 2), 0.5), 1.0, 1.0, form, 8)  # type: ignore[arg-type]
    assert apart.item() == pytest.approx(200)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)
    for gradient in torch.autograd.grad(loss + apart, [z, table]):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("form", ["code", "paper"])
def test_the_padding_row_takes_no_part_whatever_stands_in_it(form: str) -> None:
    z, table, target = example()
    mix = torch.tensor(MIXTURES["mean"], dtype=torch.float64)
    spoilt = table.detach().clone()
    spoilt[0] = -torch.inf
    spoilt.requires_grad_()
    clean = pooled_loss(z, table, target, mix, 1.0, -0.3, form, 8)  # type: ignore[arg-type]
    ours = pooled_loss(z, spoilt, target, mix, 1.0, -0.3, form, 8)  # type: ignore[arg-type]
    assert [part.item() for part in ours] == [part.item() for part in clean]
    gradient = torch.autograd.grad(sum(ours), [spoilt])[0]
    assert (gradient[0] == 0).all()
    assert gradient.isfinite().all()


def test_float32_agrees_with_float64_within_a_hundred_thousandth() -> None:
    z, table, target = example(rows=200, items=300, width=16)
    mix = torch.tensor(MIXTURES["mean"])
    exact = textbook(z, table, target, mix.double(), 1.0, "code")
    loss, apart = pooled_loss(z.float(), table.float(), target, mix, 1.0, 1.0, "code", 64)
    assert loss.item() == pytest.approx(exact[0].item(), rel=1e-5)
    assert apart.item() == pytest.approx(exact[1].item(), rel=1e-5)


def test_parts_with_different_weights_cannot_be_differentiated() -> None:
    z, table, target = example()
    mix = torch.tensor(MIXTURES["mean"], dtype=torch.float64)
    loss, apart = pooled_loss(z, table, target, mix, 1.0, -0.3, "code", 8)
    with pytest.raises(RuntimeError, match="with one weight"):
        (loss + 2 * apart).backward()
    loss, _ = pooled_loss(z, table, target, mix, 1.0, -0.3, "code", 8)
    with pytest.raises(RuntimeError, match="with one weight"):
        loss.backward()


def test_without_divergence_the_loss_is_differentiated_alone() -> None:
    z, table, target = example()
    mix = torch.tensor(MIXTURES["mean"], dtype=torch.float64)
    loss, apart = pooled_loss(z, table, target, mix, 1.0, 0.0, "code", 8)
    assert apart == 0
    assert_equal_with_gradients(loss, F.cross_entropy(z.mean(1) @ table[1:].T, target - 1), [z, table])


def test_the_score_hands_over_its_table_and_every_setting() -> None:
    z, table, target = example()
    mix = torch.tensor(MIXTURES["general"], dtype=torch.float64)
    loss, apart = ItemSoftmax(lambda: table, chunk_rows=8).pooled(
        z, target, mix_MK=mix, tau=0.5, divergence=-0.3, form="paper"
    )
    plain, far = textbook(z, table, target, mix, 0.5, "paper")
    assert_equal_with_gradients(loss + apart, plain - 0.3 * far, [z, table])


PEAK = """
import torch
from pathlib import Path
from recbench.scoring.softmax import ItemSoftmax
torch.set_num_threads(1)

def most_megabytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

def step(rows):
    z, table = torch.randn(rows, 3, 32, requires_grad=True), torch.randn(20_001, 32, requires_grad=True)
    target, mix = torch.randint(1, 20_001, (rows,)), torch.full((1, 3), 1 / 3)
    loss, apart = ItemSoftmax(lambda: table).pooled(z, target, mix_MK=mix, divergence=-0.01)
    (loss + apart).backward()

before = most_megabytes()
step(4096)
print(most_megabytes() - before)
"""


def test_peak_memory_at_4096_rows_of_3_states_and_20000_items_stays_below_half_a_gigabyte() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell a process its peak memory")
    made = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert 0 < float(made.stdout) < 500
