"""LARES' second stage by hand: groups, rewards and the fence, and which positions it keeps."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from recbench.data.batching import Batch, TrainingRows
from recbench.errors import Exit, RecbenchError
from recbench.reasoning.base import Context
from recbench.reasoning.lares import k3
from recbench.reasoning.rewards import hit, ndcg
from recbench.recommender import ItemRecommender
from tests.reasoning.looping import Recorded, context, gradients, random_users, same, system, training, whole
from tests.systems import CPU

# --- reinforcement ----------------------------------------------------------------------------------------------------


class Attempts:
    """What a step of rpt asks of its scores: log-probabilities as leaves of the graph, and where the targets were placed."""

    def __init__(self, model: ItemRecommender, around: Context) -> None:
        self.policy: list[torch.Tensor] = []
        self.reference: list[torch.Tensor] = []
        self.scored: list[torch.Tensor] = []
        self.ranked: list[torch.Tensor] = []
        self.counts: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.targets: list[torch.Tensor] = []
        self._leaves(model.score, self.policy)
        self._leaves(around.reference.score, self.reference)
        place = model.score.place

        def placing(u: torch.Tensor, target: torch.Tensor, within: int) -> tuple[torch.Tensor, torch.Tensor]:
            self.ranked.append(u)
            self.targets.append(target)
            self.counts.append(place(u, target, within=within))
            return self.counts[-1]

        model.score.place = placing

    def _leaves(self, score: object, kept: list[torch.Tensor]) -> None:
        made = score.log_prob

        def log_prob(u: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
            self.scored.append(u)
            kept.append(made(u, items).detach().requires_grad_())
            return kept[-1]

        score.log_prob = log_prob

    def rewards(self, reward: object = hit, k: int = 10) -> torch.Tensor:
        return torch.stack([reward(above, tied, k) for above, tied in self.counts], 1)


def reinforced(
    dropout: float = 0.0, users: int = 8, seed: int = 0, **head: object
) -> tuple[ItemRecommender, Batch, Context]:
    """A system at the start of rpt, one batch of it, and what stands around."""
    model = system(dropout=dropout, n_items=30, **head)
    rows = training(random_users(users, 6, 30, seed=2))
    return model.train(), whole(rows), context(model, rows, "rpt", seed)


def by_pass(flat: torch.Tensor, steps: list[int], positions: int) -> list[torch.Tensor]:
    parts = flat.flatten().split([positions * k for k in steps])
    return [part.view(positions, k) for part, k in zip(parts, steps, strict=True)]


def test_the_fence_is_convex_and_zero_where_both_agree() -> None:
    assert k3(torch.tensor([math.log(2), -math.log(2), 0])).tolist() == pytest.approx([0.3069, 0.1931, 0], abs=5e-5)


@pytest.mark.parametrize("reward", ["recall", "ndcg"])
def test_the_gradient_of_every_log_probability_is_its_signed_weight(reward: str) -> None:
    """dL/dlp = -(A - beta (1 - q/p)) / (positions G k_g): each pass counts the same, whatever its number of steps."""
    model, batch, around = reinforced(dropout=0.2, kl_weight=0.7, reward=reward, mean_steps=3)
    seen, asked = Recorded(model.head), Attempts(model, around)
    terms = model.head.losses(model.backbone, batch, model.score, around)
    assert list(terms) == ["policy", "kl"]
    sum(terms.values()).backward()
    assert len(set(seen.steps)) > 1

    for states, u in zip(seen.states, asked.ranked, strict=True):
        assert torch.equal(u, states[-1][batch.at_Q])
    earned = asked.rewards(ndcg if reward == "ndcg" else hit)
    assert (earned.amin(1) < earned.amax(1)).sum() > 5
    advantage = (earned - earned.mean(1, keepdim=True)) / (earned.std(1, keepdim=True) + 1e-4)
    (lp,), (lq,), P, G = asked.policy, asked.reference, len(batch.at_Q), 4
    fences = []
    parts = (by_pass(flat, seen.steps, P) for flat in (lp.detach(), lq.detach(), lp.grad))
    for g, (p, q, made) in enumerate(zip(*parts, strict=True)):
        expected = -(advantage[:, g, None] - 0.7 * (1 - torch.exp(q - p))) / (P * G * seen.steps[g])
        torch.testing.assert_close(made, expected, atol=1e-7, rtol=1e-5)
        fences.append((torch.exp(q - p) - (q - p) - 1).mean())
    assert terms["policy"].item() == pytest.approx(0, abs=1e-6)
    assert terms["kl"].item() == pytest.approx(0.7 * torch.stack(fences).mean().item(), rel=1e-5)
    assert around.noted()["kl"] == pytest.approx(torch.stack(fences).mean().item(), rel=1e-5)


def test_the_reference_thinks_as_long_without_dropout_and_gradient() -> None:
    model, batch, around = reinforced(dropout=0.5, start="zero", mean_steps=3)
    seen, theirs = Recorded(model.head), Recorded(around.reference.head)
    terms = model.head.losses(model.backbone, batch, model.score, around)
    assert theirs.steps == seen.steps
    assert not any(theirs.training)
    assert all(seen.training)
    for g, steps in enumerate(seen.steps):
        expected = list(model.eval().head.trajectory(model.backbone, batch, steps, seen.states[g][0].new_zeros(40, 8)))
        same(theirs.states[g], expected, 1e-6)
    assert not any(z.requires_grad for states in theirs.states for z in states)
    terms["kl"].backward()
    assert all(p.grad is None for p in around.reference.parameters())


def test_equal_rewards_without_a_fence_move_nothing() -> None:
    model, batch, around = reinforced(dropout=0.3, kl_weight=0, reward_k=30)
    before = {name: tensor.clone() for name, tensor in model.tensors().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    terms = model.head.losses(model.backbone, batch, model.score, around)
    sum(terms.values()).backward()
    assert all(p.grad is not None and (p.grad == 0).all() for p in model.parameters())
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.tensors().items())
    assert around.noted()["no_signal"] == 1


@pytest.mark.parametrize(
    ("dropout", "share_start", "apart"), [(0.0, True, False), (0.0, False, True), (0.1, True, True)]
)
def test_policy_and_reference_agree_at_first_only_without_dropout_and_from_one_start(
    dropout: float, share_start: bool, apart: bool
) -> None:
    model, batch, around = reinforced(dropout=dropout, share_start=share_start)
    fence = model.head.losses(model.backbone, batch, model.score, around)["kl"]
    assert (fence.item() > 1e-6) == apart
    assert any((g != 0).any() for g in gradients(fence, model)) == apart
    if not apart:
        assert fence.item() == 0


def test_all_advantages_one_without_a_fence_is_plain_supervision_of_every_step() -> None:
    model, batch, around = reinforced(advantage="one", kl_weight=0, dropout=0.2)
    model.double()
    seen = Recorded(model.head)
    terms = model.head.losses(model.backbone, batch, model.score, around)
    assert list(terms) == ["policy"]
    assert terms["policy"].item() == pytest.approx(-1)
    table = model.backbone.item_vectors()[1:]
    passes = [
        torch.stack([F.cross_entropy(z[batch.at_Q] @ table.T, batch.targets_Q - 1) for z in states]).mean()
        for states in seen.states
    ]
    same(gradients(terms["policy"], model), gradients(torch.stack(passes).mean(), model), 1e-12)


def test_every_position_at_once_equals_one_row_a_prefix() -> None:
    """Both terms and their gradients, with the same depths; no noise is drawn, and advantages do not depend on ties."""
    users = [[1, 2], [3, 4, 5], [6, 7, 8, 9, 10], [2, 4, 6, 8, 1, 3, 5, 7]]
    model = system(start="zero", filter_top=0, mean_steps=3, kl_weight=0.7, advantage="one").double().train()
    packed, prefixes = training(users), training(users, every_position=False)
    around, made = context(model, packed, "rpt"), []
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, dtype=torch.float64))  # policy and reference differ
    for rows in (packed, prefixes):
        around.generator = torch.Generator().manual_seed(1)
        terms = model.head.losses(model.backbone, whole(rows), model.score, around)
        made.append({name: (term, gradients(term, model)) for name, term in terms.items()})
    assert list(made[0]) == ["policy", "kl"]
    assert made[0]["kl"][0] > 1e-3
    for name, (value, gradient) in made[0].items():
        torch.testing.assert_close(value, made[1][name][0], atol=1e-10, rtol=0)
        same(gradient, made[1][name][1], 1e-10)


def test_a_step_holds_no_tensor_of_positions_and_items() -> None:
    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            made = func(*args, **(kwargs or {}))
            for tensor in made if isinstance(made, tuple | list) else (made,):
                if isinstance(tensor, torch.Tensor):
                    self.numbers = max(self.numbers, tensor.numel())
            return made

    model = system(n_items=2_000, mean_steps=6, step_scheme="fixed")
    model.score._chunk_rows = 8
    rows = training(random_users(20, 6, 2_000))
    batch, around = whole(rows), context(model, rows, "rpt")
    with Largest() as largest:
        sum(model.head.losses(model.backbone, batch, model.score, around).values()).backward()
    positions, steps = len(batch.at_Q), 6
    assert largest.numbers < 4 * positions * steps * 8 + 8 * 2_001 * 2 < positions * 2_000


def test_depths_of_a_group_differ_unless_told_otherwise() -> None:
    for same_depth in (True, False):
        model, batch, around = reinforced(same_depth=same_depth)
        seen, groups = Recorded(model.head), []
        for _ in range(5):
            model.head.losses(model.backbone, batch, model.score, around)
            groups.append(set(seen.steps))
            assert len(seen.steps) == 4
            seen.states.clear()
        assert all(len(group) == 1 for group in groups) == same_depth
        assert len(set.union(*groups)) > 1


def test_a_few_steps_of_each_pass_may_be_scored_and_the_last_is_rewarded_still() -> None:
    model, batch, around = reinforced(rpt_steps=2, mean_steps=5, step_scheme="fixed", group=2)
    drawn = set()
    for _ in range(15):
        seen, asked = Recorded(model.head), Attempts(model, around)
        model.head.losses(model.backbone, batch, model.score, around)
        policy, reference = asked.scored
        P = len(batch.at_Q)
        assert len(policy) == len(reference) == 2 * P * 2
        for g, part in enumerate(policy.view(2, P, 2, 8)):
            steps = [
                next(i for i in range(5) if torch.equal(seen.states[g][i][batch.at_Q], part[:, j])) for j in (0, 1)
            ]
            assert steps[0] < steps[1]
            assert torch.equal(asked.ranked[g], seen.states[g][-1][batch.at_Q])
            drawn |= set(steps)
        del model.head.trajectory, model.score.place, model.score.log_prob, around.reference.score.log_prob
    assert drawn == {0, 1, 2, 3, 4}
    assert around.noted()["steps"] == 5


# --- the filter -------------------------------------------------------------------------------------------------------


class Placing:
    """A score that places targets as told: ``ranks`` by item, one for each call in turn."""

    def __init__(self, **ranks: object) -> None:
        self.ranks = {int(name.removeprefix("item")): rank for name, rank in ranks.items()}
        self.answers: list[torch.Tensor] = []

    def step(self, *_: object) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def place(self, u: torch.Tensor, target: torch.Tensor, within: int) -> tuple[torch.Tensor, torch.Tensor]:
        assert within in (99, 100)
        rank = torch.tensor([self.ranks[item][len(self.answers) % 3] for item in target.tolist()])
        self.answers.append(u)
        return (rank - 1) // 2, rank - 1 - (rank - 1) // 2  # half of what stands before it ties


FILTERED = [[7, 1, 2], [7, 3, 4], [7, 2, 1, 4], [7, 2]]
RANKED = {"item1": (100, 100, 100), "item2": (101, 101, 101), "item3": (900, 100, 900), "item4": (900, 900, 101)}


def filtered(**head: object) -> tuple[ItemRecommender, TrainingRows, Context, Placing]:
    model, rows, score = system(**head), training(FILTERED), Placing(**RANKED)
    around = context(model, rows, "rpt")
    model.head.begin(model.backbone, score, around)
    return model, rows, around, score


def test_a_target_in_the_top_hundred_once_in_three_draws_is_kept() -> None:
    model, rows, around, score = filtered()
    assert around.facts == {"filter": {"top": 100, "kept": 3, "of": 8, "share": 3 / 8}}
    assert len(score.answers) == 3
    asked = Attempts(model, around)
    model.head.losses(model.backbone, whole(rows), model.score, around)
    assert [sorted(target.tolist()) for target in asked.targets] == [[1, 1, 3]] * 4


@pytest.mark.parametrize(
    "kind", [{"window": "all"}, {"window": "exact"}, {"window": "last", "every_position": False}], ids=str
)
def test_a_target_is_kept_whichever_of_its_histories_reaches_it(kind: dict[str, object]) -> None:
    """With ``window=all`` a target stands in a batch once for each history; only its shortest one reaches it here."""
    model, rows = system(), training(FILTERED, **kind)

    class Shortest(Placing):
        def place(self, u: torch.Tensor, target: torch.Tensor, within: int) -> tuple[torch.Tensor, torch.Tensor]:
            batch = seen.batches[-1]
            first = torch.from_numpy(batch.rows.starts)[batch.row_Q]
            reached = batch.at_Q == first if kind["window"] == "all" else torch.ones_like(target, dtype=torch.bool)
            return torch.where(reached, 0, 1_000), torch.zeros_like(target)

    seen = Recorded(model.head)
    around = context(model, rows, "rpt")
    model.head.begin(model.backbone, Shortest(), around)
    assert around.facts == {"filter": {"top": 100, "kept": 8, "of": 8, "share": 1.0}}


def test_the_stage_trains_on_rows_that_hold_a_kept_target_and_fills_its_steps_with_those() -> None:
    _, rows, around, _ = filtered()
    assert around.train is not rows
    assert around.train.n_targets == 3
    assert around.train.steps(1) == 3
    batches = list(around.train.batches(1, np.random.default_rng(0), CPU))
    assert sorted(int(user) for batch in batches for user in batch.users_B) == [1, 2, 3]
    assert sum(len(batch.at_Q) for batch in batches) == 7


def test_the_filter_looks_at_the_mean_number_of_steps_without_dropout_and_with_fresh_noise() -> None:
    for start in ("normal", "zero"):
        model, rows, score = (
            system(dropout=0.5, mean_steps=3, test_steps=7, start=start),
            training(FILTERED),
            Placing(**RANKED),
        )
        model.train()
        around, seen = context(model, rows, "rpt"), Recorded(model.head)
        model.head.begin(model.backbone, score, around)
        assert seen.steps == [3, 3, 3]
        assert not any(seen.training)
        assert model.backbone.training
        assert model.head.training
        one, other, _ = score.answers
        assert torch.equal(one, other) == (start == "zero")


def test_without_a_filter_every_position_is_kept() -> None:
    model, rows, around, score = filtered(filter_top=0)
    assert (score.answers, around.facts) == ([], {})
    asked = Attempts(model, around)
    model.head.losses(model.backbone, whole(rows), model.score, around)
    assert sorted(asked.targets[0].tolist()) == [1, 1, 2, 2, 2, 3, 4, 4]


def test_a_batch_without_a_kept_position_is_passed_over() -> None:
    model, rows, around, _ = filtered()
    batch, _, _ = whole(rows).only(np.array([0]))
    assert batch.targets_Q.tolist() == [2]
    assert model.head.losses(model.backbone, batch, model.score, around) == {}


def test_a_step_takes_at_most_so_many_positions() -> None:
    model, rows, around, _ = filtered(rpt_positions=2)
    asked = Attempts(model, around)
    for _ in range(10):
        model.head.losses(model.backbone, whole(rows), model.score, around)
    assert {len(target) for target in asked.targets} == {2}
    assert {item for target in asked.targets for item in target.tolist()} == {1, 3}


def test_a_filter_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(RecbenchError, match="No training position is left") as refused:
        filtered(filter_top=99)
    assert refused.value.code == Exit.RUN
    assert "top 99" in refused.value.why
    assert "head.filter_top=0" in refused.value.fix


def test_reinforcement_notes_its_thoughts_and_how_far_the_policy_has_moved() -> None:
    model, batch, around = reinforced(dropout=0.2, mean_steps=3, step_scheme="fixed")
    asked = Attempts(model, around)
    model.head.losses(model.backbone, batch, model.score, around)
    noted = around.noted()
    assert {"similarity@2", "similarity@3", "change@3", "alike@3", "kl", "no_signal", "reward_mean"} <= set(noted)
    (lp,), (lq,) = asked.policy, asked.reference
    last = torch.cat(
        [(p - q)[:, -1] for p, q in zip(*(by_pass(x, [3] * 4, len(batch.at_Q)) for x in (lp, lq)), strict=True)]
    )
    assert noted["ratio_low"] == pytest.approx(last.quantile(0.05).exp().item(), rel=1e-4)
    assert noted["ratio_high"] == pytest.approx(last.quantile(0.95).exp().item(), rel=1e-4)
    assert noted["ratio_low"] < 1 < noted["ratio_high"]
