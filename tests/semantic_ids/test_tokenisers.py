"""Residual k-means, balanced clusters, Sinkhorn and the RQ-VAE: identities, sizes, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbench.errors import Exit, RecbenchError
from recbench.registry import TOKENISERS
from recbench.semantic_ids.balanced import BalancedKMeans
from recbench.semantic_ids.base import Tokeniser
from recbench.semantic_ids.kmeans import kmeans, nearest, plus_plus, refill, residual_kmeans
from recbench.semantic_ids.rkmeans import ResidualKMeans
from recbench.semantic_ids.rqvae import RQVAE, Net, Quantising, quantise, restart_dead, straight_through
from recbench.semantic_ids.sinkhorn import balanced, equal_rows, repair, sinkhorn, spread

QUICK = {"rqvae": RQVAE.Config(hidden=(32,), width=8, epochs=5)}


def clustered(n: int = 600, groups: int = 20, width: int = 12, seed: int = 0) -> np.ndarray:
    """Points around ``groups`` centres."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(groups, width))[np.arange(n) % groups] + 0.1 * rng.normal(size=(n, width))).astype(
        np.float32
    )


def tokeniser(name: str) -> Tokeniser:
    built: Tokeniser = TOKENISERS.load(name)(QUICK.get(name))
    return built


@pytest.mark.parametrize("name", list(TOKENISERS.entries()))
def test_the_same_seed_gives_the_same_codes_and_another_seed_others(name: str) -> None:
    x_NA = clustered()
    torch.manual_seed(1)
    one = tokeniser(name).fit(x_NA, 3, 8, seed=0)
    torch.manual_seed(2)
    drawn = torch.rand(3)
    torch.manual_seed(2)
    same, other = tokeniser(name).fit(x_NA, 3, 8, seed=0), tokeniser(name).fit(x_NA, 3, 8, seed=1)
    assert torch.equal(torch.rand(3), drawn)  # nobody else's draws are touched
    assert np.array_equal(one.codes_NL, same.codes_NL)
    assert not np.array_equal(one.codes_NL, other.codes_NL)
    assert one.codes_NL.shape == (600, 3)
    assert one.codes_NL.min() >= 0
    assert one.codes_NL.max() < 8
    assert all(book.shape[0] == 8 for book in one.codebooks)


@pytest.mark.parametrize("name", ["rkmeans", "balanced"])
def test_each_level_takes_exactly_the_energy_of_its_centroids(name: str) -> None:
    x_NA = clustered()
    made = tokeniser(name).fit(x_NA, 3, 16, seed=0)
    rest = x_NA.astype(np.float64)
    for level, book in enumerate(made.codebooks):
        codes = made.codes_NL[:, level]
        taken = (np.bincount(codes, minlength=16) * np.square(book.astype(np.float64)).sum(axis=1)).sum()
        left = rest - book[codes]
        assert np.square(left).sum() == pytest.approx(np.square(rest).sum() - taken, rel=1e-6)
        rest = left
    errors = made.facts["mean_squared_residual"]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < np.square(x_NA).sum(axis=1).mean()


def test_renormalised_residuals_have_length_one_before_the_last_level() -> None:
    made = ResidualKMeans(ResidualKMeans.Config(renormalise=True)).fit(clustered(), 3, 8, seed=0)
    np.testing.assert_allclose(np.linalg.norm(made.residuals_NW, axis=1), 1, atol=1e-5)


def test_residual_kmeans_finds_clusters_that_are_there_and_uses_its_codes() -> None:
    codes_NL = tokeniser("rkmeans").fit(clustered(), 2, 20, seed=0).codes_NL
    assert len(np.unique(codes_NL[:, 0])) >= 18
    purity = sum(np.bincount(np.arange(600)[codes_NL[:, 0] == code] % 20).max() for code in np.unique(codes_NL[:, 0]))
    assert purity / 600 > 0.85


def test_an_empty_cluster_takes_the_farthest_point() -> None:
    codes = refill(np.array([0, 0, 0, 2]), np.array([0.1, 0.9, 0.3, 5.0], dtype=np.float32), 4)
    assert codes.tolist() == [0, 1, 3, 2]  # point 3 is farthest, but alone in its cluster


