"""A causal language model from a directory, and its layers run one by one under masks and keys that are given."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from recbench.config import digest
from recbench.data.encoder import hashes
from recbench.errors import Exit, RecbenchError

KeyValue = tuple[Tensor, Tensor]
"""Of one layer: (rows, H, columns, d) each."""
CACHE_NAMES = ("cache", "past_key_values", "past_key_value")
"""What versions of transformers call a layer's argument for keys and values said before."""
LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError)
"""What transformers raises where a directory is not what it should be."""
TOLERANCE = 1e-3
"""Largest relative difference between the model's own states and those of its layers run one by one."""


class Keys:
    """Keys and values of what was said before, by layer, as a layer of transformers asks for them; it notes what is said now."""

    def __init__(self, before: Mapping[int, Sequence[KeyValue]] | None = None) -> None:
        self._before = before or {}
        self.said: dict[int, KeyValue] = {}

    def update(self, k: Tensor, v: Tensor, layer_idx: int, *_: Any, **__: Any) -> KeyValue:
        """All that the layer may see: what was said before, then ``k`` and ``v``."""
        self.said[layer_idx] = k, v
        before = self._before.get(layer_idx, ())
        if not before:
            return k, v
        return torch.cat([*(one[0] for one in before), k], dim=2), torch.cat([*(one[1] for one in before), v], dim=2)


