"""What every generator keeps, over every head: an item spelled code by code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from recbench import experiment
from recbench.config import parse_assignments
from recbench.data.dataset import open_dataset
from recbench.errors import Exit, RecbenchError
from recbench.evaluation.evaluate import evaluate
from recbench.experiment import Order
from recbench.recommender import GeneratorRecommender
from recbench.registry import BACKBONES, HEADS
from recbench.runs.folder import Run
from recbench.settings import Asked, resolve
from recbench.trained import load, rank_again, rank_at_steps, rank_by_beams
from recbench.training.checkpoint import Store
from recbench.training.loop import Job, Watcher, fit
from recbench.training.seeding import seed_everything
from recbench.training.settings import stage_settings
from tests.generators.spelled import GENERATORS, N_ITEMS, ROWS, STARTS, TABLE, exact, known, small, told
from tests.reasoning.test_anchors import reads_rows_of_both
from tests.reasoning.test_heads import USERS
from tests.semantic_ids.spelling import random_table
from tests.systems import CPU, histories, packed, queries, training_batch

CAUSAL = [name for name in GENERATORS if BACKBONES.load(name.values[0]).causal]
BRIEF = ["loss.beam=50", "train.epochs=3", "train.batch_size=400", "train.learning_rate=0.01"]


@pytest.mark.parametrize("head", HEADS.entries())
@pytest.mark.parametrize("name", GENERATORS)
def test_every_head_has_finite_losses_and_gradients_in_every_stage(name: str, head: str) -> None:
    model = small(name, head, beam=10)
    for stage in model.stages:
        if not stage.defaults.get("epochs", 1):
            continue
        context = told(model, stage)
        model.begin(context)
        losses = model.train().losses(training_batch(model, USERS), context)
        assert losses
        assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
        model.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        grads = [p.grad for p in model.backbone.parameters() if p.grad is not None]
        assert grads
        assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize(
    ("head", "start"), [*((head, "constant") for head in HEADS.entries()), ("none", "item"), ("lasar", "item")]
)
def test_a_row_ranks_the_same_alone_and_beside_others(name: str, head: str, start: str) -> None:
    model = small(name, head=head, sizes={"start": start})
    together = exact(model, packed(ROWS, at=[0, 2, 5, 10]))
    for row, scores in zip(ROWS, together, strict=True):
        alone = exact(model, packed([row], at=[len(row) - 1]))[0]
        assert torch.allclose(alone, scores, atol=1e-5)


@pytest.mark.parametrize("name", GENERATORS)
def test_without_a_thought_it_is_the_plain_model(name: str) -> None:
    plain, batch = small(name), packed(ROWS, at=[0, 2, 5, 10])
    model = small(name, "lasar", settings={"depth": "fixed", "fixed_depth": 0})
    model.head.thinks.fill_(True)
    plain.backbone.load_state_dict(model.backbone.state_dict())
    assert torch.equal(exact(model, batch), exact(plain, batch))
    deeper = small(name, "lasar", settings={"depth": "fixed", "fixed_depth": 2})
    deeper.head.thinks.fill_(True)
    deeper.backbone.load_state_dict(model.backbone.state_dict())
    assert not torch.allclose(exact(deeper, batch), exact(plain, batch), atol=1e-3)


@pytest.mark.parametrize("pre_layers", [0, 1])
@pytest.mark.parametrize("name", GENERATORS)
def test_codes_read_the_histories_and_not_what_a_loop_over_all_layers_makes_of_noise(
    name: str, pre_layers: int
) -> None:
    model, batch = small(name, "lares", settings={"pre_layers": pre_layers}).eval(), packed(ROWS, at=[0, 2, 5, 10])
    with torch.no_grad():
        with model.backbone.about(batch):
            u = model.answers(batch)
            scores = model.score.exact(u)
        with model.backbone.about(batch):
            assert torch.equal(scores, model.score.exact(u))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", CAUSAL)
def test_what_comes_later_changes_nothing(name: str, start: str) -> None:
    model = small(name, sizes={"start": start})
    before = exact(model, packed([[1, 2, 3, 4, 5]], at=[0, 1, 2]))
    after = exact(model, packed([[1, 2, 3, 19, 7]], at=[0, 1, 2]))
    assert torch.equal(before, after)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", CAUSAL)
def test_one_pass_over_all_items_is_one_row_a_prefix(name: str, start: str) -> None:
    model = small(name, sizes={"start": start})
    row = [4, 9, 2, 17, 6]
    whole = training_batch(model, [row])
    with model.backbone.about(whole):
        together = model.score.loss(model.answers(whole), whole.targets_Q)
    each = []
    for stop in range(1, len(row)):
        part = packed([row[:stop]], at=[stop - 1])
        with model.backbone.about(part):
            each.append(model.score.loss(model.answers(part), torch.tensor([row[stop]])))
    assert torch.allclose(together, torch.stack(each).mean(), atol=1e-5)


@pytest.mark.parametrize("normalise", ["level", "legal"])
@pytest.mark.parametrize("name", GENERATORS)
def test_log_probabilities_of_given_items_are_those_of_the_exact_search(name: str, normalise: str) -> None:
    model = small(name, head="rearec-erl", normalise=normalise)
    batch = packed(ROWS, at=[0, 2, 5, 10])
    items_NG = torch.arange(1, N_ITEMS + 1).expand(len(ROWS), -1)
    with model.backbone.about(batch), torch.no_grad():
        u_ND = model.eval().answers(batch)
        given = model.score.log_prob(u_ND, items_NG).sum(-1)
        assert torch.allclose(given, model.score.exact(u_ND), atol=1e-5)
        whole = given.exp().sum(1)
        assert torch.allclose(whole, torch.ones(len(ROWS))) == (normalise == "legal")
        first = model.score.first_loss(u_ND, items_NG[0, : len(ROWS)])
        own = model.score.log_prob(u_ND, items_NG[0, : len(ROWS), None])[:, 0, 0]
        torch.testing.assert_close(first, -own.mean(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("normalise", ["level", "legal"])
def test_first_codes_that_no_item_has_count_only_where_the_whole_level_does(normalise: str) -> None:
    first, *others = TABLE.level_sizes
    model = small("sid-lm", table=replace(TABLE, level_sizes=(first + 1, *others)), normalise=normalise).eval()
    batch, target = packed(ROWS, at=[0, 2, 5, 10]), torch.tensor([3, 1, 7, 12])
    z_NKD = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(4))

    def found() -> list[torch.Tensor]:
        with model.backbone.about(batch), torch.no_grad():
            apart = model.score.pooled(z_NKD, target, mix_MK=torch.ones(1, 3) / 3, divergence=1.0)[1]
            own = model.score.log_prob(z_NKD[:, 0], target[:, None])[:, 0, 0]
            short = model.score.first_loss(z_NKD[:, 0], target)
            torch.testing.assert_close(short, -own.mean())
            return [short, apart]

    before = found()
    with torch.no_grad():
        model.backbone.reading(0)[first] += 3
    for old, new in zip(before, found(), strict=True):
        assert torch.equal(old, new) == (normalise == "legal")


@pytest.mark.parametrize("name", GENERATORS)
def test_states_are_mixed_and_held_apart_in_float32_whatever_the_step_runs_in(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By torch's own product, as on a GPU: that of oneDNN knows no autocast."""
    monkeypatch.setattr("recbench.kernels.products._ONEDNN", None)
    model = small(name).eval()
    batch, target = packed(ROWS, at=[0, 2, 5, 10]), torch.tensor([3, 1, 7, 12])
    z_NKD = torch.randn(4, 2, model.backbone.width, generator=torch.Generator().manual_seed(4)).bfloat16()
    answers, inner = [], model.score.loss
    monkeypatch.setattr(
        model.score, "loss", lambda u_ND, *given, **how: answers.append(u_ND) or inner(u_ND, *given, **how)
    )  # type: ignore[func-returns-value]
    found = []
    for coarse in (False, True):
        with model.backbone.about(batch), torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=coarse):
            mix_MK = torch.tensor([[0.3, 0.7]])
            found.append(
                model.score.pooled(z_NKD if coarse else z_NKD.float(), target, mix_MK=mix_MK, divergence=1.0)[1]
            )
    assert answers[1].dtype == torch.float32
    assert torch.equal(*answers)
    assert torch.equal(*found)


