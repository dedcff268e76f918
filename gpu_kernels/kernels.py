"""The kernels that the rest of bitwright calls: native where it was built, numpy otherwise, the same bytes.

fast: 1 for the best that the processor has, 2 for AVX2 at most, 0 for the scalar build.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidInput
from gpu_kernels import reference, reference_quantize
from gpu_kernels.library import library
from gpu_kernels.reference import words
from gpu_kernels.threads import over_rows

_TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.uint16): 2}
#: What `rtn_rows` reports instead of codes.
NOT_FINITE, SCALE_TOO_LARGE = 1, 2


def pack(codes: NDArray[np.uint8], bits: int, *, fast: int = 1) -> NDArray[np.uint32]:
    """See reference.pack."""
    native = library()
    if native is None or codes.ndim != 2 or codes.dtype != np.uint8 or not 1 <= bits <= 8 or codes.size == 0:
        return reference.pack(codes, bits)
    codes = _dense(codes)
    rows, columns = codes.shape
    out = np.empty((rows, words(columns, bits)), dtype=np.uint32)
    if native.bw_pack(codes.ctypes.data, rows, columns, bits, out.ctypes.data, out.shape[1] * 4, fast):
        raise InvalidInput("a code does not fit its width", expected=f"codes below {1 << bits}", got=str(codes.max()))
    return out


def unpack(packed: NDArray[np.uint32], bits: int, columns: int, *, fast: int = 1) -> NDArray[np.uint8]:
    """See reference.unpack."""
    native = library()
    if native is None or not _are_words(packed, bits, columns) or packed.size == 0:
        return reference.unpack(packed, bits, columns)
    packed = _dense(packed)
    out = np.empty((packed.shape[0], columns), dtype=np.uint8)
    native.bw_unpack(packed.ctypes.data, packed.shape[0], columns, bits, out.ctypes.data, packed.shape[1] * 4, fast)
    return out


def quantize_pack(
    values: NDArray[Any],
    inverse: NDArray[np.float32],
    zero: NDArray[np.float32],
    bits: int,
    group: int,
    *,
    fast: int = 1,
) -> NDArray[np.uint32]:
    """Codes clip(rint(x * inverse) + zero) of (rows, columns) values, packed, in one pass.

    values: float32, float16, or uint16 holding bfloat16 bits. inverse, zero: float32 (rows, ceil(columns / group)).
    NaN gives the top code. Zero points are whole numbers. Raises InvalidInput.
    """
    rows, columns = _check_values(values, bits, group)
    for parameters in (inverse, zero):
        _check_parameters(parameters, rows, columns, group, (np.float32,))
    if not np.array_equal(zero, np.rint(zero)):  # a fraction would be rounded here and cut off there
        raise InvalidInput(
            "zero points are whole numbers",
            expected="finite float32 without a fraction",
            got="a fraction, NaN or infinity",
        )
    native = library()
    if native is None or values.size == 0:
        return reference_quantize.quantize_pack(values, inverse, zero, bits, group)
    values, inverse, zero = (_dense(a) for a in (values, inverse, zero))
    out = np.empty((rows, words(columns, bits)), dtype=np.uint32)
    native.bw_quantize(
        values.ctypes.data, _TYPES[values.dtype], rows, columns, group, bits, inverse.ctypes.data, zero.ctypes.data,
        out.ctypes.data, out.shape[1] * 4, fast,
    )  # fmt: skip
    return out


def unpack_dequantize(
    packed: NDArray[np.uint32],
    scales: NDArray[np.float16],
    zeros: NDArray[np.uint8] | None,
    bits: int,
    group: int,
    columns: int,
    *,
    fast: int = 1,
) -> NDArray[np.float32]:
    """float32 (rows, columns) weights (code - zero) * scale from words, float16 scales, and zero points or None."""
    if not _are_words(packed, bits, columns) or group < 1:
        raise InvalidInput(
            "packed codes do not fit",
            expected=f"32-bit words (rows, ceil({columns} * bits / 32)), 1 to 8 bits, groups of at least 1",
            got=f"{packed.dtype} {packed.shape}, {bits} bits, groups of {group}",
        )
    _check_parameters(scales, packed.shape[0], columns, group, (np.float16,))
    if zeros is not None:
        _check_parameters(zeros, packed.shape[0], columns, group, (np.uint8,))
    native = library()
    if native is None or packed.size == 0:
        return reference_quantize.unpack_dequantize(packed, scales, zeros, bits, group, columns)
    packed, scales = _dense(packed), _dense(scales)
    zeros = None if zeros is None else _dense(zeros)
    out = np.empty((packed.shape[0], columns), dtype=np.float32)
    native.bw_dequantize(
        packed.ctypes.data, out.shape[0], columns, group, bits, scales.ctypes.data,
        None if zeros is None else zeros.ctypes.data, out.ctypes.data, packed.shape[1] * 4, fast,
    )  # fmt: skip
    return out


def dequantize_codes(
    codes: NDArray[np.uint8],
    scales: NDArray[np.float16],
    zeros: NDArray[np.uint8] | None,
    bits: int,
    group: int,
    *,
    fast: int = 1,
) -> NDArray[np.float32]:
    """float32 (rows, columns) weights (code - zero) * scale from codes as bytes. Raises InvalidInput."""
    if codes.ndim != 2 or codes.dtype != np.uint8 or not 1 <= bits <= 8 or group < 1:
        raise InvalidInput("codes must be a matrix of bytes", expected="uint8 (rows, columns)", got=str(codes.dtype))
    rows, columns = codes.shape
    _check_parameters(scales, rows, columns, group, (np.float16, np.float32))
    if zeros is not None:
        _check_parameters(zeros, rows, columns, group, (np.uint8,))
    native = library()
    if native is None or codes.size == 0 or scales.dtype != np.float16:
        return reference_quantize.dequantize_codes(codes, scales, zeros, bits, group)
    codes, scales = _dense(codes), _dense(scales)
    zeros = None if zeros is None else _dense(zeros)
    out = np.empty((rows, columns), dtype=np.float32)
    native.bw_expand(
        codes.ctypes.data, rows, columns, group, bits, scales.ctypes.data,
        None if zeros is None else zeros.ctypes.data, out.ctypes.data, fast,
    )  # fmt: skip
    return out


def widen(values: NDArray[Any], *, fast: int = 1) -> NDArray[np.float32]:
    """float32 of float32 (itself), float16, or uint16 holding bfloat16 bits; exact, any shape."""
    native = library()
    if native is None or values.size == 0 or values.dtype not in (np.float16, np.uint16):
        return reference_quantize.to_float32(values)
    values = _dense(values)
    out = np.empty(values.shape, dtype=np.float32)
    native.bw_widen(values.ctypes.data, _TYPES[values.dtype], values.size, out.ctypes.data, fast)
    return out


def absmax(values: NDArray[np.float32], *, fast: int = 1) -> float:
    """Largest magnitude of float32 values of any shape, 0 without any; NaN or infinity where there is one."""
    native = library()
    if native is None or values.size == 0:
        return float(np.abs(values).max(initial=0))
    values = _dense(values)
    return float(native.bw_absmax(values.ctypes.data, values.size, fast))


def rtn_rows(
    weight: NDArray[np.float32], bits: int, symmetric: bool, group: int, correct: bool, *, fast: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.uint8] | None] | int | None:
    """Codes, scales and zero points as quantizers.rtn defines them for 2 to 8 bits; None when there is no native code.

    An int says why there are none: NOT_FINITE or SCALE_TOO_LARGE.
    """
    native = library()
    if native is None or not 2 <= bits <= 8 or group < 1 or weight.size == 0 or weight.dtype != np.float32:
        return None
    weight = _dense(weight)
    rows, columns = weight.shape
    groups = -(-columns // group)
    codes = np.empty((rows, columns), dtype=np.uint8)
    scales = np.empty((rows, groups), dtype=np.float16)
    zeros = None if symmetric else np.empty((rows, groups), dtype=np.uint8)
    status = native.bw_rtn(
        weight.ctypes.data, rows, columns, group, bits, int(symmetric), int(correct), codes.ctypes.data,
        scales.ctypes.data, None if zeros is None else zeros.ctypes.data, fast,
    )  # fmt: skip
    return int(status) if status else (codes, scales, zeros)


#: Words, scales and zero points of rows; each contiguous.
Packed = tuple[NDArray[np.uint32], NDArray[np.float16], NDArray[np.uint8] | None]


def packed_rows(rows: int, columns: int, bits: int, symmetric: bool, group: int) -> Packed:
    """Room for what `rtn_pack` makes of so many rows."""
    scales = np.empty((rows, -(-columns // group)), dtype=np.float16)
    zeros = None if symmetric else np.empty(scales.shape, dtype=np.uint8)
    return np.empty((rows, words(columns, bits)), dtype=np.uint32), scales, zeros


def rtn_pack(
    weight: NDArray[Any],
    bits: int,
    symmetric: bool,
    group: int,
    correct: bool,
    *,
    signs: bool = False,
    into: Packed | None = None,
    fast: int = 1,
) -> Packed | int | None:
    """`rtn_rows` and `pack` in one pass: words, not codes. weight: float32, float16, or uint16 (bfloat16 bits).

    One bit too, whose scales are always corrected; signs: that bit is the sign. into: arrays to fill (`packed_rows`).
    Raises InvalidInput for arrays of other sizes.
    """
    native = library()
    if native is None or not 1 <= bits <= 8 or group < 1 or weight.size == 0 or weight.dtype not in _TYPES:
        return None
    kind = 2 if signs else int(symmetric)
    weight = _dense(weight)
    rows, columns = weight.shape
    if into is not None:
        _check_room(into, rows, columns, bits, symmetric, group)
    out, scales, zeros = packed_rows(rows, columns, bits, symmetric, group) if into is None else into

    def work(start: int, stop: int) -> int:
        return int(
            native.bw_rtn_pack(
                weight[start:].ctypes.data, _TYPES[weight.dtype], stop - start, columns, group, bits, kind,
                int(correct), out[start:].ctypes.data, out.shape[1] * 4, scales[start:].ctypes.data,
                None if zeros is None else zeros[start:].ctypes.data, fast,
            )
        )  # fmt: skip

    return over_rows(rows, columns, work) or (out, scales, zeros)


def checksum(data: NDArray[Any], mark: int = 0, *, fast: int = 1) -> int:
    """A 64-bit checksum of an array's bytes, going on from `mark`: sum of 32-bit words times their odd positions.

    It finds damage (any change of one word), not malice.
    """
    flat = _dense(data).reshape(-1).view(np.uint8)
    whole, native = flat.size // 4, library()
    total = reference.checksum(flat[: whole * 4]) if native is None else native.bw_checksum(
        flat.ctypes.data, whole, fast
    )  # fmt: skip
    rest = int.from_bytes(flat[whole * 4 :].tobytes(), "little") * ((2 * whole + 1) % 2**32)
    return (mark * 0x9E3779B97F4A7C15 + total + rest + flat.size) % 2**64


def _dense(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself, or a copy where its rows have gaps or its numbers stand at odd addresses."""
    return np.require(array, requirements=("C", "A"))


