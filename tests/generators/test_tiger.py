"""tiger: against the same layers written out plainly, thoughts against tokens, what it reads, what it learns."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from recbench import experiment
from recbench.config import parse_assignments
from recbench.data.batching import Batch
from recbench.data.dataset import open_dataset
from recbench.experiment import Order
from recbench.generators.tiger import EPS, RelativeBias, Tiger
from recbench.reasoning.base import Stage
from recbench.recommender import GeneratorRecommender
from recbench.registry import BACKBONES
from recbench.semantic_ids.table import BEGIN, END, table_of
from recbench.settings import Asked, resolve
from recbench.training.checkpoint import Store
from recbench.training.loop import Job, Watcher, fit
from recbench.training.seeding import seed_everything
from recbench.training.settings import stage_settings
from tests.generators.checkpoints import NEEDED
from tests.generators.spelled import ROWS, TABLE, exact, known, small, told
from tests.systems import CPU, histories, packed, queries, training_batch

ROW = [4, 9, 2, 17, 6, 6, 11]
FORMS: dict[str, dict[str, object]] = {
    "plain": {},
    "separated": {"separator": True},
    "with users": {"user_tokens": 3},
    "two hidden layers": {"feed_forward": "two"},
    "from the item": {"start": "item"},
    "all": {"separator": True, "user_tokens": 3, "feed_forward": "two", "start": "item"},
}


def made(form: str = "plain", head: str = "none") -> GeneratorRecommender:
    """A small tiger in that form, in eval mode; its norms and biases of positions are no longer as they start."""
    model = small("tiger", head, sizes=FORMS[form]).eval()
    for parameter_name, parameter in model.named_parameters():
        if "norm" in parameter_name or "coded" in parameter_name or "bias" in parameter_name:
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    return model


# --- the same, written out plainly ------------------------------------------------------------------------------------


def norm(weight: Tensor, x: Tensor) -> Tensor:
    return x * (x.pow(2).mean(-1, keepdim=True) + EPS).rsqrt() * weight


def attention(part: torch.nn.Module, x_TD: Tensor, y_SD: Tensor, bias_HTS: Tensor | float) -> Tensor:
    def heads(x: Tensor) -> Tensor:
        return x.view(len(x), part.n_heads, -1).transpose(0, 1)

    q, k, v = heads(part.query(x_TD)), heads(part.key(y_SD)), heads(part.value(y_SD))
    weights = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]) + bias_HTS).softmax(-1)
    return part.out((weights @ v).transpose(0, 1).flatten(1))


def feed_forward(part: torch.nn.Module, x: Tensor) -> Tensor:
    x = part.inner(x).relu()
    return part.outer(x if part.middle is None else part.middle(x).relu())


def encoded(tiger: Tiger, tokens: list[int]) -> Tensor:
    """The encoder's states of one row of tokens, all at once."""
    x = tiger.tokens(torch.tensor(tokens))
    place = torch.arange(len(tokens))
    bias = tiger.encoder_bias(place - place[:, None]).permute(2, 0, 1)
    for layer in tiger.encoder:
        y = norm(layer.attention_norm.weight, x)
        x = x + attention(layer.attention, y, y, bias)
        x = x + feed_forward(layer.feed_forward, norm(layer.norm.weight, x))
    return norm(tiger.encoded.weight, x)


def decoded(tiger: Tiger, read: Tensor, x: Tensor) -> Tensor:
    """The decoder's states of the given input vectors, all at once under a causal mask, nothing kept."""
    place = torch.arange(len(x))
    later = torch.full((len(x), len(x)), -torch.inf).triu(1)
    bias = tiger.decoder_bias(place - place[:, None]).permute(2, 0, 1) + later
    for layer in tiger.decoder:
        y = norm(layer.within_norm.weight, x)
        x = x + attention(layer.within, y, y, bias)
        x = x + attention(layer.across, norm(layer.across_norm.weight, x), read, 0.0)
        x = x + feed_forward(layer.feed_forward, norm(layer.norm.weight, x))
    return norm(tiger.decoded.weight, x)


def row_tokens(tiger: Tiger, items: list[int], user: int) -> list[int]:
    tokens = [TABLE.n_tokens + user % tiger.config.user_tokens] if tiger.config.user_tokens else []
    for item in items:
        tokens += TABLE.tokens()[item].tolist() + [END] * tiger.config.separator
    return tokens


