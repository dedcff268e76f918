"""Texts to token ids with the model's own tokenizer, from its directory, offline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, OutOfResources
from bitwright.core.inventory import Inventory
from bitwright.models import ModelSource
from sensitivity.data import SEQUENCE_TOKENS, Data
from sensitivity.memory import ran_out
from sensitivity.quiet import quiet

#: Sentences are cut here: sentence models are made for short texts, and most of a batch would be padding.
SENTENCE_TOKENS = 128
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


def context_length(source: ModelSource) -> int | None:
    """The longest sequence that the model takes, as its config says, or None."""
    nested = source.config.get("text_config")
    for config in (source.config, nested if isinstance(nested, dict) else {}):
        for key in _CONTEXT_KEYS:
            value = config.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def vocabulary_size(source: ModelSource) -> int | None:
    value = source.config.get("vocab_size")
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def sequence_length(source: ModelSource, tokens: int) -> int:
    """256, or the context, or the tokens wanted, whichever is least."""
    return max(1, min(SEQUENCE_TOKENS, context_length(source) or SEQUENCE_TOKENS, tokens))


def load_tokenizer(source: ModelSource) -> Any:
    """The tokenizer beside the model. Raises InvalidCalibration when there is none that can be used."""
    folder = source.path if source.path.is_dir() else source.path.parent
    hint = (
        "give token ids instead (--calibration FILE.npy with input_ids), or use --metric weight-mse, which needs none"
    )
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "tokenizer.model", "vocab.json")):
        raise InvalidCalibration(
            "the model's directory has no tokenizer", expected="tokenizer.json beside config.json",
            got=f"none in {folder.name}", hint=hint,
        )  # fmt: skip
    from transformers import AutoTokenizer

    quiet()
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exception for malformed files
        if ran_out(error):
            raise OutOfResources(
                "memory ran out while reading the tokenizer",
                hint="give the process more memory, or use --metric weight-mse, which reads no text and runs no model",
            ) from error
        raise InvalidCalibration(
            "the model's tokenizer cannot be read", got=f"{type(error).__name__}: {str(error)[:160]}", hint=hint
        ) from error


def token_blocks(texts: Sequence[str], source: ModelSource, *, length: int) -> NDArray[np.int64]:
    """int64 (blocks, length): the texts one after the other, cut into whole blocks; the rest is dropped."""
    tokenizer = load_tokenizer(source)
    encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    separator = [tokenizer.eos_token_id] if len(texts) > 1 and tokenizer.eos_token_id is not None else []
    stream = np.array([token for ids in encoded for token in (*separator, *ids)], np.int64)
    return blocks(stream, length)


def blocks(stream: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """(blocks, length) from one stream of ids."""
    count = len(stream) // length
    return np.ascontiguousarray(stream[: count * length].reshape(count, length))


def sentence_data(texts: Sequence[str], source: ModelSource) -> Data:
    """Padded sentences, each cut to SENTENCE_TOKENS (or the context)."""
    tokenizer = load_tokenizer(source)
    limit = min(SENTENCE_TOKENS, context_length(source) or SENTENCE_TOKENS)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    encoded = tokenizer(list(texts), truncation=True, max_length=limit, padding=True, return_tensors="np")
    names = [n for n in ("input_ids", "attention_mask", "token_type_ids") if n in encoded]
    data = Data("sentences", {name: np.asarray(encoded[name], np.int64) for name in names})
    return data.take(np.flatnonzero(data.inputs["attention_mask"].sum(axis=1) > 0))


def check_tokens(data: Data, source: ModelSource, inventory: Inventory) -> None:
    """Raises InvalidCalibration for ids outside the vocabulary and sequences longer than the context."""
    ids = data.inputs.get("input_ids")
    if ids is None or not ids.size:
        return
    size, context = vocabulary_size(source), context_length(source)
    if ids.min() < 0 or (size is not None and ids.max() >= size):
        raise InvalidCalibration(
            "the calibration data holds tokens outside the model's vocabulary",
            expected=f"ids from 0 to {size - 1 if size else '...'}",
            got=f"ids from {ids.min()} to {ids.max()}",
            hint=f"tokenize with the tokenizer of {inventory.architecture}",
        )
    if context is not None and ids.shape[1] > context:
        raise InvalidCalibration(
            "a sequence is longer than the model's context", expected=f"at most {context} tokens",
            got=f"{ids.shape[1]} tokens", hint="cut the sequences",
        )  # fmt: skip
