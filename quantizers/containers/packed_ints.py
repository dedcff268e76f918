"""Integer codes in the `packed` container: codes along the inputs, zero points along the outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.formats import IntFormat
from bitwright.core.inventory import Unit
from gpu_kernels.kernels import pack, unpack, widen
from gpu_kernels.radix import pack_radix, unpack_radix
from quantizers.base import Quantized, float32_to_bf16


def encode_ints(value: Quantized, name: str) -> dict[str, NDArray[Any]]:
    """`.codes`, `.scales` and `.zeros` of an integer format, by suffix."""
    format, scales, zeros = value.format, value.scales, value.zeros
    if format.tensor:
        if scales.size and not ((scales == scales[:1]).all() and (zeros is None or (zeros == zeros[:1]).all())):
            raise Unsupported(f"{name}: {format.name} holds one scale for all rows", got="several")
        scales, zeros = scales[:1], None if zeros is None else zeros[:1]
    codes = pack_radix(value.codes, format.levels) if format.per_word else value.words
    arrays: dict[str, NDArray[Any]] = {".codes": codes}
    arrays[".scales"] = float32_to_bf16(scales) if format.scale == "BF16" else scales
    if zeros is not None:
        arrays[".zeros"] = pack(np.ascontiguousarray(zeros.T), format.width)
    return arrays


def decode_ints(unit: Unit, format: IntFormat, tensors: Callable[[str], NDArray[Any]]) -> Quantized:
    """The inverse of `encode_ints`. Raises InvalidModel for codes that the format has not."""
    rows, columns = unit.shape
    words = tensors(f"{unit.name}.codes")
    scales, zeros = tensors(f"{unit.name}.scales"), None
    if not format.symmetric:
        count = min(rows, 1) if format.tensor else rows
        zeros = np.ascontiguousarray(unpack(tensors(f"{unit.name}.zeros"), format.width, count).T)
    if format.scale == "BF16":
        scales = widen(scales)
    if format.tensor:
        scales = np.repeat(scales, rows, axis=0)
        zeros = None if zeros is None else np.repeat(zeros, rows, axis=0)
    if format.levels == 1 << format.width:
        return Quantized.packed(words, columns, scales, zeros, format)
    codes = unpack_radix(words, format.levels, columns) if format.per_word else unpack(words, format.width, columns)
    for found in (codes, zeros):
        if found is not None and found.size and int(found.max()) > format.top:
            raise InvalidModel(
                f"{unit.name}: a code is out of range", expected=f"up to {format.top}", got=str(found.max())
            )
    return Quantized(codes, scales, zeros, format)
