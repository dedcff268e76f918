"""Quantizing one matrix in several formats (`bitwright.core.mixed_format`), with any quantizer.

Rows are independent of each other for every quantizer, so each format's rows are quantized as a matrix of their own.
Blocks of columns and groups keep the groups of the plain formats: the matrix is quantized in each format, and every
part takes its own. Columns are quantized transposed, groups along the outputs. GPTQ, whose columns depend on each
other, brings a way of its own (`quantize_mixed`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import Unsupported
from bitwright.core.formats import Format, IntFormat, MixedFormat
from bitwright.core.mixed_format import Cut, cut
from gpu_kernels.kernels import widen
from quantizers.base import Blocks, Float32Matrix, Mixed, PassThrough, Quantized, Quantizer, Stored


def quantize(quantizer: Quantizer, weight: Float32Matrix, format: Format, *, name: str, **context: Any) -> Stored:
    """What `quantizer` makes of a float32 (out, in) weight in any format, mixed or not. Raises as a quantizer does."""
    if not isinstance(format, MixedFormat):
        return quantizer.quantize(weight, format, name=name, **context)
    own = getattr(quantizer, "quantize_mixed", None)
    if own is not None:
        made: Stored = own(weight, format, name=name, **context)
        return made
    return by_lines(quantizer, weight, format, name=name, **context)


def by_lines(quantizer: Quantizer, weight: Float32Matrix, format: MixedFormat, *, name: str, **context: Any) -> Mixed:
    """Each member's lines by a quantizer that treats lines independently of each other."""
    if weight.dtype in (np.float16, np.uint16):
        weight = widen(weight)
    shape = (weight.shape[0], weight.shape[1])
    found, choice = format.cut(shape), format.line_choice(shape)
    whole = found.granularity.startswith("row")
    transposed = found.granularity == "column"
    lines = found.to_lines(weight, shape)
    pieces: list[Quantized | PassThrough | Blocks] = []
    for number, member in enumerate(format.members):
        mine = np.flatnonzero(choice == number)
        if whole or transposed:
            # Across outputs there is one input, and moments of the inputs weigh all of its weights alike.
            more = {} if transposed else context
            part = np.ascontiguousarray(lines[mine], np.float32)
            piece = quantizer.quantize(part, member, name=name, **more)
            assert not isinstance(piece, Mixed)
            pieces.append(piece)
        else:
            pieces.append(_lines_of(quantizer.quantize(weight, member, name=name, **context), found, shape, mine))
    return Mixed(tuple(pieces), shape, format)


def _lines_of(value: Stored, found: Cut, shape: tuple[int, int], mine: NDArray[np.intp]) -> Quantized:
    """Some lines of a quantized matrix, as a matrix of their own."""
    if not isinstance(value, Quantized):
        raise Unsupported("only integer formats can be mixed by column blocks or groups", got=value.format.label)

    def lines(array: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(found.to_lines(array, shape)[mine])

    zeros = None if value.zeros is None else lines(value.zeros)
    return Quantized(lines(value.codes), lines(value.scales), zeros, value.format)


def uniform(granularity: str, format: Format, shape: tuple[int, int]) -> MixedFormat:
    """Every part of a matrix in one format."""
    one = MixedFormat(granularity, (format,))
    return one.chosen(bytes(cut(granularity, shape, (format,)).parts))


class InCut:
    """A quantizer that makes plain formats the way a granularity stores them: what scores of columns need."""

    def __init__(self, quantizer: Quantizer, granularity: str) -> None:
        self._quantizer = quantizer
        self._granularity = granularity

    @property
    def name(self) -> str:
        return self._quantizer.name

    def quantize(self, weight: Float32Matrix, format: Format, *, name: str = "weight", **context: Any) -> Stored:
        """See quantizers.base.Quantizer."""
        shape = (weight.shape[0], weight.shape[1])
        mixed = uniform(self._granularity, format, shape) if isinstance(format, IntFormat) else format
        return quantize(self._quantizer, weight, mixed, name=name, **context)