def test_the_loss_over_codes_that_lead_to_an_item_has_the_gradient_of_its_differences() -> None:
    model = small("sid-lm", normalise="legal").double()
    batch, target = packed(ROWS, at=[0, 2, 5, 10]), torch.tensor([3, 1, 7, 12])
    table = model.backbone.code_vectors()

    def loss() -> torch.Tensor:
        with model.backbone.about(batch):
            return model.score.loss(model.eval().answers(batch), target)

    gradient = torch.autograd.grad(loss(), table)[0]
    assert gradient.abs().sum() > 0
    for place in ((1, 0), (5, 3), (9, 1)):
        with torch.no_grad():
            table[place] += 1e-5
            up = loss()
            table[place] -= 2e-5
            down = loss()
            table[place] += 1e-5
        assert float(gradient[place]) == pytest.approx(float(up - down) / 2e-5, abs=1e-7)


@pytest.mark.parametrize("parts", [(1, 1, 1, 1), (1, 3), (3, 1), (2, 2)])
@pytest.mark.parametrize("name", GENERATORS)
def test_codes_are_spelled_at_once_as_one_by_one(name: str, parts: tuple[int, ...]) -> None:
    generator = small(name).eval().backbone
    batch, at_R = packed(ROWS, at=[0, 2, 5, 10]), torch.tensor([0, 0, 0, 1, 3, 3])
    x_RLD = torch.randn(len(at_R), sum(parts), generator.width, generator=torch.Generator().manual_seed(2))
    with generator.about(batch), torch.no_grad():
        recalled = generator.recall()
        seats = generator.seats(recalled, recalled.at_Q[at_R])
        whole, _ = generator.spell(recalled, x_RLD, seats, None)
        paths, pieces = None, []
        for part in x_RLD.split(parts, dim=1):
            h_RLD, paths = generator.spell(recalled, part, seats, paths)
            pieces.append(h_RLD)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", GENERATORS)
