"""The tokenizer of a GGUF file as tokenizer.json, where its kind and splitting rule are known by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bitwright.core.errors import InvalidModel

#: Splitting rules by llama.cpp's names (the tokenizer.json files of the models that they are named after).
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_PATTERNS = {"llama-bpe": _WORDS + r"\p{N}{1,3}" + _REST, "qwen2": _WORDS + r"\p{N}" + _REST}
_UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 2, 3, 4, 5, 6
#: SentencePiece's mark of a space.
SPACE = "\u2581"
#: Longest token whose ways to be merged are listed.
_LONGEST = 512


def tokenizer_files(metadata: Mapping[str, Any]) -> dict[str, str]:
    """tokenizer.json and tokenizer_config.json by name; empty for kinds that are not rebuilt.

    Raises InvalidModel for lists of tokens, types and scores that do not fit one another.
    """
    tokens = metadata.get("tokenizer.ggml.tokens")
    build = _BUILDERS.get(str(metadata.get("tokenizer.ggml.model")))
    if build is None or not isinstance(tokens, list):
        return {}
    if not all(isinstance(token, str) for token in tokens):
        raise InvalidModel("tokenizer.ggml.tokens is wrong", expected="texts", got="a list of something else")
    kinds = _column(metadata, "token_type", len(tokens), int) or [1] * len(tokens)
    document = build(metadata, tokens, kinds)
    if document is None:
        return {}
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for role, key in _ROLES.items():
        number = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if type(number) is int and 0 <= number < len(tokens):
            settings[f"{role}_token"] = tokens[number]
    for role in ("bos", "eos"):
        flag = metadata.get(f"tokenizer.ggml.add_{role}_token")
        if isinstance(flag, bool):
            settings[f"add_{role}_token"] = flag
    if build is _word_piece:
        settings |= {f"{name.lower()[1:-1]}_token": name for name in _MARKS if name in tokens}
    if isinstance(metadata.get("tokenizer.chat_template"), str):
        settings["chat_template"] = metadata["tokenizer.chat_template"]
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": _added(tokens, kinds)}
    return {
        "tokenizer.json": json.dumps({**head, **document}, ensure_ascii=False),
        "tokenizer_config.json": json.dumps(settings, ensure_ascii=False),
    }


def _column(metadata: Mapping[str, Any], key: str, count: int, kind: type) -> list[Any] | None:
    """A list beside the tokens, or None where there is none. Raises InvalidModel for one of another length."""
    found = metadata.get(f"tokenizer.ggml.{key}")
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != count or not all(type(value) is kind for value in found):
        raise InvalidModel(f"tokenizer.ggml.{key} is wrong", expected=f"{count} numbers", got="another list")
    return found


def _added(tokens: Sequence[str], kinds: Sequence[int]) -> list[dict[str, Any]]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": i, "content": token, **plain, "special": kind != _USER}
        for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_CONTROL, _USER, _UNKNOWN)
    ]


def _vocabulary(tokens: Sequence[str], kinds: Sequence[int]) -> dict[str, int]:
    return {t: i for i, (t, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind not in (_UNUSED, _USER)}


def _template(metadata: Mapping[str, Any], tokens: Sequence[str], begin: bool, end: bool) -> dict[str, Any] | None:
    """The post-processor that adds the first and last token, unless the file says otherwise than `begin` and `end`."""
    pieces: list[dict[str, Any]] = [{"Sequence": {"id": "A", "type_id": 0}}]
    names: dict[str, Any] = {}
    for role, default in (("bos", begin), ("eos", end)):
        number = metadata.get(f"tokenizer.ggml.{role}_token_id")
        if metadata.get(f"tokenizer.ggml.add_{role}_token", default) is not True or type(number) is not int:
            continue
        if 0 <= number < len(tokens):
            token = tokens[number]
            names[token] = {"id": token, "ids": [number], "tokens": [token]}
            pieces.insert(0 if role == "bos" else len(pieces), {"SpecialToken": {"id": token, "type_id": 0}})
    if not names:
        return None
    second = [{"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": pieces, "pair": pieces + second, "special_tokens": names}


def _byte_level(metadata: Mapping[str, Any], tokens: Sequence[str], kinds: Sequence[int]) -> dict[str, Any] | None:
    pre = metadata.get("tokenizer.ggml.pre")
    if pre != "gpt-2" and pre not in PRE_PATTERNS:
        return None
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": pre == "gpt-2"}
    split = {"type": "Split", "pattern": {"Regex": PRE_PATTERNS.get(str(pre))}, "behavior": "Isolated", "invert": False}
    merges = [str(merge).split(" ") for merge in metadata.get("tokenizer.ggml.merges") or []]
    return {
        "normalizer": None,
        "pre_tokenizer": level if pre == "gpt-2" else {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": _template(metadata, tokens, False, False),
        "decoder": {**level, "add_prefix_space": True, "use_regex": True},
        "model": {**_BPE, "byte_fallback": False, "vocab": _vocabulary(tokens, kinds), "merges": merges},
    }


def _sentence_piece(metadata: Mapping[str, Any], tokens: Sequence[str], kinds: Sequence[int]) -> dict[str, Any] | None:
    """BPE by scores. Of two pairs that can be merged SentencePiece takes the one whose product has the higher score, so
    the merges are all ways to put a token together from two, in falling order of the token's score."""
    scores = _column(metadata, "scores", len(tokens), float)
    if scores is None:
        return None
    usable = {t: i for i, (t, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == 1}
    order = sorted((t for t in usable if 1 < len(t) <= _LONGEST), key=lambda t: (-scores[usable[t]], usable[t]))
    merges = [[t[:i], t[i:]] for t in order for i in range(1, len(t)) if t[:i] in usable and t[i:] in usable]
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True) is True
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    unknown = next((t for t, kind in zip(tokens, kinds, strict=True) if kind == _UNKNOWN), None)
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*([{"type": "Prepend", "prepend": SPACE}] if prefix else []), replace],
        },
        "pre_tokenizer": None,
        "post_processor": _template(metadata, tokens, True, False),
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": {
            **_BPE, "unk_token": unknown, "fuse_unk": True, "byte_fallback": _BYTE in kinds,
            "vocab": _vocabulary(tokens, kinds), "merges": merges,
        },
    }  # fmt: skip