class Opened(NamedTuple):
    """A model of a directory, in float32."""

    base: Any
    """Its layers and input vectors, without the output head."""
    vectors: Tensor
    """Its token vectors, (words, D)."""
    output: Tensor | None
    """Rows of its output head, (words, D); None where they are the token vectors."""
    folder: Path
    sha256: str
    """Of the directory's files."""

    @classmethod
    def at(cls, path: str) -> Opened:
        """The model of a local directory. Nothing is downloaded, no pickle is read and no code of the model is run.

        Raises:
            RecbenchError: no path, no such model, no library, or layers that cannot be run one by one.
        """
        folder = _folder(path)
        _need("transformers")
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.utils import logging

        cast("Any", logging).disable_progress_bar()
        try:
            config = AutoConfig.from_pretrained(folder, **LOCAL)
            if hasattr(config, "attention_dropout"):  # rates of dropout stand in modules, where stages may set them
                config.attention_dropout = 0.0
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, config=config, use_safetensors=True, attn_implementation="sdpa", dtype=torch.float32, **LOCAL
            )
        except UNREADABLE as error:
            raise _no_model(path, f"It cannot be loaded: {_first_line(error)}") from error
        head, base = model.get_output_embeddings(), model.get_decoder()
        vectors = base.get_input_embeddings().weight.detach()
        tied = head is None or head.weight is base.get_input_embeddings().weight
        _refuse_other_layers(path, base)
        return cls(base, vectors, None if tied else head.weight.detach(), folder, digest(hashes(folder)))

    @property
    def width(self) -> int:
        """D."""
        return self.vectors.shape[1]

    def words(self, text: str) -> Tensor:
        """Tokens of a text as the model begins one, (I,); none of an empty text.

        Raises:
            RecbenchError: the directory has no tokenizer, or one of another model.
        """
        if not text:
            return torch.zeros(0, dtype=torch.long)
        tokenizer = Tokenizer(self.folder, len(self.vectors), "the instruction", "--set backbone.instruction=''")
        return torch.tensor(tokenizer([text], begins=True)[0], dtype=torch.long)


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Texts as a model counts its words, by the tokenizer of its directory."""

    folder: Path
    n_words: int
    """Words that the model knows."""
    reads: str
    """What is read, as an error says it."""
    without: str
    """What to type to do without."""

    def __call__(self, texts: Sequence[str], *, begins: bool) -> list[list[int]]:
        """Tokens of each text.

        Args:
            begins: with the special tokens that the model has around a text.

        Raises:
            RecbenchError: the directory has no tokenizer, or one of another model.
        """
        try:
            found = _tokens(self.folder, texts, begins)
        except UNREADABLE as error:
            raise self._refused(f"Its tokenizer cannot be loaded: {_first_line(error)}") from error
        if max((max(ids, default=0) for ids in found), default=0) >= self.n_words:
            raise self._refused(f"Its tokenizer knows more tokens than the model's {self.n_words:,}.")
        return found

    def _refused(self, why: str) -> RecbenchError:
        return RecbenchError(
            f"{self.folder} cannot read {self.reads}.",
            why=why,
            fix=f"Put the model's tokenizer there, or do without: {self.without}",
            code=Exit.DATA,
        )


def _tokens(folder: Path, texts: Sequence[str], begins: bool) -> list[list[int]]:
    """As tokenizer.json says; transformers may take another tokenizer by the name of the model."""
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer as Rust

        try:
            tokenizer = Rust.from_file(str(folder / "tokenizer.json"))
            tokenizer.no_padding()
            tokenizer.no_truncation()
            return [list(one.ids) for one in tokenizer.encode_batch(list(texts), add_special_tokens=begins)]
        except Exception as error:  # it raises nothing narrower
            raise ValueError(str(error)) from error
    from transformers import AutoTokenizer

    read = AutoTokenizer.from_pretrained(folder, **LOCAL)(list(texts), add_special_tokens=begins)
    return [list(ids) for ids in read["input_ids"]]


def through(
    base: Any, x_BTD: Tensor, place_BT: Tensor, look: Tensor, keys: Keys | None, start: int, stop: int
) -> Tensor:
    """States behind layers ``start:stop``, without the last norm, (B, T, D).

    Args:
        place_BT: position of each token in its text.
        look: (B, 1, T, C) bool, where each token looks: columns of ``keys`` first, then the T tokens themselves.
        keys: what was said before; it takes what is said here.
    """
    turns = base.rotary_emb(x_BTD, place_BT)
    for layer in base.layers[start:stop]:
        kept = {} if keys is None else {_cache_name(layer): keys}
        out = layer(x_BTD, attention_mask=look, position_ids=place_BT, position_embeddings=turns, **kept)
        x_BTD = out[0] if isinstance(out, tuple) else out
    return x_BTD


def train_only(base: nn.Module, what: str, rank: int, alpha: int) -> None:
    """Freeze what is not trained: nothing (``all``), all (``embeddings``), or all but low-rank updates (``lora``).

    Raises:
        RecbenchError: the library of low-rank updates is missing.
    """
    if what == "lora":
        _need("peft")
        from peft import LoraConfig, inject_adapter_in_model

        linear = {name.rpartition(".")[2] for name, part in base.named_modules() if isinstance(part, nn.Linear)}
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=sorted(linear)), base)
    for name, parameter in base.named_parameters():
        parameter.requires_grad_(what == "all" or (what == "lora" and "lora_" in name))


def _cache_name(layer: nn.Module) -> str:
    known = inspect.signature(type(layer).forward).parameters
    return next(name for name in CACHE_NAMES if name in known)


def _folder(path: str) -> Path:
    if not path:
        raise RecbenchError(
            "hf-lm has no model to start from.",
            why="backbone.path is not set.",
            fix="--set backbone.path=DIR, a directory of a causal language model as transformers saves it",
        )
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise _no_model(path, "There is no such directory.")
    if not (folder / "config.json").is_file():
        raise _no_model(path, "The directory has no config.json.")
    if not any(folder.glob("*.safetensors")):
        raise _no_model(path, "It holds no *.safetensors, and recbench reads no pickles.")
    return folder


def _refuse_other_layers(path: str, base: Any) -> None:
    """Run one by one, on kept keys, the layers must give what the model gives.

    Raises:
        RecbenchError: they do not.
    """
    x_BTD = base.get_input_embeddings()(torch.arange(10).view(2, 5) % base.get_input_embeddings().num_embeddings)
    place_BT = torch.arange(5).expand(2, 5)
    look = torch.ones(5, 5, dtype=torch.bool).tril().expand(2, 1, 5, 5)
    try:
        with torch.no_grad():
            wanted = base.eval()(inputs_embeds=x_BTD, attention_mask=torch.ones(2, 5)).last_hidden_state[:, -1]
            n_layers, before = len(base.layers), Keys()
            through(base, x_BTD[:, :4], place_BT[:, :4], look[:, :, :4, :4], before, 0, n_layers)
            keys = Keys({layer: [both] for layer, both in before.said.items()})
            found = base.norm(through(base, x_BTD[:, 4:], place_BT[:, 4:], look[:, :, 4:], keys, 0, n_layers))[:, 0]
        apart = float((found - wanted).norm() / wanted.norm())
    except (AttributeError, KeyError, TypeError, RuntimeError, StopIteration) as error:
        raise _no_model(
            path, f"{type(base).__name__} has other parts than Llama, Qwen and their kin: {error}"
        ) from error
    if apart > TOLERANCE:
        raise _no_model(
            path, f"Layers of {type(base).__name__} run one by one give other states than it gives ({apart:.2g} apart)."
        )


def _need(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        raise RecbenchError(
            f"hf-lm cannot be used: {library} is not installed.",
            why="Pretrained language models are an extra; sid-lm and tiger need nothing.",
            fix="pip install 'recbench[hf]'",
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _no_model(path: str, why: str) -> RecbenchError:
    return RecbenchError(
        f"{path} is no causal language model that hf-lm can use.",
        why=why,
        fix="--set backbone.path=DIR, a directory of a model laid out as Llama or Qwen: config.json, tokenizer, *.safetensors",
        code=Exit.DATA,
    )
