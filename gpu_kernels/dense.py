"""The `dense` layout as a catalog member: one object with pack, unpack and the exact word count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.kernels import pack, unpack
from gpu_kernels.reference import words


@dataclass(frozen=True)
class DenseLayout:
    """Code i of a row occupies bits [i*b, (i+1)*b) of the row's stream; rows start on 32-bit words."""

    name: str = "dense"
    widths: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)

    def words(self, columns: int, bits: int) -> int:
        """32-bit words of one row."""
        return words(columns, bits)

    def pack(self, codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint32]:
        """(rows, columns) codes below 2**bits -> (rows, words) words."""
        return pack(codes, bits)

    def unpack(self, packed: NDArray[np.uint32], bits: int, columns: int) -> NDArray[np.uint8]:
        """The inverse of `pack`."""
        return unpack(packed, bits, columns)


LAYOUT = DenseLayout()