@pytest.mark.parametrize("form", FORMS)
def test_cached_decoding_is_the_plain_decoder_run_anew_for_every_code(form: str) -> None:
    model = made(form)
    tiger, targets = model.backbone, [17, 3]
    rows = [ROW[:3], ROW]
    batch = packed(rows, at=[2, 9])
    with model.backbone.about(batch), torch.no_grad():
        u_ND = model.answers(batch)
        found = model.score.log_prob(u_ND, torch.tensor(targets)[:, None])[:, 0]
    with torch.no_grad():
        for number, (row, target) in enumerate(zip(rows, targets, strict=True)):
            read = encoded(tiger, row_tokens(tiger, row, number + 1))
            x = tiger.tokens(torch.tensor([BEGIN]))
            if tiger.config.start == "item":
                x = x + tiger.tokens(torch.tensor(TABLE.tokens()[row[-1]])).sum(0)
            codes = TABLE.codes_VM[target].tolist()
            for level, code in enumerate(codes):
                h = decoded(tiger, read, x)
                if level == 0:
                    torch.testing.assert_close(h[0], u_ND[number], atol=1e-5, rtol=0)
                wanted = tiger.heads[level](h[-1]).log_softmax(0)[code]
                assert abs(float(found[number, level] - wanted)) < 1e-5
                token = torch.tensor([TABLE.offsets[level] + code])
                x = torch.cat([x, tiger.tokens(token) + tiger.carried(u_ND[number])])


