"""The tokenizer inside a GGUF file, from tokenizer.json and tokenizer_config.json.

Three kinds, as llama.cpp has them: `gpt2` (byte-level BPE), `llama` (BPE with byte fallback, SentencePiece's form) and
`bert` (WordPiece). Where there is no tokenizer.json, SentencePiece's own tokenizer.model is read. A splitting rule that
llama.cpp does not know by name is refused: it would split otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.models.gguf_text import PRE_PATTERNS, SPACE
from quantizers.containers.gguf.layout import Value
from quantizers.containers.gguf.sentencepiece import read_pieces

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
#: Names of splitting rules by their regular expression (Split + ByteLevel).
PRE_BY_PATTERN = {pattern: name for name, pattern in PRE_PATTERNS.items()}
_MAX_BYTES = 64 << 20
_SPECIAL = {
    "bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "pad": "padding_token_id",
    "sep": "seperator_token_id", "mask": "mask_token_id",
}  # fmt: skip


def tokenizer_metadata(folder: Path, config: Mapping[str, Any]) -> dict[str, Value]:
    """Keys `tokenizer.*`. A folder without any tokenizer gives `none`: the file then loads, but takes token ids only.

    Raises InvalidModel for a broken or missing tokenizer.json, Unsupported for a tokenizer that llama.cpp has not.
    """
    file, pieces = folder / "tokenizer.json", folder / "tokenizer.model"
    if not file.is_file() and pieces.is_file():
        return _from_pieces(folder, pieces, config)
    if not file.is_file():
        others = [n for n in ("vocab.json", "vocab.txt", "spiece.model") if (folder / n).is_file()]
        if others:
            raise InvalidModel(
                "the model has a tokenizer, but no tokenizer.json", expected="tokenizer.json", got=", ".join(others),
                hint="load it with transformers' AutoTokenizer and save_pretrained",
            )  # fmt: skip
        return {"tokenizer.ggml.model": Value("string", "none")}
    data, settings = _read(file), _read(folder / "tokenizer_config.json")
    try:
        tokens, types = _tokens(data, int(config["vocab_size"]))
        kind = _kind(data)
        found = _KINDS[kind](data, tokens, types)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InvalidModel(
            "tokenizer.json cannot be read", expected="a file of the tokenizers library", got=repr(error)[:120]
        ) from error
    added = {} if kind == "bert" else _added_ends(data, tokens)
    return {**added, **found, **_special(tokens, settings, config), **_template(folder, settings)}


def _from_pieces(folder: Path, file: Path, config: Mapping[str, Any]) -> dict[str, Value]:
    """SentencePiece's own file, with the tokens that were added beside it. Its BOS is added unless settings say no."""
    if file.stat().st_size > _MAX_BYTES:
        raise InvalidModel(f"{file.name} is too large", expected=f"at most {_MAX_BYTES} bytes")
    pieces, settings = read_pieces(file.read_bytes()), _read(folder / "tokenizer_config.json")
    added = {number: (token, USER) for token, number in _read(folder / "added_tokens.json").items()}
    for number, row in dict(settings.get("added_tokens_decoder") or {}).items():
        if isinstance(row, dict) and str(number).isdecimal():
            added[int(number)] = (str(row.get("content")), CONTROL if row.get("special") else USER)
    size = int(config["vocab_size"])
    rows = dict(enumerate(zip(pieces.texts, pieces.types, strict=True)))
    rows |= {number: row for number, row in added.items() if number not in rows}
    if max(rows, default=-1) >= size:
        raise InvalidModel(
            "the tokenizer has more tokens than the model", expected=f"ids below vocab_size {size}", got=str(max(rows))
        )
    whole = [rows.get(i, (f"[PAD{i}]", UNUSED)) for i in range(size)]
    tokens = [token for token, _ in whole]
    scores = [*pieces.scores, *[-1e4] * (size - len(pieces.scores))]
    ends = {f"tokenizer.ggml.add_{role}_token": Value("bool", role == "bos") for role in ("bos", "eos")}
    return {
        "tokenizer.ggml.model": Value("string", "llama"),
        "tokenizer.ggml.pre": Value("string", "default"),
        "tokenizer.ggml.tokens": Value("string[]", tokens),
        "tokenizer.ggml.scores": Value("f32[]", scores),
        "tokenizer.ggml.token_type": Value("i32[]", [kind for _, kind in whole]),
        "tokenizer.ggml.add_space_prefix": Value("bool", pieces.dummy_prefix),
        **ends,
        **_special(tokens, settings, config),
        **_template(folder, settings),
    }


