"""What thoughts are pulled to: anchors of every kind, by hand, and what training may see."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from recbench.data.batching import Batch, TrainingRows, query_batches
from recbench.data.dataset import Dataset, open_dataset
from recbench.data.knowledge import ItemKnowledge
from recbench.data.text import TextSpace
from recbench.errors import Exit, RecbenchError
from recbench.reasoning.anchors import AnchorConfig, Anchors, Lift, deranged, groups, source
from recbench.reasoning.base import Context
from recbench.recommender import ItemRecommender
from tests.systems import CPU, histories, neural_backbones, small_system, training_batch, training_rows

USERS = [[1, 2, 3], [4, 2, 3, 2], [5, 6, 1, 3, 7], [8, 9, 1, 2, 3, 4, 5, 6]]
WINDOW = 20


def config(**changes: object) -> AnchorConfig:
    default = {
        "kind": "auto",
        "encoder": "",
        "file": "",
        "window": WINDOW,
        "merge": 0.9,
        "use_target": True,
        "merge_target": True,
        "most": 8,
        "levels": 3,
        "codes": 4,
        "pool": "items",
        "context": "alone",
    }
    return AnchorConfig(**{**default, **changes})  # type: ignore[arg-type]


def told(rows: TrainingRows, items: ItemKnowledge | None = None) -> Context:
    return Context("align", torch.Generator().manual_seed(0), rows, items=items)


@pytest.mark.parametrize("kind", ["auto", "backbone"])
def test_without_merge_target_how_many_segments_there_are_follows_from_the_history(kind: str) -> None:
    model = small_system("sasrec", "lasar", 20).eval()

    def counted(merge_target: bool) -> list[list[int]]:
        """Segments of each user's newest target, were it this item or that; 20 has no vector."""
        settings, out = config(kind=kind, merge=0.5, merge_target=merge_target), []
        found = source(settings, model.backbone, told(training_rows(model, USERS)), model.backbone)
        for item in (1, 3, 6, 9, 20):
            users = [[*user[:-1], item] for user in USERS]
            rows, batch = training_rows(model, users), training_batch(model, users)
            out.append(
                found.of(batch, torch.from_numpy(rows.is_last(batch.place_Q)).nonzero()[:, 0], rows).s_P.tolist()
            )
        return out

    blind = counted(merge_target=False)
    assert blind.count(blind[0]) == len(blind)
    seeing = counted(merge_target=True)
    assert seeing.count(seeing[0]) < len(seeing)


@pytest.mark.parametrize("kind", ["auto", "codes", "backbone"])
def test_a_batch_that_is_not_of_training_gets_no_anchors(kind: str) -> None:
    model = small_system("sasrec", "lasar", 20)
    found = source(config(kind=kind), model.backbone, told(training_rows(model, USERS)), model.backbone)
    batch = training_batch(model, USERS)
    some = torch.tensor([0, 3])
    assert found.of(batch, some, training_rows(model, USERS)).s_P.shape == (2,)
    with pytest.raises(ValueError, match="training targets only"):
        found.of(replace(batch, place_Q=None), some, training_rows(model, USERS))


@pytest.mark.parametrize("kind", ["auto", "codes", "backbone"])
def test_anchors_do_not_change_with_who_else_is_in_the_batch(kind: str) -> None:
    model = small_system("sasrec", "lasar", 20)
    rows = training_rows(model, USERS)
    found = source(config(kind=kind), model.backbone, told(rows), model.eval().backbone)
    batch = training_batch(model, USERS)
    every = found.of(batch, torch.arange(len(batch.at_Q)), rows)
    alone = found.of(batch, torch.tensor([7]), rows)
    assert alone.s_P.tolist() == [every.s_P[7].item()]
    s = int(alone.s_P)
    torch.testing.assert_close(alone.c_PSX[0, :s], every.c_PSX[7, :s], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "settings", [{}, {"use_target": False}, {"kind": "codes", "use_target": False}, {"kind": "backbone"}], ids=str
)
def test_anchors_are_the_same_where_a_step_runs_in_bfloat16(settings: dict[str, object]) -> None:
    model = small_system("sasrec", "lasar", 20)
    rows, batch = training_rows(model, USERS), training_batch(model, USERS)
    found = source(config(**settings), model.backbone, told(rows), model.eval().backbone)
    every = torch.arange(len(batch.at_Q))
    whole = found.of(batch, every, rows)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = found.of(batch, every, rows)
    assert torch.equal(coarse.c_PSX, whole.c_PSX)
    assert torch.equal(coarse.s_P, whole.s_P)


