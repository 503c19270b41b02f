"""Progressive reasoning learning: annealed losses of every step, and the contrast of noisy with clean states."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.reasoning.given import ALIKE, context, cross_entropy, exact, example, given, record, training_batch
from tests.systems import small_system


def test_early_steps_are_softer_and_a_step_weight_of_k_is_the_sum_of_the_paper() -> None:
    """K = 2, tau 1, alpha 2: temperatures 4, 2, 1."""
    z, table, target = example()
    losses = [cross_entropy(z[:, k], table, target, tau) for k, tau in enumerate((4, 2, 1))]
    terms = given("rearec-prl", z, table, target, alpha=2.0, step_weight=2.0)
    torch.testing.assert_close(terms["next_item"], losses[2], atol=1e-12, rtol=0)
    torch.testing.assert_close(sum(terms.values()), sum(losses), atol=1e-12, rtol=0)
    default = given("rearec-prl", z, table, target, alpha=2.0)
    torch.testing.assert_close(default["steps"], (losses[0] + losses[1]) / 2, atol=1e-12, rtol=0)


def test_without_annealing_equal_states_have_equal_losses() -> None:
    z, table, target = example(states=1)
    terms = given("rearec-prl", z.expand(-1, 3, -1), table, target, alpha=1.0, tau=0.5)
    torch.testing.assert_close(terms["steps"], terms["next_item"], atol=1e-12, rtol=0)


def test_terms_of_weight_zero_are_absent() -> None:
    z, table, target = example()
    assert given("rearec-prl", z, table, target, step_weight=0.0).keys() == {"next_item"}
    assert exact("rearec-prl", contrast=0.0).losses(training_batch(ALIKE), context()).keys() == {"next_item", "steps"}


@pytest.mark.parametrize("views", ["full", "thoughts"])
@pytest.mark.parametrize("same_target", [True, False])
@pytest.mark.parametrize("same_user", [True, False])
def test_the_contrast_leaves_out_whom_it_should_and_nobody_else(same_user: bool, same_target: bool, views: str) -> None:
    """Without noise and dropout a noisy state is its clean twin, so the loss follows from the thoughts alone."""
    model = exact(
        "rearec-prl",
        noise=0.0,
        contrast=0.7,
        tau=2.0,
        views=views,
        mask_same_user=same_user,
        mask_same_target=same_target,
    )
    batch = training_batch(ALIKE)
    z, users, y = model.head.think(model.backbone, batch), batch.users_B[batch.row_Q], batch.targets_Q.tolist()
    losses = []
    for k in (1, 2):
        for a in range(len(y)):
            barred = [(same_user and users[j] == users[a]) or (same_target and y[j] == y[a]) for j in range(len(y))]
            kept = [j for j in range(len(y)) if j == a or not barred[j]]
            scores = z[kept, k] @ z[a, k] / 2.0
            losses.append(scores.logsumexp(0) - scores[kept.index(a)])
    contrast = model.losses(batch, context())["contrast"]
    torch.testing.assert_close(contrast, 0.7 * torch.stack(losses).mean(), atol=1e-12, rtol=0)


def test_its_own_temperature_replaces_tau_in_the_contrast() -> None:
    batch = training_batch(ALIKE)
    by_tau, own, plain = (
        exact("rearec-prl", **changes).losses(batch, context())["contrast"]
        for changes in ({"tau": 0.5}, {"contrast_tau": 0.5}, {})
    )
    torch.testing.assert_close(by_tau, own)
    assert not torch.allclose(own, plain, rtol=1e-3)


def test_the_anchor_is_the_noisy_state_and_the_candidates_are_clean() -> None:
    model = exact("rearec-prl", noise=0.5, mask_same_user=False, mask_same_target=False)
    batch = training_batch(ALIKE)
    clean = model.head.think(model.backbone, batch)
    extend, made = model.backbone.extend, []
    model.backbone.extend = lambda *given: made.append(extend(*given)) or made[-1]
    contrast = model.losses(batch, context())["contrast"]
    steps = [F.cross_entropy(made[2 + k] @ clean[:, 1 + k].T, torch.arange(len(clean))) for k in (0, 1)]
    torch.testing.assert_close(contrast, sum(steps) / 2, atol=1e-12, rtol=0)


@pytest.mark.parametrize("changes", [{"contrast_rows": 1}, {"rows": [[1, 2, 1, 2]], "mask_same_user": True}])
def test_an_anchor_without_negatives_costs_nothing(changes: dict[str, object]) -> None:
    rows = changes.pop("rows", ALIKE)
    loss = exact("rearec-prl", **changes).losses(training_batch(rows), context())["contrast"]
    assert loss.item() == 0


def test_both_ways_to_a_second_view_agree_without_dropout() -> None:
    batch = training_batch(ALIKE)
    full, thoughts = (
        exact("rearec-prl", noise=0.3, contrast_rows=5, views=views).losses(batch, context())
        for views in ("full", "thoughts")
    )
    assert full.keys() == thoughts.keys() == {"next_item", "steps", "contrast"}
    for term, value in full.items():
        torch.testing.assert_close(value, thoughts[term], atol=1e-12, rtol=0)


def test_dropout_tells_the_full_second_view_from_the_first_and_both_from_mere_thoughts() -> None:
    """Dropout on the history alone: chains behind one history agree, behind two they do not."""
    batch, contrast = training_batch(ALIKE), {}
    for views in ("full", "thoughts"):
        model = small_system(head="rearec-prl", changes={"noise": 0.0, "views": views, "feed_dropout": 0.0}).double()
        model.eval()
        model.backbone.dropout.train()
        fed, made = record(model.backbone), []
        extend = model.backbone.extend
        model.backbone.extend = lambda *given, extend=extend, made=made: made.append(extend(*given)) or made[-1]
        model.losses(batch, context())
        n = len(batch.at_Q)
        contrast[views] = [made[0][:n], made[2]] if views == "full" else [made[0][::2], made[0][1::2]]
        assert len(fed) == (4 if views == "full" else 2)
    assert not torch.allclose(*contrast["full"], atol=1e-3)
    torch.testing.assert_close(*contrast["thoughts"], atol=1e-12, rtol=0)


def test_the_contrast_begins_after_the_warm_up() -> None:
    model = exact("rearec-prl", warmup_epochs=2)
    batch = training_batch(ALIKE)
    told = ["contrast" in model.losses(batch, context(epoch)) for epoch in (1, 2, 3)]
    assert told == [False, False, True]


@pytest.mark.parametrize("spread", [0.01, 1.0])
@pytest.mark.parametrize("views", ["full", "thoughts"])
def test_every_step_of_the_noisy_branch_starts_from_the_clean_state(views: str, spread: float) -> None:
    model = exact("rearec-prl", noise=spread, views=views, feed_norm=False)
    batch = training_batch(ALIKE)
    clean = model.head.think(model.backbone, batch)
    generator = torch.Generator().manual_seed(5)
    noises = [torch.empty_like(clean[:, 0]).normal_(std=spread, generator=generator) for _ in range(2)]
    fed = record(model.backbone)
    model.losses(batch, context(seed=5))
    noisy = (
        fed[2:] if views == "full" else [tokens[1::2] for tokens in fed]
    )  # each token stands there twice, clean first
    for k in (0, 1):
        expected = clean[:, k] + model.head.chain.step_embedding.weight[k]
        torch.testing.assert_close(noisy[k] - noises[k], expected, atol=1e-12, rtol=0)


def test_the_same_seed_gives_the_same_losses_and_another_seed_others() -> None:
    model = small_system(head="rearec-prl", changes={"contrast_rows": 4}).train()
    batch = training_batch(ALIKE)

    def contrast(seed: int) -> float:
        torch.manual_seed(0)
        return model.losses(batch, context(seed=seed))["contrast"].item()

    assert contrast(1) == contrast(1)
    assert contrast(1) != contrast(2)
