"""Schedules, the reverse move and the denoiser, against closed forms and simulated chains."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.reasoning.diffusion import Denoiser, Process, Schedule, cosine, direction, on_sphere, process

WIDTH, ITEMS = 64, 12_100


def made(forward: str, schedule: str = "information", levels: int = 4, **changes: object) -> Process:
    return process(forward, schedule, levels, **{"width": WIDTH, "n_items": ITEMS, **changes})  # type: ignore[arg-type]


def kept(p: Process) -> np.ndarray:
    """abar_0 .. abar_J."""
    return np.array(p.a) ** 2


def denoiser(width: int = 8, *, still: bool = False, **changes: object) -> Denoiser:
    """In eval and float64; unless ``still``, its last layer is no longer 0."""
    torch.manual_seed(1)
    settings = {"dropout": 0.1, "residual": True, "project": True, "previous": False, **changes}
    net = Denoiser(width, 4, **settings).double().eval()  # type: ignore[arg-type]
    if not still:
        torch.nn.init.normal_(net.leave.weight, std=0.5)
    return net


def normal(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- schedules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("schedule", ["information", "cosine"])
def test_a_gauss_schedule_starts_clean_and_falls_strictly(schedule: Schedule, levels: int) -> None:
    p = made("gauss", schedule, levels)
    abar = kept(p)
    beta = 1 - abar[1:] / abar[:-1]
    assert abar[0] == 1
    assert p.v[0] == 0
    assert p.levels == levels
    assert ((beta > 0) & (beta < 1)).all()
    np.testing.assert_allclose(abar + p.v, 1, atol=1e-12)
    assert set(p.b) == {0.0}


@pytest.mark.parametrize("levels", [4, 8, 16, 32])
def test_the_cosine_schedule_ends_in_noise_and_not_in_nothing(levels: int) -> None:
    assert 1e-6 < cosine(levels)[-1] < 1e-2


def test_the_cosine_schedule_of_eight_levels_by_its_numbers() -> None:
    abar = cosine(8)
    np.testing.assert_allclose(abar[:8], [1, 0.958, 0.847, 0.684, 0.494, 0.304, 0.144, 0.037], atol=6e-4, rtol=0)
    assert abar[8] == pytest.approx(3.7e-5, rel=0.02)


def test_the_information_schedule_by_its_numbers() -> None:
    np.testing.assert_allclose(kept(made("gauss"))[1:], [0.227, 0.098, 0.038, 0.015], atol=6e-4)
    assert made("shift").b[1] == pytest.approx(0.585, abs=6e-4)


@pytest.mark.parametrize("n_items", [2, 100, ITEMS])
@pytest.mark.parametrize("levels", [1, 2, 4, 8])
def test_information_falls_geometrically_between_its_ends(levels: int, n_items: int) -> None:
    for forward in ("gauss", "shift"):
        p = made(forward, levels=levels, n_items=n_items, kappa=0.7, info_high=0.8, info_low=0.1)
        iota = WIDTH * np.array(p.a[1:]) ** 2 / np.array(p.v[1:]) / (2 * math.log(n_items))
        wanted = np.geomspace(0.8, 0.1, levels)
        if forward == "shift":
            wanted[-1] = 0
        np.testing.assert_allclose(iota, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("levels", [1, 2, 4, 8])
@pytest.mark.parametrize("kappa", [0.5, 1.0, 2.0])
def test_shift_slides_all_the_way_to_the_hypothesis(levels: int, kappa: float) -> None:
    p = made("shift", levels=levels, kappa=kappa)
    eta = np.array(p.b)
    assert eta[0] == 0
    assert eta[-1] == 1
    assert (np.diff(eta) > 0).all()
    np.testing.assert_allclose(np.array(p.a) + eta, 1, atol=1e-12)
    np.testing.assert_allclose(p.v, kappa**2 * eta, atol=1e-12)


def test_no_levels_are_no_levels_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for schedule in ("information", "cosine"):
            assert made("gauss", schedule, 0).levels == 0


# --- moves ----------------------------------------------------------------------------------------------------------------


def coefficients(p: Process, t: int, sd: float) -> tuple[float, float, float]:
    """What a move multiplies zhat, z_t and h with."""
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return tuple(p.mean(*x, t, sd).item() for x in ((zero, one, zero), (one, zero, zero), (zero, zero, one)))  # type: ignore[return-value]


@pytest.mark.parametrize("schedule", ["information", "cosine"])
def test_a_gauss_move_with_all_its_noise_is_the_posterior(schedule: Schedule) -> None:
    p = made("gauss", schedule, 8)
    abar = kept(p)
    for t in range(1, 9):
        alpha = abar[t] / abar[t - 1]
        c1, c2, c3 = coefficients(p, t, p.q[t])
        assert c1 == pytest.approx(math.sqrt(abar[t - 1]) * (1 - alpha) / (1 - abar[t]), abs=1e-12)
        assert c2 == pytest.approx(math.sqrt(alpha) * (1 - abar[t - 1]) / (1 - abar[t]), abs=1e-12)
        assert c3 == 0
        assert p.q[t] ** 2 == pytest.approx((1 - alpha) * (1 - abar[t - 1]) / (1 - abar[t]), abs=1e-12)
        assert c1 + c2 * math.sqrt(abar[t]) == pytest.approx(math.sqrt(abar[t - 1]), abs=1e-12)
        assert c2**2 * (1 - abar[t]) + p.q[t] ** 2 == pytest.approx(1 - abar[t - 1], abs=1e-12)


def test_a_shift_move_with_all_its_noise_is_the_posterior() -> None:
    p = made("shift", kappa=0.7)
    eta = p.b
    for t in range(1, 5):
        c1, c2, c3 = coefficients(p, t, p.q[t])
        share = eta[t - 1] / eta[t]
        assert (c1, c2, c3) == pytest.approx((1 - share, share, 0), abs=1e-12)
        assert p.q[t] ** 2 == pytest.approx(0.7**2 * share * (eta[t] - eta[t - 1]), abs=1e-12)


@pytest.mark.parametrize("forward", ["gauss", "shift"])
def test_simulated_chains_regress_to_the_move(forward: str) -> None:
    """Given z*, z_{t-1} is linear in z_t: slope, intercept and variance of 200,000 chains are those of ``mean`` and q."""
    p = made(forward, levels=3, info_high=4.0, info_low=0.4, width=8, kappa=0.8)
    rng, n, clean, h = np.random.default_rng(1), 200_000, 0.9, -0.4
    z = np.full(n, clean)
    for t in range(1, 4):
        before = z
        # The Markov step whose marginals are N(a_t z* + b_t h, v_t).
        keep = p.a[t] / p.a[t - 1] if forward == "gauss" else 1.0
        push = 0.0 if forward == "gauss" else (p.b[t] - p.b[t - 1]) * (h - clean)
        z = keep * before + push + math.sqrt(p.v[t] - keep**2 * p.v[t - 1]) * rng.standard_normal(n)
        if t == 1:
            continue
        slope, intercept = np.polyfit(z, before, 1)
        left = before - slope * z - intercept
        c1, c2, c3 = coefficients(p, t, p.q[t])
        error = p.q[t] / math.sqrt(n)
        assert abs(slope - c2) < 5 * error / z.std()
        assert abs(intercept - c1 * clean - c3 * h) < 5 * error * math.sqrt(1 + (z.mean() / z.std()) ** 2)
        assert abs(left.var() - p.q[t] ** 2) < 5 * p.q[t] ** 2 * math.sqrt(2 / n)


@pytest.mark.parametrize("forward", ["gauss", "shift"])
def test_a_move_without_noise_is_ddim(forward: str) -> None:
    p = made(forward, "cosine", kappa=0.6)
    z, clean, h = (normal(5, WIDTH, seed=s) for s in (1, 2, 3))
    for t in range(2, 5):
        noise = (z - p.a[t] * clean - p.b[t] * h) / math.sqrt(p.v[t])
        expected = p.a[t - 1] * clean + p.b[t - 1] * h + math.sqrt(p.v[t - 1]) * noise
        torch.testing.assert_close(p.mean(z, clean, h, t, 0.0), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("forward", ["gauss", "shift", "none"])
def test_the_last_move_gives_the_prediction_back_whatever_its_noise(forward: str) -> None:
    p = made(forward)
    z, clean, h = (normal(5, WIDTH, seed=s) for s in (1, 2, 3))
    for sd in (0.0, 0.1, p.q[1]):
        assert torch.equal(p.mean(z, clean, h, 1, sd), clean)
    assert p.q[1] == 0


def test_without_a_forward_process_every_move_is_the_prediction() -> None:
    p = made("none")
    z, clean, h = (normal(5, WIDTH, seed=s) for s in (1, 2, 3))
    assert all(torch.equal(p.mean(z, clean, h, t, 0.0), clean) for t in range(1, 5))
    assert set(p.q) == {0.0}


@pytest.mark.parametrize("forward", ["gauss", "shift"])
@pytest.mark.parametrize("levels", [2, 8, 32])
def test_no_root_of_a_negative_number_in_float32_at_any_exploration(forward: str, levels: int) -> None:
    for schedule in ("information", "cosine"):
        p = made(forward, schedule, levels)
        for t in range(1, levels + 1):
            assert p.q[t] ** 2 <= p.v[t - 1] + 1e-12
            for explore in (0.0, 0.5, 1.0):
                x = torch.ones(2, WIDTH)
                assert p.mean(3 * x, x, -x, t, explore * p.q[t]).isfinite().all()


@pytest.mark.parametrize("forward", ["gauss", "shift"])
def test_noised_targets_have_the_mean_and_the_variance_of_their_level(forward: str) -> None:
    p, n = made(forward, kappa=0.8), 200_000
    clean, h = normal(1, 2, seed=1), normal(1, 2, seed=2)
    t_N = torch.arange(4).repeat_interleave(n) + 1
    z_ND = p.noised(clean.expand(4 * n, -1), h.expand(4 * n, -1), t_N, normal(4 * n, 2))
    for t in range(1, 5):
        here = z_ND[t_N == t]
        mean = p.a[t] * clean[0] + p.b[t] * h[0]
        assert ((here.mean(0) - mean).abs() < 5 * math.sqrt(p.v[t] / n)).all()
        assert ((here.var(0) - p.v[t]).abs() < 5 * p.v[t] * math.sqrt(2 / n)).all()


def test_what_can_be_decoded_at_a_level() -> None:
    """2,400 random items, width 64: at abar .49 the nearest item is the target; at the levels of ``information`` it need not be."""
    n = 2_400
    items = on_sphere(normal(n, WIDTH))

    def decoded(p: Process, t: int) -> float:
        z = p.noised(items, torch.zeros_like(items), torch.full((n,), t), normal(n, WIDTH, seed=3))
        return ((z @ items.t()).argmax(1) == torch.arange(n)).double().mean().item()

    information = made("gauss", n_items=n)
    assert decoded(made("gauss", "cosine", 8), 4) > 0.99
    assert 0.5 < decoded(information, 1) < 0.7
    assert decoded(information, 4) < 0.05


# --- directions and the denoiser --------------------------------------------------------------------------------------------


def test_a_direction_has_length_1_and_nothing_has_none() -> None:
    x = torch.cat([normal(4, 8) * 100, torch.zeros(1, 8, dtype=torch.float64)])
    torch.testing.assert_close(direction(x).norm(dim=1)[:4], torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(on_sphere(x).norm(dim=1)[:4], torch.full((4,), math.sqrt(8), dtype=torch.float64))
    assert not direction(x)[4].any()
    zero = torch.zeros(2, 8, requires_grad=True)
    on_sphere(zero).sum().backward()
    assert zero.grad.isfinite().all()  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_directions_are_made_in_float32_at_least(dtype: torch.dtype) -> None:
    x = (200 * normal(100, WIDTH)).to(dtype)  # |x|^2 = 2.6 million: out of float16's range
    assert direction(x).dtype == torch.float32
    torch.testing.assert_close(direction(x).norm(dim=1), torch.ones(100), atol=1e-5, rtol=0)
    assert direction(x.double()).dtype == torch.float64


def test_the_first_prediction_is_the_hypothesis_whatever_the_noise() -> None:
    net, h, thoughts = denoiser(still=True), on_sphere(normal(6, 8)), normal(6, 3, 8, seed=3)
    for t in (1, 3, 4):
        for scale in (0.0, 1.0, 30.0):
            z = scale * normal(6, 8, seed=4)
            torch.testing.assert_close(net(z, t, net.condition(h, thoughts)), h, atol=1e-6, rtol=0)


def test_predictions_have_length_sqrt_d_unless_they_keep_their_own() -> None:
    h, thoughts, z = on_sphere(normal(6, 8)), normal(6, 3, 8, seed=3), normal(6, 8, seed=4)
    lengths = {}
    for project in (True, False):
        net = denoiser(project=project)
        lengths[project] = net(z, 2, net.condition(h, thoughts)).norm(dim=1)
    torch.testing.assert_close(lengths[True], torch.full((6,), math.sqrt(8), dtype=torch.float64))
    assert (lengths[False] - math.sqrt(8)).abs().max() > 0.01
    still = denoiser(still=True, project=False)
    torch.testing.assert_close(still(z, 2, still.condition(0.3 * h, thoughts)), 0.3 * h)
    one, other = on_sphere(normal(6, 8)), on_sphere(normal(6, 8, seed=9))
    cosine_N = torch.nn.functional.cosine_similarity(one, other)
    torch.testing.assert_close((one - other).square().mean(1), 2 - 2 * cosine_N)


def test_without_a_residual_the_prediction_does_not_start_at_the_hypothesis() -> None:
    net, h, thoughts = denoiser(still=True, residual=False), on_sphere(normal(6, 8)), normal(6, 3, 8, seed=3)
    out = net(normal(6, 8, seed=4), 2, net.condition(h, thoughts))
    assert torch.nn.functional.cosine_similarity(out, h).max() < 0.99
    assert out.norm(dim=1).min() > 2.8
    with torch.no_grad():
        net.leave.weight.zero_()
    assert not net(h, 2, net.condition(h, thoughts)).any()


def test_the_length_of_the_noisy_vector_changes_nothing() -> None:
    net, h, thoughts, z = denoiser(), on_sphere(normal(6, 8)), normal(6, 3, 8, seed=3), normal(6, 8, seed=4)
    known = net.condition(h, thoughts)
    torch.testing.assert_close(net(10 * z, 2, known), net(z, 2, known), atol=1e-9, rtol=0)
    assert (net(-z, 2, known) - net(z, 2, known)).abs().max() > 1e-3
    assert net(torch.zeros_like(z), 2, known).isfinite().all()


def test_a_prediction_depends_on_level_hypothesis_and_every_thought_and_on_no_other_row() -> None:
    net, h, thoughts, z = denoiser(), on_sphere(normal(6, 8)), normal(6, 3, 8, seed=3), normal(6, 8, seed=4)
    out = net(z, 2, net.condition(h, thoughts))
    assert (net(z, 3, net.condition(h, thoughts)) - out).abs().max() > 1e-3
    for k in range(3):
        changed = thoughts.clone()
        changed[2, k] += 5
        moved = (net(z, 2, net.condition(h, changed)) - out).abs().amax(1) > 1e-6
        assert moved.nonzero().flatten().tolist() == [2]
    moved = (net(z, 2, net.condition(h.roll(1, dims=1), thoughts)) - out).abs().amax(1) > 1e-6
    assert moved.all()
    mixed = net(z, torch.tensor([1, 2, 3, 4, 2, 2]), net.condition(h, thoughts))
    torch.testing.assert_close(mixed[[1, 4, 5]], out[[1, 4, 5]], atol=1e-12, rtol=0)
    torch.testing.assert_close(mixed[2:3], net(z, 3, net.condition(h, thoughts))[2:3], atol=1e-12, rtol=0)


def test_a_prediction_by_hand() -> None:
    """RMSNorm(z) and h enter, one attention read of the thoughts, two modulated blocks, a residual to h, length sqrt(D)."""
    net, h, thoughts, z = denoiser(), on_sphere(normal(6, 8)), normal(6, 3, 8, seed=3), normal(6, 8, seed=4)
    x = net.enter(torch.cat([F.rms_norm(z, (8,)), h], dim=1))
    read = F.scaled_dot_product_attention(net.query(x)[:, None], net.key(thoughts), net.value(thoughts))
    x = x + net.read(read[:, 0])
    first, _, last = net.time
    c = last(F.gelu(first(net.waves[3].double()))) + h
    for block in net.blocks:
        shift, scale, gate = block.modulate(c).split(8, dim=1)  # type: ignore[operator]
        y = F.layer_norm(x, (8,)) * (1 + scale) + shift
        x = x + gate * block.outer(F.gelu(block.inner(y)))  # type: ignore[operator]
    expected = math.sqrt(8) * F.normalize(h + net.leave(x), dim=1)
    torch.testing.assert_close(net(z, 3, net.condition(h, thoughts)), expected, atol=1e-9, rtol=0)


def test_an_earlier_prediction_is_a_third_input_and_none_of_it_is_zeros() -> None:
    net, h, thoughts, z = (
        denoiser(previous=True),
        on_sphere(normal(6, 8)),
        normal(6, 3, 8, seed=3),
        normal(6, 8, seed=4),
    )
    known = net.condition(h, thoughts)
    torch.testing.assert_close(net(z, 2, known), net(z, 2, known, torch.zeros_like(z)))
    assert (net(z, 2, known, h) - net(z, 2, known)).abs().max() > 1e-3


def test_its_size_is_about_37_squares_of_the_width() -> None:
    weights = sum(
        p.numel() for p in Denoiser(WIDTH, 4, dropout=0.0, residual=True, project=True, previous=False).parameters()
    )
    assert weights == pytest.approx(37 * WIDTH**2, rel=0.02)


@pytest.mark.parametrize("previous", [False, True])
def test_a_narrow_denoiser_reads_and_answers_at_full_width(previous: bool) -> None:
    h, thoughts, z, other = on_sphere(normal(6, 8)), normal(6, 3, 8, seed=3), normal(6, 8, seed=4), normal(6, 8, seed=5)
    still = denoiser(inner=5, previous=previous, still=True)
    torch.testing.assert_close(still(z, 2, still.condition(h, thoughts)), on_sphere(h))
    net = denoiser(inner=5, previous=previous)
    known = net.condition(h, thoughts)
    assert net(z, 2, known).shape == (6, 8)
    for told in (
        net(other, 2, known),
        net(z, 3, known),
        net(z, 2, net.condition(other, thoughts)),
        net(z, 2, net.condition(h, 2 * thoughts)),
    ):
        assert (told - net(z, 2, known)).abs().amax(1).min() > 1e-3  # it depends on all it is told, in every row
    assert {name for name, p in net.named_parameters() if p.ndim == 2 and {8, 16, 24} & set(p.shape)} == {
        f"{name}.weight" for name in ("enter", "key", "value", "leave", "narrow")
    }


def test_a_denoiser_of_wide_states_is_narrow_by_itself() -> None:
    sizes = {"dropout": 0.0, "residual": True, "project": True, "previous": False}
    with torch.device("meta"):
        wide, as_wide = Denoiser(1024, 4, **sizes), Denoiser(1024, 4, **sizes, inner=1024)  # type: ignore[arg-type]
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in (("256", wide), ("1024", as_wide))}
    assert count["256"] == pytest.approx(32 * 256**2 + 6 * 1024 * 256, rel=0.01)
    assert count["1024"] == pytest.approx(37 * 1024**2, rel=0.01)


def test_levels_are_told_apart_at_every_number_of_them() -> None:
    for levels in (1, 4, 32):
        for width in (7, 8):
            waves = Denoiser(width, levels, dropout=0.0, residual=True, project=True, previous=False).waves
            assert waves.shape == (levels + 1, width)
            assert torch.cdist(waves, waves).add(torch.eye(levels + 1)).min() > 0.1
