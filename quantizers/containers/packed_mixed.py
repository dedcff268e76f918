"""Units in several formats in the `packed` container (docs/packed.md section 4).

`.parts` says the member of every part; member i has its lines, in order, as `.i.codes` and so on. The order in which
lines of one width lie together thus follows from `.parts`: a stable sort by member.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import BitwrightError, InvalidModel
from bitwright.core.formats import FloatFormat, IntFormat, MixedFormat
from bitwright.core.inventory import Unit
from bitwright.core.mixed_format import INDEX_BITS, cut, index_bits
from gpu_kernels.kernels import pack, unpack
from quantizers.base import Mixed, PassThrough, Quantized
from quantizers.containers.packed_ints import decode_ints, encode_ints

Tensors = Callable[[str], NDArray[Any]]


def encode_mixed(value: Mixed, name: str) -> dict[str, NDArray[Any]]:
    """The arrays of a mixed unit by suffix."""
    choice = np.frombuffer(value.format.choice, np.uint8)
    arrays: dict[str, NDArray[Any]] = {".parts": pack(choice[None, :], INDEX_BITS).reshape(-1)}
    for number, piece in enumerate(value.pieces):
        if not piece.shape[0]:
            continue
        if isinstance(piece, PassThrough):
            arrays[f".{number}"] = piece.array
            continue
        assert isinstance(piece, Quantized)
        stored = encode_ints(piece, name)
        arrays |= {f".{number}{suffix}": array for suffix, array in stored.items() if suffix != ".zeros"}
        if piece.zeros is not None:
            arrays[f".{number}.zeros"] = _pack_bytes(piece.zeros, piece.format.width)
    return arrays


def read_choice(unit: Unit, format: MixedFormat, tensors: Tensors) -> MixedFormat:
    """The format with the choice that is stored for the unit. Raises InvalidModel."""
    try:
        parts = cut(format.granularity, unit.shape, format.members).parts
        words = tensors(f"{unit.name}.parts")
        if words.dtype != np.uint32 or words.shape != (index_bits(parts) // 32,):
            raise ValueError(f"{words.dtype} {words.shape} for {parts} parts")
        return format.chosen(unpack(words.reshape(1, -1), INDEX_BITS, parts).tobytes())
    except (BitwrightError, ValueError) as error:
        raise InvalidModel(f"{unit.name}: its parts cannot be read", got=str(error)[:160]) from error


def decode_mixed(unit: Unit, format: MixedFormat, tensors: Tensors) -> Mixed:
    """The inverse of `encode_mixed`."""
    found, choice = format.cut(unit.shape), format.line_choice(unit.shape)
    pieces: list[Quantized | PassThrough] = []
    for number, member in enumerate(format.members):
        lines, name = int(np.count_nonzero(choice == number)), f"{unit.name}.{number}"
        if isinstance(member, FloatFormat):
            pieces.append(PassThrough(tensors(name), member))
            continue
        assert isinstance(member, IntFormat)
        bare = decode_ints(
            replace(unit, name=name, shape=(lines, found.length)), replace(member, symmetric=True), tensors
        )
        zeros = None
        if not member.symmetric:
            zeros = _unpack_bytes(tensors(f"{name}.zeros"), member.width, member.groups(found.length))
        pieces.append(Quantized(bare.codes, bare.scales, zeros, member))
    return Mixed(tuple(pieces), unit.shape, format)


def _pack_bytes(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Each row as a stream of `bits` a value, padded to whole bytes."""
    words = pack(np.ascontiguousarray(values), bits)
    return np.ascontiguousarray(words.view(np.uint8)[:, : -(-values.shape[1] * bits // 8)])


def _unpack_bytes(stored: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    padded = np.zeros((stored.shape[0], -(-stored.shape[1] // 4) * 4), np.uint8)
    padded[:, : stored.shape[1]] = stored
    return unpack(padded.view(np.uint32), bits, count)
