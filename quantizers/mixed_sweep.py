"""GPTQ of a matrix whose columns, blocks of columns or groups have formats of their own, in one sweep over its columns.

Scales are those of the weights' range, fixed before the sweep ("static groups"), so that the order of the columns is
free and every weight has a scale, a zero point and a top code of its own. A `sign` format's +-s is 2 s (code - 1/2): on
weights moved up by s it is the grid of step 2 s from zero, and what is passed on to later columns is the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import Unsupported
from bitwright.core.formats import IntFormat, MixedFormat
from quantizers.arithmetic import Upper, arithmetic
from quantizers.base import Float32Matrix, Mixed, Quantized, group_spans
from quantizers.rtn import group_parameters
from quantizers.sweep import Float64, Grid, blocks


def sweep_mixed(
    weight: Float32Matrix,
    format: MixedFormat,
    upper: Upper,
    order: NDArray[np.intp],
    block: int,
    name: str,
    losses: Float64 | None = None,
) -> Mixed:
    """upper: U of H^-1 = U'U with columns in `order`. losses: (out, in), see sweep.

    Raises Unsupported for members that are no integers.
    """
    shape = (weight.shape[0], weight.shape[1])
    found, choice = format.cut(shape), format.line_choice(shape)
    lines = found.to_lines(weight, shape)
    scale, zero, top, moved = (np.zeros((found.lines, found.length), np.float32) for _ in range(4))
    grids = []
    for number, member in enumerate(format.members):
        if not isinstance(member, IntFormat):
            raise Unsupported("gptq cannot make this format", expected="int formats", got=member.label)
        mine = np.flatnonzero(choice == number)
        scales, zeros = _parameters(np.ascontiguousarray(lines[mine]), member, name)
        for index, (start, stop) in enumerate(group_spans(found.length, member)):
            step = scales[:, index : index + 1].astype(np.float32)
            scale[mine, start:stop] = 2 * step if member.centered else step
            moved[mine, start:stop] = step if member.centered else 0
            zero[mine, start:stop] = zeros[:, index : index + 1]
        top[mine] = member.top
        grids.append((mine, member, scales, zeros))
    cells = [found.to_matrix(array, shape) for array in (scale, zero, top)]

    grid = Grid(cells[0], cells[1], cells[2], order)
    work = weight.astype(np.float64) + found.to_matrix(moved, shape)
    codes = arithmetic().sweep(work, order, upper, blocks(shape[1], block), grid, losses)
    coded = found.to_lines(codes, shape)
    pieces = tuple(
        Quantized(np.ascontiguousarray(coded[mine]), scales, None if member.symmetric else zeros, member)
        for mine, member, scales, zeros in grids
    )
    return Mixed(pieces, shape, format)


def _parameters(lines: Float32Matrix, format: IntFormat, name: str) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Scales and zero points (lines, groups) of the weights' range."""
    found = []
    for start, stop in group_spans(lines.shape[1], format):
        grouped = lines[:, None, start:stop]
        found.append(group_parameters(grouped, grouped.min(axis=-1), grouped.max(axis=-1), format, name))
    return np.concatenate([s for s, _ in found], axis=1), np.concatenate([z for _, z in found], axis=1)