def test_more_clusters_than_distinct_points_still_fill_every_cluster() -> None:
    codes, _ = kmeans(np.ones((10, 2), dtype=np.float32), 4, np.random.default_rng(0))
    assert np.bincount(codes, minlength=4).min() >= 1


def test_first_centroids_are_points_and_far_ones_come_first() -> None:
    x_NA = np.concatenate([np.zeros((99, 2)), [[100.0, 0.0]]]).astype(np.float32)
    for seed in range(10):
        assert 100.0 in plus_plus(x_NA, 2, np.random.default_rng(seed))[:, 0]


def test_the_nearest_centroid_by_hand() -> None:
    codes, squared = nearest(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [3.0, 3.0]]))
    assert codes.tolist() == [0, 1]
    np.testing.assert_allclose(squared, [1.0, 1.0], atol=1e-6)


def test_fewer_points_than_clusters_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="3 points cannot make 4 clusters"):
        kmeans(np.zeros((3, 2), dtype=np.float32), 4, np.random.default_rng(0))


def test_sinkhorn_is_finite_at_a_small_eps_and_its_columns_are_exact() -> None:
    d = np.random.default_rng(0).random((64, 16)).astype(np.float32)
    q = np.exp(sinkhorn(d, 0.003))
    assert np.isfinite(q).all()
    np.testing.assert_allclose(q.sum(axis=0), 64 / 16, rtol=1e-6)


def test_sinkhorns_rows_sum_to_one_at_a_larger_eps() -> None:
    q = np.exp(sinkhorn(np.random.default_rng(0).random((64, 16)), 0.05, rounds=400))
    np.testing.assert_allclose(q.sum(axis=0), 4, rtol=1e-6)
    np.testing.assert_allclose(q.sum(axis=1), 1, atol=1e-6)


def test_equal_rows_get_equal_codes_and_unequal_ones_spread() -> None:
    d = np.random.default_rng(0).random((6, 256))
    assert len(np.unique(spread(d, 0.003))) == 6
    d[3] = d[1]
    codes = spread(d, 0.003)
    assert codes[3] == codes[1]


def test_repair_parts_items_that_differ_and_leaves_those_that_do_not() -> None:
    codes_NL = np.array([[0, 1, 2]] * 4 + [[1, 0, 0]])
    distances = np.random.default_rng(0).random((5, 256))
    distances[1] = distances[0]
    repaired = repair(codes_NL, distances)
    assert [group.tolist() for group in equal_rows(repaired)] == [[0, 1]]
    assert (repaired[:, :2] == codes_NL[:, :2]).all()
    assert repaired[4].tolist() == [1, 0, 0]


def test_repair_leaves_items_that_nothing_tells_apart_at_their_nearest_codes() -> None:
    distances = np.random.default_rng(0).random((6, 32))
    distances[1] = distances[0]
    distances[3] = distances[2]
    codes_NL = np.column_stack([[0, 0, 1, 1, 2, 3], distances.argmin(axis=1)])
    assert np.array_equal(repair(codes_NL, distances), codes_NL)


def test_repair_never_ends_with_more_collisions_than_there_were() -> None:
    """Crowded codes, where a round may make it worse: sixteen of sixty such cases ended so when the last round counted."""
    worse, better = 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        codes_NL = np.column_stack([rng.integers(3, size=96), np.zeros(96, dtype=np.int64)])
        distances = rng.random((96, 6))
        distances[rng.integers(96, size=48)] = distances[rng.integers(96, size=48)]
        codes_NL[:, 1] = distances.argmin(axis=1)
        before, after = (len(np.unique(codes, axis=0)) for codes in (codes_NL, repair(codes_NL, distances)))
        worse, better = worse + (after < before), better + (after > before)
    assert (worse, better > 0) == (0, True)


