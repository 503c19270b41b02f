"""Texts as vectors by a sentence encoder: a local directory, or a name on the Hugging Face hub. Needs the extra ``[text]``."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbench.errors import Exit, RecbenchError
from recbench.files import sha256

LIBRARY = "sentence_transformers"
MARKS = ("modules.json", "config.json")
"""Either makes a directory a model: that of sentence-transformers, or any of Hugging Face (mean pooled)."""
PARTS = (".json", ".safetensors", ".txt", ".model")
"""Suffixes of the files that a model is made of."""


def identity(encoder: str) -> dict[str, str]:
    """What tells one encoder from another: hashes of a directory's files; the name alone for one on the hub.

    Raises:
        RecbenchError: a path that is no model directory, or no encoder library.
    """
    folder = Path(encoder).expanduser()
    if not folder.is_dir():
        if encoder.startswith((".", "/", "~")) or encoder.count("/") > 1:
            raise _no_model(encoder, "There is no such directory.")
        return {"hub": encoder}
    if not any((folder / name).is_file() for name in MARKS):
        raise _no_model(encoder, f"The directory has neither {' nor '.join(MARKS)}.")
    files = hashes(folder)
    if not any(name.endswith(".safetensors") for name in files):
        raise _no_model(encoder, "It holds no *.safetensors, and recbench reads no pickles.")
    return files


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a model's directory that makes the model: settings, tokenizer, weights."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix in PARTS)
    return {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(files)}


def encode(encoder: str, texts_V: Sequence[str], batch_size: int = 64) -> np.ndarray:
    """One vector a text, (V, A) float32, as the encoder's own pooling and normalisation make it.

    Raises:
        RecbenchError: the library is missing, or the model cannot be loaded.
    """
    model = _load(encoder)
    vectors = model.encode(list(texts_V), batch_size=batch_size, convert_to_numpy=True, show_progress_bar=False)
    return np.asarray(vectors, dtype=np.float32)


def _load(encoder: str) -> Any:
    if importlib.util.find_spec(LIBRARY) is None:
        raise RecbenchError(
            f"Encoder {encoder!r} cannot be used: sentence-transformers is not installed.",
            why="Encoders are an extra; TF-IDF vectors (features.source=text) need nothing.",
            fix="pip install 'recbench[text]'",
        )
    from sentence_transformers import SentenceTransformer

    local = Path(encoder).expanduser()
    try:
        return SentenceTransformer(
            str(local) if local.is_dir() else encoder,
            local_files_only=local.is_dir(),
            model_kwargs={"use_safetensors": True},
            trust_remote_code=False,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise _no_model(encoder, f"It cannot be loaded: {str(error).splitlines()[0]}") from error


def _no_model(encoder: str, why: str) -> RecbenchError:
    return RecbenchError(
        f"{encoder} is no sentence encoder.",
        why=why,
        fix="Name a directory of sentence-transformers or Hugging Face, or a model on the hub.",
        code=Exit.DATA,
    )
