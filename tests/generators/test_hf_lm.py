"""hf-lm: against the model's own forward pass, thoughts against input vectors, what is trained, and directories that do not do."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recbench import experiment
from recbench.cli.app import run as command
from recbench.config import parse_assignments
from recbench.data.dataset import open_dataset
from recbench.errors import Exit, RecbenchError
from recbench.experiment import Order
from recbench.generators.pretrained import Keys, Opened, through
from recbench.reasoning.base import Stage
from recbench.recommender import GeneratorRecommender
from recbench.semantic_ids.table import BEGIN
from recbench.settings import Asked, resolve
from recbench.trained import rank_again
from recbench.training.checkpoint import read_tensors
from recbench.training.loop import Watcher
from tests.generators.checkpoints import NEEDED, WORDS, checkpoint
from tests.generators.spelled import ROWS, STARTS, TABLE, exact, small, told
from tests.systems import CPU, packed, training_batch

pytestmark = NEEDED
SAID = [0, 1, 2, 3, 4, 9, 5, 6, 7, 2, 8]
"""The default instruction as the tests' tokenizer reads it."""


def made(head: str = "none", *, tied: bool = True, **sizes: object) -> GeneratorRecommender:
    return small("hf-lm", head, sizes={"path": checkpoint(tied=tied)} | sizes).eval()


def row_vectors(model: GeneratorRecommender, items: list[int]) -> Tensor:
    """The input vectors of one row, written out: instruction, codes, and a token behind each item."""
    lm = model.backbone
    words = lm.base.get_input_embeddings()(torch.tensor(SAID))
    behind = lm.tokens(torch.tensor([BEGIN]))
    rows = [words]
    for item in items:
        codes = lm.tokens(torch.tensor(TABLE.tokens()[item]))
        rows += [codes, behind if lm.config.start == "constant" else behind + codes.sum(0)]
    return torch.cat(rows)


def own_states(model: GeneratorRecommender, x_TD: Tensor) -> Tensor:
    """What the library's own forward pass makes of input vectors, with no cache and no mask of ours."""
    return model.backbone.base(inputs_embeds=x_TD[None], use_cache=False).last_hidden_state[0]


@pytest.mark.parametrize("start", STARTS)
def test_states_and_spelled_codes_are_those_of_the_models_own_forward_pass(start: str) -> None:
    model = made(start=start)
    rows, targets = [[4, 9, 2], [4, 9, 2, 17, 6, 6, 11]], [17, 3]
    batch = packed(rows, at=[2, 9])
    with model.backbone.about(batch), torch.no_grad():
        u_ND = model.answers(batch)
        found = model.score.log_prob(u_ND, torch.tensor(targets)[:, None])[:, 0]
    with torch.no_grad():
        for number, (row, target) in enumerate(zip(rows, targets, strict=True)):
            x = row_vectors(model, row)
            for level, code in enumerate(TABLE.codes_VM[target].tolist()):
                h = own_states(model, x)[-1]
                if level == 0:
                    torch.testing.assert_close(h, u_ND[number], atol=1e-5, rtol=0)
                wanted = model.backbone.read(h[None], level)[0].log_softmax(0)[code]
                assert abs(float(found[number, level] - wanted)) < 1e-5
                token = model.backbone.tokens(torch.tensor([TABLE.offsets[level] + code]))
                x = torch.cat([x, token + model.backbone.carried(u_ND[number])])


