"""Reading weights: raw arrays by positioned reads, and float32 from every float dtype that safetensors knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidModel
from bitwright.models.files import open_regular
from bitwright.models.safetensors_header import TensorInfo

#: Raw numpy dtype by safetensors dtype; BF16 and the 8-bit floats, which numpy lacks, come as their bits.
RAW = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1", "F8_E4M3": "|u1", "F8_E5M2": "|u1",
}  # fmt: skip


def read_raw(
    info: TensorInfo, index: int | None = None, rows: tuple[int, int] | None = None, *, beneath: Path | None = None
) -> NDArray[Any]:
    """The stored array, or matrix `index` of a stacked one, or [start, stop) of its rows, in its raw dtype.

    Raises InvalidModel when the file has changed since its header was read, IndexError for what is not there.
    """
    shape, start, count = info.shape, info.start, info.elements
    dtype = np.dtype(RAW[info.dtype])
    if index is not None:
        if len(shape) < 2 or not 0 <= index < shape[0]:
            raise IndexError(f"{info.name} has no matrix {index}; its shape is {shape}")
        shape, count = shape[1:], count // shape[0]
        start += index * count * dtype.itemsize
    if rows is not None:
        first, last = rows
        if not shape or not 0 <= first <= last <= shape[0]:
            raise IndexError(f"{info.name} has no rows {first} to {last}; its shape is {info.shape}")
        each = count // shape[0] if shape[0] else 0
        shape, count, start = (last - first, *shape[1:]), (last - first) * each, start + first * each * dtype.itemsize
    with open_regular(info.file, beneath) as file:
        file.seek(start)
        array = np.empty(count, dtype)
        got = file.readinto(array.view(np.uint8).data) if count else 0
    if got != array.nbytes:
        raise InvalidModel(
            f"{info.file.name} ends inside tensor {info.name[:200]}",
            expected=f"{array.nbytes} bytes",
            got=f"{got} bytes",
            hint="the file changed while it was read: leave it alone and start again",
        )
    return array.reshape(shape)


def to_float32(raw: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """float32 values of a raw array of that safetensors dtype; F64 and wide integers are rounded."""
    convert = _CONVERT.get(dtype)
    if convert is not None:
        return convert(raw)
    with np.errstate(over="ignore"):
        values: NDArray[np.float32] = raw.astype(np.float32)
    return values


def _bfloat16(raw: NDArray[Any]) -> NDArray[np.float32]:
    """BF16 is the upper half of a float32."""
    bits: NDArray[np.uint32] = raw.astype(np.uint32) << np.uint32(16)
    return bits.view(np.float32)


def _float8(exponent_bits: int, mantissa_bits: int, infinities: bool) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    def convert(raw: NDArray[Any]) -> NDArray[np.float32]:
        values: NDArray[np.float32] = float8_table(exponent_bits, mantissa_bits, infinities)[raw]
        return values

    return convert


@lru_cache(maxsize=4)
def float8_table(exponent_bits: int, mantissa_bits: int, infinities: bool) -> NDArray[np.float32]:
    """All 256 values of an 8-bit float (OCP 8-bit floating point specification, 2023, section 5).

    infinities: E5M2 follows IEEE 754 (top exponent holds infinity and NaN); E4M3 has only one NaN a sign.
    """
    codes = np.arange(256)
    exponent = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1)
    fraction = (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    bias = (1 << (exponent_bits - 1)) - 1
    scale = 2.0 ** (np.maximum(exponent, 1) - bias)
    values = scale * (fraction + (exponent > 0))
    top = exponent == (1 << exponent_bits) - 1
    if infinities:
        values[top] = np.where(fraction[top] == 0, np.inf, np.nan)
    else:
        values[top & (codes & ((1 << mantissa_bits) - 1) == (1 << mantissa_bits) - 1)] = np.nan
    signed: NDArray[np.float32] = np.where(codes >> 7, -values, values).astype(np.float32)
    return signed


_CONVERT: Mapping[str, Callable[[NDArray[Any]], NDArray[np.float32]]] = {
    "BF16": _bfloat16,
    "F8_E4M3": _float8(4, 3, infinities=False),
    "F8_E5M2": _float8(5, 2, infinities=True),
}


#: Infinity's bits, by dtype: NaN and infinity have these or more behind the sign, every finite number less.
_INFINITY = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000}
#: Numbers looked at together, so that the second look finds them in the cache.
_LOOK = 1 << 17


def _reaches(raw: NDArray[Any], infinity: int) -> bool:
    """Whether any number's bits reach infinity's: positive ones as signed integers, negative ones as unsigned."""
    flat = np.ascontiguousarray(raw).reshape(-1)
    signed: NDArray[Any] = flat.view(np.int16 if raw.dtype.itemsize == 2 else np.int32)
    negative = signed.view(np.uint16 if raw.dtype.itemsize == 2 else np.uint32)
    sign = 1 << (8 * raw.dtype.itemsize - 1)
    return any(
        int(signed[at : at + _LOOK].max()) >= infinity or int(negative[at : at + _LOOK].max()) >= infinity + sign
        for at in range(0, flat.size, _LOOK)
    )


def check_stored(name: str, raw: NDArray[Any], dtype: str) -> None:
    """`check_finite` of an array as `read_raw` gives it: 8-bit floats and BF16, which come as bits, included."""
    if dtype in _INFINITY and not _reaches(raw, _INFINITY[dtype]):
        return
    check_finite(name, raw if dtype not in _CONVERT else to_float32(raw, dtype))


def check_finite(name: str, array: NDArray[Any]) -> None:
    """Raises InvalidModel when weights hold NaN or infinity, saying how many and where the first one is."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    bad = ~np.isfinite(array)
    first = tuple(int(i[0]) for i in np.nonzero(bad))
    raise InvalidModel(
        f"tensor {name[:200]} holds values that are not finite",
        expected="finite weights",
        got=f"{int(bad.sum())} NaN or infinite values, the first at {list(first)}",
        hint="the checkpoint is damaged or its training diverged: use another one",
        tensor=name[:1024],
    )
