"""GPTQ of a matrix whose columns, blocks of columns or groups have formats of their own, in one sweep over its columns.

Scales are those of the weights' range, fixed before the sweep ("static groups"), so that the order of the columns is
free and every weight has a scale, a zero point and a top code of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import Unsupported
from bitwright.core.formats import IntFormat, MixedFormat
from quantizers.base import Float32Matrix, Mixed, Quantized, group_spans
from quantizers.rtn import group_parameters
from quantizers.sweep import Float64, blocks, sweep


def sweep_mixed(
    weight: Float32Matrix, format: MixedFormat, upper: Float64, order: NDArray[np.intp], block: int, name: str
) -> Mixed:
    """upper: U of H^-1 = U'U with columns in `order`. Raises Unsupported for members that are no plain integers."""
    shape = (weight.shape[0], weight.shape[1])
    found, choice = format.cut(shape), format.line_choice(shape)
    lines = found.to_lines(weight, shape)
    scale, zero, top = (np.zeros((found.lines, found.length), np.float32) for _ in range(3))
    grids = []
    for number, member in enumerate(format.members):
        if not isinstance(member, IntFormat) or not member.plain:
            raise Unsupported("gptq cannot make this format", expected="plain int formats", got=member.label)
        mine = np.flatnonzero(choice == number)
        scales, zeros = _parameters(np.ascontiguousarray(lines[mine]), member, name)
        for index, (start, stop) in enumerate(group_spans(found.length, member)):
            scale[mine, start:stop] = scales[:, index : index + 1]
            zero[mine, start:stop] = zeros[:, index : index + 1]
        top[mine] = member.top
        grids.append((mine, member, scales, zeros))
    cells = [found.to_matrix(array, shape) for array in (scale, zero, top)]

    def grid(first: int, last: int, work: Float64) -> tuple[Float64, Float64, Float64]:
        some = order[first:last]
        scale, zero, top = (array[:, some].astype(np.float64) for array in cells)
        return scale, zero, top

    codes = np.empty(shape, np.uint8)
    work = np.ascontiguousarray(weight[:, order], np.float64)
    codes[:, order] = sweep(work, upper, blocks(shape[1], block), grid)
    coded = found.to_lines(codes, shape)
    pieces = tuple(
        Quantized(np.ascontiguousarray(coded[mine]), scales, None if member.symmetric else zeros, member)
        for mine, member, scales, zeros in grids
    )
    return Mixed(pieces, shape, format)


def _parameters(lines: Float32Matrix, format: IntFormat, name: str) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Scales and zero points (lines, groups) of the weights' range."""
    found = []
    for start, stop in group_spans(lines.shape[1], format):
        grouped = lines[:, None, start:stop]
        found.append(group_parameters(grouped, grouped.min(axis=-1), grouped.max(axis=-1), format, name))
    return np.concatenate([s for s, _ in found], axis=1), np.concatenate([z for _, z in found], axis=1)
