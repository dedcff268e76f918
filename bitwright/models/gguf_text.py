"""The tokenizer of a GGUF file as tokenizer.json, where its kind and splitting rule are known by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: Splitting rules by llama.cpp's names (the tokenizer.json files of the models that they are named after).
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_PATTERNS = {"llama-bpe": _WORDS + r"\p{N}{1,3}" + _REST, "qwen2": _WORDS + r"\p{N}" + _REST}
_CONTROL, _USER, _UNUSED = 3, 4, 5


def tokenizer_files(metadata: Mapping[str, Any]) -> dict[str, str]:
    """tokenizer.json and tokenizer_config.json by name; empty for kinds that are not rebuilt."""
    tokens, types = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
    merges, pre = metadata.get("tokenizer.ggml.merges"), metadata.get("tokenizer.ggml.pre")
    known = pre == "gpt-2" or pre in PRE_PATTERNS
    if metadata.get("tokenizer.ggml.model") != "gpt2" or not known or not isinstance(tokens, list):
        return {}
    kinds = types if isinstance(types, list) and len(types) == len(tokens) else [1] * len(tokens)
    vocabulary = {t: i for i, (t, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind not in (_UNUSED, _USER)}
    added = [
        {
            "id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": kind == _CONTROL,
        }
        for i, (t, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_CONTROL, _USER)
    ]  # fmt: skip
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": pre == "gpt-2"}
    split = {"type": "Split", "pattern": {"Regex": PRE_PATTERNS.get(str(pre))}, "behavior": "Isolated", "invert": False}
    document = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": level if pre == "gpt-2" else {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": None, "decoder": {**level, "add_prefix_space": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocabulary, "merges": [merge.split(" ") for merge in merges or []],
        },
    }  # fmt: skip
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for role, key in (("bos", "bos_token_id"), ("eos", "eos_token_id"), ("pad", "padding_token_id")):
        number = metadata.get(f"tokenizer.ggml.{key}")
        if type(number) is int and 0 <= number < len(tokens):
            settings[f"{role}_token"] = tokens[number]
    return {
        "tokenizer.json": json.dumps(document, ensure_ascii=False),
        "tokenizer_config.json": json.dumps(settings, ensure_ascii=False),
    }