def test_items_are_drawn_as_often_as_their_codes_say(name: str) -> None:
    model = small(name, normalise="legal")
    batch = packed(ROWS, at=[0, 2, 5, 10])
    some = torch.tensor([3, 0])
    with model.backbone.about(batch), torch.no_grad():
        u_ND = model.eval().answers(batch)
        drawn = model.score.at(some).draw(u_ND[some], 4_000, torch.Generator().manual_seed(0))
        wanted = model.score.exact(u_ND)[some].exp()
    share = torch.stack([torch.bincount(row, minlength=N_ITEMS + 1) for row in drawn])[:, 1:] / 4_000
    assert bool(((share - wanted).abs() < 4 * (wanted * (1 - wanted) / 4_000).sqrt()).all())


@pytest.mark.parametrize(
    "anchor",
    [{}, {"anchor": "backbone"}, {"anchor": "backbone", "anchor_context": "prompt"}, {"anchor": "codes"}],
    ids=["auto", "backbone", "prompt", "codes"],
)
@pytest.mark.parametrize("name", GENERATORS)
def test_candidates_may_be_drawn_where_items_are_spelled_whatever_the_anchors(
    name: str, anchor: dict[str, str]
) -> None:
    settings = {"candidates": "sample", "group": 25, **anchor, "align_weight": "auto", "reward": "prefix"}
    model = small(name, "lasar", settings=settings)
    for stage in model.stages[1:]:
        context = told(model, stage)
        model.begin(context)
        losses = model.train().losses(training_batch(model, USERS), context)
        assert all(loss.isfinite() for loss in losses.values())
        torch.stack(list(losses.values())).sum().backward()
        assert all(p.grad.isfinite().all() for p in model.backbone.parameters() if p.grad is not None)
    assert context.noted()["repeats"] > 0
    model.restore(model.tensors())


@pytest.mark.parametrize("name", GENERATORS)
def test_a_segment_behind_its_prompt_is_the_row_of_both_where_items_are_spelled(name: str) -> None:
    reads_rows_of_both(small(name, "lasar"))


@pytest.mark.parametrize("name", GENERATORS)
def test_an_answer_may_stand_anywhere_if_it_says_where(name: str) -> None:
    model = small(name)
    batch = packed(ROWS, at=[0, 2, 5, 10])
    some = torch.tensor([3, 0, 3])
    targets = torch.tensor([[2], [7], [11]])
    with model.backbone.about(batch), torch.no_grad():
        u_ND = model.answers(batch)
        wanted = model.score.log_prob(u_ND, torch.arange(1, N_ITEMS + 1).expand(4, -1))[some, targets[:, 0] - 1]
        assert torch.allclose(model.score.at(some).log_prob(u_ND[some], targets)[:, 0], wanted, atol=1e-5)
        with pytest.raises(ValueError, match=r"say where"):
            model.score.log_prob(u_ND[some], targets)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_beam_as_wide_as_the_catalogue_ranks_as_exact_scoring(name: str) -> None:
    asked = queries([[1, 2, 3, 4], [5, 6, 7], [8, 9, 1, 2, 3], [4, 5], [1, 2, 1]])
    wide, full = small(name, beam=N_ITEMS - 1), small(name, scoring="exact")
    assert wide.rank_cutoff == N_ITEMS - 1
    assert full.rank_cutoff is None
    found, known = evaluate(wide, asked, CPU), evaluate(full, asked, CPU)
    below = known.above < N_ITEMS - 1
    assert np.array_equal(found.above[below], known.above[below])
    assert np.array_equal(found.above_unseen, known.above_unseen)


