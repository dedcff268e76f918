"""The `compressed-tensors-0.17` container: the layout that compressed-tensors read before 0.18.

There a 32-bit word holds 32 // b whole codes, lowest first, and its upper bits stay empty, so 3, 5, 6 and 7 bits take
more room; 1, 2, 4 and 8 bits are the same in both. The config names no layout version: a reader of the other age takes
such a file without a word and gets other weights (research/07 section 0), hence two containers and no option.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.formats import IntFormat
from quantizers.containers.compressed_tensors import CompressedTensorsContainer


class PaddedContainer(CompressedTensorsContainer):
    """As `compressed-tensors`, with 32 // b codes a word."""

    name = "compressed-tensors-0.17"

    def row_words(self, columns: int, format: IntFormat) -> int:
        return -(-columns // (32 // format.width))

    def pack_codes(self, codes: NDArray[np.uint8], width: int) -> NDArray[np.uint32]:
        rows, columns = codes.shape
        each = 32 // width
        words = -(-columns // each)
        padded = np.zeros((rows, words * each), np.uint32)
        padded[:, :columns] = codes
        shifts = np.arange(each, dtype=np.uint32) * np.uint32(width)
        packed: NDArray[np.uint32] = np.bitwise_or.reduce(padded.reshape(rows, words, each) << shifts, axis=2)
        return packed

    def unpack_codes(self, words: NDArray[Any], width: int, columns: int) -> NDArray[np.uint8]:
        each = 32 // width
        shifts = np.arange(each, dtype=np.uint32) * np.uint32(width)
        codes = (words.view(np.uint32)[:, :, None] >> shifts) & np.uint32((1 << width) - 1)
        return np.ascontiguousarray(codes.reshape(words.shape[0], -1)[:, :columns].astype(np.uint8))


CONTAINER = PaddedContainer()
