"""Nested bit planes: codes of b bits as b streams of one bit, most significant first (D2MoE, research/02).

The first k planes alone are the codes of k bits, code >> (b - k): a reader that wants fewer bits reads fewer bytes, and
every width from 1 to b costs the bytes of b once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidInput
from gpu_kernels.kernels import pack, unpack
from gpu_kernels.reference import words


@dataclass(frozen=True)
class PlaneLayout:
    """Plane p of a row occupies words [p * w, (p + 1) * w), w = ceil(columns / 32); bit i is code i's."""

    name: str = "planes"
    widths: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)

    def words(self, columns: int, bits: int) -> int:
        """32-bit words of one row."""
        return bits * words(columns, 1)

    def pack(self, codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint32]:
        """(rows, columns) codes below 2**bits -> (rows, words). Raises InvalidInput."""
        if not 1 <= bits <= 8 or codes.dtype != np.uint8 or codes.ndim != 2 or (codes >> (bits - 1) > 1).any():
            raise InvalidInput(
                "codes do not fit their width", expected=f"uint8 (rows, columns) of 1 to 8 bits, here {bits}",
                got=f"{codes.dtype} {codes.shape}",
            )  # fmt: skip
        planes = [pack((codes >> np.uint8(bit)) & np.uint8(1), 1) for bit in reversed(range(bits))]
        return np.concatenate(planes, axis=1)

    def unpack(self, packed: NDArray[np.uint32], bits: int, columns: int) -> NDArray[np.uint8]:
        """The inverse of `pack`; of the first planes of wider codes it gives their upper `bits` bits."""
        if packed.ndim != 2 or not 1 <= bits <= 8 or packed.shape[1] != self.words(columns, bits):
            raise InvalidInput(
                "packed planes have the wrong size",
                expected=f"(rows, {self.words(columns, bits)})",
                got=str(packed.shape),
            )
        codes = np.zeros((packed.shape[0], columns), np.uint8)
        for plane in np.split(packed, bits, axis=1):
            codes = (codes << np.uint8(1)) | unpack(plane, 1, columns)
        return codes


LAYOUT = PlaneLayout()
