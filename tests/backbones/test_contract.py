"""What every neural backbone keeps, over the table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from recbench.data.batching import Batch
from recbench.kernels.dropout import dropout_at
from recbench.registry import BACKBONES as REGISTERED
from tests.systems import (
    day,
    neural_backbones,
    packed,
    prefix_backbones,
    small_backbone,
    small_system,
    training_batch,
)

FORMS: dict[str, dict[str, object]] = {
    "sasrec pre-norm, rotary": {"norm": "pre", "positions": "rotary"},
    "sasrec pre-norm, gated, swiglu": {"norm": "pre", "final_norm": False, "gate": True, "feed_forward": "swiglu"},
    "sasrec post-norm, rotary, gated": {"positions": "rotary", "gate": True},
    "sasrec counted from the newest event": {"positions_from": "newest"},
    "gru4rec projected": {"hidden": 5},
    "gru4rec with norms": {"norm": True},
    "hstu without positions or times": {"positions": False, "time_bias": False},
    "hstu counted from the newest event": {"positions_from": "newest"},
    "bert4rec counted from the blank": {"positions_from": "newest"},
    "hstu with the time of the target": {"query_time": "target"},
}
"""Settings under which a backbone takes another path, by its name and a word on them."""
BACKBONES = [*neural_backbones(), *FORMS]
DROPS = {
    "sasrec": 2,
    "sasrec pre-norm, gated, swiglu": 3,
    "gru4rec": 1,
    "hstu": 1,
    "lru": 3,
    "bert4rec": 2,
    "fmlp": 2,
    "bsarec": 3,
}
"""How often a layer drops, apart from attention weights: on what each of its parts adds, and inside them where its paper does."""
TOO_RARE_TO_DROP = 1e-6
"""Takes the way of training and drops nothing: on a CPU rates are rounded to 1 / 65,536."""
ROWS = [[3], [5, 6], [7, 8, 9], [1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4, 3, 2, 1]]


def made(name: str) -> torch.nn.Module:
    """The backbone of that name, or in that form."""
    return small_backbone(name.partition(" ")[0], **FORMS.get(name, {}))


def states(backbone: torch.nn.Module, batch: Batch, **options: object) -> torch.Tensor:
    backbone.eval()
    return backbone.encode(backbone.embed(batch), batch, **options).h_QD


@pytest.mark.parametrize("name", BACKBONES)
def test_batch_neighbours_and_bucket_width_change_nothing(name: str) -> None:
    backbone = made(name)
    together = states(backbone, packed(ROWS)).split([len(row) for row in ROWS])
    for row, among_others in zip(ROWS, together, strict=True):
        torch.testing.assert_close(states(backbone, packed([row])), among_others, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_future_changes_nothing_where_one_pass_trains_all_positions(name: str) -> None:
    backbone = made(name)
    if not backbone.causal:
        pytest.skip(f"{name} trains on prefix rows")
    one = states(backbone, packed([[1, 2, 3, 4, 5, 6]]))
    other = states(backbone, packed([[1, 2, 3, 9, 9, 9]]))
    torch.testing.assert_close(one[:3], other[:3], atol=1e-6, rtol=0)
    assert not torch.allclose(one[3:], other[3:], atol=1e-3)


@pytest.mark.parametrize("name", BACKBONES)
def test_training_without_a_drop_gives_the_states_of_evaluation(name: str) -> None:
    """On a CPU attention with dropout is code of its own: the future and empty cells stay hidden there, too."""
    backbone, batch = made(name).double(), packed(ROWS)
    still, some = states(backbone, batch), torch.tensor([0, 2, 5, 6, 9, 19])
    with dropout_at(backbone.train(), TOO_RARE_TO_DROP):
        for at_Q, expected in ((None, still), (some, still[some])):
            found = backbone.encode(backbone.embed(batch), batch, at_Q=at_Q).h_QD
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_dropout_drops(name: str) -> None:
    backbone, batch = made(name).double(), packed(ROWS)
    still = states(backbone, batch)
    parts = {part: module for part, module in backbone.named_modules() if isinstance(module, nn.Dropout)}
    for part, module in parts.items():
        with dropout_at(backbone.train(), 0.0):
            module.p = 0.5
            changed = backbone.encode(backbone.embed(batch), batch).h_QD
        assert not torch.allclose(changed, still), part


@pytest.mark.parametrize("name", DROPS)
def test_the_input_is_dropped_once_and_each_layer_drops_at_all_its_places(name: str) -> None:
    backbone, batch, drops = made(name).train(), packed(ROWS), []
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda *_: drops.append(1))
    x = backbone.embed(batch)
    assert len(drops) == 1
    backbone.encode(x, batch)
    assert len(drops) == 1 + backbone.n_layers * DROPS[name]


@pytest.mark.parametrize("name", BACKBONES)
def test_asking_for_some_tokens_gives_their_states_alone(name: str) -> None:
    backbone = made(name)
    batch = packed(ROWS)
    everywhere = states(backbone, batch)
    some = torch.tensor([0, 2, 5, 6, 9, 19])
    torch.testing.assert_close(states(backbone, batch, at_Q=some), everywhere[some], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", BACKBONES)
def test_layers_run_in_parts_as_in_one(name: str) -> None:
    backbone = made(name)
    batch = packed(ROWS)
    x = backbone.eval().embed(batch)
    lower = backbone.encode(x, batch, stop=1).h_QD
    torch.testing.assert_close(backbone.encode(lower, batch, start=1).h_QD, states(backbone, batch), atol=1e-6, rtol=0)
    assert backbone.encode(x, batch, start=1, stop=1).h_QD is x


@pytest.mark.parametrize("name", BACKBONES)
def test_every_parameter_gets_a_finite_gradient(name: str) -> None:
    backbone = made(name).train()
    batch = packed(ROWS)
    h = backbone.encode(backbone.embed(batch), batch).h_QD
    (h @ backbone.item_vectors().T).logsumexp(1).mean().backward()
    for parameter_name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_are_those_of_small_steps(name: str) -> None:
    """Of states everywhere, of asked ones and of a thought, along one direction of all parameters at once."""
    backbone, batch = made(name).double().eval(), packed(ROWS)
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(3, 20, 8, generator=generator, dtype=torch.float64)
    at_Q, thought = batch.rows.last_B, torch.randn(5, 8, generator=generator, dtype=torch.float64)

    def value() -> torch.Tensor:
        x = backbone.embed(batch)
        asked = backbone.encode(x, batch, at_Q=at_Q, remember=True)
        found = backbone.encode(x, batch).h_QD, asked.h_QD, backbone.extend(asked.memory, thought, at_Q)
        return sum((h * weight[: len(h)]).sum() for h, weight in zip(found, weights, strict=True))

    parameters = list(backbone.parameters())
    step = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    gradients = torch.autograd.grad(value(), parameters)
    expected = sum((g * d).sum() for g, d in zip(gradients, step, strict=True)).item()
    moved, size = [], 1e-6
    with torch.no_grad():
        for sign in (1, -2):
            for parameter, direction in zip(parameters, step, strict=True):
                parameter.add_(direction, alpha=sign * size)
            moved.append(value().item())
    assert (moved[0] - moved[1]) / (2 * size) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_padding_vector_is_zero_and_stays_so(name: str) -> None:
    backbone = made(name)
    assert (backbone.item_vectors()[0] == 0).all()


@pytest.mark.parametrize("name", [name for name in BACKBONES if name.partition(" ")[0] not in prefix_backbones()])
@pytest.mark.parametrize("thoughts", [1, 2, 3])
def test_a_cached_thought_equals_encoding_history_and_thoughts_as_one_row(name: str, thoughts: int) -> None:
    backbone = made(name).eval()
    batch = packed(ROWS)
    encoded = backbone.encode(backbone.embed(batch), batch, remember=True)
    tokens = torch.randn(thoughts, batch.rows.n_tokens, 8, generator=torch.Generator().manual_seed(2))
    cached = [backbone.extend(encoded.memory, x, batch.at_Q) for x in tokens]
    flat = [item for row in ROWS for item in row]
    x_ND = backbone.embed(batch)
    for q in (0, 2, 5, 8, 10, 15, 19):
        start = int(batch.rows.starts[int(batch.rows.row_N[q])])
        events = q + 1 - start
        asks = int(batch.next_times_N[q]) if backbone.times_seen == "history and target" else day(events - 1)
        clock = [day(i) for i in range(events)] + [asks] * thoughts  # a thought takes no time
        whole = packed([flat[start : q + 1] + [1] * thoughts], times=[clock])
        whole.next_times_N[-1] = asks
        x = torch.cat([x_ND[start : q + 1], tokens[:, q]])
        alone = backbone.encode(x, whole).h_QD
        for k in range(thoughts):
            torch.testing.assert_close(cached[k][q], alone[q + 1 - start + k], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", BACKBONES)
def test_layers_say_truthfully_whether_each_ends_in_its_norm(name: str) -> None:
    backbone, batch = made(name).eval(), packed(ROWS)
    x = backbone.embed(batch)
    normed = []
    for layer in range(backbone.n_layers):
        x = backbone.encode(x, batch, start=layer, stop=layer + 1).h_QD  # norms start with gain 1 and offset 0
        normed.append(bool((x.mean(1).abs() < 1e-4).all() and (x.var(1, correction=0) - 1).abs().max() < 1e-2))
    assert all(normed) == backbone.post_norm


@pytest.mark.parametrize("name", BACKBONES)
def test_without_times_in_the_batch_it_works_all_the_same(name: str) -> None:
    backbone, timed = made(name).eval(), packed(ROWS)
    batch = replace(timed, times_N=None, next_times_N=None)
    encoded = backbone.encode(backbone.embed(batch), batch, remember=True)
    assert encoded.h_QD.isfinite().all()
    assert backbone.extend(encoded.memory, encoded.h_QD, batch.at_Q).isfinite().all()
    assert torch.allclose(encoded.h_QD, states(backbone, timed)) == (backbone.times_seen == "none")


@pytest.mark.parametrize("name", BACKBONES)
def test_the_time_of_what_follows_changes_nothing_unless_the_backbone_says_so(name: str) -> None:
    backbone, batch = made(name), packed(ROWS)
    later = replace(batch, next_times_N=batch.next_times_N + 10**8)
    assert torch.equal(states(backbone, batch), states(backbone, later)) == (
        backbone.times_seen != "history and target"
    )


@pytest.mark.parametrize("name", BACKBONES)
def test_two_chains_behind_one_token_are_independent(name: str) -> None:
    backbone = made(name).eval()
    batch = packed(ROWS)
    twice = torch.tensor([4, 4, 12])
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(3))

    def chain(at: torch.Tensor, picked: list[int]) -> torch.Tensor:
        memory = backbone.encode(backbone.embed(batch), batch, remember=True).memory
        backbone.extend(memory, x[0, picked], at)
        return backbone.extend(memory, x[1, picked], at)

    together = chain(twice, [0, 1, 2])
    torch.testing.assert_close(together[:1], chain(twice[:1], [0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(together[1:2], chain(twice[1:2], [1]), atol=1e-6, rtol=0)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_thought_that_is_not_live_is_never_seen_again(name: str) -> None:
    backbone = made(name).eval()
    batch = packed(ROWS)
    x = torch.randn(2, batch.rows.n_tokens, 8, generator=torch.Generator().manual_seed(4))
    live = torch.arange(batch.rows.n_tokens) % 2 == 0

    memory = backbone.encode(backbone.embed(batch), batch, remember=True).memory
    backbone.extend(memory, x[0], batch.at_Q, live_Q=live)
    second = backbone.extend(memory, x[1], batch.at_Q)

    memory = backbone.encode(backbone.embed(batch), batch, remember=True).memory
    only = backbone.extend(memory, x[1], batch.at_Q)
    torch.testing.assert_close(second[~live], only[~live], atol=1e-6, rtol=0)
    assert not torch.allclose(second[live], only[live], atol=1e-3)


def chains(backbone: torch.nn.Module, batch: Batch, tokens_KD: torch.Tensor) -> torch.Tensor:
    """The plain state and those of a chain fed the same tokens everywhere, (Q, K + 1, D)."""
    encoded = backbone.encode(backbone.embed(batch), batch, at_Q=batch.at_Q, remember=True)
    thoughts = [backbone.extend(encoded.memory, x_D.expand(len(batch.at_Q), -1), batch.at_Q) for x_D in tokens_KD]
    return torch.stack([encoded.h_QD, *thoughts], dim=1)


@pytest.mark.parametrize("name", prefix_backbones())
def test_prefix_rows_and_their_thoughts_are_the_same_one_at_a_time(name: str) -> None:
    model = small_system(name).double().eval()
    users = [[3, 4], [5, 6, 7], [1, 2, 3, 4, 5, 6], [9, 8, 7, 6, 5, 4, 3, 2, 1, 11, 12, 13, 14, 15, 16]]
    tokens = torch.randn(3, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    batch = training_batch(model, users)
    together = chains(model.backbone, batch, tokens)
    assert len(together) == sum(len(user) - 1 for user in users)
    tokens_N = batch.items_N.split(batch.rows.lengths.tolist())
    for user in users:
        for end in range(1, len(user)):
            prefix = user[:end][-12:] + [0] * model.closed
            row = next(b for b, items in enumerate(tokens_N) if items.tolist() == prefix)
            alone = chains(model.backbone, packed([prefix], at=[len(prefix) - 1]), tokens)
            torch.testing.assert_close(alone[0], together[row], atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", prefix_backbones())
def test_a_row_is_asked_for_at_its_newest_token_only(name: str) -> None:
    batch = training_batch(small_system(name), [[3, 4], [5, 6, 7], [1, 2, 3, 4, 5, 6]])
    assert batch.at_Q.tolist() == batch.rows.last_B.tolist()


@pytest.mark.parametrize("name", neural_backbones())
def test_weights_start_as_wide_as_the_config_says_and_biases_at_zero(name: str) -> None:
    """Apart from what a paper starts otherwise: positions and output of hstu, gates of gru4rec, beta of bsarec, the ring of lru."""
    D = 64
    backbone = small_backbone(name, 300, width=D, inner=D, max_length=D, initial_sd=0.05)
    own = {"hstu": {"positions.weight": D**-0.5, "out.weight": D**-0.5}, "gru4rec": {"gru.weight": D**-0.5}}
    for part, parameter in backbone.named_parameters():
        if part.endswith((".bias", "bias_ih_l0", "bias_hh_l0")):
            assert not parameter.any(), part
        elif not part.endswith(("norm.weight", "projected.weight", "_log", "sqrt_beta")):
            known = next((sd for end, sd in own.get(name, {}).items() if end in part), 0.05)
            assert parameter.std().item() == pytest.approx(known, rel=0.25), part


@pytest.mark.parametrize("name", [*neural_backbones(), "sid-lm"])
@pytest.mark.parametrize("sd", [0.0, -0.02])
def test_initial_weights_without_any_spread_are_refused(name: str, sd: float) -> None:
    with pytest.raises(ValueError, match=f"initial_sd is {sd:g}; it is above 0"):
        REGISTERED.load(name).Config(initial_sd=sd)