@pytest.mark.parametrize("kind", ["auto", "backbone"])
def test_the_last_of_a_few_anchors_is_still_the_target(kind: str) -> None:
    model = small_system("sasrec", "lasar", 20)
    rows, batch = training_rows(model, USERS), training_batch(model, USERS)
    every = torch.arange(len(batch.at_Q))

    def last(most: int) -> tuple[Tensor, Tensor]:
        settings = config(kind=kind, most=most, merge=1.1)
        found = source(settings, model.backbone, told(rows), model.eval().backbone).of(batch, every, rows)
        return found.s_P, found.c_PSX[every, found.s_P - 1]

    s_P, of_all_PD = last(8)
    few_P, of_few_PD = last(4)
    assert s_P.max() == 6
    assert few_P.tolist() == s_P.clamp_max(4).tolist()
    torch.testing.assert_close(of_few_PD, of_all_PD, atol=1e-5, rtol=0)


def test_the_vector_of_texts_in_a_row_is_the_sum_of_theirs() -> None:
    texts = ["red pen", "blue pen ink", "red ink ink", "stapler red", "stapler blue"]
    space = TextSpace(texts, 3)
    one = space.vectors([" ".join(texts[:3])])[0]
    np.testing.assert_allclose(one, space.vectors(texts[:3]).sum(0), atol=1e-6)
    assert np.abs(one).max() > 0.1


def test_an_item_is_in_the_group_of_its_category_else_of_its_vector() -> None:
    x = np.zeros((8, 2), dtype=np.float32)
    x[2:] = [[1, 0], [1, 0.1], [0.9, 0], [0, 1], [0.1, 1], [0, 0]]
    found = groups(x, ["pens", "ink", "pens", "", "", "", "", ""])
    assert found[0] == found[2] != found[1]
    assert (found[3:7] > 2).all()
    assert found[7] == 0


def test_lifted_vectors_keep_their_angles_in_the_main_directions() -> None:
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    lift = Lift(x, 6)
    unit = torch.nn.functional.normalize(x, dim=1) - lift.mean_A
    turned = unit @ lift.map_AD
    torch.testing.assert_close(turned @ turned.T, unit @ unit.T, atol=1e-5, rtol=0)
    wide = Lift(x, 16)(torch.nn.functional.normalize(x, dim=1))
    assert wide.shape == (50, 16)
    assert Lift(x, 16).map_AD.any(0).all()  # six directions, turned into all sixteen
    torch.testing.assert_close(wide.var(1, correction=0), torch.ones(50), atol=1e-3, rtol=0)


def test_lifted_vectors_do_not_tell_which_sign_a_library_gives_its_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    before, eigh, qr = Lift(x, 16).map_AD, torch.linalg.eigh, torch.linalg.qr
    monkeypatch.setattr(
        torch.linalg, "eigh", lambda a: (eigh(a)[0], eigh(a)[1] * torch.tensor([1.0, -1, 1, -1, -1, 1]))
    )
    monkeypatch.setattr(torch.linalg, "qr", lambda a: (-qr(a)[0], -qr(a)[1]))
    torch.testing.assert_close(Lift(x, 16).map_AD, before)


# --- where anchors come from ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tiny_home: Path) -> Dataset:
    return open_dataset("tiny", tiny_home)


class Described(ItemKnowledge):
    """A dataset's items with these texts instead of its own."""

    def __init__(self, dataset: Dataset, said: list[str]) -> None:
        super().__init__(dataset)
        self.said = said

    def texts(self) -> list[str]:
        return self.said


def rows_of(dataset: Dataset) -> TrainingRows:
    return TrainingRows(dataset.training(), max_length=50, window="last", every_position=True)