def _are_words(packed: NDArray[Any], bits: int, columns: int) -> bool:
    kind = packed.dtype.kind in "ui" and packed.dtype.itemsize == 4 and packed.dtype.isnative
    return kind and packed.ndim == 2 and 1 <= bits <= 8 and packed.shape[1] == words(columns, bits)


def _check_room(into: Packed, rows: int, columns: int, bits: int, symmetric: bool, group: int) -> None:
    shape = rows, -(-columns // group)
    expected = [("uint32", (rows, words(columns, bits))), ("float16", shape), None if symmetric else ("uint8", shape)]
    found = [a if a is None else (str(a.dtype), a.shape) for a in into]
    if found != expected or not all(a is None or (a.flags.c_contiguous and a.flags.aligned) for a in into):
        raise InvalidInput("there is no room for these codes", expected=f"contiguous {expected}", got=str(found))


def _check_values(values: NDArray[Any], bits: int, group: int) -> tuple[int, int]:
    if values.ndim != 2 or values.dtype not in _TYPES or not 1 <= bits <= 8 or group < 1:
        raise InvalidInput(
            "these values cannot be quantized",
            expected="float32, float16 or uint16 (bfloat16 bits) of (rows, columns), 1 to 8 bits, groups of at least 1",
            got=f"{values.dtype} {values.shape}, {bits} bits, groups of {group}",
        )
    return values.shape[0], values.shape[1]


def _check_parameters(array: NDArray[Any], rows: int, columns: int, group: int, dtypes: tuple[Any, ...]) -> None:
    if array.shape != (rows, -(-columns // group)) or array.dtype not in [np.dtype(d) for d in dtypes]:
        raise InvalidInput(
            "scales or zero points do not fit the matrix",
            expected=f"{np.dtype(dtypes[0])} ({rows}, {-(-columns // group)})",
            got=f"{array.dtype} {array.shape}",
        )
