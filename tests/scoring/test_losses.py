"""Losses with negatives: value and gradient by a slow form in float64, the draw simulated, beta by hand, and what stays whole."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.registry import LOSSES
from recbench.scoring.binary import BCE, GBCE
from recbench.scoring.candidates import candidate_loss
from recbench.scoring.in_batch import InBatchSoftmax
from recbench.scoring.items import ItemScore
from recbench.scoring.negatives import expected_counts, mixed_draw, own_draw, shared
from recbench.scoring.sampled_softmax import SampledSoftmax
from recbench.scoring.softmax import ItemSoftmax
from tests.systems import item_losses

ITEMS = 30
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("softmax", {}),
    ("sampled-softmax", {"negatives": 12}),
    ("sampled-softmax", {"negatives": 12, "mixed": 0.0, "logq": "off"}),
    ("sampled-softmax", {"negatives": 12, "mixed": 1.0, "logq": "all"}),
    ("in-batch", {}),
    ("in-batch", {"logq": "all"}),
    ("in-batch", {"logq": "off"}),
    ("bce", {}),
    ("bce", {"negatives": 5}),
    ("gbce", {"negatives": 8}),
    ("gbce", {"negatives": 8, "t": 0.0}),
    ("gbce", {"negatives": 8, "t": 1.0}),
]
DRAWN = [(name, changes) for name, changes in VARIANTS if name != "softmax"]


def example(rows: int = 23, width: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    u = torch.randn(rows, width, generator=generator, dtype=dtype, requires_grad=True)
    table = torch.randn(ITEMS + 1, width, generator=generator, dtype=dtype, requires_grad=True)
    return u, table, torch.randint(1, ITEMS + 1, (rows,), generator=generator)


def counts_of(target: Tensor) -> Tensor:
    """Every item twice, and every target once more: no share is 0."""
    counts = torch.full((ITEMS + 1,), 2)
    counts[0] = 0
    return counts + target.bincount(minlength=ITEMS + 1)


def made(name: str, table: Tensor, target: Tensor, changes: dict[str, Any], chunk: int | None = 5) -> ItemScore:
    cls = LOSSES.load(name)
    score: ItemScore = cls(lambda: table, chunk, config=cls.Config(**changes))
    score.begin(counts_of(target))
    return score


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow(score: ItemScore, u: Tensor, table: Tensor, target: Tensor, tau: float) -> Tensor:
    """The loss row by row and item by item, with the draws the score would make; -log(1 - sigma(s)) is log(1 + exp s)."""
    c, generator, rows = score.config, seeded(), []
    if isinstance(score, BCE | GBCE):
        k = c.negatives
        beta = 1.0 if isinstance(score, BCE) else c.t * (k / (ITEMS - 1) - 1) + 1
        drawn = own_draw(target, ITEMS, k, generator)
        for n, y in enumerate(target.tolist()):
            own = beta * torch.log1p(torch.exp(-u[n] @ table[y] / tau))
            others = [torch.log1p(torch.exp(u[n] @ table[j] / tau)) for j in drawn[n].tolist()]
            rows.append((own + torch.stack(others).sum()) / (k + 1))
        return torch.stack(rows).mean()
    share = counts_of(target).double() / counts_of(target).sum()
    if isinstance(score, SampledSoftmax):
        n_pool = round(c.mixed * c.negatives)
        drawn = mixed_draw(target, ITEMS, n_pool, c.negatives - n_pool, generator).tolist()
        expected = n_pool * (1 - 1 / len(target)) * share + (c.negatives - n_pool) / ITEMS
    else:
        drawn, expected = target.tolist(), (len(target) - 1) * share
    for n, y in enumerate(target.tolist()):
        score_of = {j: u[n] @ table[j] / tau for j in {*drawn, y}}
        own = torch.exp(score_of[y]) / (expected[y] if c.logq == "all" else 1)
        weight = {j: 1 if c.logq == "off" else 1 / expected[j] for j in drawn}
        others = sum(times * weight[j] * torch.exp(score_of[j]) for j, times in Counter(drawn).items() if j != y)
        rows.append(-torch.log(own / (own + others)))
    return torch.stack(rows).mean()


@pytest.mark.parametrize("tau", [1.0, 0.4])
@pytest.mark.parametrize(("name", "changes"), DRAWN, ids=str)
def test_value_and_gradients_equal_the_slow_form(name: str, changes: dict[str, Any], tau: float) -> None:
    u, table, target = example()
    score = made(name, table, target, changes)
    with score.step(seeded(), target):
        ours = score.loss(u, target, tau=tau)
    theirs = slow(score, u, table, target, tau)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    for a, b in zip(
        torch.autograd.grad(3 * ours, [u, table]), torch.autograd.grad(3 * theirs, [u, table]), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("chunk", [1, 7, 23, 100])
@pytest.mark.parametrize("name", ["sampled-softmax", "in-batch"])
def test_the_chunk_changes_neither_loss_nor_gradient(name: str, chunk: int) -> None:
    u, table, target = example()
    found = []
    for rows in (chunk, 5):
        score = made(name, table, target, {}, rows)
        with score.step(seeded(), target):
            loss = score.loss(u, target)
        found.append([loss, *torch.autograd.grad(loss, [u, table])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=str)
def test_a_frozen_table_gets_no_gradient_and_the_answers_the_same_one(name: str, changes: dict[str, Any]) -> None:
    u, table, target = example()
    score, found = made(name, table, target, changes), []
    for frozen in (False, True):
        with score.step(seeded(), target):
            loss = score.loss(u, target, frozen=frozen)
        found.append(torch.autograd.grad(loss, [u, table], allow_unused=True))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert found[0][1] is not None
    assert found[1][1] is None


@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=str)
def test_answers_that_need_no_gradient_leave_the_tables_as_it_is(name: str, changes: dict[str, Any]) -> None:
    u, table, target = example()
    score, found = made(name, table, target, changes), []
    for answers in (u, u.detach()):
        with score.step(seeded(), target):
            found.append(torch.autograd.grad(score.loss(answers, target), [table])[0])
    assert torch.equal(*found)


@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=str)
def test_ranks_lists_and_log_probabilities_are_over_all_items_under_every_loss(
    name: str, changes: dict[str, Any]
) -> None:
    u, table, target = example()
    score, full = made(name, table, target, changes), ItemSoftmax(lambda: table, 5)
    for ours, theirs in zip(score.place(u, target), full.place(u, target), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(score.top(u, 7), full.top(u, 7))
    assert torch.equal(score.log_prob(u, target[:, None], tau=0.5), full.log_prob(u, target[:, None], tau=0.5))
    assert torch.equal(score.items(), full.items())


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize(("name", "changes"), DRAWN, ids=str)
def test_a_pooled_loss_is_that_of_each_mixed_state_and_its_divergence_is_whole(
    name: str, changes: dict[str, Any], form: Any
) -> None:
    u, table, target = example()
    z = torch.stack([u, 0.5 * u.roll(1, 0), -u.roll(2, 0)], dim=1).detach().requires_grad_()
    mix = torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, -0.4]], dtype=torch.float64)
    score, full = made(name, table, target, changes), ItemSoftmax(lambda: table)
    with score.step(seeded(), target):
        loss, apart = score.pooled(z, target, mix_MK=mix, tau=0.7, divergence=-0.3, form=form)
    _, whole = full.pooled(z, target, mix_MK=mix, tau=0.7, divergence=-0.3, form=form)
    assert apart.item() == pytest.approx(whole.item(), abs=1e-12)
    generator = seeded()
    with score.step(generator, target):
        expected = sum(score.loss(torch.einsum("k,nkd->nd", one, z), target, tau=0.7) for one in mix)
    torch.testing.assert_close(loss, expected)
    nothing = mix[:0]
    zero, apart_alone = full.pooled(z, target, mix_MK=nothing, tau=0.7, divergence=-0.3, form=form)
    ours = torch.autograd.grad(loss + apart, [z, table])
    theirs = torch.autograd.grad(expected + zero + apart_alone, [z, table])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("name", "changes"), DRAWN, ids=str)
def test_the_same_step_draws_the_same_and_another_call_draws_anew(name: str, changes: dict[str, Any]) -> None:
    u, table, target = example()
    score, found = made(name, table, target, changes), []
    for seed in (3, 3, 4):
        with score.step(seeded(seed), target):
            found.append([score.loss(u, target).item() for _ in range(2)])
    assert found[0] == found[1]
    if name != "in-batch":
        assert found[0] != found[2]
        assert found[0][0] != found[0][1]


@pytest.mark.parametrize(("name", "changes"), DRAWN, ids=str)
def test_a_draw_outside_a_step_is_refused(name: str, changes: dict[str, Any]) -> None:
    u, table, target = example()
    score = made(name, table, target, changes)
    with score.step(seeded(), target):
        score.loss(u, target)
    with pytest.raises(ValueError, match="within step"):
        score.loss(u, target)
    copy.deepcopy(score)  # between steps nothing is held that a frozen reference could not have


def test_log_q_without_counts_is_refused() -> None:
    u, table, target = example()
    for cls in (SampledSoftmax, InBatchSoftmax):
        score = cls(lambda: table)
        with score.step(seeded(), target), pytest.raises(ValueError, match="begin"):
            score.loss(u, target)


def test_a_target_that_the_counts_do_not_know_counts_like_the_rarest() -> None:
    u, table, _ = example(rows=4)
    target, counts = torch.tensor([1, 2, 3, 4]), torch.zeros(ITEMS + 1, dtype=torch.int64)
    losses = []
    for times in (0, 2):
        counts[1:5] = torch.tensor([500, 500, 2, times])
        score = InBatchSoftmax(lambda: table)
        score.begin(counts)
        with score.step(seeded(), target):
            losses.append(score.loss(u, target).item())
    assert math.isfinite(losses[0])
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


# --- log-Q: the sum over the catalogue is the expectation ----------------------------------------------------------------


def sums(n_pool: int, n_uniform: int, *, corrected: bool, repeats: int = 4000) -> tuple[Tensor, float, float]:
    """Estimates of Z = sum exp(s) for one row over many batches whose other targets follow the item shares."""
    generator = seeded(11)
    share = torch.rand(ITEMS + 1, generator=generator, dtype=torch.float64) ** 3 + 0.02
    share[0] = 0
    share /= share.sum()
    scores = torch.randn(ITEMS + 1, generator=generator, dtype=torch.float64)
    y, batch = 4, 16
    expected = expected_counts(share, n_pool * (1 - 1 / batch), n_uniform) if corrected else None
    found = []
    for _ in range(repeats):
        others = torch.multinomial(share, batch - 1, replacement=True, generator=generator)
        drawn = mixed_draw(torch.cat([others, torch.tensor([y])]), ITEMS, n_pool, n_uniform, generator)
        s = shared(drawn, expected)
        keep = s.items_S != y
        found.append(scores[y].exp() + (s.log_weight_S[keep].double() + scores[s.items_S[keep]]).exp().sum())
    return torch.stack(found), scores[1:].exp().sum().item(), scores[y].exp().item()


@pytest.mark.parametrize(("n_pool", "n_uniform"), [(0, 10), (10, 0), (5, 5), (9, 1)])
def test_log_q_makes_the_sampled_sum_unbiased_for_the_sum_over_the_catalogue(n_pool: int, n_uniform: int) -> None:
    found, whole, _ = sums(n_pool, n_uniform, corrected=True)
    error = found.std().item() / math.sqrt(len(found))
    assert abs(found.mean().item() - whole) < 4 * error
    assert error < 0.03 * whole


def test_without_log_q_the_sum_is_far_off() -> None:
    found, whole, _ = sums(5, 5, corrected=False)
    error = found.std().item() / math.sqrt(len(found))
    assert abs(found.mean().item() - whole) > 20 * error


@pytest.mark.parametrize("mixed", [0.0, 0.5])
def test_many_negatives_come_near_the_full_softmax_value_and_gradient(mixed: float) -> None:
    u, table, target = example()
    counts = target.bincount(minlength=ITEMS + 1)
    score = SampledSoftmax(lambda: table, config=SampledSoftmax.Config(negatives=400_000, mixed=mixed))
    score.begin(counts)
    with score.step(seeded(), target):
        loss = score.loss(u, target)
    full = ItemSoftmax(lambda: table).loss(u, target)
    assert loss.item() == pytest.approx(full.item(), rel=0.03)
    ours, theirs = (torch.autograd.grad(one, [u])[0] for one in (loss, full))
    assert F.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.999


def test_a_set_of_all_items_with_weight_one_is_the_full_softmax() -> None:
    u, table, target = example()
    everything = shared(torch.arange(1, ITEMS + 1), None)
    ours = candidate_loss(u, table, target, everything, 0.5, 4)
    theirs = ItemSoftmax(lambda: table).loss(u, target, tau=0.5)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    for a, b in zip(torch.autograd.grad(ours, [u, table]), torch.autograd.grad(theirs, [u, table]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


# --- what is never a negative -------------------------------------------------------------------------------------------


def test_a_target_is_never_its_own_negative_and_all_others_are_as_likely() -> None:
    drawn = own_draw(torch.tensor([1, 3, 5]).repeat_interleave(4000), 5, 5, seeded()).view(3, -1)
    for y, row in zip((1, 3, 5), drawn, strict=True):
        seen = row.bincount(minlength=6) / row.numel()
        assert seen[0] == seen[y] == 0
        assert seen[[j for j in range(1, 6) if j != y]].tolist() == pytest.approx([0.25] * 4, abs=0.01)


def test_a_batch_whose_only_item_is_the_target_has_no_loss() -> None:
    u, table, _ = example(rows=3)
    target = torch.tensor([7, 7, 7])
    score = made("in-batch", table, target, {})
    with score.step(seeded(), target):
        loss = score.loss(u, target)
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, [u, table]))


@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=str)
def test_the_padding_row_takes_no_part_whatever_stands_in_it(name: str, changes: dict[str, Any]) -> None:
    u, table, target = example()
    spoilt = table.detach().clone()
    spoilt[0] = torch.nan
    spoilt.requires_grad_()
    score = made(name, spoilt, target, changes)
    with score.step(seeded(), target):
        loss = score.loss(u, target)
    gradient = torch.autograd.grad(loss, [spoilt])[0]
    assert loss.isfinite()
    assert gradient[1:].isfinite().all()
    assert (gradient[0] == 0).all()


@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=str)
def test_nan_answers_give_a_nan_loss(name: str, changes: dict[str, Any]) -> None:
    u, table, target = example()
    score = made(name, table, target, changes)
    with score.step(seeded(), target):
        assert score.loss(u * float("nan"), target).isnan()


@pytest.mark.parametrize("scale", [200.0, -200.0])
@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=str)
def test_scores_hundreds_apart_stay_finite_in_float32(name: str, changes: dict[str, Any], scale: float) -> None:
    u, table, target = example(dtype=torch.float32)
    score = made(name, table, target, changes)
    with score.step(seeded(), target):
        loss = score.loss(u * scale, target)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, [u, table]))


# --- gBCE ---------------------------------------------------------------------------------------------------------------


def test_beta_is_one_at_t_0_and_the_sampling_rate_at_t_1() -> None:
    _, table, _ = example()
    betas = [GBCE(lambda: table, config=GBCE.Config(negatives=8, t=t)).beta for t in (0.0, 0.5, 1.0)]
    alpha = 8 / 29
    assert betas == pytest.approx([1.0, 0.5 * (alpha - 1) + 1, alpha])
    assert betas[1] == pytest.approx(alpha * (0.5 * (1 - 1 / alpha) + 1 / alpha))


def test_gbce_at_t_0_is_bce() -> None:
    u, table, target = example()
    found = []
    for name, changes in (("gbce", {"negatives": 8, "t": 0.0}), ("bce", {"negatives": 8})):
        score = made(name, table, target, changes)
        with score.step(seeded(), target):
            loss = score.loss(u, target)
        found.append([loss, *torch.autograd.grad(loss, [u, table])])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_gbce_at_t_1_learns_the_probability_that_bce_overstates() -> None:
    """One answer, target of 1 row in 3 (items 1, 2, 3 in turn) among 30: sigma(s) must come to 1 / 3, and BCE's lies far above."""
    target = torch.arange(9000) % 3 + 1
    found = {}
    for t in (0.0, 1.0):
        table = torch.zeros(ITEMS + 1, 1, dtype=torch.float64)
        optimizer = torch.optim.Adam([table.requires_grad_()], lr=0.1)
        score, generator = GBCE(lambda table=table: table, config=GBCE.Config(negatives=5, t=t)), seeded()
        u = torch.ones(len(target), 1, dtype=torch.float64)
        for _ in range(150):
            with score.step(generator, target):
                loss = score.loss(u, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found[t] = torch.sigmoid(table[1, 0]).item()
    # stationary: (1/3) beta (1 - p) = (2/3) (5 / 29) p, so p = beta / (beta + 2 alpha)
    assert found[1.0] == pytest.approx(1 / 3, abs=0.02)
    assert found[0.0] == pytest.approx(1 / (1 + 2 * 5 / 29), abs=0.02)


def test_more_negatives_than_other_items_are_refused_by_gbce() -> None:
    _, table, _ = example()
    with pytest.raises(ValueError, match="only 29 items"):
        GBCE(lambda: table, config=GBCE.Config(negatives=30))
    GBCE(lambda: table, config=GBCE.Config(negatives=29))


# --- names and settings -------------------------------------------------------------------------------------------------


def test_a_name_tells_a_loss_with_all_its_parameters() -> None:
    _, table, target = example()
    names = [made(name, table, target, changes).name for name, changes in VARIANTS]
    assert len(set(names)) == len(names)
    assert names[0] == "softmax over all items"
    assert names[1] == "sampled softmax, 12 shared negatives, 50 % in-batch, log-Q negatives"
    assert made("bce", table, target, {}).name == "BCE, 1 uniform negative"
    assert made("gbce", table, target, {"negatives": 8}).name == "gBCE, 8 uniform negatives, t 0.75"
    for name in item_losses():
        cls = LOSSES.load(name)
        for setting in cls.Config.__dataclass_fields__:
            value = {"logq": "off", "negatives": 3, "mixed": 0.25, "t": 0.25}[setting]
            negatives = {"negatives": 8} if name == "gbce" else {}
            plain, changed = cls.Config(**negatives), cls.Config(**{**negatives, setting: value})
            assert cls(lambda: table, config=plain).name != cls(lambda: table, config=changed).name, (name, setting)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sampled-softmax", {"negatives": 0}),
        ("sampled-softmax", {"mixed": 1.5}),
        ("bce", {"negatives": 0}),
        ("gbce", {"negatives": 0}),
        ("gbce", {"t": -0.1}),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        LOSSES.load(name).Config(**changes)
