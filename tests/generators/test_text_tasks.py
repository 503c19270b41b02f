"""Language tasks of hf-lm: each loss by the model's own forward pass, what is taught and when, what is learned, what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbench import experiment
from recbench.cli.app import run as command
from recbench.config import parse_assignments
from recbench.data.batching import Batch
from recbench.data.dataset import open_dataset
from recbench.data.knowledge import ItemKnowledge
from recbench.errors import Exit, RecbenchError
from recbench.experiment import Order
from recbench.files import sha256
from recbench.generators import text_tasks
from recbench.generators.spelling import Spelling
from recbench.generators.text_tasks import NEXT_ITEM, WORDING, word_loss
from recbench.recommender import GeneratorRecommender
from recbench.registry import BACKBONES
from recbench.scoring import log_sum_exp
from recbench.semantic_ids.table import BEGIN, END
from recbench.settings import Asked, resolve
from recbench.trained import rank_again
from recbench.training.checkpoint import read_tensors
from recbench.training.loop import Watcher
from tests.generators.checkpoints import NEEDED, UNKNOWN, WORDS, checkpoint
from tests.generators.spelled import N_ITEMS, TABLE, small, told
from tests.systems import packed, training_batch

pytestmark = NEEDED
COLOURS, THINGS = ("red", "green", "blue", "grey", "pink"), ("pen", "ink", "pad", "tape")
KNOWN = [*WORDS, *COLOURS, *THINGS, "big"]
TITLES = [f"{'big ' * (n % 3)}{COLOURS[n % 5]} {THINGS[n // 5]}" for n in range(N_ITEMS)]
TASKS = (NEXT_ITEM, *WORDING)
USERS = [[1, 2, 3, 4], [7, 8], [5, 9, 12, 3, 20]]


class Titled(ItemKnowledge):
    """Items that have these titles."""

    def __init__(self, titles: Sequence[str]) -> None:
        self._titles = list(titles)

    def titles(self) -> list[str]:
        return self._titles


def made(
    *tasks: str, titles: Sequence[str] = TITLES, head: str = "none", tied: bool = True, **sizes: object
) -> GeneratorRecommender:
    """A small hf-lm that is taught these tasks and has read the titles; no dropout."""
    path = checkpoint(tied=tied, more=(*COLOURS, *THINGS, "big"))
    model = small("hf-lm", head, sizes={"path": path, "tasks": (NEXT_ITEM, *tasks), **sizes}).eval()
    begun = replace(told(model, model.stages[0]), items=Titled(titles))
    model.begin(begun)
    return model


def losses(model: GeneratorRecommender, batch: Batch, stage: int = 0, seed: int = 3) -> dict[str, Tensor]:
    context = told(model, model.stages[stage])
    context.negatives = torch.Generator().manual_seed(seed)
    return model.losses(batch, context)


def words(text: str) -> list[int]:
    """As the tests' tokenizer reads it."""
    return [KNOWN.index(word if word in KNOWN else UNKNOWN) for word in re.findall(r"\w+|[:,]", text.lower())]


def said(model: GeneratorRecommender, text: str) -> Tensor:
    return model.backbone.base.get_input_embeddings()(torch.tensor(words(text), dtype=torch.long))


def own(model: GeneratorRecommender, *tokens: int) -> Tensor:
    return model.backbone.tokens(torch.tensor(tokens))


def states(model: GeneratorRecommender, x_TD: Tensor) -> Tensor:
    """What the library's own forward pass makes of input vectors."""
    return model.backbone.base(inputs_embeds=x_TD[None], use_cache=False).last_hidden_state[0]


def spelled(model: GeneratorRecommender, x_TD: Tensor, item: int) -> Tensor:
    """Minus the log-likelihood of an item's codes behind a row, by one whole pass a code."""
    total, answer = torch.zeros(()), states(model, x_TD)[-1]
    legal = TABLE.codes_VM[1:]
    for level, code in enumerate(TABLE.codes_VM[item].tolist()):
        logits = model.backbone.read(states(model, x_TD)[-1:], level)[0]
        if model.score.norm.constrained:
            may = torch.from_numpy(np.unique(legal[:, level]).astype(np.int64))
            logits = torch.full_like(logits, -torch.inf).index_copy(0, may, logits[may])
            legal = legal[legal[:, level] == code]
        total = total - logits.log_softmax(0)[code]
        token = own(model, int(TABLE.offsets[level]) + code)
        x_TD = torch.cat([x_TD, token + model.backbone.carried(answer)])
    return total