@pytest.mark.parametrize("n", [40, 47, 64, 203])
def test_balanced_sizes_hold_however_crowded_the_points_are(n: int) -> None:
    cost = np.random.default_rng(0).random((n, 20))
    cost[:, 3] -= 5  # everyone's cheapest
    low, high = max(1, n // 20 - 1), n // 20 + 1
    counts = np.bincount(balanced(cost, low, high), minlength=20)
    assert low <= counts.min()
    assert counts.max() <= high


def test_balanced_assignment_is_near_the_cheapest_there_is() -> None:
    from scipy.optimize import linear_sum_assignment

    cost = np.random.default_rng(1).random((60, 20))
    codes = balanced(cost, 3, 3)
    row, slot = linear_sum_assignment(np.repeat(cost, 3, axis=1))
    best = np.repeat(cost, 3, axis=1)[row, slot].sum()
    assert cost[np.arange(60), codes].sum() < 1.25 * best
    with pytest.raises(ValueError, match="60 rows cannot be put in 20 groups of 4 to 5"):
        balanced(cost, 4, 5)


def test_balanced_kmeans_holds_its_sizes_at_every_level() -> None:
    made = BalancedKMeans().fit(clustered(330), 3, 16, seed=0)
    for level in range(3):
        counts = np.bincount(made.codes_NL[:, level], minlength=16)
        assert counts.min() >= 330 // 16 - 1
        assert counts.max() <= 330 // 16 + 1


def latents() -> tuple[torch.Tensor, list[torch.Tensor]]:
    drawn = torch.Generator().manual_seed(0)
    z = torch.randn(9, 4, generator=drawn, requires_grad=True)
    return z, [torch.randn(5, 4, generator=drawn, requires_grad=True) for _ in range(3)]


def test_commitment_of_every_level_reaches_the_encoder() -> None:
    z, books = latents()
    found = quantise(z, books, beta=0.25)
    found.loss.backward()
    rest, wanted = z.detach(), torch.zeros_like(z)
    for level, book in enumerate(books):
        e = book.detach()[found.codes_BL[:, level]]
        wanted += 2 * 0.25 * (rest - e) / z.numel()
        rest = rest - e
    torch.testing.assert_close(z.grad, wanted)


def test_codebooks_learn_from_their_own_term_alone() -> None:
    z, books = latents()
    found = quantise(z, books, beta=0.25)
    straight_through(z, found.sum_BW).square().sum().backward(retain_graph=True)  # a reconstruction
    assert all(book.grad is None for book in books)
    found.loss.backward()
    rest = z.detach()
    for level, book in enumerate(books):
        codes = found.codes_BL[:, level]
        e = book.detach()[codes]
        wanted = torch.zeros_like(book).index_add(0, codes, 2 * (e - rest) / z.numel())
        torch.testing.assert_close(book.grad, wanted)
        rest = rest - e


def test_the_decoders_gradient_passes_to_the_encoder_as_it_is() -> None:
    z, books = latents()
    out = straight_through(z, quantise(z, books, 0.25).sum_BW)
    weight = torch.randn(9, 4)
    (out * weight).sum().backward()
    torch.testing.assert_close(z.grad, weight)
    torch.testing.assert_close(out.detach(), quantise(z, books, 0.25).sum_BW.detach())


def test_dead_codes_restart_on_residuals_of_their_level() -> None:
    z, books = latents()
    books = [book.detach() for book in books]
    for book in books:
        book[3] = 1e6  # nothing is near
    found = quantise(z.detach(), books, 0.25)
    rest = [z.detach()]
    for level, book in enumerate(books[:-1]):
        rest.append(rest[-1] - book[found.codes_BL[:, level]])
    n_dead = sum(5 - len(found.codes_BL[:, level].unique()) for level in range(3))
    assert restart_dead(books, found) == n_dead >= 3
    for level, book in enumerate(books):
        assert (book[3] - rest[level]).abs().sum(dim=1).min() < 1e-5


def test_an_rqvae_that_diverges_is_refused_with_the_step_to_lower() -> None:
    with pytest.raises(RecbenchError, match="diverged") as failed:
        RQVAE(RQVAE.Config(hidden=(32,), width=8, epochs=20, learning_rate=1e12)).fit(clustered(), 2, 8, seed=0)
    assert (failed.value.code, failed.value.fix) == (Exit.RUN, "Lower its step: --set method.learning_rate=0.001")


def test_an_rqvae_ends_when_patience_does_and_keeps_its_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of each epoch by hand, the second the least: codes and error are those of the second."""
    seen: list[Quantising] = []
    errors = iter([3.0, 1.0, 2.0, 2.0, 2.0, 1.0])
    quantise_all = Net.quantise_all

    def told(net: Net, x_NA: torch.Tensor) -> tuple[Quantising, float]:
        seen.append(quantise_all(net, x_NA)[0])
        return seen[-1], next(errors)

    monkeypatch.setattr(Net, "quantise_all", told)
    config = RQVAE.Config(hidden=(32,), width=8, epochs=50, patience=3, batch_size=100, learning_rate=1e-2)
    made = RQVAE(config).fit(clustered(), 2, 8, seed=0)
    assert (made.facts["epochs"], made.facts["best_epoch"]) == (5, 2)
    assert np.array_equal(made.residuals_NW, seen[1].last_BW.numpy())
    assert not np.array_equal(made.residuals_NW, seen[4].last_BW.numpy())


def test_an_rqvaes_beta_sinkhorn_and_start_reach_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[float, float]] = []
    starts: list[list[torch.Tensor]] = []
    loss = Net.loss

    def told(net: Net, x_BA: torch.Tensor, beta: float, eps: float) -> torch.Tensor:
        given.append((beta, eps))
        starts.append([book.detach().clone() for book in net.books])
        return loss(net, x_BA, beta, eps)

    monkeypatch.setattr(Net, "loss", told)
    config = RQVAE.Config(hidden=(32,), width=8, epochs=1, beta=0.7, sinkhorn_eps=0.05)
    RQVAE(config).fit(clustered(), 2, 8, seed=0)
    assert set(given) == {(0.7, 0.05)}
    x_NA = torch.from_numpy(clustered())
    torch.manual_seed(0)
    with torch.no_grad():
        z_NW = Net(12, config).encoder(x_NA / x_NA.std()).numpy()
    wanted = residual_kmeans(z_NW, 2, 8, 0, iterations=10).codebooks
    assert all(np.allclose(book.numpy(), want) for book, want in zip(starts[0], wanted, strict=True))


def test_sinkhorn_in_training_spreads_the_last_level() -> None:
    z = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    books = [torch.randn(16, 4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    plain, even = (quantise(z, books, 0.25, eps) for eps in (0.0, 0.003))
    assert torch.equal(plain.codes_BL[:, 0], even.codes_BL[:, 0])
    largest = [int(torch.bincount(found.codes_BL[:, 1]).max()) for found in (plain, even)]
    assert largest[1] < 0.7 * largest[0]


def test_an_rqvae_learns_to_reconstruct_and_uses_its_codes() -> None:
    x_NA = clustered()
    config = RQVAE.Config(hidden=(32,), width=8, epochs=60, batch_size=128)
    made = RQVAE(config).fit(x_NA, 3, 16, seed=0)
    short = RQVAE(RQVAE.Config(hidden=(32,), width=8, epochs=1, batch_size=128)).fit(x_NA, 3, 16, seed=0)
    assert made.facts["reconstruction"] < 0.5 * short.facts["reconstruction"]
    assert made.facts["reconstruction"] < 0.5  # the vectors' variance is 1
    assert all(len(np.unique(made.codes_NL[:, level])) >= 0.8 * 16 for level in range(2))


def test_the_codes_of_an_rqvae_are_the_nearest_vectors_of_its_codebooks() -> None:
    made = RQVAE(QUICK["rqvae"]).fit(clustered(), 3, 8, seed=0)
    last = torch.from_numpy(made.residuals_NW)
    wanted = torch.cdist(last, torch.from_numpy(made.codebooks[-1])).argmin(dim=1)
    assert np.array_equal(made.codes_NL[:, -1], wanted.numpy())


def test_every_weight_of_the_network_gets_a_finite_gradient() -> None:
    net = Net(12, QUICK["rqvae"])
    net.books = torch.nn.ParameterList([torch.nn.Parameter(torch.randn(4, 8)) for _ in range(2)])
    net.loss(torch.from_numpy(clustered(64)), 0.25).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert isinstance(net.quantise_all(torch.from_numpy(clustered(64)))[0], Quantising)


@pytest.mark.parametrize(
    "settings", [{"width": 0}, {"epochs": 0}, {"beta": -1.0}, {"sinkhorn_eps": -0.1}, {"hidden": (8, 0)}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        RQVAE.Config(**settings)  # type: ignore[arg-type]