def test_thoughts_are_input_vectors_behind_the_row() -> None:
    """Two chains of one row do not see each other; a thought that is not live takes no place and is seen by nobody after it."""
    model = made()
    batch = packed(ROWS, at=[0, 2, 5, 8, 10])
    ends = [*ROWS[:3], ROWS[3][:3], ROWS[3]]
    tokens = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(2))
    live = torch.tensor([True, False, True, False, True])
    with torch.no_grad():
        memory = model.backbone.encode(model.backbone.embed(batch), batch, at_Q=batch.at_Q, remember=True).memory
        cached = [
            model.backbone.extend(memory, tokens[0], batch.at_Q),
            model.backbone.extend(memory, tokens[1], batch.at_Q, live_Q=live),
            model.backbone.extend(memory, tokens[2], batch.at_Q),
        ]
        for q, row in enumerate(ends):
            x = row_vectors(model, row)
            h = own_states(model, torch.cat([x, tokens[:2, q]]))
            torch.testing.assert_close(cached[0][q], h[-2], atol=1e-5, rtol=0)
            torch.testing.assert_close(cached[1][q], h[-1], atol=1e-5, rtol=0)
            seen = [0, 1, 2] if live[q] else [0, 2]
            torch.testing.assert_close(
                cached[2][q], own_states(model, torch.cat([x, tokens[seen, q]]))[-1], atol=1e-5, rtol=0
            )


def test_layers_run_in_parts_as_in_one() -> None:
    lm = made().backbone
    batch = packed(ROWS)
    with torch.no_grad():
        x = lm.embed(batch)
        lower = lm.encode(x, batch, stop=1).h_QD
        whole = lm.encode(x, batch).h_QD
        torch.testing.assert_close(lm.encode(lower, batch, start=1).h_QD, whole, atol=1e-6, rtol=0)
        asked = lm.encode(x, batch, at_Q=batch.at_Q).h_QD
    torch.testing.assert_close(asked, whole[lm.layout(batch).at_Q], atol=1e-6, rtol=0)
    assert lm.encode(x, batch, start=1, stop=1).h_QD is x


def test_gradients_reach_the_history_through_kept_keys() -> None:
    lm = made(train="embeddings").backbone
    x = torch.randn(1, 4, 64, requires_grad=True)
    place, look = torch.arange(4)[None], torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
    before = Keys()
    through(lm.base, x, place, look, before, 0, 2)
    one = torch.randn(1, 1, 64)
    keys = Keys({layer: [both] for layer, both in before.said.items()})
    through(lm.base, one, torch.tensor([[4]]), torch.ones(1, 1, 1, 5, dtype=torch.bool), keys, 0, 2).sum().backward()
    assert (x.grad.abs().sum(-1) > 0).all()


# --- what is new and what is trained -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_are_the_mean_of_the_models_own_and_a_little_noise(tied: bool) -> None:
    lm = made(tied=tied, noise=0.0).backbone
    own = lm.base.get_input_embeddings().weight
    torch.testing.assert_close(lm.tokens.weight[1:], own.mean(0).expand(TABLE.n_tokens - 1, -1))
    assert not lm.tokens.weight[0].any()
    assert (lm.out is None) == tied
    noisy = made(tied=tied, noise=0.5).backbone.tokens.weight[1:]
    assert ((noisy - own.mean(0)).std() / own.std(0).mean()).item() == pytest.approx(0.5, rel=0.1)
    if not tied:
        head = lm.reading(1)
        assert torch.equal(head, lm.out.weight[lm._first[1] : lm._first[1] + TABLE.level_sizes[1]])
        assert not torch.allclose(lm.out.weight[1], lm.tokens.weight[1])


@pytest.mark.parametrize("what", ["all", "lora", "embeddings"])
def test_only_what_train_names_is_trained(what: str) -> None:
    model = made(train=what)
    model.train()
    losses = model.losses(training_batch(model, [[1, 2, 3, 4], [7, 8]]), told(model, Stage("train")))
    torch.stack(list(losses.values())).sum().backward()
    trained = {name for name, p in model.backbone.base.named_parameters() if p.grad is not None}
    every = {name for name, _ in model.backbone.base.named_parameters()}
    assert (
        trained
        == {
            "all": every,
            "lora": {name for name in every if "lora_" in name},
            "embeddings": set(),
        }[what]
    )
    if what == "lora":
        assert trained
    assert model.backbone.tokens.weight.grad.abs().sum() > 0
    assert model.n_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_low_rank_updates_begin_as_none() -> None:
    plain, lora = made(), made(train="lora")
    lora.backbone.tokens.load_state_dict(plain.backbone.tokens.state_dict())
    lora.backbone.carried.load_state_dict(plain.backbone.carried.state_dict())
    batch = packed(ROWS, at=[0, 2, 5, 10])
    torch.testing.assert_close(exact(lora, batch), exact(plain, batch))


