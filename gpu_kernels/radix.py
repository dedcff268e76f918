"""Radix words: codes of a number of levels that is no power of two, as the digits of 32-bit numbers.

A row of codes is cut in runs of k = floor(32 / log2 L) codes; each is the 32-bit number sum(code[i] * L^i), the last
run filled up with zeros.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidInput, InvalidModel
from bitwright.core.int_format import radix_digits


def pack_radix(codes: NDArray[np.uint8], levels: int) -> NDArray[np.uint32]:
    """(rows, columns) codes below `levels` -> (rows, words). Raises InvalidInput."""
    if codes.ndim != 2 or codes.dtype != np.uint8 or (codes.size and int(codes.max()) >= levels):
        raise InvalidInput("codes do not fit their levels", expected=f"uint8 (rows, columns) below {levels}")
    rows, columns = codes.shape
    each = radix_digits(levels)
    count = -(-columns // each)
    digits = np.zeros((rows, count * each), np.uint8)
    digits[:, :columns] = codes
    digits = digits.reshape(rows, count, each)
    words = np.zeros((rows, count), np.uint32)
    for place in reversed(range(each)):
        words *= np.uint32(levels)
        words += digits[:, :, place]
    return words


def unpack_radix(words: NDArray[np.uint32], levels: int, columns: int) -> NDArray[np.uint8]:
    """The inverse of `pack_radix`. Raises InvalidInput for a wrong size, InvalidModel for digits beyond the last."""
    each = radix_digits(levels)
    if words.ndim != 2 or words.dtype != np.uint32 or words.shape[1] != -(-columns // each):
        raise InvalidInput(
            "radix words have the wrong size", expected=f"uint32 (rows, {-(-columns // each)})", got=str(words.shape)
        )
    rows, count = words.shape
    digits = np.empty((rows, count, each), np.uint8)
    rest = words.copy()
    for place in range(each):
        rest, digit = np.divmod(rest, np.uint32(levels))
        digits[:, :, place] = digit
    if rest.any():
        raise InvalidModel("a radix word is too large", expected=f"numbers below {levels}^{each}", got=str(words.max()))
    return np.ascontiguousarray(digits.reshape(rows, count * each)[:, :columns])