@NEEDED
def test_both_stacks_are_those_of_t5() -> None:
    """With our weights in the T5 of transformers, whose queries are not scaled."""
    from transformers import T5Config, T5Model

    tiger = made().backbone
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
    t5 = T5Model(T5Config(**sizes, vocab_size=4, feed_forward_proj="relu", dropout_rate=0.0)).eval()

    def attend(theirs: torch.nn.Module, ours: torch.nn.Module) -> None:
        theirs.q.weight.copy_(ours.query.weight * ours.scale)
        for a, b in ((theirs.k, ours.key), (theirs.v, ours.value), (theirs.o, ours.out)):
            a.weight.copy_(b.weight)

    def rest(theirs: torch.nn.Module, ours: torch.nn.Module) -> None:
        theirs.DenseReluDense.wi.weight.copy_(ours.feed_forward.inner.weight)
        theirs.DenseReluDense.wo.weight.copy_(ours.feed_forward.outer.weight)
        theirs.layer_norm.weight.copy_(ours.norm.weight)

    with torch.no_grad():
        for block, layer in zip(t5.encoder.block, tiger.encoder, strict=True):
            attend(block.layer[0].SelfAttention, layer.attention)
            block.layer[0].layer_norm.weight.copy_(layer.attention_norm.weight)
            rest(block.layer[1], layer)
        for block, layer in zip(t5.decoder.block, tiger.decoder, strict=True):
            attend(block.layer[0].SelfAttention, layer.within)
            attend(block.layer[1].EncDecAttention, layer.across)
            block.layer[0].layer_norm.weight.copy_(layer.within_norm.weight)
            block.layer[1].layer_norm.weight.copy_(layer.across_norm.weight)
            rest(block.layer[2], layer)
        for stack, bias, last in (
            (t5.encoder, tiger.encoder_bias, tiger.encoded),
            (t5.decoder, tiger.decoder_bias, tiger.decoded),
        ):
            stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight.copy_(bias.table.weight)
            stack.final_layer_norm.weight.copy_(last.weight)
        items = [1 + item % 20 for item in range(60)]  # 180 tokens: beyond the farthest bucket
        x = tiger.tokens(torch.tensor(row_tokens(tiger, items, 1)))
        y = torch.randn(40, 8, generator=torch.Generator().manual_seed(4))
        theirs = t5(inputs_embeds=x[None], decoder_inputs_embeds=y[None])
        ours = encoded(tiger, row_tokens(tiger, items, 1))
        torch.testing.assert_close(ours, theirs.encoder_last_hidden_state[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(decoded(tiger, ours, y), theirs.last_hidden_state[0], atol=1e-5, rtol=0)


def test_thoughts_are_further_tokens_of_the_decoder() -> None:
    """A thought that is not live is there for itself, and for nobody after it."""
    model = made()
    tiger = model.backbone
    batch = packed(ROWS, at=[0, 2, 5, 10])
    tokens = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(2))
    live = torch.tensor([True, False, True, False])
    with torch.no_grad():
        memory = tiger.encode(tiger.embed(batch), batch, at_Q=batch.at_Q, remember=True).memory
        cached = [
            tiger.extend(memory, tokens[0], batch.at_Q),
            tiger.extend(memory, tokens[1], batch.at_Q, live_Q=live),
            tiger.extend(memory, tokens[2], batch.at_Q),
        ]
        for q, row in enumerate(ROWS):
            read, start = encoded(tiger, row_tokens(tiger, row, q + 1)), tiger.tokens(torch.tensor([BEGIN]))
            h = decoded(tiger, read, torch.cat([start, tokens[:, q]]))
            torch.testing.assert_close(cached[0][q], h[1], atol=1e-5, rtol=0)
            torch.testing.assert_close(cached[1][q], h[2], atol=1e-5, rtol=0)
            seen = [0, 1, 2] if live[q] else [0, 2]
            h = decoded(tiger, read, torch.cat([start, tokens[seen, q]]))
            torch.testing.assert_close(cached[2][q], h[-1], atol=1e-5, rtol=0)


def test_two_chains_behind_one_row_are_independent() -> None:
    tiger = made().backbone
    batch = packed(ROWS, at=[0, 2, 5, 10])
    at = torch.tensor([2, 2, 10])
    tokens = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(3))

    def chain(asked: list[int]) -> Tensor:
        memory = tiger.encode(tiger.embed(batch), batch, at_Q=batch.at_Q, remember=True).memory
        tiger.extend(memory, tokens[0, asked], at[asked])
        return tiger.extend(memory, tokens[1, asked], at[asked])

    with torch.no_grad():
        together = chain([0, 1, 2])
        for q in range(3):
            torch.testing.assert_close(together[q], chain([q])[0], atol=1e-6, rtol=0)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_layers_run_in_parts_as_in_one() -> None:
    tiger = made().backbone
    batch = packed(ROWS)
    with torch.no_grad():
        x = whole = tiger.embed(batch)
        whole = tiger.encode(whole, batch).h_QD
        for layer in range(tiger.n_layers):
            x = tiger.encode(x, batch, start=layer, stop=layer + 1).h_QD
        asked = tiger.encode(tiger.embed(batch), batch, at_Q=batch.at_Q).h_QD
    torch.testing.assert_close(x, whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(asked, whole[tiger.layout(batch).at_Q], atol=1e-6, rtol=0)
    assert tiger.encode(x, batch, start=2, stop=2).h_QD is x


# --- what it reads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_row_ranks_the_same_alone_and_beside_longer_ones(form: str) -> None:
    model = made(form)
    together = exact(model, packed(ROWS, at=[0, 2, 5, 10]))
    for number, row in enumerate(ROWS):
        alone = packed([row], at=[len(row) - 1])
        alone.users_B[:] = number + 1
        assert torch.allclose(exact(model, alone)[0], together[number], atol=1e-5)


def test_every_item_of_the_history_is_read_and_in_its_order() -> None:
    model = made()
    before = exact(model, packed([[1, 2, 3, 4, 5]], at=[4]))[0]
    for changed in ([19, 2, 3, 4, 5], [1, 2, 3, 4, 19], [2, 1, 3, 4, 5]):
        assert not torch.allclose(before, exact(model, packed([changed], at=[4]))[0], atol=1e-4)


def test_training_asks_once_a_prefix_and_never_reads_what_follows_it() -> None:
    model = made()
    one, other = (training_batch(model, [[1, 2, 3, last]]) for last in (4, 19))
    assert [len(batch.at_Q) for batch in (one, other)] == [3, 3]
    with torch.no_grad():
        assert torch.equal(model.answers(one), model.answers(other))


def test_users_differ_only_where_they_have_tokens() -> None:
    for form, told_apart in (("plain", False), ("with users", True)):
        model = made(form)
        one, other, third = (packed([[3, 4]], at=[1]) for _ in range(3))
        other.users_B[:], third.users_B[:] = 2, 4
        scores = [exact(model, batch) for batch in (one, other, third)]
        assert torch.allclose(scores[0], scores[1]) != told_apart
        assert torch.equal(scores[0], scores[2])  # of three tokens, users 1 and 4 share one


def test_positions_are_exact_when_near_and_share_a_bias_when_far() -> None:
    """By T5's rule: of 32 biases backwards 16 are exact, the others part 16 .. 128 by its logarithm."""
    back, both = RelativeBias(2, both_ways=False), RelativeBias(2, both_ways=True)
    assert back._bucket(-torch.arange(16)).tolist() == list(range(16))
    assert back._bucket(torch.tensor([-16, -31, -32, -127, -128, -900, 5])).tolist() == [16, 21, 21, 31, 31, 31, 0]
    assert both._bucket(torch.tensor([-7, -8, 0, 1, 7, 8, 900])).tolist() == [7, 8, 0, 17, 23, 24, 31]


def test_every_weight_gets_a_gradient() -> None:
    model = small("tiger", sizes=FORMS["all"]).train()
    loss = model.losses(training_batch(model, [[1, 2, 3, 4], [7, 8]]), told(model, Stage("train")))
    torch.stack(list(loss.values())).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"width": 0}, "at least 1"),
        ({"decoder_layers": 0}, "at least 1"),
        ({"dropout": 1.0}, r"\[0, 1\)"),
        ({"user_tokens": -1}, "user_tokens"),
        ({"initial_scale": -0.1}, "initial_scale"),
    ],
)
def test_nonsense_is_refused(setting: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        BACKBONES.load("tiger").Config(**setting)


# --- what it learns ---------------------------------------------------------------------------------------------------

CLUSTERS = table_of(np.array([[item // 10, item % 10] for item in range(20)]), (2, 10), ())
"""Items 1..10 have first code 0, items 11..20 first code 1."""


def alternating(users: int, seed: int, *, shuffled: bool) -> list[list[int]]:
    """Rows of items of two clusters in turn; shuffled, clusters come as they like."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(users):
        turns = (np.arange(8) + generator.integers(2)) % 2
        turns = generator.integers(0, 2, 8) if shuffled else turns
        rows.append((turns * 10 + generator.integers(1, 11, 8)).tolist())
    return rows


@pytest.mark.parametrize("shuffled", [False, True])
def test_two_clusters_in_turn_are_learned_and_chance_is_not(shuffled: bool, tmp_path: Path) -> None:
    seed_everything(3)
    model = small("tiger", table=CLUSTERS, sizes={"width": 16, "inner": 32}, scoring="exact")
    stages = stage_settings({"epochs": 3, "batch_size": 100, "learning_rate": 0.01}, model.stages)
    seen, asked = alternating(200, 1, shuffled=shuffled), alternating(300, 2, shuffled=shuffled)
    job = Job(histories(seen), queries(asked[:50], "valid"), stages, 0, CPU, tmp_path, Watcher())
    fit(model, job, Store(tmp_path / "state"))
    batch: Batch = packed([row[:-1] for row in asked], at=[7 * row + 6 for row in range(300)])
    with torch.no_grad():
        first = model.backbone.read(model.eval().answers(batch), 0).argmax(1)
    right = float((first == torch.tensor([int(row[-1] > 10) for row in asked])).float().mean())
    assert 0.4 < right < 0.6 if shuffled else right > 0.9


def test_without_item_texts_its_ids_come_from_training_alone_and_the_run_says_so(
    tiny_home: Path, tmp_path: Path
) -> None:
    sizes = [f"backbone.{key}={value}" for key, value in known("tiger", max_length=5).items()]
    settings = [*sizes, "features.source=cooc", "loss.beam=20", "train.epochs=1", "train.batch_size=400"]
    table = Asked("tiger", "none", "tiny", None, parse_assignments(settings)).table()
    dataset = open_dataset("tiny", tiny_home)
    run, _ = experiment.run(Order(dataset, resolve(table, dataset.card.family), 0, tmp_path, CPU, False), Watcher())
    assert run.manifest.facts["ids"]["features"] == "cooc"
    assert run.manifest.rank_cutoff == 20
    assert not run.manifest.inputs["text"]