def test_the_instruction_stands_in_front_of_every_row_and_may_be_left_out() -> None:
    batch = packed(ROWS, at=[0, 2, 5, 10])
    told_, bare = made(), made(instruction="")
    assert told_.backbone.words_I.tolist() == SAID
    assert bare.backbone.layout(batch).rows.lengths.tolist() == [len(row) * 4 for row in ROWS]
    assert told_.backbone.layout(batch).rows.lengths.tolist() == [len(row) * 4 + len(SAID) for row in ROWS]
    bare.load_state_dict(told_.state_dict())
    assert not torch.allclose(exact(bare, batch), exact(told_, batch), atol=1e-4)


def test_a_run_says_from_what_it_started_and_ranks_again(tiny_home: Path, tmp_path: Path) -> None:
    settings = [
        f"backbone.path={checkpoint()}",
        "backbone.max_length=3",
        "train.epochs=1",
        "loss.beam=20",
        "train.batch_size=400",
    ]
    table = Asked("hf-lm", "pause", "tiny", None, parse_assignments([*settings, "backbone.train=lora"])).table()
    dataset = open_dataset("tiny", tiny_home)
    run, _ = experiment.run(Order(dataset, resolve(table, dataset.card.family), 0, tmp_path, CPU, False), Watcher())
    assert len(run.manifest.facts["pretrained"]["sha256"]) == 64
    stored = read_tensors(run.folder / "model.safetensors")
    assert not any("base" in name and "lora_" not in name for name in stored)
    assert rank_again(run, tiny_home, CPU)[1] == 0


def test_weights_go_only_with_the_model_they_began_with(tmp_path: Path) -> None:
    shutil.copytree(checkpoint(), tmp_path / "other")
    model = made(train="embeddings")
    stored = model.tensors()
    assert not any(name.startswith("backbone.base.") for name in stored)
    again = made(train="embeddings", noise=0.3)
    again.restore(stored)
    batch = packed(ROWS, at=[0, 2, 5, 10])
    assert torch.equal(exact(again, batch), exact(model, batch))
    settings = tmp_path / "other" / "config.json"
    settings.write_text(settings.read_text() + "\n")
    with pytest.raises(RecbenchError, match="not the pretrained model") as caught:
        made(train="embeddings", path=str(tmp_path / "other")).restore(stored)
    assert caught.value.code == Exit.DATA


# --- directories that do not do ---------------------------------------------------------------------------------------


def refusal(path: Path | str, **sizes: object) -> RecbenchError:
    with pytest.raises(RecbenchError) as caught:
        small("hf-lm", sizes={"path": str(path), **sizes})
    return caught.value


def test_a_directory_that_holds_no_such_model_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    assert "backbone.path is not set" in refusal("").why
    assert "no such directory" in refusal(tmp_path / "nowhere").why
    error = refusal(tmp_path)
    assert "no config.json" in error.why
    assert "backbone.path=DIR" in error.fix
    assert error.code == Exit.DATA
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert "reads no pickles" in refusal(tmp_path).why
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    assert "cannot be loaded" in refusal(tmp_path).why


