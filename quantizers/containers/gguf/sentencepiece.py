"""SentencePiece's own file, tokenizer.model: pieces, scores and types, read from the protocol buffer by a few lines.

Fields (sentencepiece_model.proto): ModelProto 1 = pieces (1 text, 2 score, 3 type), 2 = trainer (3 kind: 1 unigram,
2 BPE), 3 = normalizer (3 add_dummy_prefix, 4 remove_extra_whitespaces). Piece types are the numbers that GGUF uses.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from bitwright.core.errors import InvalidModel, Unsupported

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_MAX_PIECES = 4_000_000
_BPE_KIND = 2
_TYPES = range(1, 7)


@dataclass(frozen=True)
class Pieces:
    """Pieces by id, their scores and types; dummy_prefix: whether a text gets a space before its first word."""

    texts: list[str]
    scores: list[float]
    types: list[int]
    dummy_prefix: bool


def read_pieces(data: bytes) -> Pieces:
    """Raises InvalidModel for a broken file, Unsupported for a unigram model, which llama.cpp splits otherwise."""
    texts, scores, types = [], [], []
    kind, prefix = 1, True
    try:
        for number, value in _fields(data):
            if number == 1 and isinstance(value, bytes):
                piece = dict(_fields(value))
                texts.append(_text(piece.get(1, b"")))
                scores.append(float(piece.get(2, 0.0)))
                types.append(int(piece.get(3, 1)))
            elif number == 2 and isinstance(value, bytes):
                kind = int(dict(_fields(value)).get(3, 1))
            elif number == 3 and isinstance(value, bytes):
                prefix = bool(dict(_fields(value)).get(3, 1))
            if len(texts) > _MAX_PIECES:
                raise ValueError("too many pieces")
    except (ValueError, TypeError, IndexError, struct.error) as error:
        raise InvalidModel(
            "tokenizer.model cannot be read", expected="a SentencePiece model", got=str(error)[:80]
        ) from (error)
    if not texts or any(number not in _TYPES for number in types):
        raise InvalidModel(
            "tokenizer.model cannot be read", expected="pieces of known types", got=f"{len(texts)} pieces"
        )
    if kind != _BPE_KIND:
        raise Unsupported(
            "llama.cpp splits by merges, this SentencePiece model does not", expected="BPE", got=f"model type {kind}",
            hint="use another container",
        )  # fmt: skip
    return Pieces(texts, scores, types, prefix)


def _text(value: int | float | bytes) -> str:
    if not isinstance(value, bytes):
        raise ValueError("a piece without text")
    return value.decode("utf-8")


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """(field number, value) of a message: varints, floats and byte strings; eight-byte numbers are passed over."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
        elif wire == _FOUR:
            (single,) = struct.unpack_from("<f", data, at)
            at += 4
            yield number, single
        elif wire == _BYTES:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field is longer than the file")
            yield number, data[at : at + size]
            at += size
        elif wire == _EIGHT:
            at += 8
        else:
            raise ValueError(f"wire type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number does not end")
