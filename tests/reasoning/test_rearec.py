"""What both ReaRec heads share: the chain of states, what trains it, and that it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench.data.batching import Batch
from recbench.evaluation.evaluate import evaluate
from recbench.recommender import ItemRecommender
from recbench.training.checkpoint import Store
from recbench.training.loop import Job, Watcher, fit
from recbench.training.seeding import seed_everything
from recbench.training.settings import stage_settings
from tests.reasoning.given import ROWS, context, exact, record, training_batch
from tests.systems import (
    CPU,
    histories,
    neural_backbones,
    packed,
    prefix_backbones,
    queries,
    small_backbone,
    small_head,
    small_system,
)
from tests.training.test_learning import ITEMS, noise, two_back

HEADS = ["rearec-erl", "rearec-prl"]
BACKBONES = neural_backbones()
CAUSAL = [name for name in BACKBONES if name not in prefix_backbones()]


@pytest.mark.parametrize("name", HEADS)
def test_without_steps_a_head_is_the_plain_model_to_the_last_digit(name: str) -> None:
    plain, head = small_system(head="none"), small_system(head=name, changes={"steps": 0})
    batch = training_batch(ROWS)
    assert torch.equal(plain.eval().head.think(plain.backbone, batch), head.eval().head.think(head.backbone, batch))
    terms, expected = head.losses(batch, context()), plain.losses(batch, context())
    assert terms.keys() == {"next_item"}
    assert torch.equal(terms["next_item"], expected["next_item"])


@pytest.mark.parametrize(
    ("name", "terms", "changes"),
    [
        ("rearec-erl", {"next_item"}, {"diversity": 0.0}),
        ("rearec-erl", {"next_item", "diversity"}, {"diversity": 0.3}),
        ("rearec-erl", {"next_item", "diversity"}, {"diversity": 0.3, "diversity_form": "paper", "supervise": "each"}),
        ("rearec-prl", {"next_item"}, {"contrast": 0.0, "step_weight": 0.0}),
        ("rearec-prl", {"next_item", "steps"}, {"contrast": 0.0, "pool": "mean", "tau": 0.5, "steps": 3}),
    ],
)
@pytest.mark.parametrize("backbone", CAUSAL)
def test_training_every_position_equals_one_row_a_prefix(
    backbone: str, name: str, terms: set[str], changes: dict[str, object]
) -> None:
    model = exact(name, backbone, **changes)
    together = model.losses(training_batch(ROWS), context())
    apart = model.losses(training_batch(ROWS, every_position=False), context())
    assert together.keys() == apart.keys() == terms
    for term, value in together.items():
        torch.testing.assert_close(value, apart[term], atol=1e-10, rtol=0)
    own, other = (torch.autograd.grad(sum(losses.values()), list(model.parameters())) for losses in (together, apart))
    for one, another in zip(own, other, strict=True):
        torch.testing.assert_close(one, another, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", HEADS)
def test_a_later_item_changes_no_thought_before_it(name: str) -> None:
    model = exact(name)
    one = model.head.think(model.backbone, packed([[1, 2, 3, 4, 5, 6]]))
    other = model.head.think(model.backbone, packed([[1, 2, 3, 9, 9, 9]]))
    torch.testing.assert_close(one[:3], other[:3], atol=1e-12, rtol=0)
    assert not torch.allclose(one[3:], other[3:], atol=1e-3)


@pytest.mark.parametrize("name", HEADS)
def test_thoughts_leave_the_plain_states_alone(name: str) -> None:
    model = exact(name)
    batch = packed(ROWS)
    plain = model.backbone.encode(model.backbone.embed(batch), batch).h_QD
    torch.testing.assert_close(model.head.think(model.backbone, batch)[:, 0], plain, atol=1e-12, rtol=0)


def test_chains_are_independent_of_who_else_thinks() -> None:
    model = exact("rearec-prl")
    everywhere = model.head.think(model.backbone, packed(ROWS))
    twice = [0, 4, 4, 12, 19]
    some = model.head.think(model.backbone, packed(ROWS, at=twice))
    torch.testing.assert_close(some, everywhere[twice], atol=1e-12, rtol=0)


def test_rows_in_another_order_give_the_same_thoughts_in_that_order() -> None:
    model = exact("rearec-prl")
    one = model.head.think(model.backbone, packed([[1, 2], [3, 4], [5, 6]]))
    other = model.head.think(model.backbone, packed([[5, 6], [3, 4], [1, 2]]))
    torch.testing.assert_close(other, one[[4, 5, 2, 3, 0, 1]], atol=1e-12, rtol=0)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("items", [[4], [4, 7, 1, 9]])
def test_a_chain_equals_encoding_history_and_tokens_as_one_row_again_for_every_step(
    items: list[int], steps: int
) -> None:
    model = exact("rearec-prl", steps=steps)
    backbone, chain = model.backbone, model.head.chain
    x = backbone.embed(packed([items]))
    states = [backbone.encode(x, packed([items])).h_QD[-1:]]
    for k in range(steps):
        p = chain.step_embedding.weight[k]
        x = torch.cat([x, F.layer_norm(states[-1] + p, p.shape, chain.norm.weight, chain.norm.bias, 1e-12)])
        states.append(backbone.encode(x, packed([[1] * len(x)])).h_QD[-1:])
    expected = torch.stack(states, dim=1)
    thoughts = model.head.think(backbone, packed([items], at=[len(items) - 1]))
    torch.testing.assert_close(thoughts, expected, atol=1e-12, rtol=0)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((weights * z).sum(), list(model.parameters())) for z in (thoughts, expected))
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, atol=1e-10, rtol=0)


def test_without_step_embedding_and_norm_the_state_goes_back_raw() -> None:
    model = exact("rearec-prl", step_embedding=False, feed_norm=False)
    assert not list(model.head.parameters())
    fed = record(model.backbone)
    z = model.head.think(model.backbone, packed(ROWS))
    assert torch.equal(fed[0], z[:, 0])
    assert torch.equal(fed[1], z[:, 1])


def test_tokens_enter_at_the_scale_of_embedded_items() -> None:
    backbone = small_backbone("sasrec", n_items=300)
    torch.nn.init.constant_(backbone.norm.weight, 0.25)
    model = ItemRecommender(backbone, small_head("rearec-prl", backbone)).eval()
    fed = record(backbone)
    model.head.think(backbone, packed(ROWS))
    assert fed[0].square().mean().sqrt().item() == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_neighbours_and_bucket_width_change_no_thought(backbone: str, name: str) -> None:
    model = exact(name, backbone)
    together = model.head.think(model.backbone, packed(ROWS)).split([len(row) for row in ROWS])
    for row, among_others in zip(ROWS, together, strict=True):
        alone = model.head.think(model.backbone, packed([row]))
        torch.testing.assert_close(alone, among_others, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", HEADS)
def test_the_gradient_of_next_item_reaches_items_history_layers_and_every_step(name: str) -> None:
    model = exact(name, steps=3, **({"diversity": 0.0} if name == "rearec-erl" else {"contrast": 0.0}))
    batch, embed, seen = training_batch([[1, 2, 3, 4]]), model.backbone.embed, []

    def embedded(batch: Batch) -> Tensor:
        seen.append(embed(batch).detach().requires_grad_())
        return seen[0]

    model.backbone.embed = embedded
    model.losses(batch, context())["next_item"].backward()
    assert (seen[0].grad.abs().sum(1) > 0).all()
    assert (model.backbone.item_vectors().grad[1:].abs().sum(1) > 0).all()
    assert (model.head.chain.step_embedding.weight.grad.abs().sum(1) > 0).all()
    for parameter_name, parameter in model.backbone.layers.named_parameters():
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", HEADS)
def test_evaluation_is_deterministic_and_draws_nothing(name: str) -> None:
    model = small_system(head=name).eval()
    before = torch.get_rng_state()
    one, other = (model.head.think(model.backbone, packed(ROWS)) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def trained(rows: list[list[int]], asked: list[list[int]], folder: Path, head: str, epochs: int = 12) -> float:
    """HR@1 on ``asked`` after training on ``rows``."""
    folder.mkdir(exist_ok=True)
    seed_everything(3)
    model = small_system("sasrec", head, ITEMS, width=16, dropout=0.0, attention_dropout=0.0)
    table = {"epochs": epochs, "batch_size": 200, "learning_rate": 0.02, "patience": epochs}
    job = Job(histories(rows), queries(asked, "valid"), stage_settings(table, model.stages), 0, CPU, folder, Watcher())
    fit(model, job, Store(folder / "state"))
    return evaluate(model, queries(asked), CPU).means(["hr@1"])["hr@1"]


@pytest.mark.parametrize("name", HEADS)
def test_a_rule_is_learned_as_well_as_without_thoughts(name: str, tmp_path: Path) -> None:
    hits, plain = (trained(two_back(150, 1), two_back(100, 2), tmp_path / head, head) for head in (name, "none"))
    assert hits > 0.9
    assert hits >= plain - 0.02


@pytest.mark.parametrize("name", HEADS)
def test_noise_is_not_learned(name: str, tmp_path: Path) -> None:
    hits = trained(noise(100, 1), noise(400, 2), tmp_path, name, epochs=5)
    assert hits < 1 / ITEMS + 3 * np.sqrt(1 / ITEMS / 400)