def test_weights_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    shutil.copytree(checkpoint(), tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    assert "cannot be loaded" in refusal(tmp_path / "cut").why


def test_a_tokenizer_is_needed_only_for_an_instruction(tmp_path: Path) -> None:
    shutil.copytree(checkpoint(), tmp_path / "mute")
    (tmp_path / "mute" / "tokenizer.json").write_text("{}")
    assert "instruction=''" in refusal(tmp_path / "mute").fix
    assert small("hf-lm", sizes={"path": str(tmp_path / "mute"), "instruction": ""}).backbone.words_I.tolist() == []
    tokenizer = json.loads((Path(checkpoint()) / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["items"] = len(WORDS) + 7
    (tmp_path / "mute" / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "more tokens" in refusal(tmp_path / "mute").why


def test_a_model_whose_layers_are_laid_out_otherwise_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=32, n_embd=16, n_layer=2, n_head=2)).save_pretrained(tmp_path)
    assert "has other parts than Llama" in refusal(tmp_path).why


@pytest.mark.parametrize(
    ("family", "runs"),
    [
        *((name, True) for name in ("llama", "mistral", "mixtral", "qwen3", "gemma", "phi3", "olmo2", "smollm3")),
        *((name, True) for name in ("stablelm", "granite", "cohere", "starcoder2")),
        *((name, False) for name in ("gpt_neox", "phi", "gemma2", "gemma3_text")),
    ],
)
def test_other_families_run_as_they_do_themselves_or_are_refused(family: str, runs: bool, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(
        family,
        vocab_size=40,
        num_key_value_heads=2,
        **sizes,
        **special,
        **({"head_dim": 8} if "gemma" in family else {}),
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    if runs:
        opened = Opened.at(str(tmp_path))
        assert opened.width == 32
        assert len(opened.base.layers) == 2
    else:
        assert "no causal language model" in refusal(tmp_path, instruction="").what


def test_a_model_that_scales_its_input_is_refused(tmp_path: Path) -> None:
    """Its layers run well, but not to the states that it gives itself."""
    from transformers import GraniteConfig, GraniteForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    GraniteForCausalLM(GraniteConfig(vocab_size=40, embedding_multiplier=3.0, **sizes)).save_pretrained(tmp_path)
    assert "other states than it gives" in refusal(tmp_path).why


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    path, find = checkpoint(), importlib.util.find_spec
    for missing, sizes in (("transformers", {}), ("peft", {"train": "lora"})):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *rest, gone=missing: None if name == gone else find(name, *rest)
        )
        error = refusal(path, **sizes)
        assert f"{missing} is not installed" in error.what
        assert error.fix == "pip install 'recbench[hf]'"


def test_the_command_refuses_a_directory_without_a_model(
    tiny_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--backbone", "hf-lm", "--dataset", "tiny", "--datasets", str(tiny_home)]
    status = command([*arguments, "--runs", str(tmp_path / "runs"), "--set", f"backbone.path={tmp_path}"])
    assert status == Exit.DATA
    assert "no config.json" in capsys.readouterr().err


@pytest.mark.parametrize("train", ["lora", "embeddings", "all"])
def test_who_reads_the_segments_is_stored_without_what_the_directory_has(train: str) -> None:
    def fresh() -> GeneratorRecommender:
        return small("hf-lm", "lasar", sizes={"path": checkpoint(), "train": train}, settings={"anchor": "backbone"})

    model = fresh()
    torch.nn.init.normal_(model.backbone.tokens.weight)
    model.head.grounded.load_state_dict(model.backbone.state_dict())
    stored = model.tensors()
    untouched = [name for name in stored if ".base." in name and "lora_" not in name]
    assert bool(untouched) == (train == "all")
    assert "head.grounded.tokens.weight" in stored
    again = fresh()
    again.restore(stored)
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name], atol=0, rtol=0, equal_nan=True)


def test_lares_begins_as_the_pretrained_model_at_any_number_of_steps() -> None:
    plain, model = made(), made("lares")
    model.backbone.load_state_dict(plain.backbone.state_dict())
    assert model.head.mix == "gate"
    batch = packed(ROWS)
    with plain.backbone.about(batch), torch.no_grad():
        expected = plain.answers(batch)
    for steps in (1, 4, 8):
        with model.backbone.about(batch), torch.no_grad():
            torch.testing.assert_close(model.answers(batch, steps), expected, atol=1e-5, rtol=0)


def test_a_projection_of_random_weights_into_a_pretrained_model_is_refused() -> None:
    with pytest.raises(RecbenchError, match="begin damaged"):
        small("hf-lm", "lares", sizes={"path": checkpoint()}, settings={"mix": "concat"})