def test_auto_takes_text_where_half_of_training_has_some_and_nearness_else(tiny: Dataset) -> None:
    model = small_system("sasrec", "lasar", tiny.n_items)
    words = [f"word{i % 3} word{i % 5}" for i in range(tiny.n_items)]
    described, bare = Described(tiny, words), Described(tiny, [""] * tiny.n_items)
    facts = source(config(), model.backbone, told(rows_of(tiny), described)).facts
    assert facts["source"] == "text"
    assert facts["interactions_with_text"] == 1.0
    assert facts["fields"] == Described(tiny, words).fields()
    other = source(config(), model.backbone, told(rows_of(tiny), Described(tiny, words[::-1]))).facts
    assert len(facts["sha256"]) == 64
    assert facts["sha256"] != other["sha256"]
    assert source(config(), model.backbone, told(rows_of(tiny), bare)).facts["source"] == "cooc"
    assert source(config(kind="cooc"), model.backbone, told(rows_of(tiny), described)).facts["source"] == "cooc"


@pytest.mark.parametrize("kind", ["auto", "cooc", "codes"])
def test_anchors_are_made_without_a_look_at_validation_or_test(tiny: Dataset, tmp_path: Path, kind: str) -> None:
    blind = tmp_path / tiny.folder.name
    shutil.copytree(tiny.folder, blind, ignore=shutil.ignore_patterns("valid.parquet", "test.parquet"))
    assert {path.name for path in tiny.folder.iterdir()} - {path.name for path in blind.iterdir()}
    model = small_system("sasrec", "lasar", tiny.n_items)
    some = torch.arange(50)

    def found(dataset: Dataset) -> Tensor:
        rows = rows_of(dataset)
        anchors = source(config(kind=kind), model.backbone, told(rows, ItemKnowledge(dataset)))
        batch = next(rows.batches(200, np.random.default_rng(0), CPU))
        return anchors.of(batch, some, rows).c_PSX

    assert torch.equal(found(open_dataset(blind.name, tmp_path)), found(tiny))


def test_text_that_is_not_there_is_refused(tiny: Dataset) -> None:
    model = small_system("sasrec", "lasar", tiny.n_items)
    with pytest.raises(RecbenchError, match=r"head\.anchor is text, but the dataset has none") as caught:
        source(config(kind="text"), model.backbone, told(rows_of(tiny), Described(tiny, [""] * tiny.n_items)))
    assert caught.value.code == Exit.DATA


def test_codes_of_more_items_than_are_known_are_refused() -> None:
    model = small_system("sasrec", "lasar", 400)
    with pytest.raises(RecbenchError, match="only 9 items have a vector") as caught:
        source(config(kind="codes", codes=64), model.backbone, told(training_rows(model, USERS)))
    assert caught.value.code == Exit.DATA


def test_a_code_is_as_likely_as_it_is_near_to_what_is_left_of_the_target_or_of_the_window() -> None:
    model = small_system("sasrec", "lasar", 20)
    rows, batch = training_rows(model, USERS), training_batch(model, USERS)
    every = torch.arange(len(batch.at_Q))
    for use_target in (True, False):
        found = source(config(kind="codes", levels=2, use_target=use_target), model.backbone, told(rows))
        x_VA, books = found.books.x_VA, found.books.books  # type: ignore[attr-defined]
        nearest = [[], []]
        for x_A in x_VA[1:][x_VA[1:].any(1)]:
            for level, book_CA in enumerate(books):
                far_C = (x_A - book_CA).square().sum(1)
                nearest[level].append(float(far_C.min()))
                x_A = x_A - book_CA[far_C.argmin()]  # noqa: PLW2901 what is left over
        found = found.of(batch, every, rows)
        assert found.s_P.tolist() == [2] * len(every)
        for q in every.tolist():
            place = int(batch.place_Q[q])  # type: ignore[index]
            start = int(rows.histories.starts[np.searchsorted(rows.histories.starts, place, side="right") - 1])
            before = rows.histories.items[start:place]
            fade = torch.tensor([0.9 ** (len(before) - 1 - i) for i in range(len(before))])
            liked = torch.nn.functional.normalize(fade @ x_VA[before], dim=0)
            left = x_VA[rows.histories.items[place]] if use_target else liked
            for level, book_CA in enumerate(books):
                far_C = (left - book_CA).square().sum(1)
                by_hand = -far_C / max(np.mean(nearest[level]), 0.05)
                torch.testing.assert_close(found.c_PSX[q, level], by_hand, atol=2e-2, rtol=2e-3)
                left = left - book_CA[far_C.argmin()]


