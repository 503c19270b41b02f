"""What every head keeps, over the tables of heads and neural backbones."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from recbench.data.batching import Batch
from recbench.errors import RecbenchError
from recbench.reasoning.base import Context, Stage
from recbench.recommender import ItemRecommender, config_classes
from recbench.recommender import build as build_system
from recbench.registry import BACKBONES, HEADS
from recbench.settings import resolve
from tests.systems import (
    neural_backbones,
    packed,
    small_backbone,
    small_head,
    small_system,
    training_batch,
    training_rows,
)

PAIRS = [(head, backbone) for head in HEADS.entries() for backbone in neural_backbones()]
BASELINES = [name for name, entry in BACKBONES.entries().items() if entry.family == "baseline"]
VARIANTS: list[tuple[str, dict[str, object]]] = [
    *((head, {}) for head in HEADS.entries()),
    ("rearec-erl", {"diversity_form": "paper", "supervise": "each"}),
    ("rearec-erl", {"diversity": 0.0}),
    ("rearec-prl", {"views": "thoughts", "contrast_rows": 5}),
    ("lares", {"filter_top": 0, "partner": "self", "mix": "concat"}),
    ("lares", {"mix": "gate", "tla": 0.0, "sla": 0.0}),
    ("diffuse", {"grpo_when": "after", "kl": 0.1, "reference": "stage"}),
    ("lasar", {"depth_baseline": "exact", "feed": "linear", "cuts": 0, "anchor": "backbone", "align": "mse"}),
    ("lasar", {"anchor": "backbone", "anchor_context": "prompt", "cuts": 2}),
    ("lasar", {"depth_baseline": "paired", "feed": "state", "anchor": "codes", "reward": "hit", "skip_missed": True}),
    ("lasar", {"depth": "random", "feed": "constant", "align": "cosine", "use_target": False, "reference_sync": True}),
    ("lasar", {"candidates": "sample", "group": 30, "depth_baseline": "paired"}),
    ("lasar", {"align_weight": "auto", "align_tau": 2.0, "ground_codes": 0.1}),
    ("lasar", {"readout": "end", "cuts": 2, "min_depth": 0}),
    ("lasar", {"shuffle_anchors": True, "shuffle_reward": True, "group_reward": "mean", "rl_holdout": 0.5, "cuts": 2}),
]
"""Heads as they are by default, and settings that take other paths through their losses."""
OUT_OF_RANGE: list[tuple[str, str, object]] = [
    ("pause", "steps", 0),
    ("pause", "feed_dropout", 1.0),
    ("rearec-erl", "steps", -1),
    ("rearec-erl", "tau", 0.0),
    ("rearec-erl", "diversity", -0.5),
    ("rearec-erl", "feed_dropout", 1.0),
    ("rearec-prl", "steps", -1),
    ("rearec-prl", "tau", 0.0),
    ("rearec-prl", "alpha", 0.0),
    ("rearec-prl", "contrast_tau", 0.0),
    ("rearec-prl", "step_weight", -0.5),
    ("rearec-prl", "contrast", -0.5),
    ("rearec-prl", "noise", -0.5),
    ("rearec-prl", "warmup_epochs", -1),
    ("rearec-prl", "contrast_rows", 0),
    ("rearec-prl", "feed_dropout", -0.5),
    ("lares", "mean_steps", 0),
    ("lares", "test_steps", 0),
    ("lares", "anchors", 0),
    ("lares", "group", 1),
    ("lares", "contrast_tau", 0.0),
    ("lares", "pre_layers", -1),
    ("lares", "backprop_steps", 0),
    ("lares", "tla", -0.1),
    ("lares", "exit_tolerance", -0.1),
    ("diffuse", "steps", -1),
    ("diffuse", "levels", -1),
    ("diffuse", "group", 1),
    ("diffuse", "explore", 1.5),
    ("diffuse", "feed_dropout", 1.0),
    ("lasar", "max_depth", 0),
    ("lasar", "min_depth", -1),
    ("lasar", "min_depth", 9),
    ("lasar", "fixed_depth", -1),
    ("lasar", "group", 1),
    ("lasar", "align_weight", -1.0),
    ("lasar", "ground_codes", -0.1),
    ("lasar", "align_tau", 0.0),
    ("lasar", "label_smoothing", 1.0),
    ("lasar", "step_cost", -0.1),
    ("lasar", "cuts", -1),
    ("lasar", "skip", ("align",)),
    ("lasar", "anchor", "file"),
    ("lasar", "anchor_context", "prompt"),
]
ROWS = [[3], [5, 6], [7, 8, 9], [1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4, 3, 2, 1]]
USERS = [[1, 2, 3], [4, 2, 3, 2], [5, 6, 1, 3, 7], [8, 9, 1, 2, 3, 4, 5, 6]]
N_ITEMS = 20


def thoughts(model: ItemRecommender, rows: list[list[int]], steps: int | None = None) -> Tensor:
    return model.eval().head.think(model.backbone, packed(rows), steps)


def as_long(*chains: Tensor) -> list[Tensor]:
    """Chains of equal length: one that ended stays at its last thought, as it does beside a longer one in the same batch."""
    K = max(z.shape[1] for z in chains)
    return [torch.cat([z, z[:, -1:].expand(-1, K - z.shape[1], -1)], dim=1) for z in chains]


def context(model: ItemRecommender, stage: Stage, seed: int = 5) -> Context:
    first = stage.name == model.stages[0].name
    return Context(
        stage.name,
        torch.Generator().manual_seed(seed),
        training_rows(model, USERS),
        reference=None if first else copy.deepcopy(model).eval().requires_grad_(False),
        epoch=1,
        step=1,
        epochs=2,
        steps=1,
    )


def losses(model: ItemRecommender, stage: Stage, seed: int = 5) -> dict[str, Tensor]:
    """Losses of one training batch, as the loop asks for them."""
    told = context(model, stage, seed)
    model.begin(told)
    torch.manual_seed(seed)
    return model.train().losses(training_batch(model, USERS), told)


def stages_that_run(model: ItemRecommender) -> list[Stage]:
    return [stage for stage in model.stages if stage.defaults.get("epochs", 1)]


@pytest.mark.parametrize(("head", "backbone"), PAIRS)
def test_thinking_is_deterministic_and_shaped_as_promised(head: str, backbone: str) -> None:
    model = small_system(backbone, head)
    first = thoughts(model, ROWS)
    n_tokens = sum(map(len, ROWS))
    assert first.shape == (n_tokens, first.shape[1], model.backbone.width)
    assert torch.equal(first, thoughts(model, ROWS))
    answer = model.head.answer(first)
    assert answer.shape == (n_tokens, model.backbone.width)
    assert answer.isfinite().all()


@pytest.mark.parametrize(("head", "backbone"), PAIRS)
def test_thinking_for_evaluation_draws_nothing(head: str, backbone: str) -> None:
    model = small_system(backbone, head)
    before = torch.get_rng_state()
    thoughts(model, ROWS)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("head", "changes"), VARIANTS, ids=str)
@pytest.mark.parametrize("backbone", neural_backbones())
def test_losses_are_named_finite_scalars_with_finite_gradients_in_every_stage(
    backbone: str, head: str, changes: dict[str, object]
) -> None:
    model = small_system(backbone, head, N_ITEMS, changes=changes)
    for stage in stages_that_run(model):
        terms = losses(model, stage)
        assert terms, stage.name
        for name, value in terms.items():
            assert value.shape == (), name
            assert value.isfinite(), name
        model.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients), stage.name


@pytest.mark.parametrize(("head", "backbone"), PAIRS)
def test_every_parameter_learns_in_some_stage(head: str, backbone: str) -> None:
    model = small_system(backbone, head, N_ITEMS)
    touched = set()
    for stage in stages_that_run(model):
        model.zero_grad()
        torch.stack(list(losses(model, stage).values())).sum().backward()
        touched |= {name for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(("head", "backbone"), PAIRS)
def test_the_same_seed_gives_the_same_losses(head: str, backbone: str) -> None:
    for stage in stages_that_run(small_system(backbone, head, N_ITEMS)):
        one, other = (losses(small_system(backbone, head, N_ITEMS), stage) for _ in range(2))
        assert {name: value.item() for name, value in one.items()} == {name: v.item() for name, v in other.items()}


@pytest.mark.parametrize(("head", "backbone"), PAIRS)
def test_every_draw_of_a_head_but_dropout_comes_from_the_context(head: str, backbone: str) -> None:
    model = small_system(backbone, head, N_ITEMS)
    batch = training_batch(model, USERS)
    for stage in stages_that_run(model):
        told = context(model, stage)
        model.begin(told)
        model.eval()
        before = torch.get_rng_state()
        model.losses(batch, told)
        assert torch.equal(torch.get_rng_state(), before), stage.name


@pytest.mark.parametrize(("head", "backbone"), PAIRS)
def test_batch_neighbours_and_bucket_width_change_no_answer(head: str, backbone: str) -> None:
    model = small_system(backbone, head)
    together = model.head.answer(thoughts(model, ROWS)).split([len(row) for row in ROWS])
    for row, among_others in zip(ROWS, together, strict=True):
        torch.testing.assert_close(model.head.answer(thoughts(model, [row])), among_others, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("head", "backbone"), PAIRS)
def test_the_order_of_rows_changes_no_thought(head: str, backbone: str) -> None:
    model = small_system(backbone, head)
    one, other = thoughts(model, [[1, 2], [3, 4], [5, 6]]), thoughts(model, [[5, 6], [3, 4], [1, 2]])
    torch.testing.assert_close(other, one[[4, 5, 2, 3, 0, 1]], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("head", "backbone"), PAIRS)
def test_a_later_item_changes_no_thought_before_it(head: str, backbone: str) -> None:
    model = small_system(backbone, head)
    if not model.backbone.causal:
        pytest.skip(f"{backbone} trains on prefix rows")
    one, other = as_long(thoughts(model, [[1, 2, 3, 4, 5, 6]]), thoughts(model, [[1, 2, 3, 9, 9, 9]]))
    torch.testing.assert_close(one[:3], other[:3], atol=1e-5, rtol=0)
    assert not torch.allclose(one[3:], other[3:], atol=1e-3)


@pytest.mark.parametrize(("head", "backbone"), PAIRS)
def test_asking_for_some_tokens_gives_their_thoughts_alone(head: str, backbone: str) -> None:
    model = small_system(backbone, head).eval()
    everywhere, some = thoughts(model, ROWS), [0, 2, 5, 10, 19]
    alone = model.head.think(model.backbone, packed(ROWS, at=some))
    torch.testing.assert_close(*as_long(alone, everywhere[some]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("head", "backbone"), PAIRS)
def test_a_number_of_steps_at_test_is_followed_where_it_means_anything(head: str, backbone: str) -> None:
    model = small_system(backbone, head)
    counts, answers = [], []
    for steps in (1, 2, 3):
        z = thoughts(model, ROWS, steps)
        counts.append(z.shape[1])
        answers.append(model.head.answer(z))
        assert answers[-1].isfinite().all()
    if not model.head.scalable:
        assert torch.equal(answers[0], answers[2])
        return
    assert [count - counts[0] for count in counts] == [0, 1, 2]
    assert not torch.allclose(answers[0], answers[1], atol=1e-4)
    assert not torch.allclose(answers[1], answers[2], atol=1e-4)


@pytest.mark.parametrize("head", ["rearec-erl", "rearec-prl", "diffuse"])
def test_a_chain_that_was_trained_without_a_step_takes_no_number_of_steps(head: str) -> None:
    """It has no step vector and no norm to make a thought with."""
    assert small_system("sasrec", head).head.scalable
    assert not small_system("sasrec", head, changes={"steps": 0}).head.scalable


@pytest.mark.parametrize(("head", "backbone"), PAIRS)
def test_what_is_saved_restores_the_same_thoughts(head: str, backbone: str) -> None:
    saved = small_system(backbone, head)
    for parameter in saved.parameters():
        torch.nn.init.normal_(parameter)
    built = small_backbone(backbone)
    torch.manual_seed(9)
    fresh = ItemRecommender(built, small_head(head, built))
    assert not torch.equal(thoughts(fresh, ROWS), thoughts(saved, ROWS))
    fresh.restore(saved.tensors())
    assert torch.equal(thoughts(fresh, ROWS), thoughts(saved, ROWS))


@pytest.mark.parametrize(("head", "backbone"), PAIRS)
def test_making_a_head_leaves_the_backbone_as_it_was(head: str, backbone: str) -> None:
    alone, under = small_backbone(backbone), small_system(backbone, head).backbone
    assert under.training
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, under.state_dict()[name]), name


@pytest.mark.parametrize(("head", "setting", "value"), OUT_OF_RANGE)
def test_a_setting_out_of_range_is_refused_by_name(head: str, setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"\b{setting}\b"):
        HEADS.load(head).Config(**{setting: value})
    with pytest.raises(RecbenchError) as refused:
        resolve({"backbone": {"name": "sasrec"}, "head": {"name": head, setting: value}}, "none")
    assert setting in refused.value.why


@pytest.mark.parametrize("backbone", neural_backbones())
def test_a_core_without_layers_is_refused_when_the_system_is_built(backbone: str) -> None:
    cls, head = BACKBONES.load(backbone).Config(), HEADS.load("lares")
    config = head.Config(pre_layers=cls.n_layers)
    with pytest.raises(ValueError, match="pre_layers is 2 of 2 layers"):
        head(config, small_backbone(backbone))
    with pytest.raises(RecbenchError) as refused:
        build_system(backbone, cls, "lares", config, N_ITEMS)
    assert "pre_layers" in refused.value.why


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("head", [name for name in HEADS.entries() if name != "none"])
def test_a_baseline_takes_no_head(baseline: str, head: str) -> None:
    with pytest.raises(RecbenchError, match=f"--reason {head} cannot apply"):
        config_classes(baseline, head)


def test_every_head_is_in_the_table_that_the_tests_run_over() -> None:
    assert {"none", "pause", "rearec-erl", "rearec-prl", "lares", "diffuse"} <= set(HEADS.entries())
    assert {head for head, _ in VARIANTS} == set(HEADS.entries())


def test_the_reference_of_diffuse_sees_the_same_times_as_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a backbone looks at the time of the target, the frozen copy does so, too."""
    changes = {"grpo_when": "after", "kl": 0.1, "reference": "stage"}
    model = small_system("hstu", "diffuse", N_ITEMS, changes=changes, query_time="target")
    told = context(model, model.stages[1])
    seen, encode = [], told.reference.backbone.encode

    def watched(x: Tensor, batch: Batch, **options: object) -> object:
        seen.append(batch.next_times_N)
        return encode(x, batch, **options)

    monkeypatch.setattr(told.reference.backbone, "encode", watched)
    batch = training_batch(model, USERS)
    model.begin(told)
    model.train().losses(batch, told)
    assert len(seen) == 1
    assert torch.equal(seen[0], batch.next_times_N)