@pytest.mark.parametrize("name", GENERATORS)
def test_how_wide_a_users_beam_is_follows_from_its_own_history_alone(name: str) -> None:
    """Items that a user has already take places in a beam, which is then widened."""
    model, draw = small(name, table=random_table(60, (5, 4)), beam=10), np.random.default_rng(2)
    rows = [(1 + draw.permutation(60)[: n + 1]).tolist() for n in [1, 2, 3, 30, 40] * 8]
    together, alone = evaluate(model, queries(rows), CPU), [evaluate(model, queries([row]), CPU) for row in rows]
    np.testing.assert_array_equal(together.above, [one.above[0] for one in alone])
    np.testing.assert_array_equal(together.above_unseen, [one.above_unseen[0] for one in alone])
    assert (together.above_unseen < 10).any()
    assert (together.above_unseen > 18).any()


@pytest.mark.parametrize("name", GENERATORS)
def test_a_rule_is_learned(name: str, tmp_path: Path) -> None:
    pairs = np.random.default_rng(1).integers(1, N_ITEMS + 1, (300, 2))
    rows = [[int(a), int(b)] * 4 for a, b in pairs]
    seed_everything(3)
    model = small(name, sizes=known(name, width=16, inner=32), scoring="exact")
    table = {"epochs": 30, "batch_size": 200, "learning_rate": 0.01, "patience": 30}
    job = Job(
        histories(rows[:200]),
        queries(rows[200:], "valid"),
        stage_settings(table, model.stages),
        0,
        CPU,
        tmp_path,
        Watcher(),
    )
    fit(model, job, Store(tmp_path / "state"))
    assert evaluate(model, queries(rows[200:]), CPU).means(["hr@1"])["hr@1"] > 0.8


def order(name: str, head: str, home: Path, runs: Path) -> Order:
    """A short training of a small generator on ``tiny``."""
    sizes = [f"backbone.{key}={value}" for key, value in known(name, max_length=8).items()]
    table = Asked(name, head, "tiny", None, parse_assignments([*sizes, *BRIEF])).table()
    dataset = open_dataset("tiny", home)
    return Order(dataset, resolve(table, dataset.card.family), 0, runs, CPU, False)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_run_trains_resumes_and_ranks_again(name: str, tiny_home: Path, tmp_path: Path) -> None:
    asked = order(name, "rearec-prl", tiny_home, tmp_path)
    run, again = experiment.run(asked, Watcher())
    assert not again
    assert run.manifest.rank_cutoff in (50, None)
    _, different = rank_again(run, tiny_home, CPU)
    assert different == 0
    assert len(rank_at_steps(run, [1, 3], tiny_home, CPU)) == 2
    stored = run.ranks("test")
    by_beams = {one.at: one for one in rank_by_beams(run, [10, 50, None], tiny_home, CPU)}
    np.testing.assert_array_equal(by_beams[50].test.above, stored["above"])

    class Stopping(Watcher):
        def epoch(self, line: dict[str, object]) -> None:
            if line["epoch"] == 2:
                raise KeyboardInterrupt

    other = replace(asked, runs=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        experiment.run(other, Stopping())
    resumed, _ = experiment.run(replace(other, resume=True), Watcher())
    assert resumed.ranks("test").equals(stored)


def test_one_trained_model_is_ranked_by_beams_of_any_width(tiny_home: Path, tmp_path: Path) -> None:
    run, _ = experiment.run(order("sid-lm", "none", tiny_home, tmp_path), Watcher())
    narrow, stored, exact_ = rank_by_beams(run, [10, 50, None], tiny_home, CPU)
    np.testing.assert_array_equal(stored.test.above_unseen, run.ranks("test")["above_unseen"])
    scored, _ = load(run, tiny_home, CPU)
    assert isinstance(scored, GeneratorRecommender)
    scored.rank_cutoff = None
    every = evaluate(scored, open_dataset("tiny", tiny_home).queries("test"), CPU)
    np.testing.assert_array_equal(exact_.test.above, every.above)
    assert (narrow.test.n_lost or 0) > 0  # so the test can tell the widths apart
    table = pd.read_csv(run.folder / "beams.csv")
    assert table["beam"].tolist() == [10, 50, exact_.at]
    assert table["lost"].tolist() == [(one.test.n_lost or 0) / len(every.users) for one in (narrow, stored, exact_)]
    assert table["lost"][2] == 0
    counts = pd.read_parquet(run.folder / "beams.parquet").query("beam == 10 and split == 'test'")
    assert counts["above"].tolist() == narrow.test.above.tolist()


@pytest.mark.parametrize("widths", [[9, 20], [20, 20], [None, None], [0]], ids=str)
def test_beams_that_could_not_be_held_against_each_other_are_refused(widths: list[int | None], tmp_path: Path) -> None:
    with pytest.raises(RecbenchError, match="cannot be used") as refused:
        rank_by_beams(Run(tmp_path, None), widths, tmp_path, CPU)  # type: ignore[arg-type]
    assert refused.value.code == Exit.USAGE