def test_codes_of_items_that_hardly_differ_are_no_sharper_than_thoughts_can_follow(tiny: Dataset) -> None:
    model = small_system("sasrec", "lasar", tiny.n_items, changes={"anchor": "codes"})
    rows, said = rows_of(tiny), Described(tiny, [f"genre{i % 10} kind{i % 4}" for i in range(tiny.n_items)])
    found = source(config(kind="codes", codes=model.head.codes), model.backbone, told(rows, said))
    anchors = found.of(next(rows.batches(500, np.random.default_rng(0), CPU)), torch.arange(200), rows)
    assert model.head.apart(torch.randn(200, 3, 8), anchors.c_PSX, first=0).max() < 40


# --- read behind a history ------------------------------------------------------------------------------------------


def read(model: ItemRecommender, batch: Batch, rows: TrainingRows, reading: str, **changes: object) -> Anchors:
    """Anchors of all targets of a batch as this model reads them, none merged."""
    settings = config(kind="backbone", context=reading, merge=1.1, **changes)
    found = source(settings, model.backbone, told(rows), model.eval().backbone)
    assert found.facts["context"] == reading
    return found.of(batch, torch.arange(len(batch.at_Q)), rows)


def state(model: ItemRecommender, row: list[int]) -> Tensor:
    """Where a row of these items ends, by the backbone alone."""
    backbone = model.backbone
    _, batch = next(query_batches(histories([row]), backbone.max_length, 1, CPU, closed=backbone.closed))
    with torch.no_grad():
        return backbone.encode(backbone.embed(batch), batch, at_Q=batch.at_Q).h_QD[0]


@pytest.mark.parametrize("backbone", neural_backbones())
def test_a_segment_behind_its_prompt_is_the_row_of_both(backbone: str) -> None:
    reads_rows_of_both(small_system(backbone, "lasar", 20))


def reads_rows_of_both(model: ItemRecommender) -> None:
    """The first and the last segment of every target are read as the backbone reads the history with their items behind it."""
    rows = training_rows(model, USERS)
    batch = training_batch(model, USERS)
    found = read(model, batch, rows, "prompt")
    assert batch.place_Q is not None
    for q, place in enumerate(batch.place_Q.tolist()):
        start = int(rows.histories.starts[np.searchsorted(rows.histories.starts, place, side="right") - 1])
        history, target = rows.histories.items[start:place].tolist(), int(rows.histories.items[place])
        s = int(found.s_P[q])
        torch.testing.assert_close(found.c_PSX[q, s - 1], state(model, [*history, target]), atol=1e-5, rtol=0)
        evidence = [*history, *history[-3:]]
        torch.testing.assert_close(found.c_PSX[q, 0], state(model, evidence), atol=1e-5, rtol=0)


def test_each_anchor_of_a_backbone_without_a_last_norm_is_as_long_as_its_own_state() -> None:
    model = small_system("gru4rec", "lasar", 20, initial_sd=1.0)
    rows, batch = training_rows(model, USERS), training_batch(model, USERS)
    found = read(model, batch, rows, "alone")
    assert batch.place_Q is not None
    for q, place in enumerate(batch.place_Q.tolist()):
        alone = state(model, [int(rows.histories.items[place])])
        torch.testing.assert_close(found.c_PSX[q, int(found.s_P[q]) - 1], alone, atol=1e-5, rtol=0)
    length_PS = found.c_PSX.norm(dim=2)
    assert length_PS.max() > 1.5 * length_PS[length_PS > 0].min()


