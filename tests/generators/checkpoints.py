"""A pretrained language model for tests: two layers of Qwen2 with random weights and a tokenizer of a few words, saved once."""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch

INSTALLED = all(importlib.util.find_spec(name) is not None for name in ("transformers", "peft", "tokenizers"))
NEEDED = pytest.mark.skipif(not INSTALLED, reason="needs transformers and peft: pip install 'recbench[hf]'")
UNKNOWN = "<unk>"
WORDS = ["items", "bought", "one", "after", "another", "and", "the", "next", ":", ",", UNKNOWN]


@cache
def checkpoint(*, tied: bool = True, more: tuple[str, ...] = ()) -> str:
    """Its directory; it is gone when the tests are over.

    Args:
        more: words that it knows besides ``WORDS``.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = Path(tempfile.mkdtemp(prefix="recbench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    known = [*WORDS, *more]
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(known)}, UNKNOWN))
    words.normalizer, words.pre_tokenizer = Lowercase(), Whitespace()
    words.save(str(folder / "tokenizer.json"))
    config = Qwen2Config(
        vocab_size=len(known),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config)
    model.generation_config.do_sample = True  # what must have no say
    model.generation_config.temperature = 50.0
    model.save_pretrained(folder)
    return str(folder)
