"""GPTQ for formats that round whole blocks of weights at once: ggml's types and small floats.

A block of columns is rounded as `rtn` rounds it, from the weights as they stand, and what the columns behind it owe is
passed on exactly: with the blocks' rounding fixed, the column-by-column errors E of GPTQ obey  W_B - Q_B = E U_BB,
and later columns take  W -= E U_B,later  (inside a block nothing can be made up for). Columns go as they lie.

Formats with one more scale a row or a matrix keep that of the original weights: an additional block that holds the
largest weight is rounded along and dropped again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.formats import BlockFormat
from quantizers.arithmetic import Upper, arithmetic
from quantizers.base import Blocks, Float32Matrix
from quantizers.rtn import QUANTIZER

#: Columns rounded at once where a block is a single weight.
STEP = 16


def sweep_blocks(weight: Float32Matrix, format: BlockFormat, upper: Upper, name: str) -> Blocks:
    """upper: U of H^-1 = U'U, columns as they lie. Raises InvalidModel, Unsupported as `rtn` does."""
    rows, columns = weight.shape
    guard, most = _guard(weight, format)
    rest, step = arithmetic().rest(weight, upper), format.block * max(1, STEP // format.block)
    data, scales = [], None
    for first in range(0, columns, step):
        last = min(first + step, columns)
        width = -(-(last - first) // format.block) * format.block
        part = np.zeros((rows, width + guard.shape[1]), np.float32)
        part[:, : last - first] = np.clip(rest.columns(first, last), -most, most)
        part[:, width:] = guard
        made: Any = QUANTIZER.quantize(part, format, name=name)
        dense = made.dequantize()[:, : last - first].astype(np.float64)
        if (last - first) % format.block and not guard.shape[1]:
            made = QUANTIZER.quantize(np.ascontiguousarray(part[:, : last - first]), format, name=name)
        data.append(made.data[:, : format.blocks(last - first) * format.block_bytes])
        scales = made.scales
        if last < columns:
            rest.passed(first, last, dense)
    return Blocks(np.ascontiguousarray(np.concatenate(data, axis=1)), scales, columns, format)


def _guard(weight: Float32Matrix, format: BlockFormat) -> tuple[Float32Matrix, NDArray[np.float32]]:
    """(blocks that carry the largest weights, magnitudes that no weight may exceed): none without an outer scale."""
    rows = weight.shape[0]
    if not format.outer:
        return np.zeros((rows, 0), np.float32), np.full((rows, 1), np.inf, np.float32)
    largest = np.abs(weight).max(axis=1, initial=0)
    guard = np.zeros((rows, format.block), np.float32)
    guard[:, 0] = largest
    if format.outer == "tensor":
        largest = np.full(rows, largest.max(initial=0), np.float32)
    return guard, largest[:, None]
