"""Formats of HIGGS (arXiv:2411.17525): rotated weights rounded to the points of a grid made for normal numbers.

A row is cut in groups of `block` inputs, the last may be shorter. A group is rotated by random signs and a Hadamard
matrix, which makes its weights look normal whatever they were, divided by its own root mean square (a float16), and
every p of its numbers are replaced by the nearest of n points in p dimensions: log2(n) / p bits a weight. Grids:
gpu_kernels/gaussian_grids.py. Byte layout: docs/packed.md section 3.

    higgs-p2-n64        p = 2, n = 64: 3 bits a weight, groups of 1024 as in the paper
    higgs-p1-n16-g256   p = 1, n = 16: 4 bits, groups of 256
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from bitwright.core.block_format import BlockFormat
from bitwright.core.format_base import Part, Shape, Storage, matrix

#: Groups of the paper (research/01 section 5 b); a group is never longer than the row.
HIGGS_GROUP = 1024
SCALE_BYTES = 2
#: log2 of the points of shipped grids: one dimension, 2 to 8 bits; two, 1.5 to 6 bits in half bits; three, 2 to 10/3
#: in thirds; four, 2 to 2.75 in quarters.
GRIDS = {1: range(2, 9), 2: range(3, 13), 3: range(6, 11), 4: range(8, 12)}
_NAME = re.compile(r"higgs-p([1-4])-n([1-9][0-9]{0,3})(?:-g([1-9][0-9]{0,5}))?")


@dataclass(frozen=True)
class GridFormat(BlockFormat):
    """`dimension` p, and points 2^`code_bits`: the bits of one code, which stands for p weights."""

    dimension: int = 1

    @property
    def bits(self) -> Fraction:  # type: ignore[override]
        return Fraction(self.code_bits, self.dimension)

    @property
    def layout(self) -> str:
        """Grids of every group size are one layout."""
        return self.name.rpartition("-g")[0] or self.name

    def spans(self, inputs: int) -> list[tuple[int, int]]:
        """(first, last) input of every group."""
        return [(first, min(first + self.block, inputs)) for first in range(0, inputs, self.block)]

    def codes(self, length: int) -> int:
        """Codes of a group of so many weights; the last one's missing weights are dropped."""
        return -(-length // self.dimension)

    def group_bytes(self, length: int) -> int:
        """A scale and the codes, padded to whole bytes."""
        return SCALE_BYTES + -(-self.codes(length) * self.code_bits // 8)

    def row_bytes(self, inputs: int) -> int:
        return sum(self.group_bytes(last - first) for first, last in self.spans(inputs))

    def storage(self, shape: Shape) -> Storage:
        count, out, inputs = matrix(shape)
        rows, spans = count * out, self.spans(inputs)
        payload = rows * sum(self.codes(last - first) for first, last in spans) * self.code_bits
        scales = rows * len(spans) * SCALE_BYTES * 8
        return Storage(payload, scales, 0, rows * self.row_bytes(inputs) * 8 - payload - scales)

    def parts(self, out: int, inputs: int) -> tuple[Part, ...]:
        return (Part(".blocks", "U8", (out, self.row_bytes(inputs))),)

    def describe(self, shape: Shape = (4096, 4096)) -> dict[str, object]:
        return {**super().describe(shape), "points": 1 << self.code_bits, "dimension": self.dimension}


def higgs(dimension: int, code_bits: int, group: int = HIGGS_GROUP) -> GridFormat:
    """The format of one shipped grid."""
    name = f"higgs-p{dimension}-n{1 << code_bits}" + ("" if group == HIGGS_GROUP else f"-g{group}")
    size = SCALE_BYTES + -(-group // dimension * code_bits // 8)
    return GridFormat(name, code_bits, group, size, "grid", "", dimension)


GRID_FORMATS = {f.name: f for f in (higgs(p, bits) for p, widths in GRIDS.items() for bits in widths)}


def parse_grid(name: str) -> GridFormat | None:
    """The format of that name, or None. Groups are powers of two from 16 on."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    dimension, points, group = int(match[1]), int(match[2]), int(match[3] or HIGGS_GROUP)
    bits = points.bit_length() - 1
    whole = points == 1 << bits and bits in GRIDS[dimension]
    if not whole or (match[3] and group == HIGGS_GROUP) or group < 16 or group & (group - 1):
        return None
    return higgs(dimension, bits, group)