def _word_piece(metadata: Mapping[str, Any], tokens: Sequence[str], kinds: Sequence[int]) -> dict[str, Any] | None:
    """Words bear the space mark there and parts ## here; names in brackets are neither."""
    words = {_word(t, kind): i for i, (t, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind != _UNUSED}
    if not {"[CLS]", "[SEP]", "[UNK]"} <= words.keys():
        return None
    first, last = ({"SpecialToken": {"id": token, "type_id": kind}} for token, kind in (("[CLS]", 0), ("[SEP]", 0)))
    text: list[dict[str, Any]] = [{"Sequence": {"id": name, "type_id": kind}} for name, kind in (("A", 0), ("B", 1))]
    pair = [first, text[0], last, text[1], {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    names = {t: {"id": t, "ids": [words[t]], "tokens": [t]} for t in ("[CLS]", "[SEP]")}
    return {
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing", "single": [first, text[0], last], "pair": pair, "special_tokens": names,
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": words,
        },
    }  # fmt: skip


def _word(token: str, kind: int) -> str:
    if kind in (_CONTROL, _USER, _UNKNOWN) or (token.startswith("[") and token.endswith("]")):
        return token
    return token[1:] if token.startswith(SPACE) else f"##{token}"


_BPE: Mapping[str, Any] = {
    "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
    "fuse_unk": False, "ignore_merges": False,
}  # fmt: skip
_ROLES = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown", "sep": "seperator", "mask": "mask"}
_MARKS = ("[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]")
_Builder = Callable[[Mapping[str, Any], Sequence[str], Sequence[int]], dict[str, Any] | None]
_BUILDERS: Mapping[str, _Builder] = {"gpt2": _byte_level, "llama": _sentence_piece, "bert": _word_piece}