def _added_ends(data: Mapping[str, Any], tokens: list[str]) -> dict[str, Value]:
    """Whether the tokenizer puts a token before and after a text, which llama.cpp otherwise guesses by its kind."""
    rule = data.get("post_processor") or {}
    rows = rule.get("processors", [rule])
    pieces: list[Any] = next((row["single"] for row in rows if row.get("type") == "TemplateProcessing"), [])
    kinds = ["SpecialToken" in piece for piece in pieces] or [False]
    flags = {"bos": kinds[0], "eos": len(kinds) > 1 and kinds[-1]}
    return {f"tokenizer.ggml.add_{role}_token": Value("bool", flag) for role, flag in flags.items()}


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    if file.stat().st_size > _MAX_BYTES:
        raise InvalidModel(
            f"{file.name} is too large", expected=f"at most {_MAX_BYTES} bytes", got=str(file.stat().st_size)
        )
    try:
        data = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{file.name} is not JSON", got=str(error)[:120]) from error
    if not isinstance(data, dict):
        raise InvalidModel(f"{file.name} is not a JSON object", got=type(data).__name__)
    return data


def _tokens(data: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Tokens by id and their types; ids that nobody uses are named [PADn]."""
    vocabulary = {str(token): int(number) for token, number in data["model"]["vocab"].items()}
    added = {str(row["content"]): row for row in data.get("added_tokens") or []}
    vocabulary |= {token: int(row["id"]) for token, row in added.items()}
    if max(vocabulary.values(), default=-1) >= size or min(vocabulary.values(), default=0) < 0:
        raise InvalidModel(
            "the tokenizer has more tokens than the model", expected=f"ids below vocab_size {size}",
            got=f"{max(vocabulary.values(), default=-1)}", hint="the tokenizer belongs to another model",
        )  # fmt: skip
    tokens, types = [f"[PAD{i}]" for i in range(size)], [UNUSED] * size
    unknown = data["model"].get("unk_token")
    for token, number in vocabulary.items():
        tokens[number] = token
        row = added.get(token)
        types[number] = NORMAL if row is None else CONTROL if row.get("special") else USER
        if token == unknown and row is None:
            types[number] = UNKNOWN
    return tokens, types


def _kind(data: Mapping[str, Any]) -> str:
    model = data["model"]
    if model["type"] == "WordPiece":
        return "bert"
    if model["type"] == "BPE":
        return "llama" if model.get("byte_fallback") else "gpt2"
    raise Unsupported("llama.cpp has no such tokenizer here", expected="BPE or WordPiece", got=str(model["type"])[:40])


def _byte_level(data: Mapping[str, Any], tokens: list[str], types: list[int]) -> dict[str, Value]:
    return {
        "tokenizer.ggml.model": Value("string", "gpt2"),
        "tokenizer.ggml.pre": Value("string", _pre(data)),
        "tokenizer.ggml.tokens": Value("string[]", tokens),
        "tokenizer.ggml.token_type": Value("i32[]", types),
        "tokenizer.ggml.merges": Value("string[]", [" ".join(pair) for pair in _merges(data)]),
    }


def _merges(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = data["model"]["merges"]
    pairs = [tuple(row.split(" ")) if isinstance(row, str) else tuple(row) for row in rows]
    return [(str(a), str(b)) for a, b in pairs]


def _pre(data: Mapping[str, Any]) -> str:
    """llama.cpp's name of the splitting rule. Raises Unsupported for one that it has no name for here."""
    rule = data.get("pre_tokenizer") or {}
    rows = rule.get("pretokenizers", [rule])
    if [row.get("type") for row in rows] == ["ByteLevel"] and rows[0].get("use_regex", True):
        return "gpt-2"
    patterns = [row["pattern"].get("Regex") for row in rows if row.get("type") == "Split"]
    if len(patterns) == 1 and patterns[0] in PRE_BY_PATTERN:
        return PRE_BY_PATTERN[patterns[0]]
    raise Unsupported(
        "llama.cpp has no name for this tokenizer's splitting rule here",
        expected=f"GPT-2's ByteLevel rule, or that of {', '.join(PRE_BY_PATTERN.values())}",
        got=json.dumps(rule)[:200], hint="use another container",
    )  # fmt: skip


def _byte_fallback(data: Mapping[str, Any], tokens: list[str], types: list[int]) -> dict[str, Value]:
    """SentencePiece's form. Scores: minus the rank of the merge that makes a token, which orders merges as BPE does."""
    rank: dict[str, int] = {}
    for position, (a, b) in enumerate(_merges(data)):
        rank.setdefault(a + b, position)
    for number, token in enumerate(tokens):
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            types[number] = BYTE
    steps = (data.get("normalizer") or {}).get("normalizers") or [data.get("normalizer") or {}]
    steps = [*steps, data.get("pre_tokenizer") or {}]
    prefix = any(step.get("type") == "Prepend" or step.get("prepend_scheme") in ("always", "first") for step in steps)
    unknown = data["model"].get("unk_token")
    types = [UNKNOWN if token == unknown else kind for token, kind in zip(tokens, types, strict=True)]
    return {
        "tokenizer.ggml.model": Value("string", "llama"),
        "tokenizer.ggml.pre": Value("string", "default"),
        "tokenizer.ggml.tokens": Value("string[]", tokens),
        "tokenizer.ggml.scores": Value("f32[]", [-float(rank.get(token, len(rank))) for token in tokens]),
        "tokenizer.ggml.token_type": Value("i32[]", types),
        "tokenizer.ggml.add_space_prefix": Value("bool", prefix),
    }


def _word_piece(data: Mapping[str, Any], tokens: list[str], types: list[int]) -> dict[str, Value]:
    """Words begin with the space mark and parts bear none, the other way round than ## does it."""
    if not (data.get("normalizer") or {}).get("lowercase", True):
        raise Unsupported(
            "llama.cpp lower-cases every WordPiece text", expected="an uncased tokenizer", got="a cased one"
        )
    words = [
        token if kind in (CONTROL, UNUSED) else token[2:] if token.startswith("##") else SPACE + token
        for token, kind in zip(tokens, types, strict=True)
    ]
    return {
        "tokenizer.ggml.model": Value("string", "bert"),
        "tokenizer.ggml.tokens": Value("string[]", words),
        "tokenizer.ggml.token_type": Value("i32[]", types),
        "tokenizer.ggml.token_type_count": Value("u32", 2),
    }


_KINDS = {"gpt2": _byte_level, "llama": _byte_fallback, "bert": _word_piece}


def _special(tokens: list[str], settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Value]:
    """Ids of special tokens: as tokenizer_config.json names them, else as config.json numbers them."""
    number = {token: i for i, token in enumerate(tokens)}
    found: dict[str, Value] = {}
    aliases = {"bos": ("bos", "cls"), "eos": ("eos", "sep")}
    for role, key in _SPECIAL.items():
        for name in aliases.get(role, (role,)):
            token = settings.get(f"{name}_token")
            text = token.get("content") if isinstance(token, dict) else token
            given = config.get(f"{name}_token_id")
            given = given[0] if isinstance(given, list) and given else given
            chosen = number.get(text) if isinstance(text, str) else given
            if type(chosen) is int and 0 <= chosen < len(tokens):
                found[f"tokenizer.ggml.{key}"] = Value("u32", chosen)
                break
    for role in ("bos", "eos"):
        flag = settings.get(f"add_{role}_token")
        if isinstance(flag, bool):
            found[f"tokenizer.ggml.add_{role}_token"] = Value("bool", flag)
    return found


def _template(folder: Path, settings: Mapping[str, Any]) -> dict[str, Value]:
    template = settings.get("chat_template")
    file = folder / "chat_template.jinja"
    if template is None and file.is_file() and file.stat().st_size <= 1 << 20:
        template = file.read_text("utf-8", errors="replace")
    return {"tokenizer.chat_template": Value("string", template)} if isinstance(template, str) else {}