def targets_of(batch: Batch) -> list[int]:
    return sorted(set(batch.targets_Q.tolist()))  # type: ignore[union-attr]


@pytest.mark.parametrize("normalise", ["level", "legal"])
def test_the_item_of_a_title_is_spelled_as_the_model_itself_would(normalise: Literal["level", "legal"]) -> None:
    model = made("title_to_item")
    model.score = Spelling(model.backbone, Spelling.Config(normalise=normalise))
    batch = training_batch(model, USERS)
    with torch.no_grad():
        by_hand = [
            spelled(
                model,
                torch.cat([said(model, WORDING["title_to_item"]), said(model, TITLES[i - 1]), own(model, END, BEGIN)]),
                i,
            )
            for i in targets_of(batch)
        ]
        found = losses(model, batch)
    assert set(found) == {"next_item", "title_to_item"}
    torch.testing.assert_close(found["title_to_item"], torch.stack(by_hand).mean(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_title_is_said_word_by_word_among_all_words_and_the_end(tied: bool) -> None:
    model = made("item_to_title", tied=tied)
    batch, lm = training_batch(model, USERS), model.backbone
    assert (lm.words_out is None) == tied
    table = lm.base.get_input_embeddings().weight if lm.words_out is None else lm.words_out
    end = (lm.tokens if tied else lm.out).weight[END]
    by_hand = []
    with torch.no_grad():
        for i in targets_of(batch):
            begun = torch.cat([said(model, WORDING["item_to_title"]), own(model, *TABLE.tokens()[i].tolist())])
            h = states(model, torch.cat([begun, said(model, TITLES[i - 1])]))[len(begun) - 1 :]
            logits = torch.cat([h @ table.t(), (h @ end)[:, None]], dim=1)
            wanted = torch.tensor([*words(TITLES[i - 1]), len(KNOWN)])
            by_hand.append(F.cross_entropy(logits, wanted, reduction="none"))
        found = losses(model, batch)["item_to_title"]
    torch.testing.assert_close(found, torch.cat(by_hand).mean(), atol=1e-4, rtol=1e-5)


def test_the_next_item_is_spelled_behind_the_titles_of_the_history() -> None:
    bare = [title if number not in (3, 7) else "" for number, title in enumerate(TITLES, 1)]
    model = made("titles_to_item", titles=bare)
    batch = training_batch(model, USERS)
    begun, by_hand = said(model, WORDING["titles_to_item"]), []
    with torch.no_grad():
        for user in USERS:
            for stop in range(1, len(user)):
                parts = [begun]
                for item in user[:stop]:
                    codes = own(model, *TABLE.tokens()[item].tolist())
                    parts += [said(model, bare[item - 1]) if bare[item - 1] else codes, own(model, END)]
                if any(bare[item - 1] for item in user[:stop]):
                    by_hand.append(spelled(model, torch.cat([*parts, own(model, BEGIN)]), user[stop]))
        found = losses(model, batch)["titles_to_item"]
    assert len(by_hand) == 7  # not the history of item 7 alone, which has no title
    torch.testing.assert_close(found, torch.stack(by_hand).mean(), atol=1e-4, rtol=1e-5)


def test_the_title_of_the_next_item_is_said_behind_the_codes_of_the_history() -> None:
    bare = [title if number != 3 else "" for number, title in enumerate(TITLES, 1)]
    model = made("items_to_title", titles=bare)
    batch = training_batch(model, USERS)
    words_, end = model.backbone.saying()
    begun, by_hand = said(model, WORDING["items_to_title"]), []
    with torch.no_grad():
        for user in USERS:
            for stop in range(1, len(user)):
                if not bare[user[stop] - 1]:
                    continue
                codes = [own(model, *TABLE.tokens()[item].tolist(), END) for item in user[:stop]]
                row = torch.cat([begun, *codes])
                title = bare[user[stop] - 1]
                h = states(model, torch.cat([row, said(model, title)]))[len(row) - 1 :]
                logits = torch.cat([h @ words_.t(), (h @ end)[:, None]], dim=1)
                wanted = torch.tensor([*words(title), len(KNOWN)])
                by_hand.append(F.cross_entropy(logits, wanted, reduction="none"))
        found = losses(model, batch)["items_to_title"]
    assert len(by_hand) == 6  # item 3 follows twice, and has no title
    torch.testing.assert_close(found, torch.cat(by_hand).mean(), atol=1e-4, rtol=1e-5)


def test_a_title_that_is_cut_does_not_end_there() -> None:
    model = made("item_to_title", title_tokens=2)
    lm, told_ = model.backbone, model.backbone._text
    assert told_.facts == {"items": 20, "with_title": 20, "cut": 13}
    batch = packed([[1, 2]], at=[0])  # item 2: big green pen
    begun = torch.cat([said(model, WORDING["item_to_title"]), own(model, *TABLE.tokens()[2].tolist())])
    with torch.no_grad():
        h = states(model, torch.cat([begun, said(model, "big green")]))[len(begun) - 1 : -1]
        logits = torch.cat([h @ lm.saying()[0].t(), (h @ lm.saying()[1])[:, None]], dim=1)
        torch.testing.assert_close(
            losses(model, batch)["item_to_title"], F.cross_entropy(logits, torch.tensor(words("big green")))
        )


def test_scores_over_words_are_made_a_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    h, table = (torch.randn(n, 4, generator=generator, requires_grad=True) for n in (7, 9))
    end = torch.randn(4, generator=generator, requires_grad=True)
    word = torch.tensor([0, 9, 3, 8, 9, 0, 5])
    whole = F.cross_entropy(torch.cat([h @ table.t(), (h @ end)[:, None]], 1), word)
    wanted = torch.autograd.grad(whole, (h, table, end))
    made_: list[tuple[int, int]] = []
    times = log_sum_exp.times_transposed
    monkeypatch.setattr(log_sum_exp, "times_transposed", lambda a, b: (made_.append((len(a), len(b))), times(a, b))[1])
    monkeypatch.setitem(text_tasks.LOGIT_BYTES, "cpu", 2 * 9 * 4)
    loss = word_loss(h, table, end, word)
    torch.testing.assert_close(loss, whole)
    for ours, theirs in zip(torch.autograd.grad(loss, (h, table, end)), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
    of_words = {rows for rows, columns in made_ if columns == len(table)}
    assert of_words == {1, 2, len(end)}  # the last is the table's gradient


def test_each_task_has_its_own_weight() -> None:
    plain = made(*WORDING)
    batch = training_batch(plain, USERS)
    heavy = made(
        *WORDING,
        title_to_item_weight=0.5,
        item_to_title_weight=2.0,
        titles_to_item_weight=3.0,
        items_to_title_weight=4.0,
    )
    ones, others = losses(plain, batch), losses(heavy, batch)
    assert list(ones) == list(TASKS)
    for name, times in zip(TASKS, (1, 0.5, 2.0, 3.0, 4.0), strict=True):
        torch.testing.assert_close(others[name], times * ones[name])


def test_what_is_ranked_and_how_it_is_taught_stays_the_same_beside_tasks() -> None:
    with_tasks, without = made(*WORDING), made()
    batch = training_batch(without, USERS)
    assert torch.equal(losses(with_tasks, batch)["next_item"], losses(without, batch)["next_item"])
    assert [name for name, _ in with_tasks.named_parameters()] == [name for name, _ in without.named_parameters()]


def test_only_targets_and_their_histories_are_read() -> None:
    some = training_batch(made(), USERS)
    seen = {item for user in USERS for item in user}
    others = [title if number in seen else "big big big" for number, title in enumerate(TITLES, 1)]
    before, after = losses(made(*WORDING), some), losses(made(*WORDING, titles=others), some)
    assert all(torch.equal(before[name], after[name]) for name in before)
    first = [title if number not in (1, 7) else "big big" for number, title in enumerate(TITLES, 1)]  # never targets
    after = losses(made(*WORDING, titles=first), some)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"titles_to_item"}


def test_targets_that_wait_for_a_later_stage_are_left_out() -> None:
    model = made(*WORDING)
    batch, drawn = training_batch(model, USERS), torch.Generator().manual_seed(0)
    some = torch.tensor([0, 4])
    part = Batch(batch.items_N, batch.rows, batch.at_Q[some], batch.targets_Q[some], batch.users_B)  # type: ignore[index]
    ours = model.backbone.own_losses(batch, some, model.score, drawn)
    theirs = model.backbone.own_losses(part, None, model.score, drawn)
    for name in WORDING:
        torch.testing.assert_close(ours[name], theirs[name])
    assert model.backbone.own_losses(batch, torch.tensor([], dtype=torch.long), model.score, drawn) == {}


def test_the_head_says_which_targets_wait() -> None:
    model = made("title_to_item", head="lasar")
    model.head.own = lambda *_: torch.tensor([0])
    batch = training_batch(model, USERS)
    alone = model.backbone.own_losses(batch, torch.tensor([0]), model.score, torch.Generator())
    torch.testing.assert_close(losses(model, batch)["title_to_item"], alone["title_to_item"])


def test_a_few_rows_of_a_batch_are_taken() -> None:
    model = made(*WORDING, task_rows=2)
    batch = training_batch(model, USERS)
    rows: list[int] = []
    read = model.backbone.read_rows
    model.backbone.read_rows = lambda these: (rows.append(len(these)), read(these))[1]
    first, again, other = (losses(model, batch, seed=seed) for seed in (3, 3, 4))
    assert rows == [2] * 12
    assert all(torch.equal(first[name], again[name]) for name in WORDING)
    assert any(not torch.equal(first[name], other[name]) for name in WORDING)


def test_tasks_are_taught_in_the_first_stage_alone() -> None:
    model = made(*WORDING, head="lasar")
    batch = training_batch(model, USERS)
    assert set(WORDING) <= set(losses(model, batch))
    for stage in (1, 2):
        context = told(model, model.stages[stage])
        model.begin(context)
        assert not set(WORDING) & set(model.losses(batch, context))


@pytest.mark.parametrize(
    ("what", "task"), [("all", "item_to_title"), ("embeddings", "item_to_title"), ("all", "items_to_title")]
)
def test_words_that_are_not_trained_are_not_stored(what: str, task: str) -> None:
    model = made(task, tied=False, train=what)
    assert ("backbone.words_out" in model.tensors()) == (what == "all")
    losses(model, training_batch(model, USERS))[task].backward()
    assert (model.backbone.words_out.grad is not None) == (what == "all")
    assert model.backbone.out.weight.grad[END].any()
    model.restore(model.tensors())


def test_tasks_are_learned() -> None:
    """Titles and codes of all items by heart, and a rule of the next item told by titles."""
    torch.manual_seed(0)
    model = made(*WORDING, task_rows=40)
    users = [[(first + step) % N_ITEMS + 1 for step in range(6)] for first in range(0, N_ITEMS, 2)]
    batch = training_batch(model, users)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    before = {name: loss.item() for name, loss in losses(model, batch).items()}
    for step in range(50):
        optimizer.zero_grad()
        terms = losses(model, batch, seed=step)
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    after = {name: loss.item() for name, loss in losses(model, batch).items()}
    assert all(after[name] < 0.2 * before[name] for name in TASKS)
    lm = model.backbone
    with torch.no_grad():
        for item in (2, 14, 20):
            x = torch.cat([said(model, WORDING["item_to_title"]), own(model, *TABLE.tokens()[item].tolist())])
            words_, end = lm.saying()
            spoken: list[str] = []
            while len(spoken) < 6:
                h = states(model, x)[-1]
                best = int(torch.cat([words_ @ h, (end @ h)[None]]).argmax())
                if best == len(KNOWN):
                    break
                spoken.append(KNOWN[best])
                x = torch.cat([x, said(model, KNOWN[best])])
            assert " ".join(spoken) == TITLES[item - 1]
            asked = torch.cat(
                [said(model, WORDING["title_to_item"]), said(model, TITLES[item - 1]), own(model, END, BEGIN)]
            )
            likely = torch.stack([spelled(model, asked, other) for other in range(1, N_ITEMS + 1)])
            assert int(likely.argmin()) + 1 == item


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("titles", [None, [""] * N_ITEMS])
def test_without_titles_it_is_refused(titles: list[str] | None) -> None:
    model = small("hf-lm", sizes={"tasks": TASKS})
    context = replace(told(model, model.stages[0]), items=None if titles is None else Titled(titles))
    with pytest.raises(
        RecbenchError, match="no titles for title_to_item, item_to_title, titles_to_item, items_to_title"
    ) as caught:
        model.begin(context)
    assert caught.value.code == Exit.DATA
    assert caught.value.fix.endswith("""--set backbone.tasks='["next_item"]'""")


def test_without_a_tokenizer_it_is_refused(tmp_path: Path) -> None:
    shutil.copytree(checkpoint(), tmp_path / "mute")
    (tmp_path / "mute" / "tokenizer.json").write_text("{}")
    model = small("hf-lm", sizes={"path": str(tmp_path / "mute"), "instruction": "", "tasks": TASKS})
    context = replace(told(model, model.stages[0]), items=Titled(TITLES))
    with pytest.raises(RecbenchError, match="cannot read titles") as caught:
        model.begin(context)
    assert caught.value.code == Exit.DATA
    assert "backbone.tasks" in caught.value.fix


@pytest.mark.parametrize(
    ("setting", "value", "wrong"),
    [
        ("tasks", ("title_to_item",), "leaves out next_item"),
        ("tasks", ("next_item", "item_to_price"), "names item_to_price"),
        ("task_rows", 0, "task_rows"),
        ("title_tokens", 0, "title_tokens"),
        ("item_to_title_weight", 0.0, "above 0"),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: object, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        BACKBONES.load("hf-lm").Config(**{setting: value})


# --- whole runs -----------------------------------------------------------------------------------------------------

SETTINGS = ["backbone.max_length=3", "train.epochs=2", "loss.beam=20", "train.batch_size=400", "backbone.task_rows=8"]
ASKED = f"backbone.tasks={json.dumps(list(TASKS))}"


def test_a_run_logs_every_task_resumes_and_ranks_again_without_titles(tiny_home: Path, tmp_path: Path) -> None:
    table = Asked("hf-lm", "none", "tiny", None, parse_assignments([f"backbone.path={checkpoint()}", *SETTINGS, ASKED]))
    dataset = open_dataset("tiny", tiny_home)
    order = Order(dataset, resolve(table.table(), dataset.card.family), 0, tmp_path / "one", torch.device("cpu"))
    made_, _ = experiment.run(order, Watcher())
    lines = [json.loads(line) for line in (made_.folder / "log.jsonl").read_text().splitlines()]
    assert [set(line["losses"]) for line in lines] == [{"total", *TASKS}] * 2
    titles = made_.manifest.facts["train"]["titles"]
    assert titles["with_title"] == titles["items"] == dataset.n_items
    assert rank_again(made_, tiny_home, torch.device("cpu"))[1] == 0

    class Stopping(Watcher):
        def epoch(self, line: dict[str, object]) -> None:
            raise KeyboardInterrupt

    other = replace(order, runs=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        experiment.run(other, Stopping())
    resumed, _ = experiment.run(replace(other, resume=True), Watcher())
    ours, theirs = (read_tensors(one.folder / "model.safetensors") for one in (made_, resumed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_command_refuses_a_dataset_without_titles(
    tiny_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_home, tmp_path / "home")
    path = tmp_path / "home" / "tiny" / "items.parquet"
    items = pd.read_parquet(path)
    items["title"] = None
    items.to_parquet(path)
    card = path.with_name("card.json")
    told_of = json.loads(card.read_text(encoding="utf-8"))
    told_of["files"]["items.parquet"] = sha256(path)
    card.write_text(json.dumps(told_of), encoding="utf-8")
    arguments = ["train", "--backbone", "hf-lm", "--dataset", "tiny", "--datasets", str(tmp_path / "home")]
    for assignment in [f"backbone.path={checkpoint()}", *SETTINGS, ASKED]:
        arguments += ["--set", assignment]
    assert command([*arguments, "--runs", str(tmp_path / "runs")]) == Exit.DATA
    told_ = capsys.readouterr().err
    assert "no titles" in told_
    assert "--metadata" in told_