def test_another_history_changes_what_is_read_behind_it_and_nothing_that_is_read_alone() -> None:
    model = small_system("sasrec", "lasar", 20)
    users = [[[8, 9, 1, 2, 3, 4]], [[9, 8, 1, 2, 3, 4]]]
    of = {"window": 3}  # neither of the two items that differ is in any segment
    for reading in ("alone", "prompt"):
        (one, other) = (
            read(model, training_batch(model, user), training_rows(model, user), reading, **of) for user in users
        )
        assert one.s_P[-1] == other.s_P[-1]
        assert torch.allclose(one.c_PSX[-1], other.c_PSX[-1], atol=1e-5) == (reading == "alone")


def test_behind_an_empty_history_a_segment_is_read_as_if_alone() -> None:
    model = small_system("bert4rec", "lasar", 20, rows="cloze", blanked=0.6)
    rows, batch = training_rows(model, USERS), training_batch(model, USERS)
    assert batch.place_Q is not None
    is_first = torch.from_numpy(np.isin(batch.place_Q, rows.histories.starts))
    assert 0 < is_first.sum() < len(is_first)
    alone, prompt = (read(model, batch, rows, reading) for reading in ("alone", "prompt"))
    torch.testing.assert_close(prompt.c_PSX[is_first], alone.c_PSX[is_first], atol=1e-6, rtol=0)
    assert not torch.allclose(prompt.c_PSX[~is_first], alone.c_PSX[~is_first], atol=1e-3)


def test_a_long_history_is_cut_to_its_newest_events_and_a_segment_never() -> None:
    model = small_system("sasrec", "lasar", 20, max_length=5)
    user = [[8, 9, 1, 2, 3, 4, 5]]
    rows, batch = training_rows(model, user), training_batch(model, user)
    found = read(model, batch, rows, "prompt")
    last = found.c_PSX[-1]
    torch.testing.assert_close(last[int(found.s_P[-1]) - 1], state(model, [1, 2, 3, 4, 5]), atol=1e-5, rtol=0)
    torch.testing.assert_close(last[0], state(model, [3, 4, 2, 3, 4]), atol=1e-5, rtol=0)


def test_a_prompt_is_what_the_row_shows_and_no_older_event_of_its_user() -> None:
    model = small_system("sasrec", "lasar", 20, max_length=5)
    user = [[8, 9, 1, 2, 3, 4, 5]]
    rows = training_rows(model, user, window="all")
    batch = next(rows.batches(10_000, np.random.default_rng(0), CPU))
    found = read(model, batch, rows, "prompt")
    shown = {
        (int(place), int(at)): n
        for n, (place, at) in enumerate(zip(batch.place_Q, batch.rows.position_N[batch.at_Q], strict=True))  # type: ignore[arg-type]
    }
    for length in (1, 2, 3):  # of the row that ends before the last event
        n = shown[6, length - 1]
        last = found.c_PSX[n, int(found.s_P[n]) - 1]
        torch.testing.assert_close(last, state(model, [*user[0][6 - length :]]), atol=1e-5, rtol=0)


def test_long_lists_of_segments_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_system("sasrec", "lasar", 20)
    rows, batch = training_rows(model, USERS), training_batch(model, USERS)
    whole = read(model, batch, rows, "prompt").c_PSX
    monkeypatch.setattr("recbench.reasoning.anchors.AT_ONCE", 7)
    torch.testing.assert_close(read(model, batch, rows, "prompt").c_PSX, whole, atol=1e-5, rtol=0)


# --- shuffled -------------------------------------------------------------------------------------------------------


def test_shuffled_anchors_keep_their_number_and_are_nobodys_own() -> None:
    s = torch.tensor([3, 2, 3, 2, 3, 5, 2, 3])
    own = torch.arange(8.0)[:, None, None].expand(8, 5, 1)
    found = deranged(Anchors(own, s), torch.Generator().manual_seed(0))
    assert found.s_P.tolist() == [3, 2, 3, 2, 3, 0, 2, 3]
    given: Tensor = found.c_PSX[:, 0, 0].long()
    kept = found.s_P > 0
    assert (given[kept] != torch.arange(8)[kept]).all()
    assert torch.equal(s[given[kept]], s[kept])
    assert sorted(given[kept].tolist()) == [0, 1, 2, 3, 4, 6, 7]
    assert math.isfinite(float(found.c_PSX.sum()))
